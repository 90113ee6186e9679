"""The layout of values inside the Triton kernels, point-major, and how many programs a launch has.

Rows (B N, C) keep the channels of a point side by side, so that whatever gathers points reads whole sectors of 32
bytes. Kernels that walk over the rows of a lattice do not know on the host how many there are: they are launched with
as many programs as the device keeps busy, and each takes every so many-th block of rows.
"""

import functools
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from crfrnn.runtime import gpu

P = ParamSpec("P")
Result = TypeVar("Result")

# numbers in a program's tile: 8 in each thread of 4 warps; the interpreter pays for programs, not for numbers
TILE = 4096 if gpu.interpreted() else 1024
WIDEST = 64  # channels of a row that one program handles
WORTH_ASKING = 1 << 28  # bytes
PROGRAMS_PER_PROCESSOR = 8  # of 4 warps: half of the warps that a processor holds


def padded(channels: int) -> int:
    """Channels in memory: 4, or the next multiple of 8, so that rows of float32 begin at a sector.

    >>> [padded(channels) for channels in (1, 4, 5, 21, 150)]
    [4, 4, 8, 24, 152]
    """
    return 4 if channels <= 4 else -(-channels // 8) * 8


def power_of_two(number: int) -> int:
    """The smallest one that is not below `number`."""
    return 1 << max(0, number - 1).bit_length()


def blocks(channels: int) -> tuple[int, int]:
    """Rows and channels of a tile."""
    width = min(WIDEST, power_of_two(channels))
    return TILE // width, width


@functools.cache
def programs(device: torch.device) -> int:
    """Programs that fill the device; in the interpreter three, so that each has several blocks."""
    if device.type == "cpu":
        return 3
    return torch.cuda.get_device_properties(device).multi_processor_count * PROGRAMS_PER_PROCESSOR


def to_rows(values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(B, C, N) -> (B N, padded C), zeros in the padding."""
    batch, channels, points = values.shape
    rows = torch.zeros(batch, points, padded(channels), dtype=dtype or values.dtype, device=values.device)
    rows[:, :, :channels] = values.transpose(1, 2)
    return rows.flatten(0, 1)


def to_planes(rows: Tensor, batch: int, channels: int) -> Tensor:
    """(B N, padded C) -> (B, C, N)."""
    return rows.view(batch, -1, rows.shape[1])[:, :, :channels].transpose(1, 2).contiguous()


def readable(tensor: Tensor) -> bool:
    """Whether the host may look at numbers now: not while torch's compiler, another tracer or a transform of torch.func
    is at work, or a CUDA graph is captured."""
    if torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    if tensor.is_meta or type(tensor) not in (Tensor, torch.nn.Parameter):
        return False
    return tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing()


def spare(needed: int, device: torch.device) -> float:
    """Bytes that can still be had on the device; infinite where nobody can say or `needed` is not worth asking."""
    if torch.compiler.is_compiling() or device.type != "cuda" or needed < WORTH_ASKING:
        return math.inf
    if torch.cuda.is_current_stream_capturing():
        return math.inf
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def demand(argument: str, needed: int, device: torch.device) -> None:
    """ValueError, about this argument, where the device has not so many bytes."""
    left = spare(needed, device)
    if needed > left:
        raise ValueError(
            f"{argument}: this call needs about {needed / 1e9:.1f} GB on {device}, {left / 1e9:.1f} GB are free;"
            f" split the batch into {math.ceil(needed / max(left, 1))} or more parts, or a single image into tiles"
        )


def on_its_device(body: Callable[P, Result]) -> Callable[P, Result]:
    """An op's body with the device of its first tensor as the current one: Triton launches on that."""

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        first: Any = args[0]
        with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
            return body(*args, **kwargs)

    return run


def devices() -> tuple[str, ...]:
    """The device types for which the custom ops are registered."""
    return gpu.triton_devices()
