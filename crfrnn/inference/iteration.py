"""One mean-field iteration as a stack of CNN layers (section 4, Algorithm 1 of Zheng et al. 2015).

Logits U and marginals Q are (B, L, *S); `filters` are M prepared Gaussian kernels; `kernel_weights` is (M, L, L)
for weights between all labels, (M, L) for one weight for each class, (M, 1) for one for each kernel; `compatibility`
is mu, (L, L), a penalty: mu(l, l') is what label l pays for a neighbour with label l'.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter


def message_passing(filters: Sequence[GaussianFilter], q: Tensor) -> list[Tensor]:
    """Qm_i(l) = sum_j k_m(f_i, f_j) Q_j(l)                                                        (4.2)"""
    return [gaussian(q) for gaussian in filters]


def weighting(messages: Sequence[Tensor], kernel_weights: Tensor) -> Tensor:
    """Qw_i(l) = sum_m w_m(l) Qm_i(l), a 1x1 convolution                                           (4.3)"""
    if kernel_weights.dim() == 3:
        pairs = zip(kernel_weights, messages, strict=True)
        return sum((mix_labels(w, message) for w, message in pairs), torch.zeros_like(messages[0]))
    columns = kernel_weights.view(*kernel_weights.shape, *(1,) * (messages[0].dim() - 2))
    return sum((w * message for w, message in zip(columns, messages, strict=True)), torch.zeros_like(messages[0]))


def compatibility_transform(weighted: Tensor, compatibility: Tensor) -> Tensor:
    """Qc_i(l) = sum_l' mu(l, l') Qw_i(l'), another 1x1 convolution                                (4.4)"""
    return mix_labels(compatibility, weighted)


def adding_unary(logits: Tensor, penalty: Tensor) -> Tensor:
    """Qu_i(l) = U_i(l) - Qc_i(l)                                                                  (4.5)"""
    return logits - penalty


def normalization(logits: Tensor) -> Tensor:
    """Q_i = softmax_l Qu_i; also the initialisation, with U                                       (4.6)"""
    return torch.softmax(logits, dim=1)


def iteration(
    logits: Tensor,
    q: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
) -> Tensor:
    """One iteration from marginals Q to the next iteration's logits Qu, whose softmax is the next Q."""
    messages = message_passing(filters, q)
    weighted = weighting(messages, kernel_weights)
    penalty = compatibility_transform(weighted, compatibility)
    return adding_unary(logits, penalty)


def mix_labels(matrix: Tensor, values: Tensor) -> Tensor:
    """(L, L) times (B, L, *S) over the labels."""
    return (matrix @ values.flatten(2)).reshape(values.shape)


def label_transforms(kernel_weights: Tensor, compatibility: Tensor) -> Tensor:
    """A_m = mu W_m (M, L, L), equations (4.3) and (4.4) as one matrix for each kernel: Qc = sum_m A_m Qm."""
    if kernel_weights.dim() == 2:
        kernel_weights = torch.diag_embed(kernel_weights.expand(-1, compatibility.shape[0]))
    return compatibility @ kernel_weights
