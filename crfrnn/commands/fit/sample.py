"""One labelled image, in the size in which parameters are searched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crfrnn.commands.fit.soft_iou import soft_counts
from crfrnn.data.datasets import VOID
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.occurring import occurring
from crfrnn.inference.problem import IMPOSSIBLE
from crfrnn.inference.recurrence import mean_field
from crfrnn.parameters import CRFParameters

PIXELS = 50_000  # of an image during the search; kernels are scaled with it
RARE = 2e-3  # the classes left out of the search hold less than this share of the best one at every pixel
ITERATIONS = 5  # T during the search
UNLIKELIEST = -1e4  # the logarithm of an impossible class: float16 holds it, and a gradient of 0 times it is 0
SHARPNESS = 8.0  # logits times this are what is counted: close to the labels that they decide


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
        kernels = tuple(kernel.scaled(self.factor) for kernel in parameters.kernels)
        return replace(parameters, kernels=kernels).prepare(self.guide)

    def counts(self, filters: Sequence[GaussianFilter] | None, temperature: Tensor, weights: Tensor) -> Tensor:
        """(3, L), what `soft_counts` gives; `weights` (M, L). Without filters, of the network alone.

        The result's logits are multiplied by the temperature before they are sharpened: otherwise a low one would seem
        good for nothing but surer marginals, whatever the labels.
        """
        logits = self.unary.float() / temperature
        if filters is not None:
            potts = 1 - torch.eye(len(self.labels))
            logits = mean_field(logits, filters, weights[:, self.labels], potts, ITERATIONS)
        q = torch.softmax(SHARPNESS * temperature * logits[0], dim=0)
        everywhere = q.new_zeros(self.classes, *q.shape[1:]).index_copy(0, self.labels, q)
        return soft_counts(everywhere, self.truth)


def weights_of(parameters: CRFParameters, classes: int) -> Tensor:
    """(M, L), the weight of each kernel for each class."""
    weights = parameters.kernel_weights(classes)
    return weights.repeat(1, classes) if weights.shape[1] == 1 else weights
