"""The dense Gaussian sum, evaluated as it is written: the truth that every other method is tested against.

    (K v)_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j                                              (4.2)

O(N^2) time and O(N) memory: rows are handled in tiles, never as an N x N matrix, also in the backward pass.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crfrnn.runtime.transforms import transformed

TILE_ELEMENTS = 1 << 22  # kernel entries in memory at a time: 16 MiB in float32


def _tile(rows: Tensor, features: Tensor, values: Tensor) -> Tensor:
    """One tile of the sum: rows (B, d, R), features (B, d, N), values (B, C, N) -> (B, C, R)."""
    squared = (rows.unsqueeze(3) - features.unsqueeze(2)).square().sum(dim=1)  # (B, R, N)
    return values @ torch.exp(-0.5 * squared).transpose(1, 2)


class ExactOperator:
    """K for features (B, d, *S), held as the features alone. Differentiable in the features and the values."""

    form = None

    def __init__(self, features: Tensor):
        self.features = features.flatten(2)

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N). K is symmetric, so `transposed` changes nothing."""
        del transposed
        features = self.features
        batch, dimensions, points = features.shape
        rows_per_tile = max(1, TILE_ELEMENTS // max(1, batch * dimensions * points))
        needs_grad = torch.is_grad_enabled() and (values.requires_grad or features.requires_grad)
        tiles = []
        for start in range(0, points, rows_per_tile):
            rows = features[:, :, start : start + rows_per_tile]
            # recompute the tile in the backward pass rather than keep N x N entries; torch.func has no such thing
            if needs_grad and not transformed():
                tiles.append(checkpoint(_tile, rows, features, values, use_reentrant=False))
            else:
                tiles.append(_tile(rows, features, values))
        return torch.cat(tiles, dim=2) if tiles else torch.zeros_like(values)

    def diagonal(self) -> Tensor:
        """k(f_i, f_i) = 1, (B, 1, N)."""
        return torch.ones_like(self.features[:, :1])
