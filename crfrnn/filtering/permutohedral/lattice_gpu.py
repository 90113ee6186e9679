"""The lattice on a GPU: allocation, sorting and torch's custom ops around the kernels of `triton_gpu.py`.

Nothing here waits for the device: how many vertices there are stays there, and what is indexed by vertices has room
for the most there can be, one for each entry. See this folder's README.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering.feature_gradient import DifferentiableSums
from crfrnn.filtering.operator import Lattice
from crfrnn.filtering.permutohedral import triton_gpu
from crfrnn.filtering.permutohedral.keys import KEY_BITS, check_reach, scattered_strides
from crfrnn.filtering.permutohedral.reference import axis_scale, gain
from crfrnn.runtime import layout_gpu
from crfrnn.runtime.custom_ops import CustomOp, each_a_tensor, like_the_first
from crfrnn.runtime.layout_gpu import blocks, padded, programs

MOST_ENTRIES = 2**31 - 2**16  # entries are numbered in 32 bits, with room for the last block's numbers
RUN = 128  # entries that a row sums at most: what a program does for a vertex where a thousand points meet
POINTS = 128  # in a block of the kernels that build
BYTES_TO_BUILD = 88  # for an entry: keys and their order three times over while they are sorted, and what stays
AHEAD = 4  # rows asked for before the first is added


class LatticeTensors(NamedTuple):
    """The lattice of a batch: B images, N points, d dimensions, E = B N (d + 1) entries, R rows of E that there may be.

    A vertex where more than `RUN` entries meet has several rows, one after the other: the owner and its ghosts.
    """

    vertices: Tensor  # (B N, d + 1) int32, the owners of the corners of each point
    weights: Tensor  # (B N, d + 1), their barycentric weights times the gain
    points: Tensor  # (E,) int32, entries in the order of their rows: their points
    sorted_weights: Tensor  # (E,), and their barycentric weights
    starts: Tensor  # (E + 1,) int32, where the entries of each row begin
    ghosts: Tensor  # (E,) int32, how many rows that follow belong to an owner
    following: Tensor  # (d + 1, E) int32, the owner one step along each axis, -1 for none
    previous: Tensor  # (d + 1, E) int32, likewise one step back
    count: Tensor  # (1,) int32, R


def radices(low: Tensor, high: Tensor) -> Tensor:
    """(d,) float64: how many values coordinate k of a vertex or of its neighbours can have, low, high (d,) scaled.

    Coordinate k of a point is the sum of the scaled features from k on, less k times the one before.
    """
    reach = high - low
    later = reach.flip(0).cumsum(0).flip(0)
    own = torch.arange(reach.numel(), dtype=reach.dtype, device=reach.device) * reach.roll(1)
    return torch.ceil(later + own) + 6 * (reach.numel() + 1)


def key_strides(low: Tensor, high: Tensor, batch: int, words: int) -> Tensor:
    """(2, d + 1) int64, on their device: strides of the keys of every vertex within reach of the features; `keys.py`.

    The last is for the image. What one word does not hold begins the second one; what both do not hold is scattered.
    """
    radix = torch.cat([radices(low, high), torch.full_like(low[:1], batch)])
    second = radix.cumprod(0) > 2.0**KEY_BITS if words == 2 else torch.zeros_like(radix, dtype=torch.bool)
    rows = []
    for inside in (~second, second):
        own = torch.where(inside, radix, torch.ones_like(radix)).to(torch.int64)
        rows.append(torch.where(inside, own.cumprod(0) // own, 0))
    in_second = torch.where(second, radix, torch.ones_like(radix)).prod()
    scattered = _scattered(radix.numel(), radix.device)
    return torch.where(in_second <= 2.0**KEY_BITS, torch.stack(rows), scattered)


@functools.cache
def _scattered(count: int, device: torch.device) -> Tensor:
    return torch.from_numpy(scattered_strides(count)).to(device)


@functools.cache
def _scale(dimensions: int, device: torch.device) -> Tensor:
    return axis_scale(dimensions).to(device)


def words_needed(features: Tensor, batch: int) -> int:
    """How many words the keys need, 1 or 2: the only question that the host asks. features (B, d, N).

    Raises ValueError where coordinates are too large to be told apart.
    """
    dimensions = features.shape[1]
    ends = torch.stack([features.amin(dim=(0, 2)), features.amax(dim=(0, 2))]).double().cpu()
    low, high = ends * axis_scale(dimensions)
    check_reach(max(float(-low.min()), float(high.max())), dimensions)
    bits = radices(low, high).log2().sum().item() + math.log2(batch)
    return 1 if bits <= KEY_BITS - 1 else 2


@layout_gpu.on_its_device
def build(features: Tensor, words: int) -> list[Tensor]:
    """features (B, d, N), float32 or float64; words 1 or 2 for a key."""
    lattice = LatticeTensors(*_empty(features, words))
    batch, dimensions, points = features.shape
    entries = batch * points * (dimensions + 1)
    lattice.count.zero_()
    if not entries:
        return list(lattice)
    features = features.detach().contiguous()
    device = features.device
    scale = _scale(dimensions, device)
    ends = features.amin(dim=(0, 2)).double() * scale, features.amax(dim=(0, 2)).double() * scale
    strides = key_strides(*ends, batch, words)
    keys = torch.empty(words, entries, dtype=torch.int64, device=device)
    sizes: dict[str, Any] = {"D": dimensions, "WORDS": words, "BLOCK": POINTS}
    grid = -(-points // POINTS), batch
    exact: dict[str, Any] = {"enable_fp_fusion": False}  # a product and a sum rounded once would move points on faces
    triton_gpu.embed[grid](features, scale, strides, lattice.weights, keys, points, entries, **sizes, **exact)
    keys, order = _sorted(keys)
    new = torch.ones(entries, dtype=torch.bool, device=device)
    torch.any(keys[:, 1:] != keys[:, :-1], dim=0, out=new[1:])
    new[::RUN] = True  # by the entry's number alone, so that no run is longer
    row_of = torch.cumsum(new, 0, dtype=torch.int32) - 1
    torch.add(row_of[-1:], 1, out=lattice.count)

    row_keys = torch.empty_like(keys)
    lattice.starts.fill_(entries)
    lattice.ghosts.zero_()
    lattice.following.fill_(-1)
    lattice.previous.fill_(-1)
    owners = torch.empty(entries, dtype=torch.int32, device=device)
    of_entries = (-(-entries // POINTS),)
    of_rows: dict[str, Any] = {"WORDS": words, "BLOCK": POINTS}
    triton_gpu.fill_rows[of_entries](keys, row_of, lattice.starts, row_keys, entries, **of_rows)
    into = owners, lattice.ghosts, lattice.following, lattice.previous
    steps = entries.bit_length()
    triton_gpu.link[(min(programs(device), *of_entries),)](
        row_keys, strides, *into, lattice.count, entries, steps, **sizes
    )
    into = lattice.vertices, lattice.points, lattice.sorted_weights
    of_corners: dict[str, Any] = {"D": dimensions, "BLOCK": POINTS}
    triton_gpu.number_corners[of_entries](order, row_of, owners, lattice.weights, *into, entries, **of_corners)
    lattice.weights.mul_(gain(dimensions))
    return list(lattice)


def _sorted(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending keys (words, E), the second word the more significant one, and where they stood; stable."""
    if keys.shape[0] == 1:
        low, order = torch.sort(keys[0], stable=True)
        return low.unsqueeze(0), order
    _, order = torch.sort(keys[0], stable=True)
    _, then = torch.sort(keys[1][order], stable=True)
    order = order[then]
    return keys[:, order], order


def _empty(features: Tensor, words: int) -> list[Tensor]:
    del words
    batch, dimensions, points = features.shape
    corners = dimensions + 1
    entries = batch * points * corners

    def whole(*shape: int) -> Tensor:
        return features.new_empty(shape, dtype=torch.int32)

    return [
        whole(batch * points, corners),
        features.new_empty((batch * points, corners)),
        whole(entries),
        features.new_empty((entries,)),
        whole(entries + 1),
        whole(entries),
        whole(corners, entries),
        whole(corners, entries),
        whole(1),
    ]


_build = CustomOp("permutohedral_build_gpu", build, fake=_empty, device_types=layout_gpu.devices())


def splat_and_blur(
    lattice: LatticeTensors, rows: Tensor, weights: Tensor, tables: tuple[Tensor, Tensor], transposed: bool
) -> Tensor:
    """rows (B N, C), weights (E,) in sorted order -> the blurred table (R, C), one of the two given."""
    channels, device = rows.shape[1], rows.device
    axes = range(lattice.vertices.shape[1])
    table, other = tables
    height, width = blocks(channels)
    grid = programs(device), -(-channels // width)
    tile: dict[str, Any] = {"C": channels, "ROWS": height, "WIDTH": width}
    of_splat: dict[str, Any] = {**tile, "ROWS": max(1, height // 2), "AHEAD": AHEAD}
    triton_gpu.splat[grid](rows, lattice.points, weights, lattice.starts, table, lattice.count, **of_splat)
    triton_gpu.add_ghosts[grid](table, lattice.ghosts, lattice.count, **tile)
    for axis in reversed(axes) if transposed else axes:
        neighbours = lattice.following[axis], lattice.previous[axis]
        triton_gpu.blur[grid](table, other, *neighbours, lattice.count, **tile)
        table, other = other, table
    return table


def tables(lattice: LatticeTensors, channels: int, dtype: torch.dtype, number: int) -> list[Tensor]:
    """Uninitialised memory for so many tables of a lattice, (R or more, C), float32 or float64.

    There is room for as many rows as there may be, unless memory is short: then the host asks how many there are.
    """
    rows, device = lattice.points.numel(), lattice.points.device
    each = number * channels * dtype.itemsize
    if rows * each > layout_gpu.spare(rows * each, device):
        rows = int(lattice.count)
        layout_gpu.demand("values", rows * each, device)
    return [torch.empty(rows, channels, dtype=dtype, device=device) for _ in range(number)]


@layout_gpu.on_its_device
def filter_points(values: Tensor, *lattice_and: Any) -> Tensor:
    *tensors, transposed = lattice_and
    lattice = LatticeTensors(*tensors)
    batch, channels, size = values.shape
    if not values.numel():
        return torch.empty_like(values, memory_format=torch.contiguous_format)
    rows = layout_gpu.to_rows(values)
    first, second = tables(lattice, rows.shape[1], lattice.weights.dtype, 2)
    table = splat_and_blur(lattice, rows, lattice.sorted_weights, (first, second), transposed)
    height, width = blocks(padded(channels))
    grid = -(-batch * size // height), -(-rows.shape[1] // width)
    tile: dict[str, Any] = {"C": rows.shape[1], "CORNERS": lattice.vertices.shape[1], "ROWS": height, "WIDTH": width}
    triton_gpu.slice_points[grid](table, lattice.vertices, lattice.weights, rows, batch * size, **tile)
    return layout_gpu.to_planes(rows, batch, channels)


def _save(ctx, inputs, output) -> None:
    _, *lattice, ctx.transposed = inputs
    ctx.save_for_backward(*lattice)


def _backward(ctx, grad: Tensor):
    lattice = ctx.saved_tensors
    return _filter.op(grad, *lattice, not ctx.transposed), *[None] * (len(lattice) + 1)


_filter = CustomOp(
    "permutohedral_filter_gpu",
    filter_points,
    schema=f"(Tensor values, {each_a_tensor(LatticeTensors._fields)}, bool transposed) -> Tensor",
    fake=like_the_first,
    device_types=layout_gpu.devices(),
    backward=_backward,
    save=_save,
)


class LatticeOperator:
    """The lattice of a batch: features (B, d, *S). Same interface as `reference.LatticeOperator`.

    Where the features need a gradient every image has a lattice of its own, as `feature_gradient` takes one at a time.
    """

    def __init__(self, features: Tensor):
        flat = features.flatten(2)
        self.features = flat if flat.requires_grad and torch.is_grad_enabled() else None
        self.images = [] if self.features is None else [LatticeOperator(image.unsqueeze(0)) for image in flat.detach()]
        self.lattices = _lattice(flat) if self.features is None else None
        self.form = None if self.lattices is None else Lattice("triton", self.lattices)

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        if self.lattices is not None:
            return _filter(values, *self.lattices, transposed)
        out = DifferentiableSums.apply(values, self.features, [image.sums for image in self.images], transposed)
        assert isinstance(out, Tensor)
        return out

    def diagonal(self) -> None:
        """Not known: see `reference.LatticeOperator.diagonal`."""

    def sums(self, values: Tensor, transposed: bool) -> Tensor:
        """The one image of a batch: (C, N) -> (C, N)."""
        return self.apply(values.unsqueeze(0), transposed)[0]


def _lattice(flat: Tensor) -> LatticeTensors:
    """features (B, d, N), for which there must be room."""
    batch, dimensions, points = flat.shape
    entries = batch * points * (dimensions + 1)
    if entries >= MOST_ENTRIES:
        most = MOST_ENTRIES // (points * (dimensions + 1))
        split = f"split the batch, at most {most} images at a time" if most else "split the image into tiles"
        raise ValueError(
            f"features: {batch} images of {points} points in {dimensions} dimensions are too many for one lattice"
            f" ({entries:.3g} corners, at most {MOST_ENTRIES:.3g}); {split}"
        )
    corners, number = dimensions + 1, flat.dtype.itemsize
    layout_gpu.demand("features", entries * (BYTES_TO_BUILD + 8 * corners + 2 * number), flat.device)
    # a captured graph and a traced one may not ask the device; two words hold whatever can be held
    words = words_needed(flat, batch) if entries and layout_gpu.readable(flat) else 2
    return LatticeTensors(*_build(flat, words))
