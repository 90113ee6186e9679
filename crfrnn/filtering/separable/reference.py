"""A Gaussian on a regular grid, one axis at a time, in plain torch.

The kernel factorises, exp(-|p_i - p_j|^2 / 2 theta^2) = prod over the axes of exp(-(p - q)^2 / 2 theta^2), so a
D-dimensional sum is D one-dimensional ones. `bands.py` says what is done along an axis; this file does it.
"""

import torch
from torch import Tensor

from crfrnn.filtering.separable.bands import Band, gaussian_bands, grid_diagonal


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis (in pixels), normalised."""

    def __init__(
        self,
        shape: tuple[int, ...],
        thetas: tuple[float, ...],
        normalization: str,
    ):
        self.shape = shape
        self.thetas = thetas
        self.normalization = normalization

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        if values.numel() == 0:
            return values.clone()
        out = values.reshape(*values.shape[:2], *self.shape)
        for axis, (size, theta) in enumerate(zip(self.shape, self.thetas, strict=True)):
            for band in gaussian_bands(size, theta, self.normalization, transposed):
                out = apply_band(band, out, axis + 2)
        return out.reshape(values.shape)

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (1, 1, N)."""
        return torch.from_numpy(grid_diagonal(self.shape, self.thetas, self.normalization)).view(1, 1, -1)


def apply_band(band: Band, values: Tensor, axis: int) -> Tensor:
    """out[..., i, ...] = sum_k weights[i, k] values[..., columns[i, k], ...] along `axis`."""
    columns = torch.from_numpy(band.columns).to(values.device)
    weights = torch.from_numpy(band.weights).to(values)
    trailing = (1,) * (values.dim() - axis - 1)
    terms = [
        weights[:, k].view(-1, *trailing) * values.index_select(axis, columns[:, k]) for k in range(columns.shape[1])
    ]
    return torch.stack(terms).sum(dim=0)
