"""The separable filter on the CPU: allocation, threads and torch's custom op around `numba_cpu.py`."""

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering import layout, threads
from crfrnn.filtering.separable import numba_cpu
from crfrnn.filtering.separable.reference import taps


def convolve_axes(
    values: np.ndarray, shape: tuple[int, ...], axis_taps: list[np.ndarray], spare: np.ndarray, out: np.ndarray
) -> None:
    """One image: values (N, C) on a grid of `shape` -> out (N, C); `spare` (N, C) is overwritten.

    `out` may be `values` itself where it is no longer needed and the grid has at least 2 axes.
    """
    channels = values.shape[1]
    source = values
    # the last result must land in `out`: walk the two buffers so that it does
    for axis in reversed(range(len(shape))):
        target = out if axis % 2 == 0 else spare
        outer = int(np.prod(shape[:axis], dtype=np.int64))
        view = (outer, shape[axis], -1)
        a, b, weights = source.reshape(view), target.reshape(view), axis_taps[axis]
        columns = outer * -(-a.shape[2] // numba_cpu.PIECE)
        threads.over_range(lambda start, stop, a=a, b=b, w=weights: numba_cpu.convolve(a, w, b, start, stop), columns)
        source = target
    assert source.shape == (values.shape[0], channels)


@torch.library.custom_op("crfrnn::separable_filter", mutates_args=(), device_types="cpu")
def _filter_op(values: Tensor, shape: list[int], axis_taps: list[Tensor]) -> Tensor:
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    channels = values.shape[1]
    weights = [t.numpy() for t in axis_taps]
    for image in range(values.shape[0] if values.shape[2] else 0):
        inside = layout.to_point_major(values[image])
        spare, result = torch.empty_like(inside), torch.empty_like(inside)
        convolve_axes(inside.numpy(), tuple(shape), weights, spare.numpy(), result.numpy())
        layout.to_channel_major(result, channels, out[image])
    return out


@_filter_op.register_fake
def _(values: Tensor, shape: list[int], axis_taps: list[Tensor]) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output) -> None:
    _, ctx.shape, taps_of_axes = inputs
    ctx.save_for_backward(*taps_of_axes)


def _backward(ctx, grad: Tensor):
    axis_taps = list(ctx.saved_tensors)
    return _filter_op(grad, ctx.shape, axis_taps), None, [None] * len(axis_taps)


_filter_op.register_autograd(_backward, setup_context=_save)


class SeparableOperator:
    """K on a grid of `shape` with one bandwidth for each axis; same interface as `reference.SeparableOperator`."""

    fusable = True  # by mean_field/fused_cpu.py

    def __init__(self, shape: tuple[int, ...], thetas: tuple[float, ...], dtype: torch.dtype, device: torch.device):
        self.shape = shape
        self.taps = [taps(theta, size, dtype, device) for theta, size in zip(thetas, shape, strict=True)]

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N). K is symmetric, so `transposed` changes nothing."""
        del transposed
        return _filter_op(values, list(self.shape), self.taps)
