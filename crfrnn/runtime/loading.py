"""Compiled kernels are loaded at first use, here and nowhere else.

Importing the package compiles nothing, and an absent compiler is an error only where one is needed.
"""

import importlib
from typing import Any


class _Loaded:
    """What has been loaded, as attributes of the class: torch's compiler follows those, and sees new ones."""


def load(module: str, name: str) -> Any:
    """`name` from `module`, imported at first use.

    Traced by torch's compiler the import happens while it traces; the attribute is read afterwards, so that it is an
    object that the compiler can look at and guard.
    """
    _import(module, name)
    return getattr(_Loaded, _attribute(module, name))


def _attribute(module: str, name: str) -> str:
    return f"{module}__{name}".replace(".", "_")


def _import(module: str, name: str) -> None:
    place = _attribute(module, name)
    if hasattr(_Loaded, place):
        return
    setattr(_Loaded, place, getattr(importlib.import_module(module), name))


# What `torch.compiler.assume_constant_result` does, but for importing the compiler: a second and 150 MB that somebody
# who only refines an image should not pay.
_import._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
