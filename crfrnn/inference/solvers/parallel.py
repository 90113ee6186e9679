"""Parallel mean field, the iteration of the paper: all pixels at once."""

from crfrnn.inference.solvers.iterate import Iterate
from crfrnn.inference.solvers.solver import Solver


class MeanField(Solver):
    """Q <- softmax(U - P Q), Algorithm 1 of Zheng et al. 2015; the default, and the only one with a fused fast path.

    Where P is symmetric and concave on the simplices (Potts, positive weights, symmetric normalisation) no step
    increases the free energy; elsewhere it may oscillate, in the worst case between two states for ever.

    >>> MeanField()
    MeanField()
    """

    def forward(self, now: Iterate) -> Iterate:
        return Iterate(now.problem, now.t + 1, logits=now.updated)
