"""What is inferred: the fully connected CRF of a batch of images, checked once and in one dtype."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.iteration import iteration, label_transforms
from crfrnn.runtime.layout_gpu import readable

HALVES = (torch.bfloat16, torch.float16)
IMPOSSIBLE = -1e30  # the logit of a forbidden label: no product with it is NaN
POSSIBLE = -1e29  # every pixel has a label whose logit is above
MOST_PENALTY = 1e20  # kernel weight times compatibility: what a pixel can pay stays far from IMPOSSIBLE
ROUNDING = 1e-12  # of float64 sums over labels
POSITIVE = 1e-10  # keeps the vectors of a power iteration above 0
POWER_ITERATIONS = 4


class Problem:
    """U, the prepared kernels, their weights and mu; called with marginals Q, it returns Qu = U - P Q.

    Qu is minus the gradient of the energy E(Q). All arithmetic is in float64 where the logits are, else in float32,
    whatever the dtypes of the others; scores of half precision stay as they are.

    Args:
        scores: U (B, L, *S); with `floor` above 0 probabilities, and U is their logarithm, or that of `floor` where
            they are below. The CPU takes it while it passes over the pixels; `unary` is U in any case.
        filters: M prepared kernels; one alone need not be in a list.
        kernel_weights: w, (M, L, L), (M, L) or (M, 1).
        compatibility: mu (L, L), subtracted.

    Raises:
        ValueError: with the argument's name, for what is no tensor or no prepared kernel, for shapes and devices that
            do not belong together; on the CPU also for weights or compatibilities that are not finite or beyond any
            use, and for logits of which no marginals follow (`check_logits`). Nobody waits for a GPU to ask it for the
            same.
    """

    def __init__(
        self,
        scores: Tensor,
        filters: Sequence[GaussianFilter] | GaussianFilter,
        kernel_weights: Tensor,
        compatibility: Tensor,
        floor: float = 0.0,
    ):
        self.filters = _filters(filters)
        _check(scores, self.filters, kernel_weights, compatibility)
        if not floor and scores.device.type == "cpu" and readable(scores):
            check_logits(scores)
        dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        self.scores = scores if scores.dtype in HALVES and not floor else scores.to(dtype)
        self.kernel_weights = kernel_weights.to(dtype)
        self.compatibility = compatibility.to(dtype)
        self.floor = max(floor, torch.finfo(dtype).tiny) if floor else 0.0

    @property
    def unary(self) -> Tensor:
        """U (B, L, *S), in the dtype of the arithmetic."""
        unary = self.scores.to(self.compatibility.dtype)
        return unary.clamp(min=self.floor).log() if self.floor else unary

    def detached(self) -> "Problem":
        """The same without gradients."""
        tensors = self.kernel_weights.detach(), self.compatibility.detach()
        return Problem(self.scores.detach(), self.filters, *tensors, self.floor)

    def bounded(self) -> "Problem":
        """The same with a U without infinities: what energies can be made of."""
        unary = self.unary.clamp(min=IMPOSSIBLE)
        return Problem(unary, self.filters, self.kernel_weights, self.compatibility)

    def __call__(self, q: Tensor) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            q = q.to(self.compatibility.dtype)
            return iteration(self.unary, q, self.filters, self.kernel_weights, self.compatibility)

    @cached_property
    def common(self) -> Tensor | None:
        """What 1 a_m^T (energy.py) would add to the energy, 1/2 sum_m a_m(l) (K_m^T 1)_i, (B, L, *S); None for 0."""
        transforms = label_transforms(self.kernel_weights.double(), self.compatibility.double())
        a = (transforms.sum(dim=1) - transforms.sum(dim=2)) / len(self.compatibility)
        if a.abs().max() <= ROUNDING * transforms.abs().max():
            return None
        ones = torch.ones_like(self.unary[:, :1])
        columns = a.to(ones.dtype).view(*a.shape, *(1,) * (ones.dim() - 2))
        parts = [
            0.5 * column * gaussian.transpose(ones) for column, gaussian in zip(columns, self.filters, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)

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
            v = (image / image.max()).clamp(min=POSITIVE)
        return bound


def _filters(filters: Any) -> list[GaussianFilter]:
    """The prepared kernels in a list; ValueError where there are none, or something else among them."""
    if isinstance(filters, GaussianFilter):
        return [filters]
    several: list[Any] = list(filters) if isinstance(filters, Iterable) and not isinstance(filters, str) else [filters]
    for gaussian in several:
        if not isinstance(gaussian, GaussianFilter):
            raise ValueError(
                "filters: expected prepared kernels, such as [Bilateral(80, 13).prepare(guide)],"
                f" got {type(gaussian).__name__}"
            )
    if not several:
        raise ValueError("filters: give at least one prepared kernel")
    return several


def _check(logits: Tensor, filters: Sequence[GaussianFilter], kernel_weights: Tensor, compatibility: Tensor) -> None:
    for name, value in (("logits", logits), ("kernel_weights", kernel_weights), ("compatibility", compatibility)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}")
        if value.is_complex():
            raise ValueError(f"{name}: complex numbers")
    if logits.dim() < 3:
        raise ValueError(f"logits: expected (batch, labels, *sizes), got {tuple(logits.shape)}")
    labels = logits.shape[1]
    shapes = [(len(filters), labels, labels), (len(filters), labels), (len(filters), 1)]
    if tuple(kernel_weights.shape) not in shapes:
        raise ValueError(
            f"kernel_weights: expected one of {shapes} for {len(filters)} kernels and {labels} labels,"
            f" got {tuple(kernel_weights.shape)}"
        )
    if tuple(compatibility.shape) != (labels, labels):
        raise ValueError(f"compatibility: expected ({labels}, {labels}), got {tuple(compatibility.shape)}")
    for gaussian in filters:
        if gaussian.batch not in (None, logits.shape[0]):
            raise ValueError(f"logits: a batch of {logits.shape[0]}, but the guide has {gaussian.batch} images")
        if gaussian.shape != tuple(logits.shape[2:]):
            raise ValueError(f"logits: size {tuple(logits.shape[2:])}, but the guide's is {gaussian.shape}")
        if gaussian.device not in (None, logits.device):
            raise ValueError(f"logits: on {logits.device}, but the guide is on {gaussian.device}; move one of them")
    for name, parameter in (("kernel_weights", kernel_weights), ("compatibility", compatibility)):
        if parameter.device != logits.device:
            raise ValueError(f"{name}: on {parameter.device}, but the logits are on {logits.device}; move one of them")
    if logits.device.type == "cpu" and readable(kernel_weights) and readable(compatibility):
        _check_penalties(kernel_weights, compatibility)


def _check_penalties(kernel_weights: Tensor, compatibility: Tensor) -> None:
    largest = []
    for name, parameter in (("kernel_weights", kernel_weights), ("compatibility", compatibility)):
        largest.append(float(np.abs(parameter.detach().double().numpy()).max()))
        if not largest[-1] < np.inf:  # NaN
            raise ValueError(f"{name}: NaN or infinity among them")
    if largest[0] * largest[1] > MOST_PENALTY:
        raise ValueError(
            f"kernel_weights: up to {largest[0]:.3g}, times a compatibility of up to {largest[1]:.3g};"
            f" a penalty may be at most {MOST_PENALTY:.0e}"
        )


def check_logits(logits: Tensor) -> None:
    """ValueError where no marginals follow from logits (B, L, *S): the best label of each pixel must have a finite one.

    It passes over them once, a two-hundredth of what an iteration takes.
    """
    if not logits.numel():
        return
    least, most = (bound.item() for bound in logits.detach().amax(dim=1).aminmax())
    if not most < np.inf:  # NaN
        raise ValueError("logits: NaN or infinity in them; minus infinity is fine, for a label that is impossible")
    if most > -POSSIBLE:
        raise ValueError(f"logits: {most:.3g} among them; give numbers of at most {-POSSIBLE:.0e}")
    if not least > POSSIBLE:
        raise ValueError(
            f"logits: a pixel has no label above {POSSIBLE:.0e}, where they count as impossible; one must be possible"
        )
