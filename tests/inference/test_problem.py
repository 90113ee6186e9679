"""One rule for whoever takes a problem: what is checked, and in which dtype everything is computed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import Bilateral, Spatial, iterates, mean_field, trajectory
from crfrnn.inference.energy import free_energy, gibbs_energy, mean_energy
from crfrnn.inference.problem import Problem
from crfrnn.inference.recurrence import marginals
from crfrnn.inference.solvers import SOLVERS, Iterate
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import potts, random_values, weights_of

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
GUIDE = 60 * random_values(1, 3, 4, 5, seed=3)
FILTERS = [Spatial(1.5).prepare(GUIDE), Bilateral(5, 40, method="exact").prepare(GUIDE)]
LOGITS, WEIGHTS, MU = random_values(1, 3, 4, 5), weights_of("class", 2, 3), potts(3) + 0.1 * random_values(3, 3)
Q = LOGITS.softmax(dim=1)

TAKERS: dict[str, Callable[..., Any]] = {
    "mean_field": lambda *problem: mean_field(*problem, iterations=2),
    "marginals": lambda *problem: marginals(*problem, iterations=2),
    "trajectory": lambda *problem: [*trajectory(*problem, iterations=2)][-1],
    "iterates": lambda *problem: [*iterates(*problem, iterations=2)][-1].q,
    "mean_energy": lambda *problem: mean_energy(Q.to(problem[0]), *problem),
    "free_energy": lambda *problem: free_energy(Q.to(problem[0]), *problem),
    "gibbs_energy": lambda *problem: gibbs_energy(Q.argmax(dim=1), *problem),
    "problem": lambda *problem: Problem(*problem)(Q.to(problem[0])),
    **{
        name: lambda *problem, name=name: mean_field(*problem, iterations=2, solver=SOLVERS[name]()) for name in SOLVERS
    },
}
EVERY = pytest.mark.parametrize("taker", TAKERS)


@each("others", DTYPES)
@each("logits", DTYPES)
@EVERY
def test_any_dtypes_give_what_the_wider_of_the_two_arithmetics_gives(taker, logits, others):
    """float64 where the logits are, else float32: that of the same numbers, cast before."""
    given = LOGITS.to(logits), FILTERS, WEIGHTS.to(others), MU.to(others)
    working = torch.float64 if logits == torch.float64 else torch.float32
    got = TAKERS[taker](*given)
    expected = TAKERS[taker](given[0].to(working), FILTERS, given[2].to(working), given[3].to(working))
    tolerance = {torch.float16: 5e-3, torch.bfloat16: 4e-2}.get(logits, 1e-6)  # of marginals and logits that are given
    assert_equal(taker, got.double(), expected.double(), tolerance)


@each("marginals_", DTYPES)
@each("logits", DTYPES)
def test_marginals_of_another_dtype(logits, marginals_):
    problem = LOGITS.to(logits), FILTERS, WEIGHTS, MU
    for energy in (mean_energy, free_energy):
        got = energy(Q.to(marginals_), *problem)
        assert_equal("energy", got, energy(Q.to(marginals_).double(), LOGITS.to(logits).double(), *problem[1:]), 1e-5)
    assert Iterate(Problem(*problem), 0, q=Q.to(marginals_)).updated.isfinite().all()


def test_energies_under_autocast_are_those_without():
    problem = LOGITS, FILTERS, WEIGHTS, MU
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = free_energy(Q, *problem)
    assert_equal("F", got, free_energy(Q, *problem), 0)


@EVERY
class TestErrors:
    @each("bad", [float("nan"), float("inf"), -float("inf")])
    def test_parameters_that_are_not_finite(self, bad, taker):
        for place, name in ((2, "kernel_weights"), (3, "compatibility")):
            problem: list[Any] = [LOGITS, FILTERS, WEIGHTS.clone(), MU.clone()]
            problem[place][1, 1] = bad
            with pytest.raises(ValueError, match=rf"^{name}: NaN or infinity among them"):
                TAKERS[taker](*problem)

    @each("bad", [float("nan"), float("inf")])
    def test_logits_that_are_not_finite(self, bad, taker):
        logits = LOGITS.clone()
        logits[0, 1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"^logits: NaN or infinity in them"):
            TAKERS[taker](logits, FILTERS, WEIGHTS, MU)

    @each("bad", [1e30, 3e38])
    def test_logits_beyond_any_use(self, bad, taker):
        logits = LOGITS.clone()
        logits[0, 1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"^logits: [13]e\+3[08] among them; give numbers of at most 1e\+29"):
            TAKERS[taker](logits, FILTERS, WEIGHTS, MU)

    def test_the_largest_logits_give_numbers(self, taker):
        logits = LOGITS.clone()
        logits[0, 1, 2, 3], logits[0, :2, 1, 1] = 1e28, -1e28
        assert TAKERS[taker](logits, FILTERS, WEIGHTS, MU).isfinite().all()

    @each("bad", [-float("inf"), -1e30, -3e38])
    def test_a_pixel_that_can_have_no_label(self, bad, taker):
        logits = LOGITS.clone()
        logits[0, :, 2, 3] = bad
        with pytest.raises(ValueError, match=r"^logits: a pixel has no label above -1e\+29"):
            TAKERS[taker](logits, FILTERS, WEIGHTS, MU)

    def test_penalties_beyond_any_use(self, taker):
        with pytest.raises(ValueError, match=r"^kernel_weights: up to 1e\+25, times a compatibility of up to "):
            TAKERS[taker](LOGITS, FILTERS, torch.full((2, 1), 1e25), MU)

    @each("filters", [(), [], iter(())])
    def test_no_filters(self, filters, taker):
        with pytest.raises(ValueError, match=r"^filters: give at least one prepared kernel"):
            TAKERS[taker](LOGITS, filters, torch.ones(0, 3), MU)

    @each("filters", [None, "spatial:3,3", print, [None], ["spatial:3,3"], [print], Spatial(3), [Spatial(3)], 3])
    def test_what_is_no_filter(self, filters, taker):
        expected = r"^filters: expected prepared kernels, such as \[Bilateral\(80, 13\).prepare\(guide\)\], got "
        with pytest.raises(ValueError, match=expected):
            TAKERS[taker](LOGITS, filters, WEIGHTS[:1], MU)

    @each("value", [None, "class", [[1.0, 1.0, 1.0]], np.ones((1, 3))])
    def test_what_is_no_tensor(self, value, taker):
        for place, name in ((2, "kernel_weights"), (3, "compatibility")):
            problem: list[Any] = [LOGITS, FILTERS, WEIGHTS, MU]
            problem[place] = value
            with pytest.raises(ValueError, match=rf"^{name}: expected a tensor, got "):
                TAKERS[taker](*problem)

    def test_complex_numbers(self, taker):
        for place, name in ((2, "kernel_weights"), (3, "compatibility")):
            problem: list[Any] = [LOGITS, FILTERS, WEIGHTS, MU]
            problem[place] = problem[place] + 1j
            with pytest.raises(ValueError, match=rf"^{name}: complex numbers"):
                TAKERS[taker](*problem)


def test_one_filter_need_not_be_in_a_list():
    got = mean_field(LOGITS, FILTERS[0], WEIGHTS[:1], MU, 2)  # type: ignore[arg-type]
    assert torch.equal(got, mean_field(LOGITS, FILTERS[:1], WEIGHTS[:1], MU, 2))


def test_a_transform_hides_the_numbers():
    """Under torch.func nobody looks whether they are finite."""
    several = torch.stack([WEIGHTS[1:], 2 * WEIGHTS[1:]])
    got = torch.func.vmap(lambda weights: mean_field(LOGITS, FILTERS[1:], weights, MU, 2))(several)
    expected = torch.stack([mean_field(LOGITS, FILTERS[1:], weights, MU, 2) for weights in several])
    assert_equal("logits", got, expected, 1e-6)
