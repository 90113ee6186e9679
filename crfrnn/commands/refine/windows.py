"""Scenes that are larger than memory: windows with halos, each refined by itself, of which the cores are kept.

A pixel hears those within reach of its kernels, these hear theirs, and so on; but what comes from afar is divided by a
sum over thousands of pixels in each iteration, and a halo of `REACH` bandwidths, beyond which lie 1.1 % of a Gaussian
in two dimensions, is enough for the labels (docs/rasters.md: measured). Pixels keep the positions that they have in the
whole scene, so that a window's lattice is a part of the whole scene's, vertex for vertex: approximated alike, the same
on both sides of a seam.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering.kernels import Bilateral, Features, Kernel, Spatial
from crfrnn.filtering.points import on_points
from crfrnn.runtime.layout import padded

REACH = 3.0  # bandwidths
ALIGNED = 16  # pixels that cores are multiples of, where blocks are none
LEAST_CORE = 64
WORTH = 0.5  # of what is computed: cores
UNITS = {"": 1, "B": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BEGUN = 6e8  # bytes of a process that has loaded everything and read nothing
HELD = 4096  # bytes for each column of a scene: the labels of a row of windows, where they count, and copies to write


class Window(NamedTuple):
    """Rows and columns of a scene that are kept, and those that are looked at for them."""

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of what is kept."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def core(self) -> tuple[slice, slice]:
        """What is kept, in what is looked at."""
        top, left = self.seen_rows.start, self.seen_columns.start
        return (
            slice(self.rows.start - top, self.rows.stop - top),
            slice(self.columns.start - left, self.columns.stop - left),
        )


def parse_memory(text: str) -> float:
    """Bytes.

    >>> parse_memory("2GB"), parse_memory("1500 MB")
    (2000000000.0, 1500000000.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise ValueError(f"memory: expected a size such as 2GB or 900MB, got {text!r}")
    return float(found[1]) * UNITS[found[2].upper()]


def halo_of(kernels: Sequence[Kernel]) -> tuple[int, int]:
    """Pixels along y and x: `REACH` times the largest bandwidth of positions.

    >>> halo_of([Bilateral(30, 5), Spatial((1.5, 60))])
    (90, 180)
    """
    thetas = [torch.zeros(2)]
    for kernel in kernels:
        if isinstance(kernel, Bilateral | Spatial):
            theta = kernel.theta_alpha if isinstance(kernel, Bilateral) else kernel.theta_gamma
            thetas.append(torch.as_tensor(theta, dtype=torch.float32).detach().expand(2))
    y, x = (REACH * torch.stack(thetas).amax(dim=0)).ceil().int().tolist()
    return y, x


class Plan(NamedTuple):
    """How a scene is divided."""

    windows: list[Window]
    workers: int  # windows at a time
    halo: tuple[int, int]  # pixels along y and x
    core: tuple[int, int]  # the size of the cores, but for the last ones

    def described(self) -> str:
        size, reach = f"{self.core[1]} x {self.core[0]}", " and ".join(dict.fromkeys(map(str, reversed(self.halo))))
        return f"{len(self.windows)} of {size} pixels with a halo of {reach}, {self.workers} at a time"


def planned(
    size: tuple[int, int],
    kernels: Sequence[Kernel],
    labels: int,
    bands: int,
    memory: float,
    most: int,
    blocks: tuple[int, int] = (1, 1),
) -> Plan:
    """For so many bytes beside those of the process, at most so many windows at a time; ValueError where they are too
    few."""
    halo, pixels = halo_of(kernels), max(0.0, memory) / bytes_per_pixel(kernels, labels, bands)
    core, workers = cores_of(size, halo, pixels, blocks, most)
    windows = windows_of(size, core, halo)
    return Plan(windows, min(workers, len(windows)), halo, core)


def windows_of(size: tuple[int, int], core: tuple[int, int], halo: tuple[int, int]) -> list[Window]:
    """Windows, row by row, whose cores, of at most this size, cover a scene.

    >>> [window.seen_columns for window in windows_of((10, 25), (10, 10), (2, 2))]
    [slice(0, 12, None), slice(8, 22, None), slice(18, 25, None)]
    """
    along = []
    for length, step, reach in zip(size, core, halo, strict=True):
        starts = range(0, length, step)
        ends = [min(start + step, length) for start in starts]
        along.append(
            [(slice(s, e), slice(max(0, s - reach), min(e + reach, length))) for s, e in zip(starts, ends, strict=True)]
        )
    return [Window(rows, columns, tall, wide) for (rows, tall), (columns, wide) in product(*along)]


def bytes_per_pixel(kernels: Sequence[Kernel], labels: int, bands: int) -> float:
    """Of a window, at the most: where no two pixels share a vertex of a lattice.

    Corners of a lattice have an index, a weight and a key, and vertices two rows of labels and a place in a table.
    """
    corners = [_features(kernel, bands) + 1 for kernel in kernels if not _separable(kernel)]
    lattices = sum(count * (8 + 4) for count in corners) + max([0, *corners]) * (16 + 8 * padded(labels + 1))
    return lattices + 4 * (5 * padded(labels + 1) + 3 * labels + 4 * (bands + 2))


def _separable(kernel: Kernel) -> bool:
    return isinstance(kernel, Spatial) and kernel.method == "separable"


def _features(kernel: Kernel, bands: int) -> int:
    channels = getattr(kernel, "channels", None)
    if isinstance(kernel, Spatial):
        return 2
    return (len(channels) if channels else bands) + (2 if isinstance(kernel, Bilateral) else 0)


def cores_of(
    size: tuple[int, int], halo: tuple[int, int], pixels: float, blocks: tuple[int, int], most: int
) -> tuple[tuple[int, int], int]:
    """The size of cores, and how many windows at a time, at most so many, together have at most so many pixels.

    Several at a time work better than all threads on one,
    but not where halos become more than the cores. ValueError where the halo leaves no room at all.
    """
    if size[0] * size[1] <= pixels:
        return size, 1
    for workers in (most, 1):
        seen = math.sqrt(pixels / workers)
        room = [min(int(seen) - 2 * reach, length) for length, reach in zip(size, halo, strict=True)]
        if all(side >= min(LEAST_CORE, length) for side, length in zip(room, size, strict=True)):
            share = math.prod(side / min(seen, length) for side, length in zip(room, size, strict=True))
            if workers == 1 or share > WORTH:
                height, width = (_rounded(side, block) for side, block in zip(room, blocks, strict=True))
                return (height, width), workers
    raise ValueError(
        f"memory: leaves room for a window of {int(seen)} x {int(seen)} pixels, but the halo has {max(halo)} on each"
        " side; give more, or a smaller bandwidth of positions"
    )


def _rounded(side: int, block: int) -> int:
    """A little less, so that blocks, or at least a few pixels, are not divided."""
    step = block if side % block <= side / 8 else ALIGNED
    return side - side % step or side


def placed(kernel: Kernel, bands: int) -> Kernel:
    """The same kernel for a guide whose channels are x, y and then the bands."""
    if _separable(kernel):
        return kernel
    if isinstance(kernel, Features):
        channels = range(bands) if kernel.channels is None else kernel.channels
        return replace(kernel, channels=tuple(2 + channel for channel in channels))
    if isinstance(kernel, Bilateral | Spatial):
        name = "theta_alpha" if isinstance(kernel, Bilateral) else "theta_gamma"
        theta = getattr(kernel, name)
        theta = theta.tolist() if isinstance(theta, Tensor) else theta
        kernel = replace(kernel, **{name: tuple(reversed(theta)) if isinstance(theta, Sequence) else theta})
    return on_points(kernel, 2, bands)
