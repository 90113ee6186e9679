"""Sparsemax: the Euclidean projection onto the simplex, softmax' sparse sister."""

import torch
from torch import Tensor


def sparsemax(values: Tensor) -> Tensor:
    """argmin_q |q - z|^2 over the simplex of dim 1: q = max(z - tau, 0), with tau such that q sums to 1. (B, L, *S)

    Michelot's algorithm: from all labels, take the threshold of those that are left and drop those below it, until
    none is. It ends after at most L rounds, in practice a handful, and sorts nothing. Differentiable: on the labels
    that are left (the support) the gradient loses its mean, elsewhere it is zero.

    Source: Michelot 1986; Martins and Astudillo, "From softmax to sparsemax", ICML 2016.

    >>> sparsemax(torch.tensor([[1.0, 0.8, -1.0]]))
    tensor([[0.6000, 0.4000, 0.0000]])
    """
    values = values - values.detach().amax(dim=1, keepdim=True)  # far from 0 the sums would lose the digits of z
    with torch.no_grad():
        support = torch.ones_like(values, dtype=torch.bool)
        for _ in range(values.shape[1]):
            kept = support & (values > _threshold(values, support))
            if torch.equal(kept, support):
                break
            support = kept
    return torch.where(support, values - _threshold(values, support), 0).clamp(min=0)


def _threshold(values: Tensor, support: Tensor) -> Tensor:
    """tau with sum over the support of (z - tau) = 1."""
    inside = torch.where(support, values, 0).sum(dim=1, keepdim=True)
    return (inside - 1) / support.sum(dim=1, keepdim=True)
