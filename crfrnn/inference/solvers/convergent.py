"""Convergent mean field: a step of the concave-convex procedure, which never increases the free energy."""

from typing import Any

import torch
from torch import Tensor

from crfrnn.inference.solvers.iterate import Iterate
from crfrnn.inference.solvers.solver import Solver

NEWTON_STEPS = 50  # at most; a handful for a curvature near 1, about 15 for one of 300
MOST_CURVATURE = 1e8  # up to it a step in float32 is that of float64
STOP = 8  # Newton has converged when its step changes marginals by so many times the rounding of its numbers


class ConvergentMeanField(Solver):
    """Q_i <- argmin_q  <q, log q> - <q, Qu_i + c Q_i> + c / 2 |q|^2 over the simplex, for every pixel at once.

    The free energy is convex plus concave if c |Q|^2 / 2 is added to its convex part (entropy and unary) and taken
    from the rest (the pairs). A step linearises the concave part and minimises what results exactly; it needs no step
    size. For c = 0 it is plain mean field: for the Potts model with positive weights and symmetric positive
    semi-definite kernels, j = i included, that is convergent already.

    Args:
        curvature: c; None takes the bound `Problem.curvature`, from the weights and the compatibility.

    The free energy cannot rise where P is symmetric (normalisation "symmetric" or "none", a symmetric product of
    compatibility and weights) and c is large enough; for a CRF that leaves j = i out, c = max_i sum_m w_m k_m(i, i) is,
    with Potts. A c that is larger than necessary costs iterations, nothing else.

    Source: section 4 of Kraehenbuehl and Koltun, "Parameter learning and convergent inference for dense random
    fields", ICML 2013; Yuille and Rangarajan, "The concave-convex procedure", Neural Computation 2003.

    >>> ConvergentMeanField(curvature=2.0)
    ConvergentMeanField(curvature=2.0)
    """

    def __init__(self, curvature: float | None = None):
        super().__init__()
        if curvature is not None and not (isinstance(curvature, int | float) and 0 <= curvature <= MOST_CURVATURE):
            most = f"at most {MOST_CURVATURE:.0e}, or None for the bound"
            raise ValueError(f"curvature: must be at least 0 and {most}, got {curvature!r}")
        self.curvature = curvature

    def forward(self, now: Iterate) -> Iterate:
        c = now.problem.curvature if self.curvature is None else now.updated.new_tensor(self.curvature)
        value = float(c)
        if value > MOST_CURVATURE:
            raise ValueError(f"kernel_weights: a curvature of {value:.3g}; at most {MOST_CURVATURE:.0e} can be solved")
        if not value > 0:
            return Iterate(now.problem, now.t + 1, logits=now.updated)
        return Iterate(now.problem, now.t + 1, logits=log_of_quadratic_softmax(now.updated + c * now.q, c))

    def settings(self) -> dict[str, Any]:
        return {"curvature": self.curvature}


def log_of_quadratic_softmax(logits: Tensor, c: Tensor) -> Tensor:
    """log q for q = argmin_q <q, log q> - <q, a> + c / 2 |q|^2 over the simplex of dim 1; c > 0, a (B, L, *S).

    It solves log q + c q = a + nu with sum q = 1 by Newton's method, in log q and nu together. Newton's last step,
    from the solution, changes nothing but carries the gradients of the implicit function: it alone is differentiated.

    >>> log_of_quadratic_softmax(torch.zeros(1, 4, 1), torch.tensor(3.0)).exp().flatten().tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    with torch.no_grad():
        a = logits - logits.amax(dim=1, keepdim=True)
        y = torch.log_softmax(a / (1 + c), dim=1)
        enough = STOP * torch.finfo(a.dtype).eps
        for _ in range(NEWTON_STEPS):
            following = _newton(y, a, c).clamp(max=0)
            moved = ((following - y).abs() * following.exp()).amax()
            y = following
            if not moved > enough:
                break
    return _newton(y, logits - logits.detach().amax(dim=1, keepdim=True), c)


def _newton(y: Tensor, a: Tensor, c: Tensor) -> Tensor:
    """One Newton step for y + c exp(y) = a + nu, sum exp(y) = 1, from y; differentiable in a and c."""
    q = y.exp()
    inverse = 1 / (1 + c.detach() * q)
    residual = a - y - c * q
    slope = q * inverse  # dq / dnu
    nu = (1 - q.sum(dim=1, keepdim=True) - (slope * residual).sum(dim=1, keepdim=True)) / slope.sum(dim=1, keepdim=True)
    return y + inverse * (residual + nu)
