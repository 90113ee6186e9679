"""Whether Triton's kernels run in this process, and on which devices."""

import importlib.util
import os

import torch

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
