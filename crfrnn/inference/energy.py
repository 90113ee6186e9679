"""Energies of a fully connected CRF: of a labelling, and of marginals (what mean-field inference descends).

    E(x) = - sum_i U_i(x_i) + 1/2 sum_ij P_ij(x_i, x_j),       P_ij(l, l') = sum_m A_m(l, l') k_m(f_i, f_j)
    E(Q) = - <U, Q> + 1/2 <Q, P Q>,                            A_m = mu W_m
    F(Q) = E(Q) + sum_i sum_l Q_i(l) log Q_i(l)

An iteration computes Qu = U - P Q anyway, and with it E(Q) = - 1/2 <Q, U + Qu>: one more dot product.

*Halves.* The sums run over ordered pairs.

*The term j = i* is in them, as it is in those of an iteration: 1/2 sum_i <Q_i, P_ii Q_i>. For Potts with one weight for
each kernel it is zero for every labelling, as mu(l, l) = 0, and E(x) is the Gibbs energy of the CRF that leaves j = i
out; between the labellings it is not zero, so that F(Q) is KL(Q || P) - log Z of that CRF only up to this term.

*Symmetry.* Whatever is the same for all labels of a pixel cancels in a softmax, so an iteration with A_m is one with
A_m - 1 a_m^T. The energy takes that form, with a_m = (A_m^T 1 - A_m 1) / L. It is A_m itself where that is symmetric,
and it is symmetric for Potts with a weight for each class, which is not written so. Where it is not, or the kernels are
not (normalisation "after" or "before"), no energy has these iterations as its descent: a quadratic form sees the
symmetric part alone, and E is that. See `solvers/README.md`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.problem import Problem

VANISHING = 1e-30  # a probability below counts as this in a logarithm


def gibbs_energy(
    labels: Tensor,
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
) -> Tensor:
    """E(x) of a labelling, whole numbers (B, *S) in 0..L-1; the other arguments as in `mean_field`. -> (B,) float64

    The lower, the more probable: P(x) = exp(-E(x)) / Z. A labelling that takes a forbidden label (a logit of minus
    infinity) has an energy of about 1e30.

    >>> from crfrnn import Spatial
    >>> logits = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    >>> filters, potts = [Spatial(1).prepare(logits)], 1 - torch.eye(2)
    >>> energies = [gibbs_energy(torch.full((1, 4, 5), x), logits, filters, torch.ones(1, 1), potts) for x in (0, 1)]
    >>> [round(energy.item(), 3) for energy in energies]
    [-40.0, -20.0]
    """
    count = logits.shape[1]
    if labels.shape != logits[:, 0].shape or labels.is_floating_point():
        shape = tuple(logits[:, 0].shape)
        raise ValueError(f"labels: expected whole numbers {shape}, got {labels.dtype} {tuple(labels.shape)}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise ValueError(f"labels: must lie in 0..{count - 1}, got {int(labels.min())}..{int(labels.max())}")
    one_hot = torch.nn.functional.one_hot(labels.long(), count).movedim(-1, 1)
    return mean_energy(one_hot, logits, filters, kernel_weights, compatibility)


def mean_energy(
    q: Tensor, logits: Tensor, filters: Sequence[GaussianFilter], kernel_weights: Tensor, compatibility: Tensor
) -> Tensor:
    """E(Q) of marginals (B, L, *S), what labels drawn from them cost on average but for j = i (above). -> (B,) float64

    The other arguments as in `mean_field`.
    """
    return _energy(*_checked(q, logits, filters, kernel_weights, compatibility))


def free_energy(
    q: Tensor, logits: Tensor, filters: Sequence[GaussianFilter], kernel_weights: Tensor, compatibility: Tensor
) -> Tensor:
    """F(Q) = E(Q) - H(Q) of marginals (B, L, *S), the mean-field free energy. -> (B,) float64

    Its stationary points are the fixed points of the mean-field iteration, where P is symmetric (above). The other
    arguments as in `mean_field`.

    >>> from crfrnn import Spatial
    >>> logits = torch.zeros(1, 2, 4, 5)
    >>> arguments = logits, [Spatial(1).prepare(logits)], torch.ones(1, 1), 1 - torch.eye(2)
    >>> round(free_energy(logits.softmax(1), *arguments).item(), 3)  # 20 pixels: 20 (1 / 4 - log 2)
    -8.863
    """
    q, problem = _checked(q, logits, filters, kernel_weights, compatibility)
    return _energy(q, problem) - entropy(q)


def _checked(q: Tensor, logits: Tensor, *others: Any) -> tuple[Tensor, Problem]:
    """Marginals and their problem, in one dtype: that of `Problem`."""
    problem = Problem(logits, *others).bounded()
    if q.shape != logits.shape:
        raise ValueError(f"q: expected the shape of the logits, {tuple(logits.shape)}, got {tuple(q.shape)}")
    return q.to(problem.unary.dtype), problem


def _energy(q: Tensor, problem: Problem) -> Tensor:
    return energy_of(q, problem.unary, problem(q), problem.common)


def energy_of(q: Tensor, unary: Tensor, updated: Tensor, common: Tensor | None) -> Tensor:
    """E(Q) = - 1/2 <Q, U + Qu> by image, from Qu = U - P Q and `Problem.common`, (B, L, *S) each. -> (B,) float64"""
    energy = -0.5 * total(q * (unary + updated))
    return energy if common is None else energy - total(q * common)


def entropy(q: Tensor) -> Tensor:
    """H(Q) = - sum_i sum_l Q_i(l) log Q_i(l) for each image of (B, L, *S). -> (B,) float64"""
    return -total(q * q.clamp(min=VANISHING).log())


def total(values: Tensor) -> Tensor:
    """The sum over everything but the batch, (B, ...) -> (B,), in float64: millions of terms in float32 lose digits."""
    return values.flatten(1).sum(dim=1, dtype=torch.float64)
