"""The separable filter on the CPU: allocation, threads and torch's custom op around `numba_cpu.py`."""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering import layout, threads
from crfrnn.filtering.dispatch import plain_call
from crfrnn.filtering.separable import numba_cpu
from crfrnn.filtering.separable.bands import gaussian_bands


class Pass(NamedTuple):
    """One banded matrix along one axis of a grid, in the form that the kernel takes."""

    outer: int
    rows: int
    inner: int
    columns: np.ndarray  # (rows, K) uint32, times inner
    weights: np.ndarray  # (rows, K)


@lru_cache(maxsize=16)
def passes(
    shape: tuple[int, ...], thetas: tuple[float, ...], normalization: str, transposed: bool, dtype: str
) -> tuple[Pass, ...]:
    """The passes of a whole filter, coarsening first and refining last, so that most of them are small."""
    bands = [gaussian_bands(size, theta, normalization, transposed) for size, theta in zip(shape, thetas, strict=True)]
    order = [(axis, 0) for axis in reversed(range(len(shape)))]
    order += [(axis, 1) for axis in range(len(shape)) if len(bands[axis]) > 1]
    order += [(axis, 2) for axis in range(len(shape)) if len(bands[axis]) > 1]
    sizes = list(shape)
    out = []
    for axis, step in order:
        band = bands[axis][step]
        outer, inner = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
        sizes[axis] = band.columns.shape[0]
        columns = (band.columns * inner).astype(np.uint32)
        out.append(Pass(outer, sizes[axis], inner, columns, band.weights.astype(dtype)))
    return tuple(out)


def run_passes(values: np.ndarray, todo: tuple[Pass, ...], lanes: tuple[int, ...]) -> np.ndarray:
    """One image: values (N, C) through the passes, -> (N', C)."""
    channels = values.shape[1]
    for step in todo:
        source = values.reshape(step.outer, -1, channels)
        out = layout.empty((step.outer, step.rows, step.inner, channels), values.dtype)
        kernel = partial(numba_cpu.apply_band, source, step.columns, step.weights, out, lanes)
        threads.over_range(kernel, step.outer * step.rows)
        values = out.reshape(-1, channels)
    return values


def filter_grid(values: Tensor, shape: list[int], thetas: list[float], normalization: str, transposed: bool) -> Tensor:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    channels = values.shape[1]
    for image in range(values.shape[0] if out.numel() else 0):
        inside = layout.to_point_major(values[image]).numpy()
        todo = passes(tuple(shape), tuple(thetas), normalization, transposed, inside.dtype.name)
        layout.to_channel_major(
            torch.from_numpy(run_passes(inside, todo, layout.lanes(channels))), channels, out[image]
        )
    return out


_filter_op = torch.library.custom_op("crfrnn::separable_filter", filter_grid, mutates_args=(), device_types="cpu")


@_filter_op.register_fake
def _(values: Tensor, shape: list[int], thetas: list[float], normalization: str, transposed: bool) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output) -> None:
    _, *ctx.arguments, ctx.transposed = inputs


def _backward(ctx, grad: Tensor):
    return _filter_op(grad, *ctx.arguments, not ctx.transposed), None, None, None, None


_filter_op.register_autograd(_backward, setup_context=_save)


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis; same interface as `reference.SeparableOperator`."""

    fusable = True  # by mean_field/fused_cpu.py

    def __init__(self, shape: tuple[int, ...], thetas: tuple[float, ...], normalization: str):
        self.shape = shape
        self.thetas = thetas
        self.normalization = normalization

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        run = filter_grid if plain_call(values) else _filter_op
        return run(values, list(self.shape), list(self.thetas), self.normalization, transposed)
