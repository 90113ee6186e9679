"""The rates of the card that is at hand: a large copy, float32 arithmetic, exponentials, tf32 products."""

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl

from benchmarks.gpu_time import median_ms
from benchmarks.gpu_work import Ceilings

BLOCK, CHAINS = 1024, 4  # numbers of a program in each chain, and chains that do not wait for each other
STEPS = 4096


@triton.jit
def _multiply_add(out, steps, a, b, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    w = at.to(tl.float32)
    x, y, z = w + 1, w + 2, w + 3
    for _ in range(steps):
        w = w * a + b
        x = x * a + b
        y = y * a + b
        z = z * a + b
    tl.store(out + at, w + x + y + z)


@triton.jit
def _exponential(out, steps, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    w = (at % 7).to(tl.float32)
    x, y, z = w + 1, w + 2, w + 3
    for _ in range(steps):  # towards the fixed point 2^-x = x, 0.64
        w = tl.exp2(-w)
        x = tl.exp2(-x)
        y = tl.exp2(-y)
        z = tl.exp2(-z)
    tl.store(out + at, w + x + y + z)


def measure(device: torch.device) -> Ceilings:
    """Each the median of some runs."""
    programs = 32 * torch.cuda.get_device_properties(device).multi_processor_count
    out = torch.empty(programs * BLOCK, device=device)
    block: dict[str, Any] = {"BLOCK": BLOCK}
    operations = programs * BLOCK * CHAINS * STEPS
    fma = median_ms(lambda: _multiply_add[(programs,)](out, STEPS, 0.999, 0.001, **block))
    exp = median_ms(lambda: _exponential[(programs,)](out, STEPS, **block))
    if not bool(torch.isfinite(out).all()):
        raise RuntimeError("the exponentials went astray; the card's ceilings cannot be trusted")

    source = torch.rand(1 << 29, device=device)
    target = torch.empty_like(source)
    copy = median_ms(partial(target.copy_, source))
    del source, target

    a, b = (torch.randn(8192, 8192, device=device) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    matmul = median_ms(lambda: a @ b)
    torch.set_float32_matmul_precision(before)
    return Ceilings(
        bandwidth=2 * 4 * (1 << 29) / copy * 1e3,
        fmas=operations / fma * 1e3,
        exps=operations / exp * 1e3,
        products=8192**3 / matmul * 1e3,
    )
