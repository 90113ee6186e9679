"""The gradient of a Gaussian filter with respect to its features, evaluated by filtering.

For out = K v with k_ij = exp(-|f_i - f_j|^2 / 2) and the gradient g of out,

    dL/df_i = sum_j k_ij (f_j - f_i) (g_i . v_j + v_i . g_j)
            = g_i . (K(v f) - f K v)_i + v_i . (K'(g f) - f K' g)_i

where v f are the values times a feature and the dots sum over the channels: the same filter once more, over (d + 1)
times as many channels for v and again for g. With the lattice's K it is the derivative of the *Gaussian* summed with
the lattice's weights, not the derivative of those weights, which is far from it (docs/learning.md has both).

Only the N x N matrix g_i . v_j counts, not the channels that it was made of, and its rank is small: a photo has a few
labels, and they share edges. So the channels are contracted before anything is filtered.

Source: Adams, Baek and Davis 2010; Kraehenbuehl and Koltun, "Parameter learning and convergent inference for dense
random fields", ICML 2013.
"""

from collections.abc import Callable

import torch
from torch import Tensor

CHANNELS = 64  # filtered at a time: bounds the memory

Sums = Callable[[Tensor, bool], Tensor]  # one image: (C, N) -> K or, where the flag says so, its transpose, (C, N)


def contract(values: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """(C, N), (C, N) -> (R, N), (R, N) with the same products grad_i . values_j, and R <= C as small as can be.

    Left out are singular values of that N x N matrix below sqrt(eps) of its norm, 3e-4 in float32.
    """
    channels = values.shape[0]
    of_values, of_grad = _gram(values), _gram(grad)
    if channels == 1 or not torch.isfinite(of_values + of_grad).all():  # NaN is the caller's to see, not to trip over
        return values, grad
    if not of_values.any() or not of_grad.any():
        return values[:0], grad[:0]
    eps = torch.finfo(values.dtype).eps
    squares, basis = torch.linalg.eigh(of_grad)
    root = squares.clamp(min=0).sqrt()
    inside = root > eps * root.max()
    root, basis = root[inside], basis[:, inside]  # grad = basis root (orthonormal rows)
    # so the singular values are those of root basis' values, and their squares the eigenvalues of its Gram matrix
    squares, axes = torch.linalg.eigh((basis * root).T @ of_values @ (basis * root))
    axes = axes[:, squares > eps * squares.clamp(min=0).sum()]
    to_values, to_grad = (basis * root) @ axes, (basis / root) @ axes
    return to_values.T.to(values.dtype) @ values, to_grad.T.to(grad.dtype) @ grad


def _gram(rows: Tensor) -> Tensor:
    """(C, N) -> (C, C) float64: what is small beside the largest must survive being squared."""
    parts = (part.double() for part in rows.split(1 << 16, dim=1))
    return sum((part @ part.T for part in parts), rows.new_zeros(len(rows), len(rows), dtype=torch.float64))


def feature_gradient(sums: Sums, features: Tensor, values: Tensor, grad: Tensor) -> Tensor:
    """One image: dL/df (d, N) for features f (d, N), values (C, N) and the gradient of their sums, (C, N)."""
    values, grad = contract(values, grad)
    if not len(values):
        return torch.zeros_like(features)
    centred = features - features.mean(dim=1, keepdim=True)  # differences of features count: keep their digits
    out = torch.zeros_like(features)
    block = max(1, CHANNELS // (len(features) + 1))
    for v, g in zip(values.split(block), grad.split(block), strict=True):
        for filtered, factor, transposed in ((v, g, False), (g, v, True)):
            moments = torch.cat([filtered.unsqueeze(0), filtered * centred.unsqueeze(1)])  # (d + 1, block, N)
            summed = sums(moments.flatten(0, 1), transposed).view_as(moments)
            out += ((summed[1:] - centred.unsqueeze(1) * summed[0]) * factor).sum(dim=1)
    return out


class DifferentiableSums(torch.autograd.Function):
    """K v by a function that autograd cannot see through, (B, C, N), differentiable in values and features (B, d, N).

    `sums` is one function of (values, transposed) for each image. For implementations without a custom op.
    """

    @staticmethod
    def forward(ctx, values: Tensor, features: Tensor, sums: list[Sums], transposed: bool) -> Tensor:
        ctx.save_for_backward(values, features)
        ctx.sums, ctx.transposed = sums, transposed
        return torch.stack([k(image, transposed) for k, image in zip(sums, values, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        values, features = ctx.saved_tensors
        of_values, of_features = None, None
        if ctx.needs_input_grad[0]:
            of_values = torch.stack([k(image, not ctx.transposed) for k, image in zip(ctx.sums, grad, strict=True)])
        if ctx.needs_input_grad[1]:
            images = zip(ctx.sums, features, values, grad, strict=True)
            of_features = torch.stack([feature_gradient(_turned(k, ctx.transposed), *image) for k, *image in images])
        return of_values, of_features, None, None


def _turned(sums: Sums, transposed: bool) -> Sums:
    """K' in K's place where the filter itself was the transpose."""
    return lambda values, flag: sums(values, flag != transposed)
