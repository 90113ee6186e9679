"""The separable filter in Triton: equal to the reference (rung 4)."""

import pytest
import torch

from crfrnn.filtering import methods
from crfrnn.filtering.gaussian_filter import prepare_grid
from tests.support.compare import assert_equal
from tests.support.problems import NORMALIZATIONS, device_for, random_values

ROW = next(row for row in methods.IMPLEMENTATIONS["separable"] if row.name == "triton")
EQUAL = {torch.float32: 1e-5, torch.float64: 1e-12}
pytestmark = pytest.mark.triton


def check_equal(shape, thetas, *, batch=1, channels=2, normalization="after", dtype=torch.float32) -> None:
    device = device_for(ROW)
    ours, reference = (
        prepare_grid(shape, thetas, normalization=normalization, implementation=name, dtype=dtype, device=device)
        for name in ("triton", "reference")
    )
    x = random_values(batch, channels, *shape, dtype=dtype).to(device)
    assert_equal("filtered values", ours(x), reference(x), EQUAL[dtype])
    assert_equal("transposed filter", ours.transpose(x), reference.transpose(x), EQUAL[dtype])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalisations(normalization):
    check_equal((7, 5), (1.0, 2.0), channels=3, normalization=normalization)


@pytest.mark.parametrize("channels", [1, 21, 150])
def test_channels(channels):
    check_equal((5, 4), (1.0, 1.5), channels=channels)


@pytest.mark.parametrize(
    ("batch", "shape", "thetas"),
    [(1, (17,), (2.0,)), (8, (3, 4), (1.0, 1.0)), (2, (2, 3, 4), (1.0, 2.0, 0.5)), (1, (1, 9), (3.0, 3.0))],
)
def test_shapes(batch, shape, thetas):
    check_equal(shape, thetas, batch=batch)


@pytest.mark.parametrize("shape", [(50, 2), (2, 50), (49, 51)])
def test_coarse_grids(shape):
    """Long axes and wide bandwidths are summed on coarse grids, along one axis or both."""
    check_equal(shape, (4.0, 3.0))


def test_float64():
    check_equal((50, 3), (3.0, 1.0), dtype=torch.float64)


def test_every_number_is_written(poison):
    check_equal((6, 5), (1.0, 1.0))
    poison()
    check_equal((6, 5), (1.0, 1.0))


def test_backward_is_the_transpose():
    device = device_for(ROW)
    ours = prepare_grid((5, 4), (1.0, 2.0), implementation="triton", device=device)
    x, y = (random_values(2, 3, 5, 4, seed=seed).to(device) for seed in (3, 4))
    x.requires_grad_()
    (grad,) = torch.autograd.grad(ours(x), x, y)
    assert_equal("gradient", grad, ours.transpose(y), 1e-6)


def test_op_keeps_torchs_contract():
    ROW.load()
    x = random_values(1, 2, 12).to(device_for(ROW)).requires_grad_()
    torch.library.opcheck(torch.ops.crfrnn.separable_filter_gpu.default, (x, [3, 4], [1.0, 1.0], "after", False))


def test_no_points():
    ours = prepare_grid((0, 4), (1.0, 1.0), implementation="triton", device=device_for(ROW))
    assert ours(torch.zeros(2, 3, 0, 4, device=device_for(ROW))).shape == (2, 3, 0, 4)


def test_bandwidths_that_would_learn():
    with pytest.raises(ValueError, match=r"^thetas: .*implementation='reference'"):
        ROW.load()((3, 4), torch.ones(2), "after")
