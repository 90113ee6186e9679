"""Points in an order in which neighbours in memory are neighbours in feature space, cut into tiles with boxes around.

Two tiles whose boxes lie far apart have nothing to say to each other: the kernel between them is at most
exp(-gap^2 / 2). README.md has the bound that follows. Plain torch on any device, without a round trip to the host.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = {
    torch.float32: 1e-6,
    torch.float64: 1e-14,
}  # the largest error that leaving tiles out may cause, see `reach`
KEY_BITS = 62


@dataclass(frozen=True)
class Tiles:
    """The points of a batch of images in tiles of `size`; the last tile is filled up with copies of the last point."""

    size: int
    order: Tensor  # (B, N) int64: which point comes first, second, ...
    place: Tensor  # (B, N) int64, its inverse: where each point went
    features: Tensor  # (B, d, padded N)
    low: Tensor  # (B, d, tiles): the box around each tile
    high: Tensor  # (B, d, tiles)

    @property
    def count(self) -> int:
        return self.low.shape[2]

    @property
    def tensors(self) -> list[Tensor]:
        """All but the size, in the order of the fields."""
        return [self.order, self.place, self.features, self.low, self.high]

    def sort(self, values: Tensor) -> Tensor:
        """(B, C, N) -> (B, C, padded N): in tiles, zeros at the end."""
        padding = self.features.shape[2] - self.order.shape[1]
        return torch.nn.functional.pad(_take(values, self.order), (0, padding))

    def unsort(self, values: Tensor) -> Tensor:
        """(B, C, padded N) -> (B, C, N): in the points' own order."""
        return _take(values, self.place)


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(2, index.unsqueeze(1).expand(-1, values.shape[1], -1))


def morton_keys(features: Tensor) -> Tensor:
    """(B, d, N) -> (B, N) int64: the bits of the coordinates interleaved, the coarsest first (Morton 1966).

    One cell size for all dimensions of an image, as one bandwidth means the same in all of them.

    >>> morton_keys(torch.tensor([[[0.0, 0.0, 3.0, 3.0], [0.0, 3.0, 0.0, 3.0]]])).argsort().tolist()
    [[0, 1, 2, 3]]
    """
    features = features[:, :KEY_BITS]
    dimensions = features.shape[1]
    bits = min(16, KEY_BITS // dimensions)
    above = features - features.amin(dim=2, keepdim=True)
    reach = above.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)
    cells = (above / reach * (2**bits - 1)).long()
    axes = torch.arange(dimensions - 1, -1, -1, device=features.device).view(1, -1, 1)
    keys = torch.zeros_like(cells[:, 0])
    for bit in range(bits):
        keys += ((cells >> bit & 1) << (bit * dimensions + axes)).sum(dim=1)
    return keys


def tile(features: Tensor, size: int) -> Tiles:
    """Sort the points (B, d, N), N > 0, into tiles of `size` points."""
    order = morton_keys(features).argsort(dim=1, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    place = torch.empty_like(order).scatter_(1, order, places)
    inside = _take(features, order)
    padding = -inside.shape[2] % size
    inside = torch.cat([inside, inside[:, :, -1:].expand(-1, -1, padding)], dim=2)
    boxes = inside.unflatten(2, (-1, size))
    return Tiles(size, order, place, inside, boxes.amin(dim=3).contiguous(), boxes.amax(dim=3).contiguous())


def reach(points: int, tolerance: float) -> float:
    """The squared distance from which on tiles are left out, so that what is lost is at most `tolerance`.

    Each of at most N points left out has a kernel below tolerance / N, so |error_i| <= tolerance * max_j |v_j|. The
    row sum is at least 1, the self term, so after normalisation the same bound holds.

    >>> round(reach(500 * 375, 1e-6) ** 0.5, 2)  # bandwidths
    7.21
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance: must lie between 0 and 1, got {tolerance}")
    return 2 * math.log(max(points, 1) / tolerance)
