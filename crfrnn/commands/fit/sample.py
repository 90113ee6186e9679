"""One labelled image, in the size in which parameters are searched."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crfrnn.commands.metrics import class_counts, confusion_matrix
from crfrnn.data.datasets import VOID
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.occurring import occurring
from crfrnn.inference.problem import IMPOSSIBLE
from crfrnn.inference.recurrence import mean_field
from crfrnn.parameters import CRFParameters

PIXELS = 50_000  # of an image during the search; kernels are scaled with it
RARE = 2e-2  # the classes left out of the search hold less than this share of the best one at every pixel
UNLIKELIEST = -1e4  # the logarithm of an impossible class: float16 holds it


@dataclass(frozen=True)
class Sample:
    """`guide` (1, C, h, w); `unary` (1, l, h, w) float16, the logits of the classes `labels` (l,) of `classes`;
    `truth` (h, w); the size is `factor` times the image's. In the image's own size `pixels` (L,) are of each class,
    and `void` do not count."""

    guide: Tensor
    unary: Tensor
    labels: Tensor
    truth: Tensor
    classes: int
    factor: float
    pixels: Tensor
    void: int

    @classmethod
    def of(cls, guide: Tensor, unary: Tensor, truth: Tensor) -> "Sample":
        """From guide (1, C, H, W), U (1, L, H, W) and class numbers (H, W)."""
        size, unary = tuple(truth.shape), unary.clamp(min=IMPOSSIBLE)
        sure = truth[truth != VOID].long()
        pixels, void = torch.bincount(sure, minlength=unary.shape[1]), truth.numel() - sure.numel()
        factor = min(1.0, math.sqrt(PIXELS / max(1, truth.numel())))
        if factor < 1:
            smaller = tuple(max(1, round(length * factor)) for length in size)
            guide = interpolate(guide.float(), smaller, mode="bilinear", antialias=True)
            unary = interpolate(unary, smaller, mode="bilinear", antialias=True)
            truth = interpolate(truth[None, None].float(), smaller, mode="nearest-exact")[0, 0].to(truth.dtype)
        logs = torch.log_softmax(unary, dim=1)
        labels = occurring(logs, RARE)
        logs = logs[:, labels].clamp(min=UNLIKELIEST).half()
        return cls(guide, logs, labels, truth, unary.shape[1], factor, pixels, void)

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
