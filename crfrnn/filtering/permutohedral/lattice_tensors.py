"""What a lattice on the CPU consists of, and its blur."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from crfrnn.filtering.permutohedral import numba_cpu
from crfrnn.filtering.permutohedral.stencil import STENCILS, gain
from crfrnn.runtime import threads

SMALLEST_CHAIN = 16384  # vertices worth a thread of their own: fewer are blurred in less time than it takes to wake it


class LatticeTensors(NamedTuple):
    """The lattices of a batch; B images, N points, d dimensions, R rows, for which there is room V (`lattice_cpu.py`).

    What strips, ghosts and owners are is said in `vertices_cpu.py`.
    """

    vertices: Tensor  # (B, N, d + 1) int32, the rows of the corners of each point
    weights: Tensor  # (B, N, d + 1), their barycentric weights
    ghosts: Tensor  # (B, V) int32, rows of vertices that an earlier strip met too
    owners: Tensor  # (B, V) int32, and the rows where those are
    chains: Tensor  # (B, d + 1, V) int32, the order of the blur along each axis
    rows: Tensor  # (B, MOST_STRIPS + 1) int64, where the rows of each strip begin; from the last one's end on, R
    sizes: Tensor  # (B, d + 3) int64: number of ghosts, length of each chain, accuracy


class Blur:
    """The blur of one image: what the strips have splatted, (R, C), becomes the blurred values, in place.

    All that is the same in every iteration is prepared once. The processor's caches hold little of Python's own memory
    by the time that a kernel returns, so a few lines of it take as long as some thousand vertices.
    """

    def __init__(self, lattice: LatticeTensors, dtype: np.dtype, lanes: tuple[int, ...], transposed: bool):
        count, *lengths, accuracy = lattice.sizes.tolist()
        ghosts = lattice.ghosts.numpy().view(np.uint32)[:count]
        owners = lattice.owners.numpy().view(np.uint32)[:count]
        chains, taps = list(lattice.chains.numpy()), np.array(STENCILS[accuracy].taps, dtype)

        def along(chain: np.ndarray, start: int, stop: int) -> Callable[[np.ndarray], object]:
            if accuracy > 1:
                return lambda values: numba_cpu.blur_wide(values, chain, taps, lanes, start, stop)
            return lambda values: numba_cpu.blur(values, chain, lanes, start, stop)

        def back(start: int, stop: int) -> Callable[[np.ndarray], object]:
            return lambda values: numba_cpu.copy_to_ghosts(values, ghosts, owners, start, stop)

        axes = [(chain, threads.parts(length, SMALLEST_CHAIN)) for chain, length in zip(chains, lengths, strict=True)]
        steps = [[lambda values: numba_cpu.add_ghosts(values, ghosts, owners)]]
        steps += [[along(chain, *part) for part in parts] for chain, parts in (axes[::-1] if transposed else axes)]
        steps.append([back(*part) for part in threads.parts(count, SMALLEST_CHAIN)])
        self._steps = steps

    def __call__(self, values: np.ndarray) -> None:
        for step in self._steps:
            threads.together([partial(task, values) for task in step])


def lattice_gain(lattice: LatticeTensors) -> float:
    """What the sums of one image are multiplied by; see `stencil.gain`."""
    return gain(lattice.vertices.shape[1] - 1, int(lattice.sizes[-1]))
