"""Which labels of an image take part: most of a data set's classes occur nowhere in it.

With w the sum of the kernels' weights, a label that is nowhere more probable than a tolerance could not have risen
above about ``tolerance * exp(w * tolerance)`` anywhere (normalisation "after": a message is at most its label's largest
marginal).
"""

import math

import torch
from torch import Tensor


def occurring(highest: Tensor, tolerance: float) -> Tensor:
    """The labels that are somewhere more probable than the tolerance, and at least the two most probable ones, (K,).

    highest (L,): the logarithm of each label's largest probability in the image.

    >>> occurring(torch.tensor([0.9, 1e-5, 1e-4, 1e-6]).log(), 1e-3).tolist()
    [0, 2]
    """
    second = highest.topk(min(2, len(highest))).values[-1].item()
    return (highest >= min(math.log(tolerance), second)).nonzero().flatten()


def highest_logarithms(logits: Tensor) -> Tensor:
    """(L,), the logarithm of each label's largest probability in an image (1, L, *S)."""
    return (logits - torch.logsumexp(logits, dim=1, keepdim=True)).flatten(2).amax(dim=(0, 2))
