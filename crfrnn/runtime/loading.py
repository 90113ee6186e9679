"""Compiled kernels are loaded at first use, here and nowhere else.

Importing the package compiles nothing, and an absent compiler is an error only where one is needed.
"""

import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger("crfrnn")


class _Loaded:
    """What has been loaded, as attributes of the class: torch's compiler follows those, and sees new ones."""


def load(module: str, name: str) -> Any:
    """`name` from `module`, imported at first use; says so where that means compiling kernels.

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
    if module.endswith("_cpu"):
        announce_compilation(module)
    setattr(_Loaded, place, getattr(importlib.import_module(module), name))


# What `torch.compiler.assume_constant_result` does, but for importing the compiler: a second and 150 MB that somebody
# who only refines an image should not pay.
_import._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


_announced = False


def announce_compilation(module: str) -> None:
    """Say so, once, when kernels are about to be compiled for the first time on this machine."""
    global _announced
    if _announced:
        return
    _announced = True
    spec = importlib.util.find_spec(module)
    numba = importlib.import_module("numba")
    if numba.config.DISABLE_JIT or spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    roots = [folder / "__pycache__", Path(numba.config.CACHE_DIR or folder)]
    if not any(next(root.glob("**/numba_cpu*.nbi"), None) for root in roots if root.is_dir()):
        logger.warning("compiling the CPU kernels, once on this machine: about fifteen seconds")
