"""A Gaussian on a regular grid, one axis at a time: exact up to the truncation of its tails.

The kernel factorises, exp(-|p_i - p_j|^2 / 2 theta^2) = prod over the axes of exp(-(p - q)^2 / 2 theta^2),
so a D-dimensional sum is D one-dimensional ones. Outside the grid there is nothing to sum.
"""

import math

import torch
from torch import Tensor

REACH = 3.3  # bandwidths kept on each side: the lost tail is erfc(3.3 / sqrt 2) < 0.1 % of the mass


def taps(theta: float, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(-k^2 / 2 theta^2) for k = 0..radius; no farther than the axis is long."""
    radius = min(math.ceil(REACH * theta), max(size - 1, 0))
    offsets = torch.arange(radius + 1, dtype=torch.float64, device=device)
    return torch.exp(-0.5 * (offsets / theta).square()).to(dtype)


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis (in pixels)."""

    def __init__(self, shape: tuple[int, ...], thetas: tuple[float, ...], dtype: torch.dtype, device: torch.device):
        self.shape = shape
        self.taps = [taps(theta, size, dtype, device) for theta, size in zip(thetas, shape, strict=True)]

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N). K is symmetric, so `transposed` changes nothing."""
        del transposed
        out = values.reshape(*values.shape[:2], *self.shape)
        for axis, weights in enumerate(self.taps):
            out = _convolve(out, weights, axis + 2)
        return out.reshape(values.shape)


def _convolve(values: Tensor, weights: Tensor, axis: int) -> Tensor:
    size = values.shape[axis]
    out = values * weights[0]
    for k in range(1, min(weights.numel(), size)):
        near, far = values.narrow(axis, 0, size - k), values.narrow(axis, k, size - k)
        pad = torch.zeros_like(values.narrow(axis, 0, k))
        out = out + weights[k] * (torch.cat([far, pad], dim=axis) + torch.cat([pad, near], dim=axis))
    return out
