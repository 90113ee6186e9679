"""From whatever a segmentation network returns to logits at the size of its image."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

LOGITS_KEYS = ("out", "logits")  # torchvision's name, and that of Hugging Face


def full_size(output: Any, size: Sequence[int]) -> Tensor:
    """The logits (B, L, *size) in the output of a network.

    Args:
        output: a tensor (B, L, h, w), or a dictionary or ModelOutput that has one under ``out`` or ``logits``.
        size: (H, W), the size of the image. Logits of another size are scaled bilinearly, pixels as areas.

    >>> import torch
    >>> full_size({"out": torch.zeros(1, 21, 8, 10)}, (60, 80)).shape
    torch.Size([1, 21, 60, 80])
    """
    if isinstance(output, Mapping):
        key = next((key for key in LOGITS_KEYS if key in output), None)
        if key is None:
            raise ValueError(f"unary: returned a dictionary of {', '.join(map(str, output))}, without out or logits")
        output = output[key]
    if not isinstance(output, Tensor) or output.dim() != 4:
        shape = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"unary: returned {shape}; expected logits (B, L, h, w), or a dictionary with out or logits")
    if output.shape[2:] == tuple(size):
        return output
    return functional.interpolate(output, size=tuple(size), mode="bilinear", align_corners=False)
