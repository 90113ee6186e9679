"""The fast twin of bilinear interpolation at half the size, beside torch's."""

import pytest
import torch
from torch.nn.functional import interpolate

from crfrnn.losses.at_scale import at_scale
from crfrnn.losses.halving_cpu import halve
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import random_values

pytestmark = pytest.mark.unjitted


@each("dtype", [torch.float32, torch.float64])
@each("shape", [(2, 2), (4, 6), (10, 2)])
@each("threads", [1, 2])
def test_equals_interpolation(dtype, shape, threads, torch_threads):
    torch_threads(threads)
    values = random_values(2, 3, *shape).to(dtype).requires_grad_()
    expected = interpolate(values, scale_factor=0.5, mode="bilinear", align_corners=False)
    weights = torch.arange(expected.numel(), dtype=dtype).view_as(expected)
    (expected_grad,) = torch.autograd.grad((weights * expected).sum(), values)
    got = halve(values)
    (grad,) = torch.autograd.grad((weights * got).sum(), values)
    assert_equal("half", got, expected, 1e-6)
    assert_equal("gradient", grad, expected_grad, 1e-6)
    views = values.detach().transpose(2, 3)  # not in one piece
    assert_equal("of a view", halve(views), got.detach().transpose(2, 3).contiguous(), 1e-6)


@each("shape", [(5, 6), (7,), (4, 4, 4), (1, 1)])
def test_other_sizes_are_interpolated(shape):
    values = torch.rand(2, 3, *shape)
    half, nothing = at_scale(0.5, values, None)
    assert nothing is None
    assert half.shape == (2, 3, *(max(1, size // 2) for size in shape))
    assert at_scale(0.5, values[..., :0])[0].shape == (2, 3, *shape[:-1], 0)
