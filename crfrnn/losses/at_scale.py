"""What a loss is given, at a part of its size, and the gate: as published, for `DenseCRFLoss` and `DenseEnergyLoss`."""

import math
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from crfrnn.runtime.loading import load

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def at_scale(scale: float, s: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Probabilities (B, L, *S), interpolated linearly, and the others (B, C, *S) by their nearest pixel."""
    if scale == 1 or not s.numel():
        return s, *others
    size = [max(1, math.floor(length * scale)) for length in s.shape[2:]]
    nearest = [None if other is None else interpolate(other, size) for other in others]
    return _linear(s, size), *nearest


def _linear(s: Tensor, size: list[int]) -> Tensor:
    halved = len(size) == 2 and s.numel() and all(2 * a == b for a, b in zip(size, s.shape[2:], strict=True))
    if halved and s.device.type == "cpu":
        return load("crfrnn.losses.halving_cpu", "halve")(s)
    return interpolate(s, size, mode=LINEAR[len(size)], align_corners=False)


def gate_of(s: Tensor, roi: Tensor | None, unlabelled: Tensor) -> Tensor:
    """(B, 1, *S): 1 without a label, else how unsure a pixel is, roi - max S; a number, not a way for gradients."""
    unsure = ((1 if roi is None else roi) - s.detach().amax(dim=1, keepdim=True)).clamp(min=0)
    return unsure.masked_fill(unlabelled, 1)
