"""Regularised Frank-Wolfe: towards the minimiser of the linearised energy plus a convex regulariser."""

from typing import Any

import torch
from torch import Tensor

from crfrnn.inference.energy import entropy, total
from crfrnn.inference.solvers.iterate import Iterate
from crfrnn.inference.solvers.simplex import sparsemax
from crfrnn.inference.solvers.solver import Solver
from crfrnn.inference.solvers.step_size import StepSize

SCHEDULES = ("diminishing", "line-search")


class FrankWolfe(Solver):
    """S = argmin_s <s, grad E(Q)> + lambda r(s) over the simplices;  Q <- Q + step (S - Q).

    It descends E(Q) + lambda sum_i r(Q_i), generalised conditional gradients: the smaller lambda, the nearer it is to
    the energy's relaxation, whose minima are labellings. The base of the two classes below, which say what r is.

    Args:
        lambda_: weight of the regulariser, from 1e-6 to 1e6.
        step: in (0, 1]; or ``diminishing``, 2 / (2 + t); or ``line-search``, the best on the segment, for each image.
        learn_step: make a step that is a number a parameter; then it begins below 1.

    The line search costs no filter: P is linear, so that Qu at the new Q follows from Qu at Q and at S. With it the
    objective never rises where P is symmetric, whatever its curvature.

    Source: Lê-Huu and Alahari, "Regularized Frank-Wolfe for dense CRFs: generalizing mean field and beyond", NeurIPS
    2021.
    """

    def __init__(self, lambda_: float = 1.0, step: float | str = "line-search", learn_step: bool = False):
        super().__init__()
        if isinstance(lambda_, bool) or not isinstance(lambda_, int | float) or not 1e-6 <= lambda_ <= 1e6:
            raise ValueError(f"lambda_: must be above 0, from 1e-6 to 1e6, got {lambda_!r}")
        if isinstance(step, str) and step not in SCHEDULES:
            raise ValueError(f"step: {step!r} is neither a number in (0, 1] nor one of {', '.join(SCHEDULES)}")
        if isinstance(step, str) and learn_step:
            raise ValueError(f"learn_step: {step!r} leaves nothing to learn; give a number below 1 as the step")
        self.lambda_ = float(lambda_)
        self.step = step if isinstance(step, str) else StepSize(step, learn_step)

    def forward(self, now: Iterate) -> Iterate:
        target = self.minimiser(now.updated)
        if isinstance(self.step, StepSize):
            return Iterate(now.problem, now.t + 1, q=now.q + self.step() * (target - now.q))
        if self.step == "diminishing":
            return Iterate(now.problem, now.t + 1, q=now.q + 2 / (2 + now.t) * (target - now.q))
        there = now.problem(target)
        descent, curvature = self._along(now, target, there)
        # the minimum of curvature / 2 step^2 - descent step on [0, 1]; where it is concave, the far end
        inside = curvature > descent
        best = torch.where(inside, descent / torch.where(inside, curvature, 1), 1).to(now.q.dtype)
        step = best.view(-1, *(1,) * (now.q.dim() - 1))
        updated = now.updated + step * (there - now.updated)
        return Iterate(now.problem, now.t + 1, q=now.q + step * (target - now.q), updated=updated)

    def _along(self, now: Iterate, target: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """(B,), (B,): the objective's descent and curvature between Q and S, from Qu at both."""
        direction = target - now.q
        descent, curvature = self.descent(now, target), total(direction * (now.updated - there))
        return descent.clamp(min=0), curvature + self.lambda_ * self.convexity(direction)

    def minimiser(self, updated: Tensor) -> Tensor:
        """S, for Qu = - grad E(Q)."""
        raise NotImplementedError

    def regulariser(self, q: Tensor) -> Tensor:
        """sum_i r(Q_i), (B,) float64"""
        raise NotImplementedError

    def descent(self, now: Iterate, target: Tensor) -> Tensor:
        """How fast the objective, or a quadratic above it, falls from Q towards S, (B,) float64."""
        raise NotImplementedError

    def convexity(self, direction: Tensor) -> Tensor:
        """The second derivative of sum_i r in that quadratic, (B,) float64 or a number."""
        raise NotImplementedError

    def objective(self, now: Iterate) -> Tensor:
        """E(Q) + lambda sum_i r(Q_i)"""
        return now.energy + self.lambda_ * self.regulariser(now.q)

    def settings(self) -> dict[str, Any]:
        if isinstance(self.step, StepSize):
            return {"lambda_": self.lambda_, "step": self.step.initial, "learn_step": self.step.learned}
        return {"lambda_": self.lambda_, "step": self.step, "learn_step": False}


class EntropicFrankWolfe(FrankWolfe):
    """r = <q, log q>, so that S = softmax(Qu / lambda). With lambda 1 and step 1 it is plain mean field.

    With a fixed step it is mean field damped in the marginals, not in the logits. The line search takes the chord of
    the entropy for the entropy, a quadratic above the objective whose minimum is known.

    >>> EntropicFrankWolfe(lambda_=0.5, step="diminishing")
    EntropicFrankWolfe(lambda_=0.5, step='diminishing', learn_step=False)
    """

    def minimiser(self, updated: Tensor) -> Tensor:
        return torch.softmax(updated / self.lambda_, dim=1)

    def regulariser(self, q: Tensor) -> Tensor:
        return -entropy(q)

    def descent(self, now: Iterate, target: Tensor) -> Tensor:
        chord = self.regulariser(target) - self.regulariser(now.q)
        return total((target - now.q) * now.updated) - self.lambda_ * chord

    def convexity(self, direction: Tensor) -> Tensor:
        return direction.new_zeros((), dtype=torch.float64)


class EuclideanFrankWolfe(FrankWolfe):
    """r = |q|^2 / 2, so that S = sparsemax(Qu / lambda): labels that are far behind get a marginal of exactly zero.

    The line search is exact. In the logits that a layer returns a marginal of zero counts as 1e-10.

    >>> EuclideanFrankWolfe(step=1.0).settings()
    {'lambda_': 1.0, 'step': 1.0, 'learn_step': False}
    """

    def minimiser(self, updated: Tensor) -> Tensor:
        return sparsemax(updated / self.lambda_)

    def regulariser(self, q: Tensor) -> Tensor:
        return 0.5 * total(q * q)

    def descent(self, now: Iterate, target: Tensor) -> Tensor:
        return total((target - now.q) * (now.updated - self.lambda_ * now.q))

    def convexity(self, direction: Tensor) -> Tensor:
        return total(direction * direction)
