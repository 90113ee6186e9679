"""How much better one set of label maps is than another of the same images, and how sure that is.

Counts are (N, 3, L), the `class_counts` of each of N images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.metrics import class_iou

RESAMPLES = 2000


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
