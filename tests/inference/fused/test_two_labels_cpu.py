"""Two labels on one channel, against the recurrence as it is written with the kernels' readable twins."""

import numpy as np
import pytest
import torch
from numba import njit

from crfrnn import Bilateral, Spatial, refine
from crfrnn.inference.fused import two_labels_pixels_cpu as pixels
from crfrnn.inference.fused.passing_cpu import MessagePassing
from crfrnn.inference.recurrence import marginals, mean_field, recurrence
from crfrnn.runtime.vectors import LOWEST
from tests.inference.fused.test_fused_marginals import check
from tests.inference.fused.test_recurrence_cpu import FORWARD, Problem
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, potts, random_values, voc2012, voc2012_image

small = pytest.mark.unjitted
PERMUTOHEDRAL = Bilateral(6, 60), Spatial(2, method="permutohedral")  # what the drop-in makes of both kernels


def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that each row has in the recurrences that follow."""
    found: list[int] = []
    begin = MessagePassing.__init__

    def noted(self, *arguments, **options):
        begin(self, *arguments, **options)
        found.append(len(self.lanes))

    monkeypatch.setattr(MessagePassing, "__init__", noted)
    return found


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("kind", ["scalar", "class", "full"])
@each("normalization", NORMALIZATIONS)
@each("kernels", [Problem.kernels, PERMUTOHEDRAL])
def test_any_weights(kernels, normalization, kind, learned, monkeypatch):
    """Weights of one label alone, and compatibilities that are not symmetric, need the filters of ones."""
    told = widths(monkeypatch)
    problem = Problem(labels=2, kernels=kernels, kind=kind, learned=learned, normalization=normalization)
    if normalization == "none":
        problem.weights = problem.weights.detach() / 40  # of sums over hundreds of pixels
    check(problem)
    assert told == [1]


@each("iterations", [1, 2, 10])
@each("shape", [(40,), (200, 1), (63, 40), (9, 11, 13)])
def test_shapes(shape, iterations):
    check(Problem(shape=shape, labels=2, batch=2, iterations=iterations))


@small
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@each("shape", [(1,), (3, 4), (2, 2, 3)])
def test_few_points(shape, learned):
    check(Problem(shape=shape, labels=2, learned=learned, iterations=3))


def test_within_a_mask(monkeypatch):
    told = widths(monkeypatch)
    problem = Problem(labels=2, kind="class")
    mask = random_values(1, *problem.shape, seed=5) > 0
    guide = problem.guide()

    def filters(**implementation: str) -> list:
        prepared = [kernel.prepare(guide, normalization="none", **implementation) for kernel in problem.kernels]
        return [gaussian.within(mask, "after") for gaussian in prepared]

    parameters = problem.weights.detach(), problem.mu.detach(), 5
    got = marginals(problem.logits, filters(), *parameters)
    expected = recurrence(problem.logits.detach(), filters(implementation="reference"), *parameters).softmax(dim=1)
    assert_equal("marginals", got, expected, FORWARD)
    assert told == [1]


def test_impossible_labels_and_probabilities():
    problem = Problem(labels=2)
    logits = 3 * problem.logits.detach()
    logits[:, 0, :2], logits[:, 1, 4:6] = -torch.inf, -torch.inf
    parameters = problem.weights.detach(), problem.mu.detach(), 5
    expected = recurrence(logits, problem.filters(implementation="reference"), *parameters).softmax(dim=1)
    got = marginals(logits, problem.filters(), *parameters)
    assert_equal("of logits", got, expected, FORWARD)
    assert got[:, 0, :2].max() < 1e-20
    p = logits.softmax(dim=1)
    expected = recurrence(p.clamp(min=1e-10).log(), problem.filters(implementation="reference"), *parameters)
    found = marginals(p, problem.filters(), *parameters, floor=1e-10)
    assert_equal("of probabilities", found, expected.softmax(dim=1), FORWARD)


@pytest.mark.parametrize("floor", [0.0, 1e-10])
def test_labels_that_are_equal_stay_so(floor):
    """The strong kernels of the drop-in's users double every difference in each iteration, that of rounding too."""
    problem = Problem(labels=2, shape=(20, 30), kernels=PERMUTOHEDRAL)
    flat = torch.full_like(problem.logits, 0.5).detach()
    found = marginals(flat, problem.filters(), torch.full((2, 1), 10.0), potts(2), 50, floor=floor)
    assert torch.equal(found, torch.full_like(found, 0.5))


def test_who_wants_logits_or_gradients_gets_them(monkeypatch):
    """Training keeps the dense recurrence, and so do iterations without end."""
    told = widths(monkeypatch)
    problem = Problem(labels=2)
    mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, 3).sum().backward()
    marginals(problem.logits.detach(), problem.filters(), problem.weights, problem.mu, "settled", tolerance=1e-3)
    assert 1 not in told
    assert problem.logits.grad is not None


def test_every_number_of_threads(torch_threads):
    """Bit-equal, with as many strips as there can be."""
    problem, results = Problem(shape=(300, 300), labels=2, kernels=PERMUTOHEDRAL), []
    for count in (1, 2, 3):
        torch_threads(count)
        results.append(marginals(problem.logits, problem.filters(), problem.weights, problem.mu, 3))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("shape", [pytest.param((3, 4), marks=small), (40, 50)], ids=str)
def test_poisoned(shape, poison):
    problem = Problem(shape=shape, labels=2, batch=2, learned=True)

    def run() -> torch.Tensor:
        return marginals(problem.logits, problem.filters(), problem.weights, problem.mu, 2)

    expected = run()
    poison()
    assert torch.equal(run(), expected)


@njit
def in_place(x, y):
    pixels.decay(x)
    pixels.logarithm(y)


def test_vector_operations():
    x = np.concatenate([random_values(4, 30).numpy().ravel() * 20, [0, -0.0, 200, -200, np.inf, -np.inf, 1e-30, -1e30]])
    y = np.geomspace(1.2e-38, 1, 128)
    a, b = x.astype(np.float32), y.astype(np.float32)
    expected = np.exp(np.maximum(-np.abs(x), LOWEST)), np.log(b.astype(np.float64))
    in_place(a, b)
    np.testing.assert_allclose(a, expected[0], rtol=3e-6)
    assert a.max() == 1
    np.testing.assert_allclose(b, expected[1], rtol=3e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["symmetric", "none"])
def test_photographs(normalization):
    """Background against the rest of real outputs: the labels of at least 99.99 % of the pixels."""
    for name in sorted(path.stem for path in (voc2012() / "unaries").glob("*.npz"))[:3]:
        photo, scores = voc2012_image(name)
        p = scores.softmax(dim=1)[:, :1].clamp(1e-6, 1 - 1e-6)
        kernels = Bilateral(23, 7, 20), Spatial(1, method="permutohedral")
        filters = [kernel.prepare(photo, normalization=normalization) for kernel in kernels]
        arguments = torch.cat([p, 1 - p], dim=1).log(), filters, torch.tensor([[20.0], [1.0]]), potts(2), 5
        found, expected = marginals(*arguments), mean_field(*arguments).softmax(dim=1)
        assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.9999
        assert (found - expected).abs().mean() <= 1e-5


def test_refine(monkeypatch):
    """The foreground alone and both labels are the same run."""
    told = widths(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    p = np.random.default_rng(1).uniform(0.05, 0.95, (20, 30)).astype(np.float32)
    both = refine(image, np.stack([1 - p, p]), iterations=4)
    np.testing.assert_allclose(refine(image, p, iterations=4), both[1], atol=1e-6)
    assert told == [1, 1]
