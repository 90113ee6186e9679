"""Which implementation runs a call, and why another one does not.

A pure function of the call's arguments. The compiled kernels are loaded here, at first use and nowhere else:
importing the package compiles nothing, and an absent compiler is an error only where one is needed.
"""

import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger("crfrnn")


_loaded: dict[tuple[str, str], Any] = {}


def load(module: str, name: str) -> Any:
    """`name` from `module`, imported at first use; says so where that means compiling kernels."""
    if (module, name) in _loaded:  # a look-up that torch's compiler can follow; it cannot follow an import
        return _loaded[module, name]
    return _import(module, name)


@torch.compiler.assume_constant_result
def _import(module: str, name: str) -> Any:
    if module.endswith("_cpu"):
        announce_compilation(module)
    _loaded[module, name] = getattr(importlib.import_module(module), name)
    return _loaded[module, name]


def preload() -> None:
    """Import what this machine would load at first use, so that a first use inside torch's compiler finds it."""
    for rows in IMPLEMENTATIONS.values():
        for row in rows:
            if row.refuses is not _triton or triton_ready():
                row.load()


@dataclass(frozen=True)
class Implementation:
    """One row of the table: where an operator lives and which calls it refuses."""

    name: str
    module: str
    operator: str
    refuses: Callable[[torch.device, torch.dtype], str | None]
    accuracies: tuple[int, ...] = (1,)  # of the lattice that it knows; see permutohedral/stencil.py

    def load(self) -> Any:
        """The operator's class; compiles or loads its kernels."""
        return load(self.module, self.operator)


def _cpu_only(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"its kernels run on the CPU, the tensors are on {device.type}"
    if dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, not {dtype}"
    return None


_TRITON = importlib.util.find_spec("triton") is not None  # looked up, not imported


def triton_installed() -> bool:
    return _TRITON


def interpreted() -> bool:
    """Whether Triton's interpreter is on: then its kernels are run by NumPy, and take tensors of the CPU."""
    return triton_installed() and os.environ.get("TRITON_INTERPRET") == "1"


def triton_ready() -> bool:
    """Whether this process can run Triton's kernels."""
    return interpreted() or (triton_installed() and torch.cuda.is_available())


def triton_devices() -> tuple[str, ...]:
    """Where Triton's kernels run; AMD's GPUs are called cuda as well."""
    return ("cuda", "cpu") if interpreted() else ("cuda",)


def _triton(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type not in triton_devices():
        return f"its kernels run on CUDA, the tensors are on {device.type}"
    if not triton_installed():
        return "Triton is not installed; pip install 'crfrnn[triton]'"
    if dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, not {dtype}"
    return None


def _never(device: torch.device, dtype: torch.dtype) -> str | None:
    del device, dtype
    return None


_HERE = "crfrnn.filtering"
IMPLEMENTATIONS: dict[str, tuple[Implementation, ...]] = {  # in order of preference; tests iterate over it
    "exact": (
        Implementation("triton", f"{_HERE}.exact.tiles_gpu", "ExactOperator", _triton),
        Implementation("reference", f"{_HERE}.exact.reference", "ExactOperator", _never),
    ),
    "separable": (
        Implementation("numba_cpu", f"{_HERE}.separable.grid_cpu", "SeparableOperator", _cpu_only),
        Implementation("triton", f"{_HERE}.separable.grid_gpu", "SeparableOperator", _triton),
        Implementation("reference", f"{_HERE}.separable.reference", "SeparableOperator", _never),
    ),
    "permutohedral": (
        Implementation("numba_cpu", f"{_HERE}.permutohedral.lattice_cpu", "LatticeOperator", _cpu_only, (1, 2, 3)),
        Implementation("triton", f"{_HERE}.permutohedral.lattice_gpu", "LatticeOperator", _triton),
        Implementation("reference", f"{_HERE}.permutohedral.reference", "LatticeOperator", _never, (1, 2, 3)),
    ),
}


def choose(
    method: str, device: torch.device, dtype: torch.dtype, implementation: str | None = None, accuracy: int = 1
) -> Implementation:
    """The first implementation of `method` that takes the call, or the one asked for.

    Triton's interpreter is only for those who ask for it. A device other than the CPU on which nothing but the
    reference runs gets it with a warning, once.

    Raises ValueError with the names there are, or with the reason why the one asked for cannot be had.
    """
    if method not in IMPLEMENTATIONS:
        raise ValueError(f"method: {method!r} is none of {', '.join(IMPLEMENTATIONS)}")
    candidates = IMPLEMENTATIONS[method]
    if implementation is not None:
        candidates = tuple(row for row in candidates if row.name == implementation)
        if not candidates:
            names = ", ".join(row.name for row in IMPLEMENTATIONS[method])
            raise ValueError(f"implementation: {implementation!r} is none of {names}, which {method!r} has")
    reasons = []
    for row in candidates:
        reason = row.refuses(device, dtype)
        if reason is None and implementation is None and row.refuses is _triton and device.type == "cpu":
            reason = "its interpreter is slow; ask for it by name"
        if reason is None and accuracy not in row.accuracies:
            reason = f"it has accuracy {', '.join(map(str, row.accuracies))} only"
        if reason is None:
            if reasons and implementation is None and row.name == "reference":
                _warn_of_reference(method, device.type, reasons)
            return row
        reasons.append(f"{row.name}: {reason}")
    raise ValueError(f"method: {method!r} cannot run this call ({'; '.join(reasons)})")


_warned: set[tuple[str, str]] = set()


def _warn_of_reference(method: str, device: str, reasons: list[str]) -> None:
    """Say so, once for each method, where a GPU runs plain torch for want of kernels."""
    if device in ("cpu", "meta") or (method, device) in _warned or torch.compiler.is_compiling():
        return
    _warned.add((method, device))
    warnings.warn(
        f"{method}: the plain torch reference runs on {device}, right but slow ({'; '.join(reasons)})", stacklevel=4
    )


def plain_call(*tensors: torch.Tensor) -> bool:
    """Whether the body of a custom op may be called as an ordinary function.

    It may where nothing is traced and no gradient is asked for. The first use of the op machinery loads torch's
    compiler, a second and 100 MB that somebody who only refines an image should not pay.
    """
    if torch.compiler.is_compiling() or torch.autograd.forward_ad._current_level >= 0:
        return False
    if any(type(t) not in (torch.Tensor, torch.nn.Parameter) for t in tensors):
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


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
