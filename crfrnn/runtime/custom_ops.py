"""A function that torch sees as one op, and the times when it may be called as the ordinary function that it is."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from crfrnn.runtime.transforms import check_forward_mode, check_tracer, transformable, transformed


class CustomOp:
    """`function` as the op `torch.ops.crfrnn.<name>`, and as itself where nothing is traced and no gradient asked for.

    Args:
        name: of the op.
        function: of tensors, lists of tensors and numbers; its annotations are the op's schema. It changes no argument.
        schema: instead of the annotations, where a group of tensors is an argument each: `vmap`, and with it a batch of
            gradients, looks into no list. Sizes are SymInt in it, as annotations make them: an exported program keeps
            those of its example otherwise.
        fake: the same arguments -> empty tensors like the results, for tracing.
        device_types: where `function` runs; None for every device.
        backward, save: the gradient, as `torch.library.register_autograd` takes them. A gradient calls `op`, never the
            function: it may be traced or batched in ways that its tensors do not show.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        fake: Callable[..., Any],
        schema: str | None = None,
        device_types: str | Sequence[str] | None = None,
        backward: Callable[..., Any] | None = None,
        save: Callable[..., None] | None = None,
    ):
        self.function = function
        self._op = torch.library.custom_op(
            f"crfrnn::{name}", function, mutates_args=(), device_types=device_types, schema=schema
        )
        self._op.register_fake(fake)
        if backward is not None:
            self._op.register_autograd(backward, setup_context=save)
        self._transformable = transformable(function, backward, save)

    def __call__(self, *arguments: Any) -> Any:
        check_tracer()
        return self.function(*arguments) if plain_call(*arguments) else self.op(*arguments)

    def op(self, *arguments: Any) -> Any:
        """The function as torch sees it: `torch.func` and forward-mode derivatives see a `transformable`."""
        if not transformed():
            return self._op(*arguments)
        check_forward_mode(arguments)
        return self._transformable.apply(*arguments)


def plain_call(*arguments: Any) -> bool:
    """Whether a custom op with these arguments may be called as an ordinary function.

    The first use of the op machinery loads torch's compiler, a second and 100 MB that somebody who only refines an
    image should not pay.
    """
    if torch.compiler.is_compiling() or transformed():
        return False
    differentiated = torch.is_grad_enabled()
    for argument in arguments:
        for tensor in argument if isinstance(argument, list) else (argument,):
            if not isinstance(tensor, Tensor):
                continue
            if type(tensor) not in (Tensor, torch.nn.Parameter) or (differentiated and tensor.requires_grad):
                return False
    return True


def each_a_tensor(names: Iterable[str]) -> str:
    """A part of a schema: an argument for each name.

    >>> each_a_tensor(["vertices", "weights"])
    'Tensor vertices, Tensor weights'
    """
    return ", ".join(f"Tensor {name}" for name in names)


def like_the_first(values: Tensor, *_: Any) -> Tensor:
    """The fake of an op whose result has the shape of its first argument."""
    return torch.empty_like(values, memory_format=torch.contiguous_format)
