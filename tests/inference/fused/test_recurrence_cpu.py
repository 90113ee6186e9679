"""Rung 4 for the recurrence: the fused one equals the readable one over reference filters, forward and backward."""

import concurrent.futures
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import Bilateral, Features, GaussianFilter, Spatial, mean_field
from crfrnn.filtering.kernels import Kernel
from crfrnn.inference.fused import choice
from crfrnn.inference.recurrence import recurrence
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, photo, potts, predictions, random_values, refusal, weights_of

FORWARD, BACKWARD = 1e-5, 1e-4
BILATERAL, SPATIAL = Bilateral(6, 40), Spatial(2.0)
small = pytest.mark.unjitted
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strips")]


@dataclass
class Problem:
    """A CRF on noise over noise: what is hard for a kernel is the shape, not the picture."""

    shape: tuple[int, ...] = (9, 11)
    labels: int = 3
    batch: int = 1
    kernels: tuple[Kernel, ...] = (BILATERAL, SPATIAL)
    kind: str = "class"
    learned: bool = False
    normalization: str = "after"
    iterations: int = 5
    logits: Tensor = field(init=False)
    weights: Tensor = field(init=False)
    mu: Tensor = field(init=False)

    def __post_init__(self):
        self.logits = random_values(self.batch, self.labels, *self.shape).requires_grad_()
        self.weights = weights_of(self.kind, len(self.kernels), self.labels).requires_grad_()
        noise = 0.3 * random_values(self.labels, self.labels, seed=7) if self.learned else 0
        self.mu = (potts(self.labels) + noise).requires_grad_()

    def guide(self) -> Tensor:
        return 60 * random_values(self.batch, 3, *self.shape, seed=3)

    def filters(self, **implementation: str) -> list[GaussianFilter]:
        guide = self.guide()
        return [kernel.prepare(guide, normalization=self.normalization, **implementation) for kernel in self.kernels]

    def fused(self) -> tuple[Tensor, ...]:
        filters = self.filters()
        assert refusal(self.logits, filters) is None
        return self.with_gradients(mean_field(self.logits, filters, self.weights, self.mu, self.iterations))

    def readable(self) -> tuple[Tensor, ...]:
        filters = self.filters(implementation="reference")
        return self.with_gradients(recurrence(self.logits, filters, self.weights, self.mu, self.iterations))

    def with_gradients(self, y: Tensor) -> tuple[Tensor, ...]:
        """The logits after T iterations, and the gradients of a loss that weights every one of them differently."""
        direction = random_values(*y.shape, seed=11)
        return y.detach(), *torch.autograd.grad((y * direction).sum(), (self.logits, self.weights, self.mu))

    def check(self) -> None:
        quantities = ("logits after T iterations", "gradient of the logits", "of the weights", "of the compatibility")
        tolerances = (FORWARD, BACKWARD, BACKWARD, BACKWARD)
        for quantity, got, expected, tolerance in zip(
            quantities, self.fused(), self.readable(), tolerances, strict=True
        ):
            assert_equal(quantity, got, expected, tolerance)


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("kind", ["scalar", "class", "full"])
class TestParameters:
    @each("labels", [2, 3, 8, 9, 21, 33, 150])
    def test_labels(self, labels, kind, learned):
        Problem(shape=(5, 7), labels=labels, kind=kind, learned=learned).check()

    @each(
        "kernels",
        [(BILATERAL,), (SPATIAL,), (BILATERAL, SPATIAL, Features(70.0)), (SPATIAL, Spatial(7.0)), (BILATERAL,) * 4],
    )
    def test_kernels(self, kernels, kind, learned):
        Problem(kernels=kernels, kind=kind, learned=learned).check()

    @each("labels", [8, 32])
    def test_one_kernel_without_padding(self, labels, kind, learned):
        """As many labels as channels in memory: nothing is padded, and what is passed on may be a view."""
        Problem(shape=(5, 7), labels=labels, kernels=(SPATIAL,), kind=kind, learned=learned).check()

    @small
    def test_few_points(self, kind, learned):
        Problem(shape=(3, 4), kind=kind, learned=learned, iterations=2).check()


@each("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
def test_normalizations(normalization, learned):
    """ "none" multiplies the messages by hundreds: with weights of their inverse, or nothing but rounding is left."""
    problem = Problem(normalization=normalization, learned=learned)
    if normalization == "none":
        problem.weights = (problem.weights / 30).detach().requires_grad_()
    problem.check()


@small
@each("shape", [(1,), (1, 1), (1, 5), (2, 2, 3)])
def test_shapes_of_few_points(shape):
    Problem(shape=shape).check()


@each("shape", [(30,), (1, 200), (200, 1), (63, 40), (5, 6, 7), (1, 1, 30), (64, 65), (17, 300)])
def test_shapes(shape):
    Problem(shape=shape).check()


@pytest.mark.parametrize("shape", [(100,), (49, 52), (33, 60), (60, 33), (16, 50, 3), (3, 50, 48)], ids=str)
@each("theta", [0.3, 1.0, 3.0, 4.5, 10.0, 100.0])
def test_spatial_bandwidths(shape, theta):
    """Narrow ones are one pass along each axis, wide ones gather to a coarse grid and spread again."""
    Problem(shape=shape, kernels=(Spatial(theta),)).check()


@each("batch", [1, 2, 3])
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
def test_batch(batch, learned):
    Problem(batch=batch, learned=learned).check()


@each("iterations", [1, 2, 10])
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
def test_iterations(iterations, learned):
    Problem(iterations=iterations, learned=learned).check()


@pytest.mark.parametrize("kernels", [(Bilateral(160, 3), Spatial(3)), (Bilateral(80, 13), Spatial(3))], ids=["a", "b"])
def test_photo(kernels):
    problem = Problem(shape=(72, 96), labels=4, kernels=kernels, iterations=5)
    problem.logits = predictions("astronaut", 4).clone().requires_grad_()
    problem.guide = lambda: photo("astronaut")
    problem.check()


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
def test_extreme_logits(learned):
    """Sure to the last bit, and worlds apart."""
    for scale in (0.0, 1e-6, 100.0, 1e4):
        problem = Problem(learned=learned)
        problem.logits = (scale * problem.logits).detach().requires_grad_()
        got, expected = problem.fused()[0], problem.readable()[0]
        assert_equal(f"marginals for logits of {scale:g}", got.softmax(dim=1), expected.softmax(dim=1), FORWARD)


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
def test_forbidden_labels(learned):
    """A logit of minus infinity forbids a label at a pixel; it has no marginal, and its neighbours are as they were."""
    problem = Problem(labels=4, learned=learned)
    logits = problem.logits.detach().clone()
    logits[:, 1, :4] = -torch.inf
    logits[:, 3, 5:, 2:] = -torch.inf
    target = torch.full((1, *problem.shape), 2)

    def run(filters: list[GaussianFilter], method) -> tuple[Tensor, ...]:
        u = logits.clone().requires_grad_()
        y = method(u, filters, problem.weights, problem.mu, 5)
        loss = torch.nn.functional.cross_entropy(y, target)
        return y.softmax(dim=1), *torch.autograd.grad(loss, (u, problem.weights, problem.mu))

    got, expected = run(problem.filters(), mean_field), run(problem.filters(implementation="reference"), recurrence)
    assert_equal("marginals", got[0], expected[0], FORWARD)
    assert got[0][:, 1, :4].max() == 0
    for quantity, gradient, reference in zip(("logits", "weights", "mu"), got[1:], expected[1:], strict=True):
        assert_equal(f"gradient of the {quantity}", gradient, reference, BACKWARD)


class TestWithoutGradients:
    def test_same_bits(self):
        """Without a gradient the marginals of the iterations are not kept; nothing else changes."""
        problem = Problem(shape=(30, 40))
        expected = problem.fused()[0]
        with torch.no_grad():
            got = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, problem.iterations)
        assert_equal("logits after T iterations", got, expected, 0)
        assert not got.requires_grad

    @pytest.mark.parametrize("wanted", ["logits", "weights", "mu"])
    def test_one_gradient_alone(self, wanted):
        problem = Problem()
        expected = dict(zip(("logits", "weights", "mu"), problem.fused()[1:], strict=True))
        for name in expected:
            getattr(problem, name).requires_grad_(name == wanted)
        y = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, problem.iterations)
        (got,) = torch.autograd.grad((y * random_values(*y.shape, seed=11)).sum(), getattr(problem, wanted))
        assert_equal(f"gradient of {wanted}", got, expected[wanted], 1e-6)


def test_backward_twice():
    """The saved marginals are only read: a second backward pass over the same graph gives the same."""
    problem = Problem(learned=True)
    y = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, problem.iterations)
    loss = y.square().sum()
    first = torch.autograd.grad(loss, (problem.logits, problem.weights, problem.mu), retain_graph=True)
    for again, before in zip(
        torch.autograd.grad(loss, (problem.logits, problem.weights, problem.mu)), first, strict=True
    ):
        assert_equal("gradient", again, before, 0)


def test_second_derivatives_are_refused():
    """There are none in the fused recurrence: an error, not silently zero."""
    problem = Problem()
    y = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, 2)
    (grad,) = torch.autograd.grad(y.square().sum(), problem.logits, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.autograd.grad(grad.square().sum(), problem.logits)


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("shape", [pytest.param((3, 4), marks=small), (40, 50)], ids=str)
def test_poisoned(shape, learned, poison):
    problem = Problem(shape=shape, batch=2, learned=learned, iterations=2)
    expected = problem.fused()
    poison()
    for got, clean in zip(problem.fused(), expected, strict=True):
        assert_equal("poisoned", got, clean, 0)


class TestThreads:
    """Marginals are bit-equal for any number of threads; gradients of the parameters are sums over pixels by
    matrix products, whose order BLAS chooses: 1e-6."""

    @pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
    def test_number(self, learned, torch_threads):
        problem = Problem(shape=(97, 95), learned=learned)
        torch_threads(1)
        y, *gradients = problem.fused()
        torch_threads(2)
        for _ in range(2):
            other, *others = problem.fused()
            assert_equal("logits after T iterations", other, y, 1e-6 if learned else 0)
            for got, expected in zip(others, gradients, strict=True):
                assert_equal("gradient", got, expected, 1e-6)

    @pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
    def test_run_to_run(self, learned, torch_threads):
        torch_threads(2)
        problem = Problem(shape=(97, 95), learned=learned)
        for got, expected in zip(problem.fused(), problem.fused(), strict=True):
            assert_equal("run to run", got, expected, 0)

    def test_concurrent_callers(self, torch_threads):
        torch_threads(2)
        problems = [Problem(shape=(60 + k, 70), labels=2 + k, learned=k % 2 == 0) for k in range(6)]
        expected = [problem.fused() for problem in problems]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            running = [pool.submit(problem.fused) for problem in problems]
        for done, alone in zip(running, expected, strict=True):
            for got, one in zip(done.result(), alone, strict=True):
                assert_equal("concurrent", got, one, 1e-6)


class TestDispatch:
    def test_default_kernels_are_fused(self):
        guide = torch.zeros(1, 3, 4, 5)
        filters = [kernel.prepare(guide) for kernel in (Bilateral(), Spatial(), Features())]
        assert refusal(torch.zeros(1, 2, 4, 5), filters) is None

    @pytest.mark.parametrize(
        ("dtype", "kernel", "reason"),
        [
            (torch.float64, Spatial(2), "float32, not torch.float64"),
            (torch.float32, Spatial(2, method="exact"), "ExactOperator"),
            (torch.float32, Bilateral(method="exact"), "ExactOperator"),
        ],
        ids=["float64", "exact spatial", "exact bilateral"],
    )
    def test_refusals_say_why(self, dtype, kernel, reason):
        filters = [kernel.prepare(torch.zeros(1, 3, 4, 5))]
        assert reason in str(refusal(torch.zeros(1, 2, 4, 5, dtype=dtype), filters))

    def test_filters_in_float64(self):
        filters = [Spatial(2).prepare(torch.zeros(1, 3, 4, 5, dtype=torch.float64))]
        reason = refusal(torch.zeros(1, 2, 4, 5), filters)
        assert reason is not None
        assert "float64" in reason

    def test_other_devices(self):
        scores = torch.zeros(1, 2, 4, 5, device="meta")  # for any device that we have no kernels for
        elsewhere: Any = SimpleNamespace(scores=scores, filters=[])
        assert "meta" in str(choice.fused(elsewhere))
