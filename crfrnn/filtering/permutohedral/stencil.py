"""How the lattice is blurred: one stencil for each value of `accuracy`, which is the stencil's radius.

Radius 1 is the blur of Adams, Baek and Davis (2010), among the vertices that points have. The wider ones stand on a
finer lattice and blur through neighbours of those vertices as well; why, and what it brings, is in this folder's
README. (The radius is called the order of the stencil in Kapoor et al., "SKIing on simplices", ICML 2021.)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Stencil(NamedTuple):
    """The weights along one axis, and how fine the lattice is."""

    taps: tuple[float, ...]  # of a vertex itself, of those one step away, two steps away, ...
    variance: float  # of the Gaussian, in units of (d + 1)^2 on the hyperplane
    rings: tuple[int, ...] = ()  # vertices added around the points', ring by ring: those with so many neighbours

    @property
    def mass(self) -> float:
        """The sum of the weights along one axis.

        >>> STENCILS[1].mass
        2.0
        """
        return self.taps[0] + 2 * sum(self.taps[1:])


# The taps and the variance of the wider ones are the ones nearest to the exact filter on photographs in d = 5.
STENCILS: dict[int, Stencil] = {
    1: Stencil(taps=(1.0, 0.5), variance=2 / 3),
    2: Stencil(taps=(1.0, 0.598, 0.12), variance=1.08, rings=(1,)),
    3: Stencil(taps=(1.0, 0.69, 0.228, 0.036), variance=1.467, rings=(1, 4)),
}


def check_accuracy(accuracy: int) -> None:
    """ValueError where there is no such stencil."""
    if isinstance(accuracy, bool) or accuracy not in list(STENCILS):
        raise ValueError(f"accuracy: {accuracy!r} is none of {', '.join(map(str, STENCILS))}")


def axis_scale(dimensions: int, accuracy: int = 1) -> Tensor:
    """Scale of each feature axis, (d,) float64, so that the lattice's blur has unit variance in feature space."""
    k = torch.arange(1, dimensions + 1, dtype=torch.float64)
    return math.sqrt(STENCILS[accuracy].variance) * (dimensions + 1) / torch.sqrt(k * (k + 1))


def gain(dimensions: int, accuracy: int = 1) -> float:
    """Mass of the true Gaussian over the mass of the blur stencil: what makes normalisation "none" right.

    A Gaussian sums to (2 pi)^(d/2) / cell volume over the lattice's vertices, which is
    (2 pi variance)^(d/2) sqrt(d + 1); the stencil along d + 1 directions sums to mass^(d + 1).

    >>> round(gain(5), 3)
    1.374
    """
    taps = STENCILS[accuracy]
    return (2 * math.pi * taps.variance) ** (dimensions / 2) * math.sqrt(dimensions + 1) / taps.mass ** (dimensions + 1)


def classic_share(dimensions: int) -> float:
    """What Kraehenbuehl's code, and all that is made of it, has of the true Gaussian's mass: its gain over ours.

    >>> round(classic_share(5), 4)
    0.7055
    """
    return 1 / (1 + 2.0**-dimensions) / gain(dimensions)
