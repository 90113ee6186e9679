"""A value and its gradient that were computed together, as autograd takes them."""

from typing import Any

import torch
from torch import Tensor


class KnownGradient(torch.autograd.Function):
    """`value` (), whose gradient by `s` is `factor` times `gradient`. Second derivatives there are none."""

    generate_vmap_rule = True

    @staticmethod
    def forward(s: Tensor, value: Tensor, gradient: Tensor, factor: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del s, gradient, factor
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *_, gradient, ctx.factor = inputs
        ctx.save_for_backward(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad * ctx.factor * ctx.saved_tensors[0], None, None, None
