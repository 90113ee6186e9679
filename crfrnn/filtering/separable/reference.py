"""A Gaussian on a regular grid, one axis at a time, in plain torch.

The kernel factorises, exp(-|p_i - p_j|^2 / 2 theta^2) = prod over the axes of exp(-(p - q)^2 / 2 theta^2), so a
D-dimensional sum is D one-dimensional ones. `bands.py` says what is done along an axis; this file does it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from crfrnn.filtering.separable.bands import Band, derivative_bands, gaussian_bands, grid_diagonal


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis (in pixels), normalised.

    Bandwidths in a tensor (D,) get a gradient; they go with the normalization "none".
    """

    features = form = None

    def __init__(
        self,
        shape: tuple[int, ...],
        thetas: tuple[float, ...] | Tensor,
        normalization: str,
    ):
        self.shape = shape
        self.thetas = thetas
        self.normalization = normalization

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        if values.numel() == 0:
            return values.clone()
        if isinstance(self.thetas, Tensor):
            out = _LearnedSums.apply(values, self.thetas, self.shape)
            assert isinstance(out, Tensor)
            return out
        axes = zip(self.shape, self.thetas, strict=True)
        return apply_axes([gaussian_bands(*axis, self.normalization, transposed) for axis in axes], values, self.shape)

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (1, 1, N)."""
        thetas = self.thetas.tolist() if isinstance(self.thetas, Tensor) else self.thetas
        return torch.from_numpy(grid_diagonal(self.shape, thetas, self.normalization)).view(1, 1, -1)


class _LearnedSums(torch.autograd.Function):
    """The plain sum, which is its own transpose, with a gradient for the bandwidths."""

    @staticmethod
    def forward(ctx, values: Tensor, thetas: Tensor, shape: tuple[int, ...]) -> Tensor:
        axes = list(zip(shape, thetas.tolist(), strict=True))
        ctx.bands = [gaussian_bands(*axis, "none", False) for axis in axes]
        ctx.derivatives = [derivative_bands(*axis) for axis in axes]
        ctx.shape = shape
        ctx.save_for_backward(values, thetas)
        return apply_axes(ctx.bands, values, shape)

    @staticmethod
    def backward(ctx, grad: Tensor):
        values, thetas = ctx.saved_tensors
        of_thetas = []
        for axis, derivative in enumerate(ctx.derivatives):
            bands = [*ctx.bands[:axis], derivative, *ctx.bands[axis + 1 :]]
            of_thetas.append((apply_axes(bands, values, ctx.shape) * grad).sum())
        return apply_axes(ctx.bands, grad, ctx.shape), torch.stack(of_thetas).to(thetas), None


def apply_axes(bands: Sequence[tuple[Band, ...]], values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The bands of each axis, one axis after the other; values (B, C, N)."""
    out = values.reshape(*values.shape[:2], *shape)
    for axis, chain in enumerate(bands):
        for band in chain:
            out = apply_band(band, out, axis + 2)
    return out.reshape(values.shape)


def apply_band(band: Band, values: Tensor, axis: int) -> Tensor:
    """out[..., i, ...] = sum_k weights[i, k] values[..., columns[i, k], ...] along `axis`."""
    columns = torch.from_numpy(band.columns).to(values.device)
    weights = torch.from_numpy(band.weights).to(values)
    trailing = (1,) * (values.dim() - axis - 1)
    terms = [
        weights[:, k].view(-1, *trailing) * values.index_select(axis, columns[:, k]) for k in range(columns.shape[1])
    ]
    return torch.stack(terms).sum(dim=0)
