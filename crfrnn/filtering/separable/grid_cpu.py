"""The separable filter on the CPU: allocation, threads and torch's custom op around `numba_cpu.py`."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering.feature_gradient import contract
from crfrnn.filtering.operator import Grid
from crfrnn.filtering.separable import numba_cpu
from crfrnn.filtering.separable.bands import Band, derivative_bands, gaussian_bands, grid_diagonal
from crfrnn.runtime import layout, memory, threads
from crfrnn.runtime.custom_ops import CustomOp, like_the_first
from crfrnn.runtime.rows import PAIR

NAMES = {torch.float32: "float32", torch.float64: "float64"}


class Pass(NamedTuple):
    """One banded matrix along one axis of a grid, in the form that the kernel takes."""

    outer: int
    rows: int
    inner: int
    starts: np.ndarray  # (rows / 2,) int64, of two rows each, in ascending order; see `rows.band_rows`
    weights: np.ndarray  # (rows / 2, K, 2)


class Lines(NamedTuple):
    """One banded matrix along an axis, applied line by line: which rows of the coarse grid a line is a sum of."""

    rows: np.ndarray  # (lines, K) uint32
    weights: np.ndarray  # (lines, K)


class Sums(NamedTuple):
    """One that goes the other way, whose lines come one by one: the rows of the coarse grid as sums of lines.

    A row that has lines in several strips is summed in each, the first time as itself, then as a ghost, which is to be
    added to it: `vertices_cpu.py` says why. E sums of up to K lines.
    """

    ends: np.ndarray  # (lines + 1,) int64: after line y those from ends[y] to ends[y + 1] have all they need
    rows: np.ndarray  # (E,) uint32, where they go: ghosts stand behind the rows
    lines: np.ndarray  # (E, K) uint32, modulo K: of so many lines the nodes are kept
    weights: np.ndarray  # (E, K)
    ghosts: np.ndarray  # (n,) uint32
    owners: np.ndarray  # (n,) uint32


def _chain(shape: tuple[int, ...], steps: list[tuple[int, Band]], dtype: str) -> tuple[Pass, ...]:
    """Bands along axes of a grid, one after the other, each for the sizes that those before it leave."""
    sizes = list(shape)
    out = []
    for axis, band in steps:
        outer, inner = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
        starts, weights = _in_pairs(band, sizes[axis])
        sizes[axis] = band.columns.shape[0]
        out.append(Pass(outer, sizes[axis], inner, starts, weights.astype(dtype)))
    return tuple(out)


def _in_pairs(band: Band, size: int) -> tuple[np.ndarray, np.ndarray]:
    """starts (rows / 2,), weights (rows / 2, K, 2): every two rows as one window on the `size` samples."""
    rows, entries = np.nonzero(band.weights)
    columns, pair = band.columns[rows, entries], rows // PAIR
    count = -(-len(band.weights) // PAIR)
    low, high = np.full(count, size - 1), np.zeros(count, int)
    np.minimum.at(low, pair, columns)
    np.maximum.at(high, pair, columns)
    reach = max(1, int((high - low).max()) + 1)
    starts = np.minimum(low, size - reach)
    assert (np.diff(starts) >= 0).all(), "the kernels take the first and the last of some as their limits"
    weights = np.zeros((count, reach, PAIR))
    np.add.at(weights, (pair, columns - starts[pair], rows % PAIR), band.weights[rows, entries])
    return starts, weights


@lru_cache(maxsize=16)
def passes(
    shape: tuple[int, ...],
    thetas: tuple[float, ...],
    normalization: str,
    transposed: bool,
    dtype: str,
    differentiated: int | None = None,
) -> tuple[Pass, ...]:
    """The passes of a whole filter, coarsening first and refining last, so that most of them are small.

    With `differentiated`, an axis, they are those of its derivative with respect to the bandwidth of that axis; it goes
    with the normalization "none".
    """
    bands = [gaussian_bands(size, theta, normalization, transposed) for size, theta in zip(shape, thetas, strict=True)]
    if differentiated is not None:
        bands[differentiated] = derivative_bands(shape[differentiated], thetas[differentiated])
    gather = [(axis, bands[axis][0]) for axis in reversed(range(len(shape))) if len(bands[axis]) > 1]
    refine = [(axis, bands[axis][2]) for axis in range(len(shape)) if len(bands[axis]) > 1]
    return _chain(shape, [*gather, *_gaussians(bands), *refine], dtype)


def _gaussians(bands: Sequence[tuple[Band, ...]]) -> list[tuple[int, Band]]:
    """The one in the middle for each axis: that on the coarse grid, or the only one."""
    return [(axis, band[len(band) // 2]) for axis, band in enumerate(bands)]


class LinePasses(NamedTuple):
    """The passes of a whole filter, divided so that what one line, a row of pixels, needs is done with it."""

    gather: Pass  # along x, from the points of a line to its nodes
    sums: Sums  # along y, from the nodes of the lines to the rows of the coarse grid
    middle: tuple[Pass, ...]  # on the coarse grid
    spread: Lines  # along y, from rows of the coarse grid to the nodes of a line
    refine: Pass  # along x, to the points of that line
    rows: int  # of the coarse grid, without the ghosts; each has as many nodes as a line


@lru_cache(maxsize=16)
def line_passes(
    shape: tuple[int, ...],
    thetas: tuple[float, ...],
    normalization: str,
    transposed: bool,
    strips: tuple[int, ...],
) -> LinePasses:
    """The same passes in another order, float32; `strips` are the lines with which the strips begin.

    A one-dimensional grid is one line; bands that are missing do nothing.
    """
    bands = [gaussian_bands(size, theta, normalization, transposed) for size, theta in zip(shape, thetas, strict=True)]
    if len(shape) == 1:
        shape, bands = (1, *shape), [(_identity(1),), *bands]
    *further, y, x = range(len(shape))
    wide = [axis for axis, band in enumerate(bands) if len(band) > 1]
    along_y = bands[y][0] if y in wide else _identity(shape[y])
    slabs, height = math.prod(shape[:y]), len(along_y.columns)  # planes of a volume, one above the other
    sums = _sums_of_lines(along_y, shape[y], slabs, strips)
    (gather,) = _chain((shape[x],), [(0, bands[x][0])], "float32")
    steps = [(axis, bands[axis][0]) for axis in reversed(further) if axis in wide]
    steps += [step for step in _gaussians(bands) if step[0] in (*further, *wide)]
    steps += [(axis, bands[axis][2]) for axis in further if axis in wide]
    middle = _chain((*shape[:y], height, gather.rows), steps, "float32")
    (refine,) = _chain((gather.rows,), [(0, bands[x][2] if x in wide else _identity(shape[x]))], "float32")
    last = bands[y][-1]
    rows = np.arange(slabs)[:, None, None] * height + last.columns
    weights = np.tile(last.weights, (slabs, 1)).astype(np.float32)
    spread = Lines(rows.reshape(len(weights), -1).astype(np.uint32), weights)
    return LinePasses(gather, sums, middle, spread, refine, slabs * height)


def _sums_of_lines(band: Band, height: int, slabs: int, strips: tuple[int, ...]) -> Sums:
    """A band along an axis of `height` lines, in each of so many slabs, cut where strips begin."""
    rows, entries = np.nonzero(band.weights)
    columns, weights = band.columns[rows, entries], band.weights[rows, entries]
    slab = np.arange(slabs)[:, None]
    rows, lines = (rows + slab * len(band.columns)).ravel(), (columns + slab * height).ravel()
    weights = np.tile(weights, slabs)
    strip = np.searchsorted(strips, lines, side="right")
    each, of_sum = np.unique(np.stack([rows, strip]), axis=1, return_inverse=True)  # by row, then by strip
    of_sum = of_sum.ravel()
    assert len(np.unique(rows)) == slabs * len(band.columns), "a row without lines would never be written"
    is_ghost = np.r_[False, each[0, 1:] == each[0, :-1]]
    target = np.where(is_ghost, slabs * len(band.columns) + np.cumsum(is_ghost) - 1, each[0])
    first, last = np.full(len(target), slabs * height), np.zeros(len(target), int)
    np.minimum.at(first, of_sum, lines)
    np.maximum.at(last, of_sum, lines)
    window = int((last - first).max()) + 1
    shares = np.zeros((len(target), window))
    np.add.at(shares, (of_sum, lines - first[of_sum]), weights)
    which = np.minimum(first[:, None] + np.arange(window), last[:, None]) % window  # none that is yet to come
    order = np.argsort(last, kind="stable")
    return Sums(
        np.searchsorted(last[order], np.arange(slabs * height + 1)),
        target[order].astype(np.uint32),
        which[order].astype(np.uint32),
        shares[order].astype(np.float32),
        target[is_ghost].astype(np.uint32),
        each[0, is_ghost].astype(np.uint32),
    )


def _identity(size: int) -> Band:
    return Band(np.arange(size)[:, None], np.ones((size, 1)))


def planned(
    values: np.ndarray, todo: tuple[Pass, ...], lanes: tuple[int, ...]
) -> tuple[list[list[Callable[[], object]]], np.ndarray]:
    """One image: steps from values (N, C) to the result (N', C), which the passes fill; see `threads.together`."""
    channels = values.shape[1]
    left, steps = list(todo), []
    while left:
        first, *left = left
        last, bands = first, [first.starts, first.weights]
        if left and left[0].inner == 1 and left[0].outer == first.outer * first.rows:
            last, *left = left  # along the rows of the planes whose columns the first one is along
            bands += [last.starts, last.weights]
            shape = first.outer, first.rows, last.rows, channels
            source = values.reshape(first.outer, -1, first.inner, channels)
        else:
            shape = first.outer, first.rows, first.inner * channels
            source = values.reshape(first.outer, -1, first.inner * channels)
        out = memory.empty(shape, values.dtype)
        if last is first:
            kernel, count = numba_cpu.apply_band, numba_cpu.blocks(shape, lanes)
        else:
            kernel, count = numba_cpu.apply_to_planes, numba_cpu.blocks_of_planes(shape)
        steps.append([partial(kernel, source, *bands, out, lanes, *part) for part in threads.parts(count)])
        values = out.reshape(-1, channels)
    return steps, values


def filter_grid(values: Tensor, shape: list[int], thetas: list[float], normalization: str, transposed: bool) -> Tensor:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    for image in range(values.shape[0] if out.numel() else 0):
        todo = passes(tuple(shape), tuple(thetas), normalization, transposed, NAMES[values.dtype])
        _filter_image(values[image], todo, out[image])
    return out


def _filter_image(values: Tensor, todo: tuple[Pass, ...], out: Tensor) -> None:
    """values, out (C, N)."""
    channels = values.shape[0]
    steps, result = planned(layout.to_point_major(values).numpy(), todo, layout.lanes(channels))
    for step in steps:
        threads.together(step)
    layout.to_channel_major(torch.from_numpy(result), channels, out)


def _save(ctx, inputs, output) -> None:
    _, *ctx.arguments, ctx.transposed = inputs


def _backward(ctx, grad: Tensor):
    return _filter.op(grad, *ctx.arguments, not ctx.transposed), None, None, None, None


_filter = CustomOp(
    "separable_filter", filter_grid, fake=like_the_first, device_types="cpu", backward=_backward, save=_save
)


def filter_learned(values: Tensor, thetas: Tensor, shape: list[int]) -> Tensor:
    """The plain sum, which is its own transpose, with the bandwidths in a tensor (D,)."""
    return filter_grid(values, shape, thetas.tolist(), "none", False)


def bandwidth_gradient(values: Tensor, grad: Tensor, thetas: Tensor, shape: list[int]) -> Tensor:
    """values, the gradient of their sums (B, C, N), thetas (D,) -> the gradient of the bandwidths (D,)."""
    out = torch.zeros(len(shape), dtype=torch.float64)
    numbers = tuple(thetas.tolist())
    for image in range(values.shape[0] if values.numel() else 0):
        v, g = contract(values[image], grad[image])
        for axis in range(len(shape)):
            todo = passes(tuple(shape), numbers, "none", False, NAMES[values.dtype], axis)
            _filter_image(v, todo, summed := torch.empty_like(v))
            out[axis] += (summed * g).sum()
    return out.to(thetas.dtype)


_bandwidth_gradient = CustomOp(
    "separable_bandwidth_gradient",
    bandwidth_gradient,
    fake=lambda values, grad, thetas, shape: torch.empty_like(thetas),
    device_types="cpu",
)


def _save_learned(ctx, inputs, output) -> None:
    values, thetas, ctx.shape = inputs
    ctx.save_for_backward(values, thetas)


def _backward_learned(ctx, grad: Tensor):
    values, thetas = ctx.saved_tensors
    of_values = _filter_learned.op(grad, thetas, ctx.shape) if ctx.needs_input_grad[0] else None
    of_thetas = _bandwidth_gradient.op(values, grad, thetas, ctx.shape) if ctx.needs_input_grad[1] else None
    return of_values, of_thetas, None


_filter_learned = CustomOp(
    "separable_filter_learned",
    filter_learned,
    fake=like_the_first,
    device_types="cpu",
    backward=_backward_learned,
    save=_save_learned,
)


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis; same interface as `reference.SeparableOperator`."""

    features = None

    def __init__(self, shape: tuple[int, ...], thetas: tuple[float, ...] | Tensor, normalization: str):
        self.shape = shape
        self.thetas = thetas
        self.normalization = normalization
        self.form = None if isinstance(thetas, Tensor) else Grid("numba", thetas, normalization)

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        if isinstance(self.thetas, Tensor):
            return _filter_learned(values, self.thetas, list(self.shape))
        return _filter(values, list(self.shape), list(self.thetas), self.normalization, transposed)

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (1, 1, N)."""
        thetas = self.thetas.tolist() if isinstance(self.thetas, Tensor) else self.thetas
        return torch.from_numpy(grid_diagonal(self.shape, thetas, self.normalization)).view(1, 1, -1)
