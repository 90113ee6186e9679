"""The dense sum on a GPU: sorting into tiles, lists of near tiles, launches, and the gradients (see README.md)."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering.exact import triton_gpu
from crfrnn.filtering.exact.tiles import TOLERANCE, Tiles, reach, tile
from crfrnn.runtime import layout_gpu
from crfrnn.runtime.custom_ops import CustomOp, each_a_tensor, like_the_first

TILE = {torch.float32: 64, torch.float64: 32}  # points; larger ones leave fewer tiles out and need more registers
WIDEST = 64  # channels that one program sums: with 128 there is room for one program only in a multiprocessor
LIST = 1 << 28  # entries of the lists of near tiles in memory at a time: 1 GiB
BOXES = 1024  # boxes that are compared at a time
COPIES = 5  # of the values at a time: sorted, as tf32, what that left over, the sums, and those unsorted


class Near(NamedTuple):
    """Which tiles are near the row tiles first..first + rows, all int32 and on the device."""

    first: int
    rows: int
    lists: Tensor  # (B, rows, tiles), ascending
    counts: Tensor  # (B, rows)
    schedule: Tensor  # (B, rows): those with the longest lists first, so that none of them is last alone


def near_tiles(tiles: Tiles, tolerance: float, entries: int = LIST) -> Iterator[Near]:
    """The lists, for as many row tiles at a time as find room. Nothing is copied to the host."""
    batch, dimensions, count = tiles.low.shape
    threshold = reach(tiles.order.shape[1], tolerance)
    most = max(1, entries // (batch * count))
    sizes: dict[str, Any] = {"D": dimensions, "BLOCK": BOXES}
    for first in range(0, count, most):
        rows = min(most, count - first)
        lists = tiles.order.new_empty((batch, rows, count), dtype=torch.int32)
        counts = tiles.order.new_empty((batch, rows), dtype=torch.int32)
        triton_gpu.list_near[(rows, batch)](
            tiles.low, tiles.high, lists, counts, first, rows, count, threshold, **sizes
        )
        schedule = counts.argsort(dim=1, descending=True, stable=True).to(torch.int32)
        yield Near(first, rows, lists, counts, schedule)


def _block(channels: int) -> int:
    """Channels of one program: a power of two, at least what the matrix units take."""
    return min(WIDEST, max(16, 1 << (channels - 1).bit_length()))


def _pack(tiles: Tiles, values: Tensor) -> Tensor:
    """(B, C, N) -> (B, whole blocks of channels, padded N), sorted, zeros around."""
    channels = values.shape[1]
    return torch.nn.functional.pad(tiles.sort(values), (0, 0, 0, -channels % _block(channels)))


def _precision(values: Tensor) -> str:
    """How the matrix units treat float32. AMD's have no tf32, float64 is exact anyway."""
    return "tf32" if values.dtype != torch.float64 and torch.version.hip is None else "ieee"


def sum_tiles(values: Tensor, tiles: Tiles, tolerance: float) -> Tensor:
    """K v for values (B, C, N), of the features' dtype or of half precision; sums have the features' dtype."""
    block = _block(values.shape[1])
    numbers = values.shape[0] * -(-values.shape[1] // block) * block * tiles.features.shape[2]
    layout_gpu.demand("values", COPIES * numbers * tiles.features.dtype.itemsize, values.device)
    packed = _pack(tiles, values)
    batch, channels, _ = packed.shape
    precision = _precision(packed)
    # three products of tf32 numbers for one of float32: each factor is the sum of two tf32 numbers
    split = packed.dtype == torch.float32 and precision == "tf32"
    rest = packed
    if split:
        top = (packed.view(torch.int32) & -0x2000).view(torch.float32)
        packed, rest = top, packed - top
    out = torch.empty_like(packed, dtype=tiles.features.dtype)
    sizes: dict[str, Any] = {"D": tiles.features.shape[1], "TILE": tiles.size, "CHANNELS": block}
    sizes |= {"SPLIT": split, "PRECISION": precision}
    for near in near_tiles(tiles, tolerance):
        triton_gpu.sum_near[(near.rows, channels // block, batch)](
            tiles.features, packed, rest, near.lists, near.counts, near.schedule, out,
            near.first, near.rows, tiles.count, channels, **sizes,
        )  # fmt: skip
    return tiles.unsort(out[:, : values.shape[1]])


def differentiate_tiles(values: Tensor, gradients: Tensor, tiles: Tiles, tolerance: float) -> Tensor:
    """The gradient (B, d, N) of <g, K v> by the features, for values and gradients (B, C, N)."""
    left, right = _pack(tiles, values), _pack(tiles, gradients)
    dimensions = tiles.features.shape[1]
    sizes: dict[str, Any] = {"D": dimensions, "TILE": tiles.size, "CHANNELS": min(32, _block(values.shape[1]))}
    sizes["AXES"] = 1 << (dimensions - 1).bit_length()
    sizes["PRECISION"] = "tf32x3" if _precision(left) == "tf32" else "ieee"
    out = torch.empty_like(tiles.features)
    for near in near_tiles(tiles, tolerance):
        triton_gpu.sum_near_gradients[(near.rows, left.shape[0])](
            tiles.features, left, right, near.lists, near.counts, near.schedule, out,
            near.first, near.rows, tiles.count, left.shape[1], **sizes,
        )  # fmt: skip
    return tiles.unsort(out)


def filter_points(values: Tensor, features: Tensor, *tiles_and: Any) -> Tensor:
    *tiles, size, tolerance = tiles_and
    del features  # those of the tiles are the same, sorted; these are here to be differentiated
    with torch.cuda.device_of(values):  # Triton launches on the current device
        return sum_tiles(values, Tiles(size, *tiles), tolerance).to(values.dtype)


def filter_points_backward(values: Tensor, gradients: Tensor, *tiles_and: Any) -> Tensor:
    *tiles, size, tolerance = tiles_and
    with torch.cuda.device_of(values):
        return differentiate_tiles(values, gradients, Tiles(size, *tiles), tolerance)


def _backward_fake(values: Tensor, gradients: Tensor, *tiles_and: Any) -> Tensor:
    *tiles, size, _ = tiles_and
    inside = Tiles(size, *tiles).features
    return inside.new_empty((*inside.shape[:2], values.shape[2]))


def _save(ctx, inputs, output) -> None:
    values, _, *tiles, ctx.size, ctx.tolerance = inputs
    ctx.save_for_backward(values, *tiles)


def _backward(ctx, grad: Tensor):
    values, *tiles = ctx.saved_tensors
    by_values = by_features = None
    if ctx.needs_input_grad[0]:  # K is symmetric
        by_values = _filter.op(grad, Tiles(ctx.size, *tiles).features, *tiles, ctx.size, ctx.tolerance)
    if ctx.needs_input_grad[1]:
        by_features = _filter_backward.op(values, grad, *tiles, ctx.size, ctx.tolerance)
    return by_values, by_features, *[None] * (len(tiles) + 2)


_TILES = each_a_tensor(item.name for item in fields(Tiles) if item.name != "size")
_filter = CustomOp(
    "exact_filter",
    filter_points,
    schema=f"(Tensor values, Tensor points, {_TILES}, SymInt size, float tolerance) -> Tensor",
    fake=like_the_first,
    backward=_backward,
    save=_save,
)
_filter_backward = CustomOp(
    "exact_filter_backward",
    filter_points_backward,
    schema=f"(Tensor values, Tensor gradients, {_TILES}, SymInt size, float tolerance) -> Tensor",
    fake=_backward_fake,
)


class ExactOperator:
    """K for features (B, d, *S), exact up to `tolerance` (see `tiles.reach`) and rounding.

    Same interface as `reference.ExactOperator`; differentiable in the features and the values, once in the features.
    Values of half precision are multiplied as such and summed in float32.
    """

    form = None

    def __init__(self, features: Tensor, tolerance: float | None = None):
        self.features = features.flatten(2)
        self.tolerance = TOLERANCE[features.dtype] if tolerance is None else tolerance
        self.tiles = tile(self.features.detach(), TILE[features.dtype]) if self.features.shape[2] else None

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N). K is symmetric, so `transposed` changes nothing."""
        del transposed
        if self.tiles is None or not values.numel():
            return torch.zeros_like(values)
        return _filter(values, self.features, *self.tiles.tensors, self.tiles.size, self.tolerance)

    def diagonal(self) -> Tensor:
        """k(f_i, f_i) = 1, (B, 1, N)."""
        return torch.ones_like(self.features[:, :1])
