"""The layout of values inside the CPU kernels: point-major, (N, C), with C padded to whole vectors.

`lanes` is a tuple whose length is the number of channels that a kernel handles together (see numba_cpu.py).
"""

import torch
from torch import Tensor

WIDEST = 32


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
