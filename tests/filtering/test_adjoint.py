"""The adjoint identity <K x, y> = <x, K' y>, on which every gradient rests, for any shape."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, ROWS, device_for, prepared, random_values, rows_of

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


def inner(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x * y).sum())


@pytest.mark.unjitted
@each("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("row", ROWS)
def test_adjoint_of_few_points(row, normalization):
    check_adjoint(row, normalization, (3, 4), batch=2, channels=3, dimensions=3)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("row", ROWS)
@given(shape=shapes, batch=st.integers(1, 3), channels=st.integers(1, 20), dimensions=st.integers(1, 8))
def test_adjoint(row, normalization, shape, batch, channels, dimensions):
    check_adjoint(row, normalization, shape, batch, channels, dimensions)


def check_adjoint(row, normalization, shape, batch, channels, dimensions) -> None:
    gaussian = prepared(
        row, shape, batch=batch, dimensions=dimensions, normalization=normalization, dtype=torch.float64
    )
    device = device_for(row, torch.float64)
    x = random_values(batch, channels, *shape, dtype=torch.float64, seed=3).to(device)
    y = random_values(batch, channels, *shape, dtype=torch.float64, seed=4).to(device)
    kx, ky = gaussian(x), gaussian.transpose(y)
    scale = float(kx.norm() * y.norm() + x.norm() * ky.norm())
    assert math.isclose(inner(kx, y), inner(x, ky), rel_tol=0, abs_tol=1e-13 * scale)


@pytest.mark.parametrize("row", ROWS)
@given(shape=shapes, batch=st.integers(1, 2), channels=st.integers(1, 4))
def test_backward_is_the_transpose(row, shape, batch, channels):
    gaussian = prepared(row, shape, batch=batch)
    device = device_for(row)
    x, y = (random_values(batch, channels, *shape, seed=seed).to(device) for seed in (3, 4))
    x.requires_grad_()
    (grad,) = torch.autograd.grad(gaussian(x), x, y)
    assert_equal("gradient", grad, gaussian.transpose(y), 1e-6)


@pytest.mark.parametrize("row", rows_of("exact", "separable"))
def test_symmetric_kernels(row):
    """The exact and the separable sum are symmetric matrices, the lattice is not."""
    for normalization in ("none", "symmetric"):
        gaussian = prepared(row, (7, 6), normalization=normalization, dtype=torch.float64)
        x = random_values(1, 2, 7, 6, dtype=torch.float64).to(device_for(row, torch.float64))
        assert_equal("transposed filter", gaussian.transpose(x), gaussian(x), 1e-12)
