"""Activations that are not kept: computed again in the backward pass, or offloaded. Gradients stay what they are.

Such hooks hand out each saved tensor once in a backward pass, in the order in which they like.
"""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from crfrnn import CRFRNN, Bilateral, Features, Spatial, gaussian_filter, mean_field
from crfrnn.filtering.gaussian_filter import prepare_grid
from crfrnn.inference.solvers import SOLVERS, DampedMeanField, EuclideanFrankWolfe
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, ROWS, prepared, random_features, random_values, rows_of

KERNELS = (Bilateral(6, 40), Spatial(2))
DTYPES = (torch.float32, torch.float64)
Run = Callable[[], Tensor]


def recomputed(run: Run) -> Tensor:
    return checkpoint(run, use_reentrant=False)


def nested(run: Run) -> Tensor:
    return checkpoint(recomputed, run, use_reentrant=False)


def offloaded(run: Run) -> Tensor:
    with save_on_cpu():
        return run()


def copied(run: Run) -> Tensor:
    """Hooks of somebody's own, such as those that write to a disk."""
    with saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t.clone()):
        return run()


WAYS = {"recomputed": recomputed, "nested": nested, "offloaded": offloaded, "copied": copied}


def check(run: Run, leaves: Sequence[Tensor]) -> None:
    """Through every way the gradients of `run`, used twice and differentiated twice."""

    def gradients(keep: Callable[[Run], Tensor]) -> list[Tensor]:
        first = keep(run)
        loss = (first * random_values(*first.shape, dtype=first.dtype, seed=7)).sum() + keep(run).square().sum()
        once = torch.autograd.grad(loss, leaves, retain_graph=True)
        return [*once, *torch.autograd.grad(loss, leaves)]

    expected = gradients(lambda run: run())
    assert any(gradient.any() for gradient in expected)
    for name, way in WAYS.items():
        for got, gradient in zip(gradients(way), expected, strict=True):
            assert_equal(f"gradient, {name}", got, gradient, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("row", rows_of("permutohedral", "exact"))
class TestFilter:
    """The public filter, whichever kernels run it."""

    @each("of_features", [False, True])
    @each("normalization", NORMALIZATIONS)
    def test_gaussian_filter(self, row, dtype, normalization, of_features):
        device = prepared(row, (4, 5), dtype=dtype).device
        values = random_values(2, 3, 4, 5, dtype=dtype).to(device).requires_grad_()
        features = random_features(2, 3, (4, 5), dtype=dtype).to(device).requires_grad_(of_features)
        method = "exact" if row.operator == "ExactOperator" else "permutohedral"
        arguments = {"method": method, "normalization": normalization, "implementation": row.name}
        check(lambda: gaussian_filter(values, features, **arguments), [values, features][: 1 + of_features])


@pytest.mark.triton
@pytest.mark.parametrize("row", ROWS)
def test_prepared_outside(row):
    """The filter is prepared once, and what it filters is computed again."""
    gaussian = prepared(row, (3, 4))
    values = random_values(1, 2, 3, 4).to(gaussian.device).requires_grad_()
    check(lambda: gaussian.transpose(gaussian(values).tanh()), [values])


@pytest.mark.parametrize("implementation", ["numba_cpu", "reference"])
@each("dtype", DTYPES)
def test_bandwidths_of_a_grid(implementation, dtype):
    values = random_values(1, 3, 6, 7, dtype=dtype).requires_grad_()
    thetas = torch.tensor([2.0, 1.5], dtype=dtype, requires_grad=True)
    check(
        lambda: prepare_grid((6, 7), thetas, implementation=implementation, dtype=dtype)(values),
        [values, thetas],
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestLayer:
    """Everything that learns in a layer, and the guide."""

    def check(self, layer: CRFRNN, dtype: torch.dtype, guide: bool = False) -> None:
        logits = random_values(2, 3, 4, 5, dtype=dtype).requires_grad_()
        image = (128 + 60 * random_values(2, 3, 4, 5, dtype=dtype, seed=3)).requires_grad_(guide)
        layer = layer.to(dtype)
        leaves = [logits, *layer.parameters(), *([image] if guide else [])]
        check(lambda: layer(logits, image), leaves)

    @each("kernel_weights", ["class", "scalar", "full"])
    def test_weights(self, dtype, kernel_weights):
        self.check(CRFRNN(3, KERNELS, iterations=2, kernel_weights=kernel_weights), dtype)

    @each("normalization", NORMALIZATIONS)
    def test_normalizations(self, dtype, normalization):
        self.check(CRFRNN(3, KERNELS, iterations=2, normalization=normalization), dtype)

    def test_learned_bandwidths(self, dtype):
        self.check(CRFRNN(3, KERNELS, iterations=2, learn_bandwidths=True), dtype, guide=True)

    def test_guide(self, dtype):
        self.check(CRFRNN(3, (*KERNELS, Features(70.0)), iterations=2), dtype, guide=True)

    def test_without_self(self, dtype):
        self.check(CRFRNN(3, KERNELS, iterations=2, self_connection=False), dtype)

    @each("solver", [*(make() for make in SOLVERS.values()), DampedMeanField(0.5, learn_step=True)])
    def test_solvers(self, dtype, solver):
        self.check(CRFRNN(3, KERNELS, iterations=2, solver=solver), dtype)

    def test_methods(self, dtype):
        kernels = (Bilateral(6, 40, method="exact"), Bilateral(6, 40, accuracy=2), Spatial(2, method="permutohedral"))
        self.check(CRFRNN(3, kernels, iterations=2), dtype)


def test_mean_field():
    logits, image = random_values(1, 3, 4, 5).requires_grad_(), 128 + 60 * random_values(1, 3, 4, 5, seed=3)
    filters = [kernel.prepare(image) for kernel in KERNELS]
    weights = torch.tensor([[3.0], [2.0]], requires_grad=True)
    compatibility = (1 - torch.eye(3)).requires_grad_()
    leaves = [logits, weights, compatibility]
    check(lambda: mean_field(logits, filters, weights, compatibility, 2), leaves)
    solver = EuclideanFrankWolfe()
    check(lambda: mean_field(logits, filters, weights, compatibility, 2, solver), leaves)


@pytest.mark.slow
def test_a_network_between():
    """A convolution and the CRF, both in one segment, as in a training script; under autocast too."""
    torch.manual_seed(0)
    unary, layer = torch.nn.Conv2d(3, 3, 3, padding=1), CRFRNN(3, KERNELS, iterations=2)
    image = 128 + 60 * random_values(2, 3, 4, 5)
    leaves = [*unary.parameters(), *layer.parameters()]
    check(lambda: layer(unary(image / 128 - 1), image), leaves)
    with torch.autocast("cpu", torch.bfloat16):
        check(lambda: layer(unary(image / 128 - 1), image), leaves)
