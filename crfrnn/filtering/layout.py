"""The layout of values inside the CPU kernels: point-major, (N, C), with C padded to whole vectors.

`lanes` is a tuple whose length is the number of channels that a kernel handles together (see numba_cpu.py).
"""

import math

import numpy as np
import torch
from torch import Tensor

WIDEST = 32
CACHE_LINE = 64  # bytes


def empty(shape: tuple[int, ...], dtype: type | np.dtype = np.float32) -> np.ndarray:
    """Uninitialised memory that begins at a cache line, so that no vector lies across two.

    NumPy asks the system for large pages (torch does not), but returns memory that is 16 bytes off the line.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    skip = -raw.ctypes.data % CACHE_LINE
    return raw[skip : skip + size].view(dtype).reshape(shape)


def lanes(channels: int) -> tuple[int, ...]:
    """The vector tuple for so many channels: its length is 8, 16, 24 or 32."""
    return (0,) * min(WIDEST, -(-max(channels, 1) // 8) * 8)


def padded(channels: int) -> int:
    """Channels in memory: the next multiple of the vector length."""
    width = len(lanes(channels))
    return -(-max(channels, 1) // width) * width


def to_point_major(values: Tensor) -> Tensor:
    """(C, N) -> (N, padded C), zeros in the padding."""
    channels, points = values.shape
    out = torch.zeros(points, padded(channels), dtype=values.dtype)
    out[:, :channels] = values.t()
    return out


def to_channel_major(values: Tensor, channels: int, out: Tensor) -> None:
    """(N, padded C) -> out (C, N)."""
    out.copy_(values[:, :channels].t())
