"""Solvers: what each converges to, what it decreases, its gradients, and how far it is from the truth."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import CRFRNN, Bilateral, Spatial, mean_field
from crfrnn.inference.recurrence import iterates, marginals, recurrence
from crfrnn.inference.solvers import (
    SOLVERS,
    ConvergentMeanField,
    DampedMeanField,
    EntropicFrankWolfe,
    EuclideanFrankWolfe,
    MeanField,
    Solver,
    find_solver,
    sparsemax,
)
from crfrnn.networks.saved import crf_config, crf_of_config
from tests.support import oracle
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import SmallCRF, photo, potts, predictions, random_values

EVERY = pytest.mark.parametrize("name", SOLVERS)
ROUNDING = 1e-9  # of an objective near 10, in float64


def objectives(problem: SmallCRF, solver: Solver, iterations: int) -> np.ndarray:
    return np.array([solver.objective(now).item() for now in iterates(*problem.arguments(), iterations, solver)])


def last(problem: SmallCRF, solver: Solver, iterations: int):
    *_, now = iterates(*problem.arguments(), iterations, solver)
    return now


class TestFixedPoints:
    @each("strength", [0.3, 1.0])
    @pytest.mark.parametrize("name", [name for name in SOLVERS if name != "euclidean-frank-wolfe"])
    def test_entropic_ones_share_that_of_mean_field(self, name, strength):
        """Q = softmax(U - P Q): the same equation, wherever they come from."""
        problem = SmallCRF(strength=strength, kind="learned")
        now = last(problem, SOLVERS[name](), 400)
        assert_equal("Q", now.q, now.updated.softmax(dim=1), 1e-8)

    @pytest.mark.parametrize("step", ["line-search", 0.3])
    def test_euclidean(self, step):
        """No label with a marginal can be exchanged for a better one: the gradient of E + lambda |Q|^2 / 2."""
        problem = SmallCRF(kind="learned")
        now = last(problem, EuclideanFrankWolfe(lambda_=0.7, step=step), 300)
        assert_equal("Q", now.q, sparsemax(now.updated / 0.7), 1e-8)
        gradient = 0.7 * now.q - now.updated
        lowest = gradient.amin(dim=1, keepdim=True)
        assert ((gradient - lowest)[now.q > 1e-6] < 1e-6).all()

    @EVERY
    def test_a_fixed_point_stays(self, name):
        problem = SmallCRF(strength=0.5)
        now = last(problem, SOLVERS[name](), 500)
        assert_equal("Q", SOLVERS[name]()(now).q, now.q, 1e-8)


class TestDecrease:
    @each("seed", range(2))
    @each("strength", [1.0, 6.0])
    @pytest.mark.parametrize("kind", ["potts", "learned", "repulsive"])
    @pytest.mark.parametrize(
        "solver",
        [
            ConvergentMeanField(),
            EntropicFrankWolfe(),
            EntropicFrankWolfe(lambda_=0.3),
            EuclideanFrankWolfe(),
            EuclideanFrankWolfe(lambda_=2.0),
        ],
        ids=str,
    )
    def test_what_converges_never_rises(self, solver, kind, strength, seed):
        values = objectives(SmallCRF(strength=strength, kind=kind, seed=seed), solver, 40)
        assert np.diff(values).max() < ROUNDING
        assert values[-1] < values[0]

    @pytest.mark.parametrize("normalization", ["symmetric", "none"])
    def test_plain_mean_field_where_the_pairs_are_concave(self, normalization):
        """Potts, positive weights, positive semi-definite kernels with j = i: it is the concave-convex procedure."""
        problem = SmallCRF(strength=4.0, normalization=normalization)
        assert last(problem, MeanField(), 0).problem.curvature == 0
        assert np.diff(objectives(problem, MeanField(), 40)).max() < ROUNDING

    def test_plain_mean_field_oscillates_where_they_are_not(self):
        """Equal labels pay: for ever between two states, where the convergent step settles."""
        problem = SmallCRF(strength=6.0, kind="repulsive", labels=2)
        plain, convergent = (objectives(problem, solver, 200) for solver in (MeanField(), ConvergentMeanField()))
        assert np.diff(plain).max() > 0.1
        states = [now.q for now in iterates(*problem.arguments(), 200, MeanField())]
        assert (states[-1] - states[-2]).abs().max() > 0.5
        assert convergent[-1] < plain[-20:].min()

    @pytest.mark.parametrize("kind", ["repulsive", "learned"])
    def test_damped_with_the_step_that_it_promises(self, kind):
        problem = SmallCRF(strength=6.0, kind=kind)
        c = float(last(problem, MeanField(), 0).problem.curvature)
        assert np.diff(objectives(problem, DampedMeanField(2 / (2 + c)), 60)).max() < ROUNDING

    def test_a_curvature_of_your_own(self):
        """A larger one is slower and as safe; one of zero is plain mean field."""
        problem = SmallCRF(strength=6.0, kind="repulsive")
        bound = float(last(problem, MeanField(), 0).problem.curvature)
        tight, loose = (objectives(problem, ConvergentMeanField(c), 10) for c in (bound, 4 * bound))
        assert max(np.diff(tight).max(), np.diff(loose).max()) < ROUNDING
        assert tight[5] < loose[5]
        zero, plain = (last(problem, solver, 7).q for solver in (ConvergentMeanField(0), MeanField()))
        assert_equal("Q", zero, plain, 0)

    @pytest.mark.parametrize("kind", ["repulsive", "learned", "potts"])
    def test_the_curvature_is_a_bound(self, kind):
        """Against the eigenvalues of the whole matrix P, for changes that sum to zero at every pixel."""
        problem = SmallCRF(kind=kind, labels=4)
        _, features, weights, mu, normalization = problem.arrays()
        kernels = [oracle.normalised(oracle.kernel(f), normalization) for f in features]
        zero_sum = np.linalg.svd(np.ones((1, 4)))[2][1:].T
        restricted = zero_sum.T @ mu @ zero_sum
        whole = sum(w * np.kron(k, restricted) for w, k in zip(weights[:, 0], kernels, strict=True))
        largest = np.linalg.eigvalsh(whole).max()
        bound = float(last(problem, MeanField(), 0).problem.curvature)
        assert max(0, largest) <= bound + 1e-9
        assert bound <= 1.2 * max(0, largest) + 1e-9


class TestFrankWolfeIsMeanField:
    @pytest.mark.parametrize("iterations", [0, 1, 5])
    @pytest.mark.parametrize("kind", ["potts", "learned"])
    def test_entropy_one_one(self, kind, iterations):
        arguments = SmallCRF(kind=kind).arguments()
        got = mean_field(*arguments, iterations, EntropicFrankWolfe(lambda_=1.0, step=1.0)).softmax(dim=1)
        assert_equal("marginals", got, mean_field(*arguments, iterations).softmax(dim=1), 1e-8)
        got = marginals(*arguments, iterations, solver=EntropicFrankWolfe(lambda_=1.0, step=1.0))
        assert_equal("marginals", got, marginals(*arguments, iterations), 1e-14)

    def test_diminishing_steps(self):
        """2 / (2 + t): the first goes all the way."""
        arguments = SmallCRF().arguments()
        states = list(iterates(*arguments, 3, EntropicFrankWolfe(step="diminishing")))
        assert_equal("Q(1)", states[1].q, states[0].updated.softmax(dim=1), 1e-14)
        halfway = states[2].q + 0.5 * (states[2].updated.softmax(dim=1) - states[2].q)
        assert_equal("Q(3)", states[3].q, halfway, 1e-14)

    def test_the_line_search_filters_once_and_knows_the_rest(self):
        """Qu at the new marginals, from P being linear, is what filtering them would give."""
        problem = SmallCRF(strength=6.0, kind="repulsive")
        for solver in (EntropicFrankWolfe(), EuclideanFrankWolfe()):
            now = last(problem, solver, 4)
            assert_equal("Qu", now.updated, now.problem(now.q), 1e-12)

    def test_the_euclidean_line_search_is_exact(self):
        problem = SmallCRF(strength=6.0, kind="repulsive")
        solver = EuclideanFrankWolfe()
        first, second = iterates(*problem.arguments(), 1, solver)
        target = solver.minimiser(first.updated)
        steps = torch.linspace(0, 1, 201, dtype=torch.float64)
        along = [last_objective(problem, solver, first.q + step * (target - first.q)) for step in steps]
        assert solver.objective(second).item() <= min(along) + ROUNDING
        assert 0 < int(np.argmin(along)) < 200


def last_objective(problem: SmallCRF, solver: Solver, q: Tensor) -> float:
    (start,) = iterates(*problem.arguments(), 0)
    return solver.objective(type(start)(start.problem, 0, q=q)).item()


GRADIENTS = {
    "mean-field": MeanField(),
    "damped": DampedMeanField(0.4, learn_step=True),
    "convergent": ConvergentMeanField(),
    "entropic": EntropicFrankWolfe(lambda_=0.8, step=0.6, learn_step=True),
    "entropic, line search": EntropicFrankWolfe(),
    "euclidean": EuclideanFrankWolfe(lambda_=1.5, step=0.6, learn_step=True),
    "euclidean, line search": EuclideanFrankWolfe(lambda_=1.5),
    "euclidean, diminishing": EuclideanFrankWolfe(lambda_=1.5, step="diminishing"),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "learned") for name in GRADIENTS), ("convergent", "repulsive"), ("entropic, line search", "repulsive")],
)
def test_gradcheck(name, kind):
    """float64: logits, kernel weights, compatibility and the learned step, through two iterations.

    The marginals, not the logits: near a zero of sparsemax no finite difference follows a logarithm.
    """
    solver = GRADIENTS[name].double()
    logits, filters, weights, mu = SmallCRF(strength=1.5, kind=kind).arguments()
    if kind == "repulsive":  # equal eigenvalues have no derivative
        mu = mu + 0.1 * torch.diag(torch.arange(3).double())
    inputs = [tensor.clone().requires_grad_() for tensor in (logits, weights, mu)]

    def run(u: Tensor, w: Tensor, m: Tensor, *_) -> Tensor:
        return mean_field(u, filters, w, m, 2, solver).softmax(dim=1)

    assert torch.autograd.gradcheck(run, (*inputs, *solver.parameters()), atol=1e-6)
    if name == "mean-field":
        u, w, m = inputs
        assert_equal("default", run(u, w, m), mean_field(u, filters, w, m, 2).softmax(dim=1), 0)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_no_iterations_return_the_logits(dtype, name):
    logits = random_values(1, 3, 4, 5, dtype=dtype)
    logits[0, 1, 2] = -torch.inf
    arguments = logits, [Spatial(1).prepare(logits)], torch.ones(1, 1), potts(3)
    assert torch.equal(mean_field(*arguments, 0, SOLVERS[name]()), logits)
    assert torch.equal(marginals(*arguments, 0, solver=SOLVERS[name]()), logits.softmax(dim=1))
    (start,) = iterates(*arguments, 0, SOLVERS[name]())
    assert torch.equal(start.q, logits.softmax(dim=1))


@EVERY
def test_forbidden_labels_and_batches(name):
    logits = random_values(2, 4, 6, 7)
    logits[:, 1, :2] = -torch.inf
    filters = [Spatial(1.5).prepare(logits)]
    mu = 0.5 * (random_values(4, 4) + random_values(4, 4).T)
    both = marginals(logits, filters, torch.ones(1, 1), mu, 4, solver=SOLVERS[name]())
    assert both[:, 1, :2].max() < 1e-20  # the fused one's exp has a floor
    assert_equal("sums", both.sum(dim=1), torch.ones(2, 6, 7), 1e-5)
    for b in range(2):
        alone = marginals(logits[b : b + 1], filters, torch.ones(1, 1), mu, 4, solver=SOLVERS[name]())
        assert_equal("marginals", both[b : b + 1], alone, 1e-5)


@EVERY
def test_photo(name):
    """Through the fast filters, in float32, with the kernels and the normalisation of a preset."""
    guide, logits = photo("astronaut"), predictions("astronaut", 4)
    kernels = Bilateral(80, 13), Spatial(3)
    filters = [kernel.prepare(guide, normalization="symmetric") for kernel in kernels]
    weights = torch.tensor([[10.0], [3.0]])
    states = list(iterates(logits, filters, weights, potts(4), 10, SOLVERS[name]()))
    values = [SOLVERS[name]().objective(now).item() for now in states]
    assert values[-1] < values[0]
    q = marginals(logits, filters, weights, potts(4), 10, solver=SOLVERS[name]())
    assert_equal("Q(10)", q, states[-1].q, 1e-4)
    assert_equal("sums", q.sum(dim=1), torch.ones(1, 72, 96), 1e-5)
    plain = marginals(logits, filters, weights, potts(4), 10)
    assert (q.argmax(dim=1) == plain.argmax(dim=1)).float().mean() > 0.9


def test_mean_field_takes_the_fused_path(monkeypatch):
    """Asked for by name it is the default, to the last bit."""
    logits, guide = random_values(1, 3, 20, 30), 60 * random_values(1, 3, 20, 30, seed=3)
    arguments = logits, [Bilateral(6, 40).prepare(guide)], torch.ones(1, 1), potts(3), 5
    expected = mean_field(*arguments)
    monkeypatch.setattr("crfrnn.inference.recurrence.recurrence", None)
    assert_equal("logits", mean_field(*arguments, MeanField()), expected, 0)


def test_iterates_are_the_recurrence():
    arguments = SmallCRF(kind="learned").arguments()
    states = list(iterates(*arguments, 4))
    for t, now in enumerate(states):
        assert now.t == t
        assert_equal(f"logits({t})", now.logits, recurrence(*arguments, t), 1e-12)


def test_energies_of_t_steps_take_one_filtering_more():
    arguments = SmallCRF().arguments()
    calls = []
    gaussian = arguments[1][0]
    original = gaussian.operator.apply
    gaussian.operator.apply = lambda *a, **k: calls.append(1) or original(*a, **k)
    energies = [now.free_energy for now in iterates(*arguments, 5)]
    assert len(energies) == 6
    assert len(calls) == 6


class TestTruth:
    @pytest.mark.parametrize("seed", range(3))
    def test_weak_pairs(self, seed):
        """With weak kernels all entropic solvers come near the true marginals."""
        problem = SmallCRF(strength=0.1, seed=seed)
        truth = oracle.enumerate_labellings(*problem.arrays())
        for name in ("mean-field", "damped", "convergent", "entropic-frank-wolfe"):
            q = last(problem, SOLVERS[name](), 100).q[0].numpy()
            assert np.abs(q - truth.marginals).max() < 0.03

    @EVERY
    def test_strong_pairs(self, name):
        """With strong ones their labels are those of lowest energy, or nearly so."""
        gaps = []
        for seed in range(4):
            problem = SmallCRF(strength=2.0, seed=seed)
            truth = oracle.enumerate_labellings(*problem.arrays())
            labels = tuple(last(problem, SOLVERS[name](), 100).q[0].argmax(dim=0).tolist())
            gaps.append(truth.energies[labels] - truth.energies[truth.optimum])
        assert min(gaps) >= 0
        assert np.median(gaps) < 0.2


class TestLayer:
    @pytest.mark.parametrize(
        "solver",
        [DampedMeanField(0.5, learn_step=True), EntropicFrankWolfe(step=0.5, learn_step=True)],
        ids=["damped", "frank-wolfe"],
    )
    def test_a_learned_step_trains(self, solver):
        layer = CRFRNN(3, kernels=[Spatial(1.5)], solver=solver)
        assert "solver.step.logit" in layer.state_dict()
        logits, image = random_values(1, 3, 6, 7), torch.zeros(1, 3, 6, 7)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        target = random_values(1, 3, 6, 7, seed=5).argmax(dim=1)
        torch.nn.functional.cross_entropy(layer(logits, image), target).backward()
        before = solver.step().item()
        assert solver.step.logit.grad.abs() > 1e-6
        optimizer.step()
        assert solver.step().item() != before

    @EVERY
    def test_saved_and_built_again(self, name):
        layer = CRFRNN(3, kernels=[Spatial(1.5)], solver=SOLVERS[name]())
        again = crf_of_config(crf_config(layer))
        assert type(again.solver) is SOLVERS[name]
        assert crf_config(again) == crf_config(layer)

    def test_default_has_no_solver(self):
        layer = CRFRNN(3)
        assert layer.solver is None
        assert set(layer.state_dict()) == {"kernel_weights", "compatibility"}
        assert "solver" not in crf_config(layer)

    def test_one_of_your_own(self):
        class Backwards(Solver):
            def forward(self, now):
                return type(now)(now.problem, now.t + 1, logits=-now.updated)

        layer = CRFRNN(3, kernels=[Spatial(1.5)], solver=Backwards())
        logits, image = random_values(1, 3, 6, 7), torch.zeros(1, 3, 6, 7)
        plain = CRFRNN(3, kernels=[Spatial(1.5)])
        assert_equal("logits", layer(logits, image, iterations=1), -plain(logits, image, iterations=1), 1e-5)
        with pytest.raises(ValueError, match=r"^solver: Backwards is your own and cannot be saved"):
            crf_config(layer)


REFUSED = {
    "name": (lambda: find_solver("newton"), "^solver: 'newton' is none of mean-field, damped"),
    "too much": (lambda: find_solver("damped:0.5,1"), "^solver: 'damped:0.5,1' has more than"),
    "step 0": (lambda: DampedMeanField(0), r"^step: must be above 0 and at most 1, got 0"),
    "step 2": (lambda: find_solver("damped:2"), r"^step: must be above 0 and at most 1, got 2"),
    "step nan": (lambda: EntropicFrankWolfe(step=float("nan")), r"^step: must be above 0"),
    "step text": (lambda: find_solver("entropic-frank-wolfe:often"), "^step: 'often' is neither a number"),
    "learned step 1": (lambda: DampedMeanField(1.0, learn_step=True), "^step: a learned one begins below 1"),
    "learned search": (lambda: EuclideanFrankWolfe(learn_step=True), "^learn_step: 'line-search' leaves nothing"),
    "lambda 0": (lambda: EntropicFrankWolfe(lambda_=0), "^lambda_: must be above 0"),
    "lambda tiny": (lambda: EuclideanFrankWolfe(lambda_=1e-30), "^lambda_: must be above 0"),
    "lambda -1": (lambda: find_solver("euclidean-frank-wolfe:0.5,-1"), "^lambda_: must be above 0"),
    "curvature": (lambda: ConvergentMeanField(-1.0), "^curvature: must be at least 0"),
    "curvature beyond any use": (lambda: ConvergentMeanField(1e30), "^curvature: must be at least 0 and at most 1e"),
    "curvature text": (lambda: find_solver("convergent:big"), "^curvature: must be at least 0"),
    "no object": (lambda: CRFRNN(3, solver=cast(Any, "damped")), "^solver: expected a crfrnn.solvers.Solver"),
    "a function": (
        lambda: mean_field(*SmallCRF().arguments(), 2, cast(Any, len)),
        "^solver: expected a crfrnn.solvers.Solver",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_clear_line(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
