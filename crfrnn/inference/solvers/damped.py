"""Damped mean field: only a part of the way, in the logits."""

from typing import Any

from crfrnn.inference.solvers.iterate import Iterate
from crfrnn.inference.solvers.solver import Solver
from crfrnn.inference.solvers.step_size import StepSize


class DampedMeanField(Solver):
    """Logits <- (1 - step) logits + step (U - P Q): the geometric mean of the old marginals and the new ones.

    It has the fixed points of plain mean field, damps its oscillations, and is the proximal step of the free energy
    with a KL divergence as its proximal term. With a step of at most 2 / (2 + c), c the positive curvature of the
    energy (`Problem.curvature`), no step increases the free energy.

    Args:
        step: in (0, 1]; 1 is plain mean field.
        learn_step: make it a parameter; then it begins below 1.

    Source: Baqué, Bagautdinov, Fleuret and Fua, "Principled parallel mean-field inference for discrete random
    fields", CVPR 2016.

    >>> DampedMeanField(step=0.5)
    DampedMeanField(
      step=0.5, learn_step=False
      (step): StepSize()
    )
    """

    def __init__(self, step: float = 0.5, learn_step: bool = False):
        super().__init__()
        self.step = StepSize(step, learn_step)

    def forward(self, now: Iterate) -> Iterate:
        return Iterate(now.problem, now.t + 1, logits=now.logits + self.step() * (now.updated - now.logits))

    def settings(self) -> dict[str, Any]:
        return {"step": self.step.initial, "learn_step": self.step.learned}
