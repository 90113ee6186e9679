"""The range of a network's predictions, by which `refine` checks them.

On a CPU it takes longer to fetch them than to look at them, as no cache has them yet: so there all is done in one pass.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfrnn.runtime.loading import load

BLOCK = 4096  # pixels whose sums stay in the L1 cache
INFINITY = np.float32(np.inf).view(np.int32)


class Range(NamedTuple):
    """Of predictions (1, L, *S). With NaN or infinity among them a sum is none either; no more is said then."""

    lowest: float  # of all numbers
    highest: Tensor  # (L,), of each label
    least: float  # sum over the labels of a pixel
    most: float


def value_range(values: Tensor) -> Range:
    """values (1, L, *S) float32, at least one number."""
    if values.device.type == "cpu" and values.is_contiguous():
        planes, highest = values.numpy().reshape(values.shape[1], -1), np.empty(values.shape[1], np.float32)
        sums, block = np.empty(2, np.float32), np.empty(BLOCK, np.float32)
        bits = [array.view(np.int32) for array in (planes, highest, sums, block)]
        lowest = load("crfrnn.commands.refine.survey_cpu", "survey")(planes, block, *bits)
        if lowest >= 0 and bits[1].max() < INFINITY:
            return Range(float(np.int32(lowest).view(np.float32)), torch.from_numpy(highest), *sums.tolist())
    least, most = (bound.item() for bound in values.sum(dim=1).aminmax())
    return Range(values.min().item(), values[0].flatten(1).amax(dim=1), least, most)
