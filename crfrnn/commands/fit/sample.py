"""One labelled image, in the size in which parameters are searched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crfrnn.commands.metrics import class_counts, confusion_matrix
from crfrnn.data.datasets import VOID
from crfrnn.data.predictions import scaled_planes
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.occurring import occurring
from crfrnn.inference.problem import IMPOSSIBLE
from crfrnn.inference.recurrence import mean_field
from crfrnn.parameters import CRFParameters

PIXELS, VOXELS = 50_000, 200_000  # of an image and of a volume during the search; kernels are scaled with them
BISECTIONS = 60  # of an interval, to the last bit
RARE = 2e-2  # the classes left out of the search hold less than this share of the best one at every pixel
UNLIKELIEST = -1e4  # the logarithm of an impossible class: float16 holds it


@dataclass(frozen=True)
class Sample:
    """`guide` (1, C, h, w); `unary` (1, l, h, w) float16, the logits of the classes `labels` (l,) of `classes`;
    `truth` (h, w); `factor`, for each axis, is how many pixels are to a unit of positions, fewer than in the image
    itself. In the image's own size `pixels` (L,) are of each class, and `void` do not count. Volumes have three axes.
    """

    guide: Tensor
    unary: Tensor
    labels: Tensor
    truth: Tensor
    classes: int
    factor: tuple[float, ...]
    pixels: Tensor
    void: int

    @classmethod
    def of(cls, guide: Tensor, unary: Tensor, truth: Tensor, per_unit: tuple[float, ...] | None = None) -> "Sample":
        """From guide (1, C, *S), U (1, L, *S) and class numbers (*S), so many pixels to a unit of positions."""
        size, unary = tuple(truth.shape), unary.clamp(min=IMPOSSIBLE)
        per_unit = per_unit or (1.0,) * len(size)
        sure = truth[truth != VOID].long()
        pixels, void = torch.bincount(sure, minlength=unary.shape[1]), truth.numel() - sure.numel()
        factors = _factors(size, per_unit, PIXELS if len(size) < 3 else VOXELS)
        if min(factors) < 1:
            smaller = tuple(max(1, round(length * factor)) for length, factor in zip(size, factors, strict=True))
            whole = not guide.is_floating_point() or not bool(guide.frac().any())
            guide, unary = scaled_planes(guide.float(), smaller), scaled_planes(unary, smaller)
            guide = guide.round() if whole else guide  # colours stay colours, and are not taken for fractions of them
            truth = interpolate(truth[None, None].float(), smaller, mode="nearest-exact")[0, 0].to(truth.dtype)
        logs = torch.log_softmax(unary, dim=1)
        labels = occurring(logs, RARE)
        logs = logs[:, labels].clamp(min=UNLIKELIEST).half()
        per_unit = tuple(pixels * factor for pixels, factor in zip(per_unit, factors, strict=True))
        return cls(guide, logs, labels, truth, unary.shape[1], per_unit, pixels, void)

    def filters(self, parameters: CRFParameters) -> list[GaussianFilter]:
        """The kernels, prepared for this image."""
        return parameters.scaled(self.factor).prepare(self.guide)

    def seen(self, least: float) -> list[int]:
        """The classes whose probability is at least so high somewhere."""
        return self.labels[torch.softmax(self.unary[0].float(), dim=0).flatten(1).amax(dim=1) >= least].tolist()

    def alone(self) -> Tensor:
        """(3, L), the `class_counts` of the network alone."""
        return self._counted(self.unary)

    def counts(self, parameters: CRFParameters, filters: list[GaussianFilter] | None = None) -> Tensor:
        """(3, L), the `class_counts` with a CRF; `filters` where they have been prepared."""
        weights = parameters.kernel_weights(self.classes)
        weights = weights[:, self.labels] if weights.shape[1] > 1 else weights
        potts = 1 - torch.eye(len(self.labels))
        logits = self.unary.float() / parameters.temperature
        with torch.no_grad():
            filters = filters or self.filters(parameters)
            return self._counted(mean_field(logits, filters, weights, potts, parameters.iterations))

    def _counted(self, logits: Tensor) -> Tensor:
        # torch's argmax over the first axis takes five times as long as its max
        return class_counts(confusion_matrix(self.labels[logits[0].max(0).indices], self.truth, self.classes))


def _factors(size: Sequence[int], per_unit: Sequence[float], most: int) -> list[float]:
    """By which each axis shrinks, so that at most so many pixels are left: first those along which they lie closest."""

    def shrunk(left: float) -> list[float]:
        return [min(1.0, left / pixels) for pixels in per_unit]

    def room(factors: Sequence[float]) -> float:
        return most / math.prod(length * factor for length, factor in zip(size, factors, strict=True))

    low, high = min(per_unit) * 1e-9, max(per_unit)
    if room(shrunk(high)) >= 1:
        return shrunk(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if room(shrunk(middle)) >= 1 else (low, middle)
    return shrunk(low)
