"""The kernels of one image as the fused recurrence applies them: values at the points in, a table to read out.

A kernel ends where its values are small: on the lattice's vertices, or on the coarse grid of a separable filter. The
last step, up to the points, is left to whoever reads the table, as it can be done in passing.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from crfrnn.filtering import threads
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.filtering.permutohedral.lattice_cpu import LatticeTensors, splat_and_blur
from crfrnn.filtering.permutohedral.reference import gain
from crfrnn.filtering.separable.grid_cpu import Pass, passes, run_passes
from crfrnn.mean_field import numba_cpu

SMALLEST_RANGE = 2048  # points worth a thread of their own
MOST_CORNERS = 8  # terms that are cheaper to sum while reading than in a pass of their own
IMAGE_PASSES = 6  # coarsen, convolve and refine, along x and y
LATTICE_TENSORS = len(LatticeTensors._fields)


def over_points(points: int, kernel: Callable[[int, int], object]) -> None:
    """A kernel over all points, on several threads."""
    threads.over_range(kernel, points, SMALLEST_RANGE)


class Source(NamedTuple):
    """Where the messages of one kernel are read: out[p] = factor[p] * sum_k weights[p, k] table[corners[p, k]]."""

    table: np.ndarray  # (n, C)
    corners: np.ndarray  # (N, K) uint32
    weights: np.ndarray  # (N, K)
    factor: np.ndarray  # (N,)


class LatticeKernel:
    """A lattice of one image between its normalisations; what multiplies the input is folded into the splat."""

    def __init__(self, lattice: LatticeTensors, before: np.ndarray | None, after: np.ndarray | None, transposed: bool):
        if transposed:
            before, after = after, before
        self.lattice, self.transposed = lattice, transposed
        self.corners, self.weights = lattice.vertices.numpy().view(np.uint32), lattice.weights.numpy()
        points, corners = self.corners.shape
        scale = np.float32(gain(corners - 1))
        self.factor = np.full(points, scale) if after is None else scale * after
        plain = self.grouped = lattice.grouped.numpy()
        if before is not None:
            members, folded = lattice.points.numpy().view(np.uint32), np.empty_like(plain)
            over_points(plain.size, partial(numba_cpu.scale_entries, plain, before, members, folded))
            self.grouped = folded

    def __call__(self, q: np.ndarray, lanes: tuple[int, ...]) -> Source:
        table = splat_and_blur(self.lattice, self.grouped, q, lanes, self.transposed)
        return Source(table, self.corners, self.weights, self.factor)


class GridKernel:
    """A separable kernel; where its last pass refines the last axis, that is left to whoever reads the table."""

    def __init__(self, shape: tuple[int, ...], todo: tuple[Pass, ...]):
        self.shape, self.todo = shape, todo

    def __call__(self, q: np.ndarray, lanes: tuple[int, ...]) -> Source:
        points, last = math.prod(self.shape), self.todo[-1]
        ones = np.ones(points, np.float32)
        if last.inner > 1 or last.columns.shape[1] > MOST_CORNERS:
            itself = np.arange(points, dtype=np.uint32)[:, None]
            return Source(run_passes(q, self.todo, lanes), itself, ones[:, None], ones)
        table = run_passes(q, self.todo[:-1], lanes)
        starts = np.arange(last.outer, dtype=np.uint32)[:, None, None] * np.uint32(table.shape[0] // last.outer)
        corners = (starts + last.columns).reshape(points, -1)
        return Source(table, corners, np.tile(last.weights, (last.outer, 1)), ones)


class RowPasses(NamedTuple):
    """The passes of a separable kernel on an image, divided so that what one row of pixels needs is done with it."""

    gather: Pass  # along x, from the pixels of a row
    middle: tuple[Pass, ...]  # on the coarse grid
    spread: Pass  # along y, to one row
    refine: Pass  # along x, to the pixels of that row


def row_passes(kernel: "LatticeKernel | GridKernel") -> RowPasses | None:
    """None for a lattice, for a grid that is no image, and for a kernel too narrow for a coarse grid."""
    if isinstance(kernel, GridKernel) and len(kernel.shape) == 2 and len(kernel.todo) == IMAGE_PASSES:
        gather, *middle, spread, refine = kernel.todo
        return RowPasses(gather, tuple(middle), spread, refine)
    return None


def kernels_of(
    image: int, lattices: list[Tensor], thetas: list[float], scales: list[Tensor], shape: list[int], transposed: bool
) -> list[LatticeKernel | GridKernel]:
    def row(tensor: Tensor) -> np.ndarray | None:
        return tensor[image].numpy() if tensor.numel() else None

    kernels: list[LatticeKernel | GridKernel] = []
    for m in range(len(scales) // 2):
        tensors = lattices[m * LATTICE_TENSORS : (m + 1) * LATTICE_TENSORS]
        *widths, normalization = thetas[m * (len(shape) + 1) : (m + 1) * (len(shape) + 1)]
        if tensors[0].numel():
            lattice = LatticeTensors(*(tensor[image] for tensor in tensors))
            kernels.append(LatticeKernel(lattice, row(scales[2 * m]), row(scales[2 * m + 1]), transposed))
        else:
            name = NORMALIZATIONS[int(normalization)]
            kernels.append(GridKernel(tuple(shape), passes(tuple(shape), tuple(widths), name, transposed, "float32")))
    return kernels
