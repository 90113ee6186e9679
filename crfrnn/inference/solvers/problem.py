"""What is solved, and where a solver stands: the CRF of a batch of images, and one iterate of its marginals."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.energy import IMPOSSIBLE, common_part, energy_of, entropy
from crfrnn.inference.iteration import iteration, label_transforms, normalization

SMALLEST = 1e-10  # a marginal of zero becomes the logarithm of this
POWER_ITERATIONS = 4


class Problem:
    """U, the kernels and their weights; called with marginals Q, it returns Qu = U - P Q, minus the gradient of E.

    Arguments as in `recurrence.mean_field`, already in one dtype.
    """

    def __init__(
        self, logits: Tensor, filters: Sequence[GaussianFilter], kernel_weights: Tensor, compatibility: Tensor
    ):
        self.unary = logits.clamp(min=IMPOSSIBLE)
        self.filters = filters
        self.kernel_weights = kernel_weights
        self.compatibility = compatibility

    def __call__(self, q: Tensor) -> Tensor:
        with torch.autocast(self.unary.device.type, enabled=False):
            return iteration(self.unary, q, self.filters, self.kernel_weights, self.compatibility)

    @cached_property
    def common(self) -> Tensor | None:
        """`energy.common_part`, once for all iterates."""
        return common_part(self.unary, self.filters, self.kernel_weights, self.compatibility)

    @cached_property
    def curvature(self) -> Tensor:
        """c >= 0 with <d, P d> <= c |d|^2 for every change d of marginals, as far as the kernels are what they should.

        c = sum_m |K_m| max(0, largest eigenvalue of A_m for label vectors that sum to zero). It is 0 for the Potts
        model with positive weights. It holds for symmetric, positive semi-definite kernels and the symmetric part of
        A_m; see README.md. Differentiable in the weights and the compatibility.
        """
        labels = self.unary.shape[1]
        if labels == 1:
            return self.unary.new_zeros(())
        transforms = label_transforms(self.kernel_weights.double(), self.compatibility.double())
        basis = _zero_sum_basis(labels).to(transforms.device)
        restricted = basis.T @ (0.5 * (transforms + transforms.transpose(1, 2))) @ basis
        largest = torch.linalg.eigvalsh(restricted)[:, -1].clamp(min=0)
        pairs = zip(self.filters, largest.tolist(), strict=True)
        norms = [_norm(gaussian, self.unary) if value else 0.0 for gaussian, value in pairs]
        return (largest * largest.new_tensor(norms)).sum().to(self.unary.dtype)


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
            self._logits = torch.log(self.q + SMALLEST)
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


def _zero_sum_basis(labels: int) -> Tensor:
    """(L, L - 1) orthonormal columns that sum to zero: the directions in which marginals can change."""
    basis = torch.zeros(labels, labels - 1, dtype=torch.float64)
    for k in range(1, labels):
        basis[:k, k - 1] = 1
        basis[k, k - 1] = -k
        basis[:, k - 1] /= (k * (k + 1)) ** 0.5
    return basis


def _norm(gaussian: GaussianFilter, like: Tensor) -> float:
    """An upper bound of a kernel's largest eigenvalue, for values like (B, L, *S).

    Collatz and Wielandt: for a matrix without negative entries and any positive v it is at most max_i (K v)_i / v_i,
    and a few power iterations make that tight.
    """
    with torch.no_grad():
        v = torch.ones_like(like[:, :1])
        bound = 0.0
        for _ in range(POWER_ITERATIONS):
            image = gaussian(v)
            bound = float((image / v).max())
            v = (image / image.max()).clamp(min=SMALLEST)
        return bound
