"""Rung 2: the exact filter equals the loops of the oracle."""

import math

import numpy as np
import pytest
import torch

from crfrnn import GaussianFilter
from crfrnn.filtering.exact import reference
from crfrnn.filtering.gaussian_filter import prepare
from tests.support import oracle
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, random_features, random_values

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.float64, id="float64")]
SHAPES = [(12,), (3, 4), (2, 3, 2), (1, 1), (1, 7), (7, 1)]


def oracle_of(values: torch.Tensor, features: torch.Tensor, normalization: str, transposed: bool) -> np.ndarray:
    images = zip(values.double().flatten(2).numpy(), features.double().flatten(2).numpy(), strict=True)
    filtered = [oracle.gaussian_filter(v, f, normalization, transposed) for v, f in images]
    return np.stack(filtered).reshape(values.shape)


def both_ways(gaussian: GaussianFilter, values: torch.Tensor, transposed: bool) -> torch.Tensor:
    return gaussian.transpose(values) if transposed else gaussian(values)


@each("shape", SHAPES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@each("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_oracle(shape, dtype, normalization, transposed):
    values, features = random_values(2, 3, *shape, dtype=dtype), random_features(2, 2, shape, dtype=dtype)
    gaussian = prepare(features, method="exact", normalization=normalization)
    expected = oracle_of(values, features, normalization, transposed)
    assert_equal("filtered values", both_ways(gaussian, values, transposed), expected, TOLERANCE[dtype])


@each("normalization", NORMALIZATIONS)
@each("dimensions", range(1, 9))
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_oracle_in_any_dimension(dimensions, dtype, normalization):
    values = random_values(1, 2, 11, dtype=dtype)
    features = random_features(1, dimensions, (11,), dtype=dtype)
    got = prepare(features, method="exact", normalization=normalization)(values)
    assert_equal("filtered values", got, oracle_of(values, features, normalization, False), TOLERANCE[dtype])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_tiles_do_not_show(monkeypatch, normalization):
    values = random_values(1, 2, 5, 7, dtype=torch.float64).requires_grad_()
    features = random_features(1, 3, (5, 7), dtype=torch.float64)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        out = prepare(features, method="exact", normalization=normalization)(values)
        return out.detach(), torch.autograd.grad(out.square().sum(), values)[0]

    whole, whole_grad = run()
    monkeypatch.setattr(reference, "TILE_ELEMENTS", 4 * 3 * 35)  # four rows at a time, three in the last tile
    tiled, tiled_grad = run()
    assert_equal("filtered values", tiled, whole, 1e-14)
    assert_equal("gradient", tiled_grad, whole_grad, 1e-14)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradients_of_values_and_features(normalization):
    values = random_values(1, 2, 6, dtype=torch.float64).requires_grad_()
    features = random_features(1, 2, (6,), dtype=torch.float64).requires_grad_()

    def run(v: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return prepare(f, method="exact", normalization=normalization)(v)

    assert torch.autograd.gradcheck(run, (values, features))


def test_two_points_by_hand():
    """Two points a distance of 1 apart: k = e^(-1/2), the self term is 1."""
    k = math.exp(-0.5)
    values, features = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    expected = {
        "none": [1, k],
        "after": [1 / (1 + k), k / (1 + k)],
        "before": [1 / (1 + k), k / (1 + k)],
        "symmetric": [1 / (1 + k), k / (1 + k)],
    }
    for normalization, row in expected.items():
        got = prepare(features, method="exact", normalization=normalization)(values)
        assert_equal(normalization, got.flatten(), np.array(row), 1e-6)
