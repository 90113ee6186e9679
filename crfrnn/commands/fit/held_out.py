"""What parameters do to images that they were not fitted on: counts for each image, and how sure their sums are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.metrics import Scores, class_iou, scores

RESAMPLES = 2000
FOUND = 0.1  # IoU from which on a class counts as found by the network
HARM = 0.01  # IoU that a class may lose for nothing; what it loses beyond that counts twice


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
    """How much better the mean IoU of `counts` is than that of `other`; both (N, L, L), a confusion matrix per image.

    The images are drawn again with replacement, the same ones for both: how much the figure would vary with other
    images of the same kind. Each drawn set counts the classes that occur in its truth.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval).

    >>> right, wrong = torch.tensor([[[4, 0], [0, 4]]] * 3), torch.tensor([[[3, 1], [1, 3]]] * 3)
    >>> str(gain(right, wrong))
    '+40.00 (+40.00 to +40.00)'
    """
    drawn = np.random.default_rng(seed).multinomial(len(counts), [1 / len(counts)] * len(counts), RESAMPLES)
    times = torch.from_numpy(drawn).double()
    differences = (_resampled(counts, times) - _resampled(other, times)).numpy()
    low, high = np.quantile(differences, (0.025, 0.975))
    value = scores(counts.sum(0)).mean_iou - scores(other.sum(0)).mean_iou
    return Gain(value, float(low), float(high), float((differences <= 0).mean()))


def _resampled(counts: Tensor, times: Tensor) -> Tensor:
    """(R,) mean IoUs of confusion matrices (N, L, L) taken so many times each, (R, N)."""
    sums = (counts.diagonal(dim1=1, dim2=2), counts.sum(1), counts.sum(2))
    return class_iou(*(times @ of_images.double() for of_images in sums)).nanmean(dim=1)


def merit(counts: Tensor, alone: Tensor) -> float:
    """Mean IoU, less what classes lose beyond a point against the network alone; confusion matrices (N, L, L).

    Fits are chosen by this: a mean that rises because a rare class is painted over is no gain. Where that happens
    (`painted_over`) it is -1, below anything.
    """
    if painted_over(counts, alone):
        return -1.0
    fitted, before = scores(counts.sum(0)), scores(alone.sum(0))
    lost = (before.iou - fitted.iou - HARM).clamp_min(0)
    return fitted.mean_iou - lost.nanmean().item()


def painted_over(counts: Tensor, alone: Tensor) -> list[int]:
    """The classes that lose more than half of an IoU that was worth something; confusion matrices (N, L, L)."""
    fitted, before = scores(counts.sum(0)).iou, scores(alone.sum(0)).iou
    return ((before >= FOUND) & (fitted < before / 2)).nonzero().flatten().tolist()


def table(columns: Mapping[str, Scores], names: Sequence[str]) -> list[list[str]]:
    """IoU of each class in per cent before, after and the difference: rows of text with the heading first.

    The first column of `columns` is what the last is compared with.
    """
    every = list(columns.values())
    rows = [["class", *columns, "change"]]
    for number, name in enumerate(names):
        values = [one.iou[number].item() for one in every]
        rows.append([name, *map(_percent, values), _change(values)])
    means = [one.mean_iou for one in every]
    return [*rows, ["mean", *map(_percent, means), _change(means)]]


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _change(values: Sequence[float]) -> str:
    change = values[-1] - values[0]
    return "-" if np.isnan(change) else f"{100 * change:+.2f}"
