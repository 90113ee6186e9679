"""Banded matrices along one axis for a GPU (Triton): arrays in, arrays filled, no policy."""

import triton
import triton.language as tl


@triton.jit
def apply_band(
    values,
    columns,
    weights,
    out,
    outer,
    size,
    rows,
    inner,
    taps,
    C: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """out[o, i] = sum_k weights[i, k] values[o, columns[i, k]], the terms in their order.

    values (outer, size, inner C) and out (outer, rows, inner C), where inner are the samples of the later axes; columns
    int32, weights (rows, taps). Neighbouring rows read nearly the same samples: those come from the cache.
    """
    depth = inner * C
    across = tl.cdiv(depth, WIDTH)  # both directions on one axis of the launch: the others end at 65,535 programs
    row = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # of all outer * rows
    d = tl.program_id(0) % across * WIDTH + tl.arange(0, WIDTH)
    inside = row < outer * rows
    o, i = row // rows, row % rows
    sums = tl.zeros((ROWS, WIDTH), ACCUMULATE)
    for k in range(taps):
        column = tl.load(columns + i * taps + k, mask=inside, other=0)
        weight = tl.load(weights + i * taps + k, mask=inside, other=0)
        at = ((o * size + column) * depth)[:, None] + d[None, :]
        sums += weight[:, None] * tl.load(values + at, mask=inside[:, None] & (d < depth)[None, :], other=0)
    tl.store(out + (row * depth)[:, None] + d[None, :], sums, mask=inside[:, None] & (d < depth)[None, :])
