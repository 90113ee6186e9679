"""What parameters do to images that they were not fitted on: counts for each image, and how sure their sums are.

Counts are (N, 3, L), the `class_counts` of each of N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.metrics import class_iou

RESAMPLES = 2000
FOUND = 0.1  # IoU from which on a class counts as found by the network
HARM = 0.01  # IoU that a class may lose for nothing; what it loses beyond that counts twice


def iou(counts: Tensor) -> Tensor:
    """(L,) of all images together; NaN for a class that does not occur in their truth."""
    return class_iou(*counts.sum(0).double())


def mean_iou(counts: Tensor) -> float:
    """Over the classes that occur in the truth."""
    return iou(counts).nanmean().item()


@dataclass(frozen=True)
class Gain:
    """The difference of two mean IoUs over the same images, and the 95 % interval of a bootstrap over images.

    `chance` is the share of the resampled sets on which the first was not better.
    """

    value: float
    low: float
    high: float
    chance: float

    def __str__(self) -> str:
        return f"{100 * self.value:+.2f} ({100 * self.low:+.2f} to {100 * self.high:+.2f})"


def gain(counts: Tensor, other: Tensor, seed: int = 0) -> Gain:
    """How much better the mean IoU of `counts` is than that of `other`, of the same images.

    The images are drawn again with replacement, the same ones for both: how much the figure would vary with other
    images of the same kind. Each drawn set counts the classes that occur in its truth.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval).

    >>> right, wrong = (torch.tensor([[[n, n], [4, 4], [4, 4]]] * 3) for n in (4, 3))
    >>> str(gain(right, wrong))
    '+40.00 (+40.00 to +40.00)'
    """
    drawn = np.random.default_rng(seed).multinomial(len(counts), [1 / len(counts)] * len(counts), RESAMPLES)
    times = torch.from_numpy(drawn).double()
    differences = (_resampled(counts, times) - _resampled(other, times)).numpy()
    low, high = np.quantile(differences, (0.025, 0.975))
    return Gain(mean_iou(counts) - mean_iou(other), float(low), float(high), float((differences <= 0).mean()))


def _resampled(counts: Tensor, times: Tensor) -> Tensor:
    """(R,) mean IoUs of the images taken so many times each, (R, N)."""
    return class_iou(*torch.tensordot(times, counts.double(), 1).unbind(1)).nanmean(dim=1)


def merit(counts: Tensor, alone: Tensor) -> float:
    """Mean IoU, less what classes lose beyond a point against the network alone.

    Fits are chosen by this: a mean that rises because a rare class is painted over is no gain. Where that happens
    (`painted_over`) it is -1, below anything.
    """
    if painted_over(counts, alone):
        return -1.0
    fitted, before = iou(counts), iou(alone)
    lost = (before - fitted - HARM).clamp_min(0)
    return (fitted.nanmean() - lost.nanmean()).item()


def painted_over(counts: Tensor, alone: Tensor) -> list[int]:
    """The classes that lose more than half of an IoU that was worth something."""
    fitted, before = iou(counts), iou(alone)
    return ((before >= FOUND) & (fitted < before / 2)).nonzero().flatten().tolist()


def table(columns: Mapping[str, Tensor], names: Sequence[str]) -> list[list[str]]:
    """IoU of each class in per cent before, after and the difference: rows of text with the heading first.

    `columns` are IoUs (L,) by name; the first is what the last is compared with.
    """
    every = list(columns.values())
    rows = [["class", *columns, "change"]]
    for number, name in enumerate(names):
        values = [one[number].item() for one in every]
        rows.append([name, *map(_percent, values), _change(values)])
    means = [one.nanmean().item() for one in every]
    return [*rows, ["mean", *map(_percent, means), _change(means)]]


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _change(values: Sequence[float]) -> str:
    change = values[-1] - values[0]
    return "-" if np.isnan(change) else f"{100 * change:+.2f}"
