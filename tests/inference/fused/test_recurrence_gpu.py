"""The fused recurrence in Triton equals the readable one over reference filters, forward and backward (rung 4)."""

from typing import Any

import pytest
import torch

from crfrnn import Bilateral, Features, Spatial, mean_field
from crfrnn.filtering import methods
from crfrnn.inference import problem as inference_problem
from crfrnn.inference.recurrence import marginals, recurrence
from tests.support.compare import assert_equal
from tests.support.no_sync import NoSync
from tests.support.problems import NORMALIZATIONS, device_for, potts, random_values, refusal, weights_of

ROW = next(row for row in methods.IMPLEMENTATIONS["permutohedral"] if row.name == "triton")
FORWARD, BACKWARD = 1e-5, 1e-4
BILATERAL, SPATIAL = Bilateral(6, 40), Spatial(1.5)
QUANTITIES = ("logits", "gradient of the logits", "gradient of the weights", "gradient of the compatibility")
pytestmark = pytest.mark.triton


class Problem:
    """A CRF on noise over noise: what is hard for a kernel is the shape, not the picture."""

    def __init__(self, shape=(5, 7), labels=3, batch=1, kernels=(BILATERAL, SPATIAL), kind="class", **more):
        device = device_for(ROW)
        self.kernels, self.normalization = kernels, more.get("normalization", "after")
        self.iterations = more.get("iterations", 2)
        self.guide = 60 * random_values(batch, 3, *shape, seed=3).to(device)
        self.logits = random_values(batch, labels, *shape).to(device).requires_grad_()
        self.weights = weights_of(kind, len(kernels), labels).to(device).requires_grad_()
        noise = 0.3 * random_values(labels, labels, seed=7)
        self.mu = (potts(labels) + noise).to(device).requires_grad_()

    def filters(self, implementation: str = "triton"):
        return [
            kernel.prepare(self.guide, normalization=self.normalization, implementation=implementation)
            for kernel in self.kernels
        ]

    def results(self, y: torch.Tensor) -> list[torch.Tensor]:
        towards = random_values(*y.shape, seed=5).to(y.device)
        return [y, *torch.autograd.grad(y, (self.logits, self.weights, self.mu), towards)]

    def check(self) -> None:
        filters = self.filters()
        assert refusal(self.logits, filters) is None
        fused = self.results(mean_field(self.logits, filters, self.weights, self.mu, self.iterations))
        arguments = self.filters("reference"), self.weights, self.mu, self.iterations
        readable = self.results(recurrence(self.logits, *arguments))
        for name, ours, expected in zip(QUANTITIES, fused, readable, strict=True):
            assert_equal(name, ours, expected, FORWARD if name == "logits" else BACKWARD)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalisations(normalization):
    Problem((4, 5), normalization=normalization).check()


@pytest.mark.parametrize("kind", ["scalar", "class", "full"])
def test_weights(kind):
    Problem((4, 5), labels=4, kind=kind).check()


@pytest.mark.parametrize(("labels", "kind"), [(2, "class"), (21, "full"), (150, "class"), (300, "class")])
def test_labels(labels, kind):
    Problem((2, 4), labels=labels, kind=kind, iterations=1 if labels == 300 else 2).check()


@pytest.mark.parametrize(("batch", "shape"), [(1, (19,)), (8, (2, 3)), (2, (2, 3, 4)), (1, (67,)), (1, (50, 2))])
def test_shapes(batch, shape):
    Problem(shape, batch=batch).check()


@pytest.mark.parametrize(
    ("kernels", "kind"),
    [
        ((BILATERAL,), "full"),
        ((SPATIAL,), "full"),
        ((SPATIAL, Spatial(3.0), BILATERAL), "class"),
        ((BILATERAL, Bilateral(3, 20), Features(50.0), SPATIAL), "full"),
    ],
    ids=["one lattice", "one grid", "two grids and a lattice", "three lattices and a grid"],
)
def test_any_number_of_kernels(kernels, kind):
    Problem((4, 3), kernels=kernels, kind=kind).check()


def test_one_iteration():
    Problem(iterations=1).check()


@pytest.mark.parametrize("shape", [(4, 5), (67,)])
def test_marginals(shape):
    problem = Problem(shape)
    y = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, 2)
    q = marginals(problem.logits, problem.filters(), problem.weights, problem.mu, 2)  # nothing kept: one buffer for all
    assert_equal("marginals", q, torch.softmax(y, 1).detach(), 1e-6)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 5e-4), (torch.bfloat16, 4e-3)])
def test_half_precision(dtype, rounding):
    """Marginals in half precision between the passes, sums in float32: the error of storing them, and no more."""
    problem = Problem((3, 4), labels=21)
    half = problem.logits.detach().to(dtype).requires_grad_()
    y = mean_field(half, problem.filters(), problem.weights, problem.mu, 2)
    expected = mean_field(half.float(), problem.filters(), problem.weights, problem.mu, 2)
    assert y.dtype == dtype
    assert_equal("logits", y.float(), expected, 4 * rounding)
    towards = random_values(*y.shape, seed=5).to(y.device)
    grad, expected = (torch.autograd.grad(out, half, towards.to(out.dtype))[0] for out in (y, expected))
    assert grad.dtype == dtype
    assert_equal("gradient", grad, expected, 8 * rounding)


def test_autocast_changes_nothing():
    problem = Problem()
    with torch.autocast(problem.logits.device.type, torch.bfloat16):
        inside = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, 2)
    outside = mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, 2)
    assert_equal("logits under autocast", inside, outside, 0)


def test_every_number_is_written(poison):
    problem = Problem((3, 4), kernels=(SPATIAL, Spatial(1.0), BILATERAL))
    problem.filters()  # NumPy's part of the bands
    poison()
    problem.check()


def test_the_same_bits_every_time():
    problem = Problem(labels=5)
    first, second = (
        problem.results(mean_field(problem.logits, problem.filters(), problem.weights, problem.mu, 2)) for _ in range(2)
    )
    for name, one, two in zip(QUANTITIES, first, second, strict=True):
        assert_equal(name, two, one, 0)


def test_the_host_reads_nothing_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inference_problem, "check_logits", lambda logits: None)  # not asked for on a GPU
    problem = Problem()
    filters = problem.filters()
    mean_field(problem.logits, filters, problem.weights, problem.mu, 2)  # caches what depends on the shape alone
    with NoSync(), torch.no_grad():
        mean_field(problem.logits, filters, problem.weights, problem.mu, 2)


def test_ops_keep_torchs_contract():
    problem = Problem((3, 4), iterations=1)
    operator: Any = problem.filters()[0].operator
    flat, nothing = problem.logits.flatten(2), torch.zeros(0, device=problem.logits.device)
    transforms = (problem.mu @ torch.diag_embed(problem.weights[:1])).detach().requires_grad_()
    lattices, scales = list(operator.lattices), [nothing, nothing]
    arguments = flat.detach().requires_grad_(), transforms, problem.mu.detach(), problem.weights[:1].detach()
    torch.library.opcheck(
        torch.ops.crfrnn.mean_field_forward_gpu.default,
        (*arguments, lattices, [0.0] * 3, scales, [3, 4], 1, True, False),
    )


def test_too_many_labels_are_not_fused():
    problem = Problem((2, 2))
    reason = refusal(torch.zeros(1, 1025, 2, 2, device=problem.logits.device), problem.filters())
    assert reason is not None
    assert "1024" in reason
