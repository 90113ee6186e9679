"""As many iterations as an image needs: where it stops, against the run of that length and a loop over the iterates."""

import numpy as np
import pytest
import torch

from crfrnn import CRFRNN, CRFParameters, iterates, mean_field, refine, solvers, trajectory
from crfrnn.inference.recurrence import marginals
from crfrnn.inference.settled import MOST_ITERATIONS
from tests.inference.fused.test_recurrence_cpu import FORWARD, Problem
from tests.inference.fused.test_vanishing_cpu import LABELS, filters, logits
from tests.support.compare import assert_equal
from tests.support.problems import potts

TOLERANCE = 1e-3
pytestmark = pytest.mark.usefixtures("strips")


def problem_of(**options) -> Problem:
    """One that learns nothing."""
    problem = Problem(**options)
    problem.logits, problem.weights, problem.mu = (t.detach() for t in (problem.logits, problem.weights, problem.mu))
    return problem


def expected(problem: Problem, image: int, tolerance: float, **options) -> int:
    """The first t with which no marginal of the image moves by more than the tolerance."""
    run = trajectory(problem.logits, problem.filters(**options), problem.weights, problem.mu, MOST_ITERATIONS)
    before = next(run)[image].clone()
    for t, q in enumerate(run, 1):
        if float((q[image] - before).abs().max()) <= tolerance:
            return t
        before = q[image].clone()
    return MOST_ITERATIONS


@pytest.mark.parametrize("tolerance", [0.03, 1e-3])
@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("implementation", [None, "reference"])
@pytest.mark.parametrize("batch", [1, 3])
def test_each_image_stops_by_itself(batch, implementation, learned, tolerance):
    problem = problem_of(labels=5, learned=learned, batch=batch)
    problem.logits[0] *= 6  # one that settles earlier
    options = {} if implementation is None else {"implementation": implementation}
    arguments = problem.filters(**options), problem.weights, problem.mu
    counts: list[int] = []
    with torch.no_grad():
        got = mean_field(problem.logits, *arguments, "settled", tolerance=tolerance, took=counts.append)
        assert counts == [expected(problem, image, tolerance, **options) for image in range(batch)]
        for image, count in enumerate(counts):
            run = mean_field(problem.logits, *arguments, count)
            assert_equal(f"image {image}, T = {count}", got[image], run[image], FORWARD)
    assert batch == 1 or len(set(counts)) > 1, "a test of images that stop at different times"


@pytest.mark.parametrize("tolerance", [0.03, 1e-3])
def test_what_it_says_of_the_next_iteration(tolerance):
    """No logit moves by more than w times the tolerance, for the Potts model and weighted means."""
    problem = problem_of(labels=5, normalization="after")
    weights = torch.tensor([[1.5], [2.0]])
    arguments, counts = (problem.filters(), weights, potts(5)), []
    with torch.no_grad():
        last = mean_field(problem.logits, *arguments, "settled", tolerance=tolerance, took=counts.append)
        following = mean_field(problem.logits, *arguments, counts[0] + 1)
    moved = float((following - last).abs().max())
    assert 0 < moved <= 1.01 * float(weights.sum()) * tolerance


def test_it_gives_up_after_a_hundred():
    problem = problem_of(labels=3, learned=True)
    counts: list[int] = []
    weights = -20 * problem.weights.abs()  # which makes plain mean field oscillate
    for implementation in ({}, {"implementation": "reference"}):
        arguments = problem.filters(**implementation), weights, potts(3), "settled"
        with torch.no_grad():
            mean_field(problem.logits, *arguments, took=counts.append)
    assert counts == [MOST_ITERATIONS] * 2


@pytest.mark.parametrize("tolerance", [0, TOLERANCE])
def test_labels_that_vanish(tolerance):
    u, weights = 0.4 * logits((40, 45)), torch.full((2, 1), 1.0)
    arguments = filters((40, 45)), weights, potts(LABELS)
    counts: list[int] = []
    got = marginals(u, *arguments, "settled", tolerance=tolerance, took=counts.append)
    run = marginals(u, *arguments, counts[0], tolerance=tolerance)
    assert_equal(f"T = {counts[0]}", got, run, FORWARD)
    moved = (run - marginals(u, *arguments, counts[0] - 1, tolerance=tolerance)).abs().max()
    assert float(moved) <= max(tolerance, 1e-6), "it stopped too early"


def test_iterates_end_where_it_settles():
    problem = problem_of(labels=4)
    arguments = problem.filters(), problem.weights, problem.mu
    *_, last = iterates(problem.logits, *arguments, "settled", tolerance=TOLERANCE)
    assert last.t == expected(problem, 0, TOLERANCE)


def test_with_a_solver():
    problem = problem_of(labels=4, batch=2)
    arguments, damped = (problem.filters(), problem.weights, problem.mu), solvers.DampedMeanField(0.5)
    counts: list[int] = []
    with torch.no_grad():
        got = mean_field(problem.logits, *arguments, "settled", damped, took=counts.append)
        for image, count in enumerate(counts):
            assert_equal(
                "as that many steps", got[image], mean_field(problem.logits, *arguments, count, damped)[image], 0
            )
    assert min(counts) > 1


@pytest.mark.parametrize("refused", ["logits", "weights"])
def test_not_for_training(refused):
    problem = problem_of(labels=4)
    (problem.logits if refused == "logits" else problem.weights).requires_grad_()
    with pytest.raises(ValueError, match=r'iterations: "settled" is for inference, .*torch.no_grad'):
        mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, "settled")


@pytest.mark.parametrize("wrong", ["Settled", "10", ""])
def test_other_words(wrong):
    with pytest.raises(ValueError, match="iterations: must be a whole number of at least 0 or settled, got"):
        CRFParameters.of_preset("crfrnn", iterations=wrong)


class TestRefine:
    image = np.random.default_rng(3).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    probabilities = np.random.default_rng(4).dirichlet(np.full(6, 0.4), (24, 31)).transpose(2, 0, 1).astype(np.float32)

    def test_says_how_many_it_took(self):
        counts: list[int] = []
        q = refine(self.image, self.probabilities, iterations="settled", took=counts.append)
        assert np.array_equal(q, refine(self.image, self.probabilities, iterations=counts[0]))

    def test_the_trace_stops_there_too(self):
        moments, counts = [], []
        options = {"iterations": "settled", "tolerance": 0.01}
        refine(self.image, self.probabilities, took=counts.append, **options)
        refine(self.image, self.probabilities, trace=moments.append, **options)
        assert [moment.t for moment in moments] == list(range(counts[0] + 1))

    def test_lists_in_their_order(self, torch_threads):
        torch_threads(2)
        maps = [self.probabilities**k / (self.probabilities**k).sum(axis=0) for k in (1, 3, 0.5)]
        counts, alone = [], []
        refine([self.image] * 3, maps, iterations="settled", took=counts.append)
        for p in maps:
            refine(self.image, p, iterations="settled", took=alone.append)
        assert counts == alone
        assert len(set(counts)) > 1

    def test_a_number_is_told_too(self):
        counts: list[int] = []
        refine(self.image, self.probabilities, iterations=3, took=counts.append)
        assert counts == [3]


class TestLayer:
    def test_in_evaluation(self):
        layer = CRFRNN.of(CRFParameters.of_preset("pydensecrf", iterations="settled"), 4).eval()
        u, guide = 2 * torch.randn(2, 4, 12, 15), torch.randint(0, 256, (2, 3, 12, 15))
        counts: list[int] = []
        with torch.no_grad():
            y = layer(u, guide, took=counts.append)
            for image, count in enumerate(counts):
                assert_equal("logits", y[image], layer(u, guide, iterations=count)[image], FORWARD)
        assert len(counts) == 2
        with pytest.raises(ValueError, match=r"settled.* is for inference"):
            layer(u, guide)

    def test_not_in_training(self):
        with pytest.raises(ValueError, match="iterations: must be a whole number"):
            CRFRNN(4, iterations="settled")  # type: ignore[arg-type]
