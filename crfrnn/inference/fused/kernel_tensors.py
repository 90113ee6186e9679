"""The prepared kernels of a batch in the form that the custom ops of the fused recurrences take."""

from typing import NamedTuple

from torch import Tensor

from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.filtering.operator import Lattice
from crfrnn.inference.problem import Problem


class KernelTensors(NamedTuple):
    """Lists of tensors and numbers, M kernels after each other."""

    lattices: list[Tensor]  # `LatticeTensors` of each; empty tensors for a separable kernel
    thetas: list[float]  # of each axis, then the number of the normalization; zeros for a lattice
    scales: list[Tensor]  # before and after, (B, N); empty for none
    shape: list[int]  # of the grid

    @property
    def count(self) -> int:
        """M."""
        return len(self.scales) // 2

    def tensors(self, m: int) -> list[Tensor]:
        """The lattice of kernel m; empty tensors where it is separable."""
        each = len(self.lattices) // self.count
        return self.lattices[m * each : (m + 1) * each]

    def separable(self, m: int) -> tuple[tuple[float, ...], str]:
        """The bandwidths of kernel m, one for each axis, and its normalization."""
        each = len(self.shape) + 1
        *thetas, number = self.thetas[m * each : (m + 1) * each]
        return tuple(thetas), NORMALIZATIONS[int(number)]

    def scaled_by(self, m: int) -> list[Tensor]:
        """What multiplies the values of kernel m, and its sums; empty for nothing."""
        return self.scales[2 * m : 2 * m + 2]


def kernel_tensors(problem: Problem, each: int) -> KernelTensors:
    """Those of a problem that `choice.fused` accepts; a lattice is so many tensors."""
    lattices: list[Tensor] = []
    thetas: list[float] = []
    scales: list[Tensor] = []
    shape, nothing = list(problem.scores.shape[2:]), problem.kernel_weights.new_empty(0)
    for gaussian in problem.filters:
        form = gaussian.operator.form
        assert form is not None, "`choice.fused` accepts no such filter"
        if isinstance(form, Lattice):
            lattices += form.tensors
            thetas += [0.0] * (len(shape) + 1)
        else:
            lattices += [nothing] * each
            thetas += [*form.thetas, float(NORMALIZATIONS.index(form.normalization))]
        scales += [nothing if s is None else s.detach().flatten(1) for s in (gaussian.before, gaussian.after)]
    return KernelTensors(lattices, thetas, scales, shape)
