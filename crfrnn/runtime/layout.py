"""The layout of values inside the CPU kernels: point-major, (N, C), with C padded to whole vectors.

`lanes` is a tuple whose length is the number of channels that a kernel handles together (see rows.py). A `line` is a
run of points that belong together, a row of pixels; a strip is a run of lines that one thread works on.
"""

import torch
from torch import Tensor

from crfrnn.runtime.vectors import WIDEST

POINT_LINE = 1024  # points in a line where there is no image
STRIP = 40_000  # points worth a strip of their own
MOST_STRIPS = 8  # every strip costs some memory and time (see permutohedral/README.md)


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


def line(shape: tuple[int, ...]) -> int:
    """Points in a line of a grid or, with one dimension, of a set of points."""
    return max(1, shape[-1]) if len(shape) > 1 else POINT_LINE


def strips(points: int, line: int) -> list[int]:
    """Where the strips begin, and the end. A function of the size alone, so that sums over strips are always the same.

    >>> strips(375 * 500, 500)
    [0, 46500, 93500, 140500, 187500]
    """
    lines = -(-points // line)
    parts = max(1, min(MOST_STRIPS, points // STRIP, lines))
    return [*(lines * part // parts * line for part in range(parts)), points]
