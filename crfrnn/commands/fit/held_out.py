"""What parameters do to images that they were not fitted on: counts for each image, and how sure their sums are.

Counts are (N, 3, L), the `class_counts` of each of N images.
"""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from crfrnn.commands.gain import iou

FOUND = 0.1  # IoU from which on a class counts as found by the network
HARM = 0.01  # IoU that a class may lose for nothing; what it loses beyond that counts twice


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
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _change(values: Sequence[float]) -> str:
    change = values[-1] - values[0]
    return "-" if math.isnan(change) else f"{100 * change:+.2f}"
