"""The separable filter on a GPU: allocation and torch's custom op around `triton_gpu.py`."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from crfrnn.filtering.operator import Grid
from crfrnn.filtering.separable import triton_gpu
from crfrnn.filtering.separable.bands import gaussian_bands, grid_diagonal
from crfrnn.runtime import layout_gpu
from crfrnn.runtime.custom_ops import CustomOp, like_the_first

WIDTH = 128  # numbers of a tile along the later axes; where there are fewer, it has more rows
NUMBERS = {torch.float32: tl.float32, torch.float64: tl.float64}


class Pass(NamedTuple):
    """One banded matrix along one axis of a grid whose other axes have the sizes that the passes before it left."""

    outer: int
    size: int
    rows: int
    inner: int
    columns: Tensor  # (rows, K) int32
    weights: Tensor  # (rows, K)


@lru_cache(maxsize=32)
def passes(
    shape: tuple[int, ...],
    thetas: tuple[float, ...],
    normalization: str,
    transposed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Pass, ...]:
    """The passes of a whole filter: to coarse grids first, so that most are small, and the last along the last axis."""
    bands = [gaussian_bands(size, theta, normalization, transposed) for size, theta in zip(shape, thetas, strict=True)]
    axes = range(len(shape))
    steps = [(axis, band) for axis in reversed(axes) for band in bands[axis][:-1]]
    steps += [(axis, bands[axis][-1]) for axis in axes]
    sizes = list(shape)
    out = []
    for axis, band in steps:
        size, sizes[axis] = sizes[axis], band.columns.shape[0]
        columns = torch.from_numpy(band.columns).to(device, torch.int32)
        weights = torch.from_numpy(band.weights).to(device, dtype)
        out.append(Pass(math.prod(sizes[:axis]), size, sizes[axis], math.prod(sizes[axis + 1 :]), columns, weights))
    return tuple(out)


def run_passes(rows: Tensor, batch: int, todo: tuple[Pass, ...], dtype: torch.dtype | None = None) -> Tensor:
    """rows (B N, C) of a batch through the passes, -> (B N', C) in the accumulators' type, or in `dtype` at the end."""
    channels = rows.shape[1]
    for number, step in enumerate(todo):
        depth = step.inner * channels
        width = min(WIDTH, layout_gpu.power_of_two(depth))
        outer, height = batch * step.outer, layout_gpu.TILE // width
        stored = dtype if dtype is not None and number == len(todo) - 1 else step.weights.dtype
        out = torch.empty(outer * step.rows * step.inner, channels, dtype=stored, device=rows.device)
        grid = (-(-outer * step.rows // height) * -(-depth // width),)
        sizes = outer, step.size, step.rows, step.inner, step.columns.shape[1]
        tile: dict[str, Any] = {
            "C": channels,
            "ACCUMULATE": NUMBERS[step.weights.dtype],
            "ROWS": height,
            "WIDTH": width,
        }
        triton_gpu.apply_band[grid](rows, step.columns, step.weights, out, *sizes, **tile)
        rows = out
    return rows


@layout_gpu.on_its_device
def filter_grid(values: Tensor, shape: list[int], thetas: list[float], normalization: str, transposed: bool) -> Tensor:
    batch, channels, _ = values.shape
    if not values.numel():
        return torch.empty_like(values, memory_format=torch.contiguous_format)
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    todo = passes(tuple(shape), tuple(thetas), normalization, transposed, dtype, values.device)
    rows = run_passes(layout_gpu.to_rows(values), batch, todo, values.dtype)
    return layout_gpu.to_planes(rows, batch, channels)


def _save(ctx, inputs, output) -> None:
    _, *ctx.arguments, ctx.transposed = inputs


def _backward(ctx, grad: Tensor):
    return _filter.op(grad, *ctx.arguments, not ctx.transposed), None, None, None, None


_filter = CustomOp(
    "separable_filter_gpu",
    filter_grid,
    fake=like_the_first,
    device_types=layout_gpu.devices(),
    backward=_backward,
    save=_save,
)


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis; same interface as `reference.SeparableOperator`."""

    features = None

    def __init__(self, shape: tuple[int, ...], thetas: tuple[float, ...], normalization: str):
        if isinstance(thetas, Tensor):
            raise ValueError("thetas: the Triton filter gives bandwidths no gradient; use implementation='reference'")
        self.shape = shape
        self.thetas = thetas
        self.normalization = normalization
        self.form = Grid("triton", thetas, normalization)

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        return _filter(values, list(self.shape), list(self.thetas), self.normalization, transposed)

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (1, 1, N)."""
        return torch.from_numpy(grid_diagonal(self.shape, self.thetas, self.normalization)).view(1, 1, -1)
