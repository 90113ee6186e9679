"""Message passing of all kernels of one image (4.2), cut in two halves so that the pixels are passed over only once.

A pass over the pixels reads the messages of one iteration and splats the marginals of the next; what is in between
happens on the small side of every kernel, on the vertices of a lattice or the coarse grid of a separable filter.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from crfrnn.filtering.permutohedral.lattice_tensors import Blur, LatticeTensors, lattice_gain
from crfrnn.filtering.permutohedral.numba_cpu import add_ghosts
from crfrnn.filtering.separable.grid_cpu import line_passes, planned
from crfrnn.inference.fused import numba_cpu
from crfrnn.inference.fused.kernel_tensors import KernelTensors
from crfrnn.runtime import layout, memory, threads
from crfrnn.runtime.rows import PAIR

LATTICE_TENSORS = len(LatticeTensors._fields)
# what stands in the tuples of `numba_cpu.py` where there is no kernel of a kind: the compiler wants to know its types
_VALUES, _INDICES, _STARTS = np.zeros((0, 8), np.float32), np.zeros((0, 1), np.uint32), np.zeros(0, np.int64)
_ONE_EACH = _VALUES[:, 0].copy(), _VALUES[:, 0].copy()
_NO_LATTICE = (_INDICES, _VALUES, *_ONE_EACH, np.zeros(1, np.int64), _VALUES, _VALUES)
_LINES, _BAND = (_INDICES, _VALUES), (_STARTS, np.zeros((0, 1, PAIR), np.float32))
_NO_GRID = (_VALUES, *_LINES, *_BAND, *_BAND, _STARTS, _INDICES[:, 0].copy(), *_LINES, _VALUES, *_ONE_EACH)


class _Lattice:
    """A lattice of one image between its normalisations, with two tables: one is read while the other is filled."""

    def __init__(
        self,
        tensors: LatticeTensors,
        before: np.ndarray | None,
        after: np.ndarray | None,
        channels: int,
        lanes: tuple[int, ...],
        transposed: bool,
    ):
        if transposed:
            before, after = after, before
        self.blur = Blur(tensors, np.dtype(np.float32), lanes, transposed)
        self.corners, self.weights = tensors.vertices.numpy().view(np.uint32), tensors.weights.numpy()
        points = len(self.corners)
        scale = np.float32(lattice_gain(tensors))
        self.before = np.ones(points, np.float32) if before is None else before
        self.after = np.full(points, scale) if after is None else scale * after
        self.rows = tensors.rows.numpy()
        self.table, self.sums = (memory.empty((int(self.rows[-1]), channels)) for _ in range(2))

    def exchange(self) -> None:
        self.blur(self.sums)
        self.table, self.sums = self.sums, self.table

    def give_back(self) -> None:
        self.sums = self.sums[:0].copy()


class _Grid:
    """A separable kernel of one image, likewise."""

    def __init__(
        self,
        shape: tuple[int, ...],
        thetas: tuple[float, ...],
        name: str,
        before: np.ndarray | None,
        after: np.ndarray | None,
        channels: int,
        lanes: tuple[int, ...],
        transposed: bool,
        strips: tuple[int, ...],
    ):
        if transposed:
            before, after = after, before
        self.before, self.after = (_ONE_EACH[0] if scale is None else scale for scale in (before, after))
        self.passes = line_passes(shape, thetas, name, transposed, strips)
        rows = self.passes.rows + len(self.passes.sums.ghosts)
        self.sums = memory.empty((rows, self.passes.gather.rows * channels))
        self.coarse, self.steps = memory.empty(self.sums.shape) if not self.passes.middle else self.sums[:0], []
        if self.passes.middle:
            inside = self.sums[: self.passes.rows].reshape(-1, channels)
            self.steps, coarse = planned(inside, self.passes.middle, lanes)
            self.coarse = coarse.reshape(-1, self.sums.shape[1])

    def exchange(self) -> None:
        add_ghosts(self.sums, self.passes.sums.ghosts, self.passes.sums.owners)
        if self.steps:
            for step in self.steps:
                threads.together(step)
        else:
            self.coarse, self.sums = self.sums, self.coarse

    def arrays(self) -> tuple[np.ndarray, ...]:
        """In the order of `numba_cpu.Grids`."""
        passes = self.passes
        bands = passes.refine.starts, passes.refine.weights, passes.gather.starts, passes.gather.weights
        return self.coarse, *passes.spread, *bands, *passes.sums[:4], self.sums, self.after, self.before

    def give_back(self) -> None:
        self.sums, self.steps = self.sums[:0].copy(), []


def _scales(kernels: KernelTensors, m: int, image: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What multiplies the values of kernel m and its sums, (N,)."""
    before, after = (s[image].numpy() if s.numel() else None for s in kernels.scaled_by(m))
    return before, after


class MessagePassing:
    """All kernels of one image. `order` are their numbers in the order of the messages: lattices first."""

    def __init__(
        self, image: int, kernels: KernelTensors, labels: int, transposed: bool = False, together: bool = False
    ):
        """For number `image` of a batch; with `together` one number says all of a point (`two_labels_cpu.py`)."""
        size = tuple(kernels.shape)
        self.lanes, channels = ((0,), 1) if together else (layout.lanes(labels), layout.padded(labels))
        self._lattices: list[_Lattice] = []
        self._grids: list[_Grid] = []
        lattices = [m for m in range(kernels.count) if kernels.tensors(m)[0].numel()]
        grids = [m for m in range(kernels.count) if m not in lattices]
        self.order = lattices + grids
        points = int(np.prod(size))
        self.width = size[-1] if grids else layout.line(size)
        bounds = layout.strips(points, layout.line(size))
        strips = range(len(bounds))
        if any(start % self.width for start in bounds[:-1]):  # a line of a grid is never divided
            bounds, strips = [0, points], [0, len(bounds) - 1]
        self._parts = [(*n, *points) for n, points in zip(pairwise(strips), pairwise(bounds), strict=True)]
        for m in lattices:
            lattice = LatticeTensors(*(tensor[image] for tensor in kernels.tensors(m)))
            self._lattices.append(_Lattice(lattice, *_scales(kernels, m, image), channels, self.lanes, transposed))
        lines = tuple(start // self.width for start in bounds[:-1])
        for m in grids:
            scales = _scales(kernels, m, image)
            self._grids.append(_Grid(size, *kernels.separable(m), *scales, channels, self.lanes, transposed, lines))
        windows = [(k.passes.sums.lines.shape[1], k.passes.gather.rows) for k in self._grids]
        sizes = kernels.count, windows, self.width, channels, any(k.before.size for k in self._grids)
        self._buffers = [numba_cpu.buffers(*sizes) for _ in self._parts]

    @property
    def parts(self) -> int:
        """How many parts a pass over the pixels has, each of which may be on another thread."""
        return len(self._parts)

    def over_pixels(self, kernel: Callable[..., object], *arguments: Any, mixing: np.ndarray) -> None:
        """One pass: a kernel of `numba_cpu.py`, which has first arguments of its own, strip by strip."""
        threads.together([partial(kernel, *arguments, *last) for last in self.last_arguments(mixing)])

    def last_arguments(self, mixing: np.ndarray) -> list[tuple[numba_cpu.Kernels, numba_cpu.Part]]:
        """Of such a kernel, for each part of the pixels."""
        kernels = numba_cpu.Kernels(self._lattice_arrays(), self._grid_arrays(), mixing)
        parts = zip(self._buffers, self._parts, strict=True)
        return [(kernels, numba_cpu.Part(buffers, self.lanes, self.width, *part)) for buffers, part in parts]

    def _lattice_arrays(self) -> numba_cpu.Lattices:
        arrays = [(k.corners, k.weights, k.after, k.before, k.rows, k.table, k.sums) for k in self._lattices]
        return numba_cpu.Lattices(len(arrays), *zip(*arrays or [_NO_LATTICE], strict=True))

    def _grid_arrays(self) -> numba_cpu.Grids:
        arrays = [kernel.arrays() for kernel in self._grids]
        return numba_cpu.Grids(len(arrays), *zip(*arrays or [_NO_GRID], strict=True))

    def exchange(self) -> None:
        """From what the pixels have splatted to the messages that they read next; every kernel for itself."""
        threads.together([kernel.exchange for kernel in (*self._lattices, *self._grids)])

    def give_back(self) -> None:
        """The memory that is splatted to: only reading is left."""
        for kernel in (*self._lattices, *self._grids):
            kernel.give_back()
