"""Kernels on points that lie anywhere: positions in their own units, such as metres, and attributes measured at them.

A CRF of N points is that of an image of N pixels in one row, whose guide (1, D + C, 1, N) holds positions, then
attributes, and whose kernels are `Features` of them.

*Why bandwidths come from the points.* A kernel that is normalised by its own sum gives a weighted mean over neighbours,
and what that is good for depends on how many there are. Laser scanners have no pixel: 0.05 m lie between points where
a car drove by, 1 m under an aeroplane. So positions count in spacings s, and a neighbourhood of 4 s holds some 50
points of a surface whatever the scanner. Attributes count in what neighbours differ by anyway, d, the noise of the
measurement: a step is an edge where it is larger than that.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering.kernels import Bandwidth, Bilateral, Features, Kernel, Spatial

NEIGHBOURS = 8
SAMPLES = 512  # points whose neighbours are looked for, among all
WINDOW = 512  # of the points before and behind that are looked at first
# chosen on streets by rule (benchmarks/street.py) of three densities, with predictions of three kinds
ALPHA, BETA, GAMMA = 4.0, 1.5, 3.0  # bandwidths, in spacings, differences, spacings
WEIGHT = 8.0
LEAST = 0.05  # of an attribute's standard deviation: the bandwidth where neighbours do not differ at all
FARTHEST = 2.0**18  # bandwidths from the middle: float32 then tells a thirtieth of one


class Surroundings(NamedTuple):
    """What the neighbourhoods of a cloud are like: the spacing s, and d (C,), what neighbours differ by."""

    spacing: float
    differences: Tensor


def centred(values: Tensor) -> Tensor:
    """(C, N) minus the middle of each row's range, float32: what positions of a map have in common is nothing to see.

    >>> centred(torch.tensor([[5654321.25, 5654322.75]], dtype=torch.float64)).tolist()
    [[-0.75, 0.75]]
    """
    values = values.double()
    low, high = values.aminmax(dim=1, keepdim=True)
    return (values - (low + high) / 2).float()


def surroundings(positions: Tensor, attributes: Tensor) -> Surroundings:
    """Of positions (D, N) and attributes (C, N), both `centred`.

    s is the edge of the square that one point has for itself on a surface, sqrt(pi / 8) times the distance r to its 8th
    neighbour, as 8 = pi r^2 / s^2; d is |a_i - a_j| among those 8. Both are medians over a sample of the points.

    Raises ValueError where all points are at one place.
    """
    axis, order = along_the_longest(positions)
    places, known = positions[:, order], attributes[:, order]
    radii, differences = [], []
    for number in torch.linspace(0, len(order) - 1, min(SAMPLES, len(order))).long().tolist():
        near, squares = _nearest(places, places[axis], number)
        if len(near):
            radii.append((squares[-1] * math.pi / len(near)).sqrt())
            differences.append((known[:, near] - known[:, number, None]).abs())
    if not radii:
        raise ValueError("positions: all points are at the same place, and give no bandwidth; say kernels=")
    return Surroundings(torch.stack(radii).median().item(), torch.cat(differences, dim=1).median(dim=1).values)


def along_the_longest(positions: Tensor) -> tuple[int, Tensor]:
    """Of points (D, N) the axis of the largest extent, and their order (N,) along it."""
    low, high = positions.aminmax(dim=1)
    axis = int((high - low).argmax())
    return axis, positions[axis].argsort(stable=True)


def _nearest(places: Tensor, axis: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The nearest points elsewhere and the squares of their distances, from near to far, at most `NEIGHBOURS`.

    Places (D, N) are in the order of an axis (N,). A window of it is looked at, which grows until all that are as near
    as those found must be in it.
    """
    half = WINDOW
    while True:
        first, last = max(0, number - half), min(len(axis), number + half + 1) - 1
        squares = (places[:, first : last + 1] - places[:, number, None]).square_().sum(dim=0)
        squares[squares == 0] = math.inf  # itself, and echoes at the same place
        nearest = squares.topk(min(NEIGHBOURS, len(squares)), largest=False)
        there = nearest.values.isfinite()
        edges = [axis[number] - axis[first]] * (first > 0) + [axis[last] - axis[number]] * (last < len(axis) - 1)
        if not edges or (there.all() and nearest.values[-1].sqrt() <= min(edges)):
            return first + nearest.indices[there], nearest.values[there]
        half *= 4


def kernels_for(positions: Tensor, attributes: Tensor) -> tuple[Bilateral | Spatial, ...]:
    """The default for positions (D, N) and attributes (C, N), both `centred`; see the head of this file."""
    spacing, differences = surroundings(positions, attributes)
    if not len(attributes):
        return (Spatial(_rounded(GAMMA * spacing), weight=WEIGHT),)
    deviations = attributes.std(dim=1, correction=0)
    thetas = torch.maximum(BETA * differences, LEAST * deviations) * math.sqrt(len(attributes))
    theta_beta = tuple(_rounded(theta) or 1.0 for theta in thetas.tolist())  # an attribute may be constant
    return (Bilateral(_rounded(ALPHA * spacing), theta_beta, weight=WEIGHT),)


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")


def on_points(kernel: Kernel, axes: int, attributes: int) -> Features:
    """The same kernel on a guide whose channels are the positions' axes, then the attributes.

    >>> on_points(Spatial(0.3), axes=3, attributes=1).channels
    (0, 1, 2)
    """
    if isinstance(kernel, Features):
        return kernel
    if isinstance(kernel, Spatial):
        method = "permutohedral" if kernel.method == "separable" else kernel.method
        channels, theta = tuple(range(axes)), _joined(("theta_gamma", kernel.theta_gamma, axes))
        return Features(theta, weight=kernel.weight, method=method, channels=channels)
    if isinstance(kernel, Bilateral):
        if not attributes:
            raise ValueError("kernels: a bilateral kernel needs attributes=; positions alone go to Spatial")
        chosen = tuple(range(attributes)) if kernel.channels is None else kernel.channels
        if max(chosen) >= attributes:
            raise ValueError(f"channels: {max(chosen)} is none of the {attributes} attributes (the first is 0)")
        theta = _joined(("theta_alpha", kernel.theta_alpha, axes), ("theta_beta", kernel.theta_beta, len(chosen)))
        channels = (*range(axes), *(axes + channel for channel in chosen))
        return Features(theta, kernel.weight, kernel.method, kernel.accuracy, channels)
    raise ValueError(f"kernels: a {type(kernel).__name__} knows no points; use Bilateral, Spatial or Features")


def _joined(*parts: tuple[str, Bandwidth, int]) -> tuple[float, ...]:
    """One bandwidth for each channel, from (name, one number or several, how many)."""
    thetas: list[float] = []
    for name, theta, count in parts:
        numbers = theta.detach().flatten().tolist() if isinstance(theta, Tensor) else theta
        several = list(numbers) if isinstance(numbers, Sequence) else [float(numbers)] * count
        several *= count if len(several) == 1 else 1
        if len(several) != count:
            raise ValueError(f"{name}: {len(several)} bandwidths for {count} {_counted(name)}")
        thetas += several
    return tuple(thetas)


def _counted(name: str) -> str:
    return "attributes" if name == "theta_beta" else "axes"


def check_extent(guide: Tensor, kernels: Sequence[Features]) -> None:
    """ValueError where a guide (D + C, 1, N), `centred`, reaches too far for a kernel in float32."""
    for kernel in kernels:
        farthest = kernel.features(guide.abs().amax(dim=2, keepdim=True)[None]).flatten()
        reach = farthest.max().item()
        if reach > FARTHEST:
            number = int(farthest.argmax())
            channel = number if kernel.channels is None else kernel.channels[number]
            raise ValueError(
                f"positions: column {channel} (attributes follow) reaches {reach:.3g} bandwidths from its middle, more"
                f" than the {FARTHEST:.3g} that float32 tells apart; is there a stray point? Else use larger bandwidths"
            )
