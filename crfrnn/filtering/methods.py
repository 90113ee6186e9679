"""Which implementation runs a call, and why another one does not: a pure function of the call's arguments."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch

from crfrnn.runtime import gpu
from crfrnn.runtime.loading import load


def preload() -> None:
    """Import what this machine would load at first use, so that a first use inside torch's compiler finds it."""
    for rows in IMPLEMENTATIONS.values():
        for row in rows:
            if row.device != "cuda" or gpu.triton_ready():
                row.load()


@dataclass(frozen=True)
class Implementation:
    """One row of the table: where an operator lives and which calls it takes."""

    name: str
    module: str
    operator: str
    device: Literal["cpu", "cuda"] | None  # that its kernels are for; None: plain torch, which runs everywhere
    accuracies: tuple[int, ...] = (1,)  # of the lattice that it knows; see permutohedral/stencil.py
    checks_features: bool = False  # raises for NaN and infinity, as it looks for the range of the features anyway

    def load(self) -> Any:
        """The class of its `Operator`; compiles or loads its kernels."""
        return load(self.module, self.operator)

    def refuses(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """None where it takes tensors of this kind, else the reason why not."""
        if self.device is None:
            return None
        if self.device == "cpu" and device.type != "cpu":
            return f"its kernels run on the CPU, the tensors are on {device.type}"
        if self.device == "cuda" and device.type not in gpu.triton_devices():
            return f"its kernels run on CUDA, the tensors are on {device.type}"
        if self.device == "cuda" and not gpu.triton_installed():
            return "Triton is not installed; pip install 'crfrnn[triton]'"
        if dtype not in (torch.float32, torch.float64):
            return f"it computes in float32 or float64, not {dtype}"
        return None


IMPLEMENTATIONS: dict[str, tuple[Implementation, ...]] = {  # in order of preference; tests iterate over it
    "exact": (
        Implementation("triton", "crfrnn.filtering.exact.tiles_gpu", "ExactOperator", "cuda"),
        Implementation("reference", "crfrnn.filtering.exact.reference", "ExactOperator", None),
    ),
    "separable": (
        Implementation("numba_cpu", "crfrnn.filtering.separable.grid_cpu", "SeparableOperator", "cpu"),
        Implementation("triton", "crfrnn.filtering.separable.grid_gpu", "SeparableOperator", "cuda"),
        Implementation("reference", "crfrnn.filtering.separable.reference", "SeparableOperator", None),
    ),
    "permutohedral": (
        Implementation(
            "numba_cpu", "crfrnn.filtering.permutohedral.lattice_cpu", "LatticeOperator", "cpu", (1, 2, 3), True
        ),
        Implementation("triton", "crfrnn.filtering.permutohedral.lattice_gpu", "LatticeOperator", "cuda"),
        Implementation("reference", "crfrnn.filtering.permutohedral.reference", "LatticeOperator", None, (1, 2, 3)),
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
    if method not in list(IMPLEMENTATIONS):  # of names of any type
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
        if reason is None and implementation is None and row.device == "cuda" and device.type == "cpu":
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
