"""Whether the fused recurrence runs a call, and if not, why."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from crfrnn.filtering.dispatch import load as load_module
from crfrnn.filtering.dispatch import preload as preload_filters
from crfrnn.filtering.gaussian_filter import GaussianFilter


def fused(logits: Tensor, filters: Sequence[GaussianFilter]) -> str | None:
    """None where `fused_cpu` takes the call, else the reason why it does not."""
    if logits.device.type != "cpu":
        return f"its kernels run on the CPU, the logits are on {logits.device.type}"
    if logits.dtype != torch.float32:
        return f"it computes in float32, not {logits.dtype}"
    for gaussian in filters:
        if not getattr(gaussian.operator, "fusable", False):
            return f"{type(gaussian.operator).__name__} is filtered by itself"
        if gaussian.dtype != torch.float32:
            return f"a filter was prepared in {gaussian.dtype}"
    return None


def load() -> Callable[..., Tensor]:
    """The fused recurrence; loads its kernels at first use."""
    return load_module("crfrnn.mean_field.fused_cpu", "mean_field")


def load_trajectory() -> Callable[..., Iterator[Tensor]]:
    """The same, keeping the marginals of every iteration."""
    return load_module("crfrnn.mean_field.fused_cpu", "trajectory")


def preload() -> None:
    """See `filtering.dispatch.preload`; a layer does it when it is made, as it may be compiled before it is called."""
    preload_filters()
    load()
