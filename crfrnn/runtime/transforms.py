"""Torch's ways to take a function apart, other than its compiler: which work, and what the others are told.

`torch.func` and forward-mode derivatives are kept away from torch's custom ops: in torch 2.13 the first raises an error
there, and tangents vanish without one. The first gets a `torch.autograd.Function`, the others an error.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad

INSTEAD = "torch.compile and torch.export.export take it as it is"
NO_ONNX = f"torch.onnx.export: ONNX has no such filters; export the network without the CRF ({INSTEAD})"
NO_TRACE = f"torch.jit.trace: it cannot record the filters; {INSTEAD}"
NO_SCRIPT = f"torch.jit.script: it cannot compile the layer; {INSTEAD}"
NO_FORWARD_MODE = (
    "forward-mode derivatives (torch.func.jvp, jacfwd, hessian): the filters have reverse-mode ones only; use"
    " torch.func.grad, vjp or jacrev"
)
NO_SECOND_DERIVATIVE = "second derivatives: those of the filters' features and of the fused recurrence are not known"


def check_tracer() -> None:
    """NotImplementedError, with what there is instead, inside tracers that cannot have these ops."""
    exporter: Any = sys.modules.get("torch.onnx._internal.exporter._flags")  # loaded by those who export
    if exporter is not None and exporter._is_onnx_exporting:
        raise NotImplementedError(NO_ONNX)
    if torch._C._is_tracing():
        raise NotImplementedError(NO_ONNX if torch.onnx.is_in_onnx_export() else NO_TRACE)


# Called by torch's compiler and not traced, as in `loading.py`: it takes for certain that nobody exports to ONNX.
check_tracer._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def transformed() -> bool:
    """Whether a transform of `torch.func`, or forward-mode differentiation, is at work."""
    if torch.compiler.is_compiling():  # then the compiler sees to it
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def check_forward_mode(arguments: Iterable[Any]) -> None:
    """NotImplementedError where a tensor among them has a tangent, or `torch.func.jvp` is at work and hides it."""
    hidden = TransformType.Jvp in (level.key() for level in get_interpreter_stack() or ())
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if hidden or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(NO_FORWARD_MODE)


def transformable(
    function: Callable[..., Any], backward: Callable[..., Any] | None, save: Callable[..., None] | None
) -> type[torch.autograd.Function]:
    """The function with its gradient, in the form that `torch.func` takes apart: vmap calls it once for each sample."""

    class Transformable(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            out = function(*arguments)
            return tuple(out) if isinstance(out, list) else out

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if save is not None and any(ctx.needs_input_grad):
                save(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            if backward is None:
                raise NotImplementedError(NO_SECOND_DERIVATIVE)
            out = backward(ctx, *gradients)
            out = out if isinstance(out, tuple) else (out,)
            return tuple(None if isinstance(gradient, list) else gradient for gradient in out)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
            samples = [
                Transformable.apply(*(_sample(a, d, number) for a, d in zip(arguments, in_dims, strict=True)))
                for number in range(info.batch_size)
            ]
            if isinstance(samples[0], tuple):
                return tuple(torch.stack(parts) for parts in zip(*samples, strict=True)), (0,) * len(samples[0])
            return torch.stack(samples), 0

    return Transformable


def _sample(argument: Any, dimension: Any, number: int) -> Any:
    """That of one sample, from an argument that has all of them along a dimension, or a list of such."""
    if isinstance(argument, list):
        dimensions = dimension if isinstance(dimension, list | tuple) else [dimension] * len(argument)
        return [_sample(a, d, number) for a, d in zip(argument, dimensions, strict=True)]
    return argument if dimension is None else argument.select(dimension, number)
