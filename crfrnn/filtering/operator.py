"""What a filter is to those who use it: a sum over the points, and what a fused recurrence needs to take it over."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Kernels = Literal["numba", "triton"]


class Lattice(NamedTuple):
    """A permutohedral lattice: (4.2) as splat, blur and slice."""

    kernels: Kernels  # whose tensors these are
    tensors: Sequence[Tensor]  # `LatticeTensors` of `lattice_cpu.py` or `lattice_gpu.py`, of the whole batch


class Grid(NamedTuple):
    """A separable filter of a regular grid: (4.2) as banded matrices, made of these numbers."""

    kernels: Kernels
    thetas: tuple[float, ...]  # of each axis
    normalization: str


class Operator(Protocol):
    """The plain sum (K v)_i = sum_j k(f_i, f_j) v_j over (B, C, N), and its transpose.

    All but `apply` has a default, for operators that derive from this class.
    """

    features: Tensor | None = None  # (B, d, N), those that get a gradient through `apply`
    form: Lattice | Grid | None = None  # None: filtered by itself, never as a part of a fused recurrence

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor: ...

    def diagonal(self) -> Tensor | None:
        """k(f_i, f_i) as this operator sums it, (B or 1, 1, N); None where it cannot say."""
        return None
