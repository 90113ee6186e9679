"""Temperature and weights around some parameters, from what each of them does by itself.

The coordinates are logarithms, in units of `STEP`: the temperature (weights move against it, so that the CRF's say
against the network's stays), each kernel's weight, and a factor of it for each class. What images come to is measured
at delta = 0 and with one coordinate at -1 and 1; a parabola goes through the three, and what several do is added:

    counts(delta) = counts(0) + sum_k delta_k (plus_k - minus_k) / 2 + delta_k^2 ((plus_k + minus_k) / 2 - counts(0))

Its mean IoU, less `shrinkage` |delta|^2, is climbed one coordinate at a time. Nothing is computed anew for another part
of the images: their counts are sums. So the shrinkage is chosen by cross-validation for the price of additions.

Source: Box and Wilson, "On the Experimental Attainment of Optimum Conditions", 1951 (response surfaces).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crfrnn.commands.fit.candidates import times
from crfrnn.commands.fit.sample import Sample
from crfrnn.commands.metrics import class_iou
from crfrnn.parameters import CRFParameters

STEP = math.log(2)
GRID = torch.linspace(-1, 1, 9, dtype=torch.float64)  # of a coordinate
SWEEPS = 10  # over the coordinates, at most
SEEN = 0.1  # a class whose probability is nowhere so high in an image is not moved there


@dataclass(frozen=True)
class Surface:
    """`counts` (..., 3, L) at delta = 0; `slopes` and `bends` (..., K, 3, L) of the K coordinates."""

    counts: Tensor
    slopes: Tensor
    bends: Tensor

    @classmethod
    def of(cls, moved: Tensor) -> "Surface":
        """From (..., K, 3, 3, L), counts with each coordinate at -1, 0 and 1: of an image each, or their sums."""
        minus, still, plus = moved.double().unbind(-3)
        return cls(still[..., 0, :, :], (plus - minus) / 2, (plus + minus) / 2 - still)

    def at(self, delta: Tensor) -> Tensor:
        """(..., 3, L); delta (K,)."""
        steps = delta.view(-1, 1, 1)
        return self.counts + (steps * self.slopes + steps**2 * self.bends).sum(-3)

    def best(self, shrinkage: float, coordinates: int) -> Tensor:
        """delta (K,), within -1 and 1, where the first so many coordinates may move; of the sums over some images."""
        delta = torch.zeros(len(self.slopes), dtype=torch.float64)
        for _ in range(SWEEPS):
            before = delta.clone()
            for number in range(coordinates):
                delta[number] = 0
                steps = GRID.view(-1, 1, 1)
                counts = self.at(delta) + steps * self.slopes[number] + steps**2 * self.bends[number]
                values = class_iou(*counts.unbind(1)).nanmean(dim=1) - shrinkage * GRID**2
                delta[number] = GRID[values.argmax()]
            if torch.equal(delta, before):
                break
        return delta


def scalars(parameters: CRFParameters) -> int:
    """The coordinates before those of the classes."""
    return 1 + len(parameters.kernels)


def moves(sample: Sample, parameters: CRFParameters, classes: Sequence[int]) -> Tensor:
    """(K, 3, 3, L): what the image comes to with each coordinate at -1, 0 and 1; factors of these classes alone."""
    few, kernels = scalars(parameters), len(parameters.kernels)
    filters = sample.filters(parameters)
    still = sample.counts(parameters, filters)
    moved = still.expand(few + kernels * sample.classes, 3, *still.shape).clone()
    factors = torch.arange(few, len(moved)).view(kernels, -1)[:, sorted({*sample.seen(SEEN)} & {*classes})]
    for number in [*range(few), *factors.flatten().tolist()]:
        for side in (-1, 1):
            delta = torch.zeros(len(moved))
            delta[number] = side
            moved[number, 1 + side] = sample.counts(at(parameters, delta), filters)
    return moved


def at(parameters: CRFParameters, delta: Tensor) -> CRFParameters:
    """The parameters at delta (K,); without factors for the classes where these are all 1."""
    kernels = len(parameters.kernels)
    temperature, weights, factors = (STEP * delta).exp().tensor_split([1, 1 + kernels])
    found = times(parameters, (weights / temperature).tolist())
    found = replace(found, temperature=parameters.temperature * temperature.item())
    if bool((factors != 1).any()):
        found = replace(found, class_weights=factors.view(kernels, -1))
    return found
