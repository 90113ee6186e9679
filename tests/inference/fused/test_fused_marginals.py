"""`marginals`, the inference form of the recurrence: the softmax of the logits after T iterations, no gradients."""

import pytest
import torch

from crfrnn import Bilateral, Spatial
from crfrnn.inference.recurrence import marginals, mean_field, recurrence
from tests.inference.fused.test_recurrence_cpu import FORWARD, Problem
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, potts, predictions, random_values

small = pytest.mark.unjitted


def check(problem: Problem) -> None:
    parameters = problem.weights, problem.mu, problem.iterations
    got = marginals(problem.logits, problem.filters(), *parameters)
    expected = recurrence(problem.logits, problem.filters(implementation="reference"), *parameters).softmax(dim=1)
    assert not got.requires_grad
    assert_equal("marginals", got, expected, FORWARD)
    assert_equal("sums", got.sum(dim=1), torch.ones_like(got[:, 0]), 1e-5)


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("kind", ["scalar", "class", "full"])
@each("labels", [2, 3, 8, 9, 21, 33, 150])
def test_labels(labels, kind, learned):
    check(Problem(labels=labels, kind=kind, learned=learned))


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@each("iterations", [0, 1, 2, 10])
def test_iterations(iterations, learned):
    check(Problem(iterations=iterations, learned=learned, batch=2))


@small
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@each("shape", [(1,), (1, 5), (3, 4), (2, 2, 3)])
def test_shapes_of_few_points(shape, learned):
    check(Problem(shape=shape, learned=learned, iterations=3))


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@each("shape", [(200, 1), (63, 40), (64, 65), (9, 11, 13)])
def test_shapes(shape, learned):
    check(Problem(shape=shape, learned=learned, iterations=3))


@pytest.mark.parametrize("fused", [True, False])
@each("iterations", [0, 1, 5])
@each("layout", ["labels first", "labels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_probabilities(iterations, layout, dtype, fused):
    """With `smallest` U is the logarithm of what is given, which is not written to, whoever takes it."""
    problem = Problem(labels=9, iterations=iterations)
    probabilities = problem.logits.to(dtype).softmax(dim=1)
    probabilities[:, 2] = 0
    if layout == "labels last":
        probabilities = probabilities.movedim(1, -1).contiguous().movedim(-1, 1)
    before = probabilities.clone()
    filters = problem.filters() if fused else problem.filters(implementation="reference")
    parameters = filters, problem.weights, problem.mu, iterations
    got = marginals(probabilities, *parameters, floor=1e-10)
    assert_equal("marginals", got, marginals(before.clamp(min=1e-10).log(), *parameters), FORWARD)
    assert got.dtype == dtype
    assert torch.equal(probabilities, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@each("smallest", [1e-46, 1e-10, 0.5])
def test_any_smallest(smallest, dtype):
    """In any dtype, and where what is given is no probability: never the logit that it looks like."""
    problem = Problem(labels=3)
    values = problem.logits.detach().softmax(dim=1).to(dtype)
    values[:, 0, :2] = -1e-3
    got = marginals(values, problem.filters(), problem.weights, problem.mu, 5, floor=smallest)
    wide = values.double().clamp(min=max(smallest, 1.2e-38)).log()
    filters = problem.filters(implementation="reference")
    expected = recurrence(wide.float(), filters, problem.weights, problem.mu, 5).softmax(dim=1)
    assert got.dtype == dtype
    assert_equal("marginals", got.float(), expected, 1e-3 if dtype == torch.float16 else 10 * FORWARD)


@pytest.mark.parametrize("normalization", NORMALIZATIONS[:3])
def test_normalizations(normalization):
    check(Problem(normalization=normalization))


@pytest.mark.parametrize("method", ["permutohedral", "exact"])
def test_where_nothing_is_fused(method):
    """float64, and kernels that the fused recurrence does not take."""
    problem = Problem(kernels=(Bilateral(6, 40, method=method), Spatial(2)))
    logits, parameters = problem.logits.detach().double(), (problem.weights.double(), problem.mu.double(), 3)
    filters = [kernel.prepare(problem.guide().double()) for kernel in problem.kernels]
    got = marginals(logits, filters, *parameters)
    assert_equal("marginals", got, mean_field(logits, filters, *parameters).softmax(dim=1).detach(), 1e-12)


def test_forbidden_labels():
    problem = Problem(labels=4)
    logits = problem.logits.detach().clone()
    logits[:, 1, :4] = -torch.inf
    got = marginals(logits, problem.filters(), problem.weights, problem.mu, 5)
    expected = recurrence(logits, problem.filters(implementation="reference"), problem.weights, problem.mu, 5)
    assert_equal("marginals", got, expected.softmax(dim=1), FORWARD)
    assert got[:, 1, :4].max() < 1e-20  # float32's exp saturates at e^-60, far below what a sum of marginals sees


@pytest.mark.parametrize("shape", [pytest.param((3, 4), marks=small), (40, 50)], ids=str)
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
def test_poisoned(shape, learned, poison):
    problem = Problem(shape=shape, batch=2, learned=learned, iterations=2)

    def run() -> torch.Tensor:
        return marginals(problem.logits, problem.filters(), problem.weights, problem.mu, 2)

    expected = run()
    poison()
    assert_equal("poisoned", run(), expected, 0)


def test_threads(torch_threads):
    problem = Problem(shape=(97, 95), labels=4)
    problem.logits = torch.nn.functional.interpolate(predictions("coffee", 4), size=(97, 95))

    def run() -> torch.Tensor:
        return marginals(problem.logits, problem.filters(), problem.weights, problem.mu, 5)

    torch_threads(1)
    expected = run()
    torch_threads(2)
    assert_equal("marginals", run(), expected, 0)
    assert_equal("marginals, again", run(), expected, 0)


def test_errors_name_the_argument():
    filters = [Spatial(1.0).prepare(torch.zeros(1, 1, 4, 5))]
    logits = random_values(1, 3, 4, 5)
    with pytest.raises(ValueError, match=r"^compatibility: "):
        marginals(logits, filters, torch.ones(1, 3), potts(2), 2)
    with pytest.raises(ValueError, match=r"^kernel_weights: "):
        marginals(logits, filters, torch.ones(2, 3), potts(3), 2)
    with pytest.raises(ValueError, match=r"^iterations: "):
        marginals(logits, filters, torch.ones(1, 3), potts(3), -1)
