"""Where a solver stands: one iterate of the marginals, and what follows from it."""

import torch
from torch import Tensor

from crfrnn.inference.energy import energy_of, entropy
from crfrnn.inference.iteration import normalization
from crfrnn.inference.problem import Problem

LEAST_MARGINAL = 1e-10  # a marginal of zero becomes the logarithm of this


class Iterate:
    """The marginals after t steps, and what follows from them; what needs filtering is computed once, when asked for.

    Made from marginals Q (B, L, *S), or from the logits whose softmax they are.
    """

    def __init__(
        self,
        problem: Problem,
        t: int,
        *,
        q: Tensor | None = None,
        logits: Tensor | None = None,
        updated: Tensor | None = None,
    ):
        self.problem, self.t = problem, t
        self._q, self._logits, self._updated = q, logits, updated

    @property
    def q(self) -> Tensor:
        """The marginals Q."""
        if self._q is None:
            assert self._logits is not None, "an iterate has marginals or logits"
            self._q = normalization(self._logits)
        return self._q

    @property
    def logits(self) -> Tensor:
        """Logits whose softmax is Q, up to 1e-10 where they are made from marginals of zero."""
        if self._logits is None:
            self._logits = torch.log(self.q + LEAST_MARGINAL)
        return self._logits

    @property
    def updated(self) -> Tensor:
        """Qu = U - P Q, equations (4.2) to (4.5): what plain mean field would have as its next logits."""
        if self._updated is None:
            self._updated = self.problem(self.q)
        return self._updated

    @property
    def energy(self) -> Tensor:
        """E(Q) of each image, (B,) float64; see `crfrnn.inference.energy`."""
        return energy_of(self.q, self.problem.unary, self.updated, self.problem.common)

    @property
    def free_energy(self) -> Tensor:
        """F(Q) = E(Q) - H(Q) of each image, (B,) float64."""
        return self.energy - entropy(self.q)
