"""`trajectory`: the marginals of every iteration from one run, each what a run of that length gives."""

import pytest
import torch

from crfrnn.inference.recurrence import marginals, recurrence, trajectory
from tests.inference.fused.test_recurrence_cpu import FORWARD, Problem
from tests.support.compare import assert_equal
from tests.support.problems import potts, random_values, weights_of


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("labels", [2, 9])
@pytest.mark.parametrize("batch", [1, 2])
def test_each_is_a_run_of_that_length(batch, labels, learned):
    problem = Problem(labels=labels, learned=learned, batch=batch, iterations=4)
    parameters = problem.weights, problem.mu
    filters = problem.filters()
    for t, q in enumerate(trajectory(problem.logits, filters, *parameters, iterations=4)):
        assert not q.requires_grad
        assert_equal(f"Q({t})", q, marginals(problem.logits, filters, *parameters, iterations=t), FORWARD)
    assert t == 4


def test_the_reference_does_the_same():
    problem = Problem(iterations=3)
    filters = problem.filters(implementation="reference")
    for t, q in enumerate(trajectory(problem.logits, filters, problem.weights, problem.mu, iterations=3)):
        expected = recurrence(problem.logits, filters, problem.weights, problem.mu, t).softmax(dim=1)
        assert_equal(f"Q({t})", q, expected, FORWARD)
    assert t == 3


def test_no_iterations():
    logits = random_values(1, 3, 4, 5)
    (q,) = trajectory(logits, Problem(shape=(4, 5), labels=3).filters(), weights_of("class", 2, 3), potts(3), 0)
    assert torch.equal(q, logits.softmax(dim=1))


def test_refusals_come_at_once():
    with pytest.raises(ValueError, match="iterations: must be a whole number"):
        trajectory(random_values(1, 3, 4, 5), Problem(shape=(4, 5)).filters(), torch.ones(2, 1), potts(3), -1)
