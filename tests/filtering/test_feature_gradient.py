"""Gradients of features and bandwidths in the four rungs: loops, exact, lattice (per cent), Numba (rounding)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import Bilateral, Features, Spatial
from crfrnn.filtering import methods
from crfrnn.filtering.feature_gradient import contract, feature_gradient
from crfrnn.filtering.gaussian_filter import prepare, prepare_grid
from tests.support import oracle
from tests.support.compare import assert_equal, relative_l2
from tests.support.each import each
from tests.support.problems import (
    NORMALIZATIONS,
    device_for,
    fast_rows,
    photo,
    predictions,
    random_features,
    random_values,
    refusal,
    rows_of,
)

DIRECTIONS = pytest.mark.parametrize("transposed", [False, True], ids=["filter", "transpose"])
double = torch.float64


def gradient(features: Tensor, values: Tensor, grad: Tensor, transposed: bool = False, **how: str | None) -> Tensor:
    """dL/df for L = sum(grad * filter(values))."""
    leaf = features.clone().requires_grad_()
    gaussian = prepare(leaf, **how)  # type: ignore[arg-type]
    out = gaussian.transpose(values) if transposed else gaussian(values)
    return torch.autograd.grad((out * grad).sum(), leaf)[0]


def inputs(
    shape: tuple[int, ...], batch: int = 1, dimensions: int = 2, channels: int = 3, dtype: torch.dtype = double
) -> tuple[Tensor, Tensor, Tensor]:
    features = random_features(batch, dimensions, shape, dtype=dtype)
    values = random_values(batch, channels, *shape, dtype=dtype).mul(2).softmax(dim=1)
    return features, values, random_values(batch, channels, *shape, dtype=dtype, seed=5)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@DIRECTIONS
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_exact_equals_the_oracle(normalization, transposed):
    features, values, grad = inputs((8,))
    got = gradient(features, values, grad, transposed, method="exact", normalization=normalization)
    v, f, g = (t[0].numpy() for t in (values, features, grad))
    assert_equal("gradient", got[0].numpy(), oracle.feature_gradient(v, f, g, normalization, transposed), 1e-8)


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_formula_equals_autograd(channels):
    """The formula with the exact sums in it, contracted, is what autograd makes of them."""
    features, values, grad = inputs((4, 5), dimensions=3, channels=channels)
    expected = gradient(features, values, grad, method="exact", normalization="none")
    exact = prepare(features, method="exact", normalization="none").operator

    def sums(v: Tensor, transposed: bool) -> Tensor:
        return exact.apply(v[None], transposed)[0]

    got = feature_gradient(sums, features[0].flatten(1), values[0].flatten(1), grad[0].flatten(1))
    assert_equal("gradient", got, expected[0].flatten(1), 1e-7)


class TestContraction:
    @pytest.mark.parametrize("rank", [0, 1, 3, 8])
    def test_as_few_channels_as_the_rank(self, rank):
        values = random_values(8, rank) @ random_values(rank, 50, seed=1)
        grad = random_values(8, 50, seed=2)
        v, g = contract(values, grad)
        assert v.shape == g.shape == (rank, 50)
        assert_equal("products", g.T @ v, grad.T @ values, 1e-3)

    def test_either_may_have_the_rank(self):
        values, grad = random_values(8, 50), random_values(8, 2) @ random_values(2, 50, seed=1)
        v, g = contract(values, grad)
        assert len(v) == 2
        assert_equal("products", g.T @ v, grad.T @ values, 1e-3)

    def test_double_is_as_exact_as_its_gram_matrices(self):
        values, grad = random_values(8, 50, dtype=double), random_values(8, 50, dtype=double, seed=2)
        v, g = contract(values, grad)
        assert_equal("products", g.T @ v, grad.T @ values, 1e-10)

    def test_nothing_to_learn(self):
        values = random_values(8, 50)
        assert all(t.shape == (0, 50) for t in contract(values, torch.zeros(8, 50)))
        features, values, grad = inputs((5, 6))
        assert not gradient(features, values, torch.zeros_like(grad)).any()

    def test_nan_passes_through(self):
        features, values, grad = inputs((5, 6))
        grad[0, 0, 2, 3] = float("nan")
        assert gradient(features, values, grad).isnan().any()


# Rung 3, at 64 x 48; docs/learning.md has more photos and a network's outputs at 96 x 72.
@pytest.mark.parametrize(("theta_alpha", "theta_beta", "least", "per_cent"), [(160, 3, 0.95, 15), (80, 13, 0.97, 10)])
@pytest.mark.parametrize("name", ["coffee", "rocket"])
def test_lattice_approximates_exact_on_photos(name, theta_alpha, theta_beta, least, per_cent):
    """The guide's gradient by its cosine with the exact one, the bandwidths' by their relative error."""
    size = {"height": 48, "width": 64}
    guide, q = photo(name, **size), predictions(name, 6, **size).softmax(dim=1)
    labels = predictions(name, 6, 1, **size).argmax(1)
    gradients, grad = [], None
    for method in ("exact", "permutohedral"):
        thetas = [torch.tensor(float(theta), requires_grad=True) for theta in (theta_alpha, theta_beta)]
        leaf = guide.clone().requires_grad_()
        out = Bilateral(thetas[0], thetas[1], method=method).prepare(leaf)(q)
        if grad is None:  # the same for both: that of a cross-entropy behind the exact filter
            loss = torch.nn.functional.cross_entropy(5 * out, labels)
            grad = torch.autograd.grad(loss, out, retain_graph=True)[0]
        gradients.append(torch.autograd.grad(out, [leaf, *thetas], grad))
    exact, got = gradients
    assert cosine(got[0], exact[0]) > least
    for theta, a, b in zip(("alpha", "beta"), got[1:], exact[1:], strict=True):
        assert float(a / b) == pytest.approx(1, abs=per_cent / 100), f"theta_{theta}"


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("row", fast_rows("permutohedral"))
class TestLatticeEqualsItsReference:
    def check(self, row: methods.Implementation, *tensors: Tensor, tolerance: float, **how) -> None:
        features, values, grad = (t.to(device_for(row, t.dtype)) for t in tensors)
        got, expected = (gradient(features, values, grad, implementation=k, **how) for k in (row.name, "reference"))
        assert_equal("gradient of the features", got, expected, tolerance)

    @each("transposed", [False, True])
    @each("normalization", NORMALIZATIONS)
    def test_normalizations(self, row, normalization, transposed):
        self.check(row, *inputs((9, 11)), tolerance=1e-9, normalization=normalization, transposed=transposed)

    @each("dimensions", [1, 3, 5, 8])
    def test_dimensions(self, row, dimensions):
        self.check(row, *inputs((6, 7), dimensions=dimensions), tolerance=1e-9)

    @each("channels", [1, 2, 33])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (double, 1e-9)], ids=str)
    def test_channels(self, row, channels, dtype, tolerance):
        """In float32 what is contracted may differ by as much as is left out, 3e-4."""
        self.check(row, *inputs((9, 11), channels=channels, dtype=dtype), tolerance=tolerance, normalization="none")

    @each("shape", [(1,), (40,), (1, 7), (4, 5, 6)])
    def test_shapes(self, row, shape):
        self.check(row, *inputs(shape, batch=2), tolerance=1e-9, normalization="none")

    def test_translation(self, row):
        """Nothing changes where all points move together, so the gradients of the points sum to zero."""
        features, values, grad = (t.to(device_for(row, double)) for t in inputs((9, 11)))
        got = gradient(features, values, grad, implementation=row.name)
        assert float(got.sum(dim=(2, 3)).abs().max()) < 1e-9 * float(got.abs().max())

    def test_far_from_the_origin(self, row):
        """Only differences of features count, so float32 is as good as float64 a thousand bandwidths away."""
        features, values, grad = (t.float().to(device_for(row)) for t in inputs((9, 11)))
        got, exact = (
            gradient((features + 1024).to(dtype), values.to(dtype), grad.to(dtype), implementation=row.name)
            for dtype in (torch.float32, double)
        )
        assert relative_l2("gradient", got.double(), exact) < 1e-3


SIZES = [((20,), (1.7,)), ((9, 13), (1.2, 2.6)), ((70,), (6.3,)), ((50, 8), (4.1, 1.5)), ((4, 5, 6), (1.0, 2.0, 0.7))]


def bandwidth_gradient(
    shape: tuple[int, ...], thetas: tuple[float, ...], normalization: str, implementation: str | None, dtype=double
) -> list[Tensor]:
    values = random_values(1, 3, *shape, dtype=dtype).requires_grad_()
    leaf = torch.tensor(thetas, dtype=dtype, requires_grad=True)
    gaussian = prepare_grid(shape, leaf, normalization=normalization, implementation=implementation, dtype=dtype)
    grad = random_values(1, 3, *shape, dtype=dtype, seed=4) + values.detach()
    return list(torch.autograd.grad((gaussian(values) * grad).sum(), (values, leaf)))


# the Triton filter takes numbers: `prepare_grid` gives tensors on a GPU to the reference
LEARNING = [row for row in rows_of("separable") if "triton" not in str(row.id)]


@pytest.mark.parametrize(("shape", "thetas"), SIZES, ids=str)
class TestSeparable:
    @each("normalization", NORMALIZATIONS)
    @pytest.mark.parametrize("row", LEARNING)
    def test_equals_its_reference(self, row, shape, thetas, normalization):
        got, expected = (bandwidth_gradient(shape, thetas, normalization, name) for name in (row.name, "reference"))
        for quantity, a, b in zip(("values", "bandwidths"), got, expected, strict=True):
            assert_equal(f"gradient of the {quantity}", a, b, 1e-7)

    @pytest.mark.parametrize("row", LEARNING)
    def test_gradcheck(self, row, shape, thetas):
        """It is the derivative of the filter's own weights, truncated as they are."""
        values = random_values(1, 1, *shape, dtype=double)
        leaf = torch.tensor(thetas, dtype=double, requires_grad=True)

        def run(t: Tensor) -> Tensor:
            return prepare_grid(shape, t, implementation=row.name, dtype=double)(values).square().sum()

        assert torch.autograd.gradcheck(run, leaf, atol=1e-6, rtol=1e-5)

    def test_approximates_exact(self, shape, thetas):
        """Within 2 %: as much of the derivative lies in the tail that is cut off."""
        got = bandwidth_gradient(shape, thetas, "after", None)[1]
        values, leaf = random_values(1, 3, *shape, dtype=double), torch.tensor(thetas, dtype=double, requires_grad=True)
        out = Spatial(leaf, method="exact").prepare(torch.zeros(1, 1, *shape, dtype=double))(values)
        grad = random_values(1, 3, *shape, dtype=double, seed=4) + values
        exact = torch.autograd.grad((out * grad).sum(), leaf)[0]
        np.testing.assert_allclose(got.numpy(), exact.numpy(), rtol=0.02, atol=0.02 * float(exact.abs().max()))


class TestBandwidthsInTensors:
    guide = photo("coffee", 18, 24)
    KERNELS = (
        (Bilateral, {"theta_alpha": 5.0, "theta_beta": (20.0, 30.0, 25.0)}),
        (Bilateral, {"theta_alpha": (5.0, 6.0), "theta_beta": 20.0, "method": "exact"}),
        (Spatial, {"theta_gamma": (2.0, 1.5)}),
        (Spatial, {"theta_gamma": 2.0, "method": "permutohedral"}),
        (Features, {"theta": (20.0, 20.0, 30.0)}),
    )

    @pytest.mark.parametrize(("kind", "settings"), KERNELS, ids=str)
    def test_like_numbers(self, kind, settings):
        values = random_values(1, 2, 18, 24)
        tensors = {k: v if isinstance(v, str) else torch.tensor(v, requires_grad=True) for k, v in settings.items()}
        got = kind(**tensors).prepare(self.guide)(values)
        assert_equal("filtered values", got, kind(**settings).prepare(self.guide)(values), 1e-5)
        got.square().sum().backward()
        for name, theta in tensors.items():
            if isinstance(theta, Tensor):
                assert theta.grad is not None, name
                assert theta.grad.shape == theta.shape
                assert theta.grad.all(), name

    def test_each_channel_has_its_share(self):
        """The gradient of one bandwidth for all channels is the sum of the gradients of one for each."""
        values, gradients = random_values(1, 2, 18, 24), []
        for theta in (20.0, (20.0, 20.0, 20.0)):
            leaf = torch.tensor(theta, requires_grad=True)
            Bilateral(6.0, leaf).prepare(self.guide)(values).square().sum().backward()
            assert leaf.grad is not None
            gradients.append(leaf.grad.sum())
        assert_equal("gradient of theta_beta", gradients[1], gradients[0], 1e-4)

    @each("bad", [0.0, -1.0, float("nan"), float("inf")])
    def test_bad_values(self, bad):
        theta = torch.tensor([3.0, bad])
        with pytest.raises(ValueError, match=r"^theta_alpha: a bandwidth must be positive and finite, got \[3"):
            Bilateral(theta).prepare(self.guide)
        with pytest.raises(ValueError, match=r"^theta_gamma: a bandwidth must be positive and finite"):
            Spatial(theta).prepare(self.guide)

    def test_bad_shapes(self):
        with pytest.raises(
            ValueError, match=r"^theta_beta: shape \(2,\), expected one number or \(3,\) for 3 channels"
        ):
            Bilateral(5.0, torch.ones(2)).prepare(self.guide)
        with pytest.raises(ValueError, match=r"^theta_gamma: shape \(1, 2\), expected one number or \(2,\) for 2 axes"):
            Spatial(torch.ones(1, 2)).prepare(self.guide)


def test_fused_recurrence_says_why_not():
    features = random_features(1, 2, (5, 6))
    logits = random_values(1, 3, 5, 6)
    assert refusal(logits, [prepare(features)]) is None
    learned = prepare(features.requires_grad_())
    assert refusal(logits, [learned]) == "the features of a filter need a gradient"
    with torch.no_grad():
        assert refusal(logits, [learned]) is None
