"""Filters without the term j = i: the diagonal that each operator names is the one it has."""

import numpy as np
import pytest
import torch

from crfrnn import CRFRNN, Features, Spatial, refine
from crfrnn.filtering.gaussian_filter import GaussianFilter, prepare, prepare_grid
from crfrnn.filtering.operator import Operator
from crfrnn.filtering.permutohedral.stencil import STENCILS
from crfrnn.networks.saved import crf_config, crf_of_config
from tests.support import oracle
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import (
    NORMALIZATIONS,
    ROWS,
    device_for,
    photo,
    prepared,
    random_features,
    random_values,
    rows_of,
)


def matrix(gaussian: GaussianFilter, points: int) -> torch.Tensor:
    """The filter as a matrix, (N, N), by applying it to one point after the other."""
    return gaussian(torch.eye(points, dtype=torch.float64).view(1, points, *gaussian.shape)).reshape(points, points).t()


def check_diagonal(gaussian: GaussianFilter, points: int) -> None:
    whole = matrix(gaussian, points)
    left_out = whole - matrix(gaussian.without_self(), points)
    assert_equal("what is left out", left_out, torch.diag(whole.diagonal()), 1e-12)


@pytest.mark.unjitted
@each("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("row", ROWS)
def test_leaves_out_the_diagonal_and_nothing_else(row, normalization):
    check_diagonal(prepared(row, (3, 5), dimensions=3, normalization=normalization, dtype=torch.float64), 15)


@each("shape", [(60,), (1, 70), (5, 52)])
@pytest.mark.parametrize("row", rows_of("separable"))
def test_coarse_grids(row, shape):
    thetas, device = (4.0,) * len(shape), device_for(row, torch.float64)
    gaussian = prepare_grid(shape, thetas, implementation=row.name, dtype=torch.float64, device=device)
    check_diagonal(gaussian, int(np.prod(shape)))


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("accuracy", STENCILS)
@pytest.mark.parametrize("row", [row for row in rows_of("permutohedral") if "triton" not in str(row.id)])
class TestLattice:
    """Every way from a corner to another counts, whichever vertices there are."""

    @each("spread", [0.0, 3.0, 15.0])
    @each("dimensions", [1, 2, 5])
    def test_random_points(self, row, accuracy, dimensions, spread):
        features = random_features(1, dimensions, (5, 6), spread=spread, dtype=torch.float64)
        check_diagonal(prepare(features, implementation=row.name, accuracy=accuracy), 30)

    def test_points_on_the_faces_of_simplices(self, row, accuracy):
        grid = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")).unsqueeze(0).double()
        check_diagonal(prepare(grid / 2, implementation=row.name, accuracy=accuracy), 30)


def test_equals_the_oracle():
    """K without its diagonal, over the sum that keeps it."""
    features, values = random_features(1, 3, (12,), dtype=torch.float64), random_values(1, 2, 12, dtype=torch.float64)
    for normalization in NORMALIZATIONS:
        k = oracle.normalised(oracle.kernel(features[0].numpy()), normalization)
        for i in range(len(k)):
            k[i, i] = 0
        gaussian = prepare(features, method="exact", normalization=normalization).without_self()
        assert_equal("filtered values", gaussian(values)[0], torch.from_numpy(values[0].numpy() @ k.T), 1e-12)
        assert_equal("transposed", gaussian.transpose(values)[0], torch.from_numpy(values[0].numpy() @ k), 1e-12)


def test_a_point_alone_hears_nothing():
    far = torch.tensor([[[0.0, 60.0, 120.0]]])
    for method in ("exact", "permutohedral"):
        message = Features(method=method).prepare(far).without_self()(torch.rand(1, 2, 3))
        assert message.abs().max() < 1e-6


def test_layer():
    """(4.2) with j != i, through the whole recurrence, against loops."""
    image, logits = photo("chelsea", 3, 4).double(), random_values(1, 3, 3, 4, dtype=torch.float64)
    kernels = [Features(theta=60.0, method="exact", weight=1.5), Spatial(1.5, method="exact", weight=0.7)]
    crf = CRFRNN(3, kernels, eval_iterations=3, self_connection=False).double().eval()
    u = logits[0].flatten(1).numpy()
    matrices = []
    for kernel in kernels:
        k = oracle.normalised(oracle.kernel(kernel.features(image)[0].flatten(1).numpy()), "after")
        matrices.append(kernel.weight * (k - np.diag(np.diag(k))))
    qu = u
    for _ in range(3):
        message = oracle.softmax(qu) @ np.sum(matrices, axis=0).T
        qu = u - (1 - np.eye(3)) @ message
    with torch.no_grad():
        got = crf(logits, image)[0].flatten(1)
    assert_equal("logits", got, torch.from_numpy(qu), 1e-6)  # weights are float32 numbers


def test_layer_keeps_the_choice():
    crf = CRFRNN(2, [Spatial(2)], self_connection=False)
    assert crf_of_config(crf_config(crf)).self_connection is False
    assert crf_of_config({k: v for k, v in crf_config(crf).items() if k != "self_connection"}).self_connection


def test_gradient():
    logits, image = random_values(1, 2, 3, 4, dtype=torch.float64), photo("chelsea", 3, 4).double()
    crf = CRFRNN(2, [Features(theta=60.0), Spatial(2)], iterations=2, self_connection=False).double()
    assert torch.autograd.gradcheck(lambda u: crf(u, image), logits.requires_grad_())


def test_refine():
    image, p = photo("coffee", 12, 16)[0].byte(), random_values(3, 12, 16).softmax(dim=0)
    kernels = [Features(theta=30.0, weight=4), Spatial(3, weight=3)]
    without = refine(image, p, kernels=kernels, self_connection=False)
    assert_equal("sums", without.sum(dim=0), torch.ones(12, 16), 1e-5)
    assert (without - refine(image, p, kernels=kernels)).abs().max() > 1e-3


def test_refused():
    class Blind(Operator):
        def apply(self, values: torch.Tensor, transposed: bool = False) -> torch.Tensor:
            return values

    with pytest.raises(ValueError, match=r"^self_connection: .* cannot leave it out; .*implementation='reference'"):
        GaussianFilter(Blind(), (4,), torch.float32).without_self()
