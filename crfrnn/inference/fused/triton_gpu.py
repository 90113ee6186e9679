"""One iteration over the pixels for a GPU (Triton): slice, weighting, compatibility, unary and softmax in one pass.
Arrays in, arrays filled, no policy.

Shapes: N points in lines of W in each of B images, L labels, C >= L channels in memory (layout_gpu.py), ALL >= L a
power of two. Logits are planes, (B, L, N), as the caller has them; marginals are rows, (B N, C), as who gathers them
wants them.

A pass takes the messages of at most one lattice and one separable kernel; `recurrence_gpu.py` makes more passes where
there are more kernels. A lattice's message is a sum over the corners of each point in its blurred table (R, C); a
separable kernel's is its last band, along x, over a table (B lines nodes, C). Channels are gathered in blocks of BLOCK,
and each block is multiplied at once with its rows of the transposed compatibility transform, `mixing`: (2, C', ALL),
one matrix for each of the two kernels; or (1, C', ALL) for both, after `shares` (2, C') have weighted the messages.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Messages(NamedTuple):
    """What a pass reads the messages of a lattice and a separable kernel from: tensors, and numbers of an image."""

    vertices: Any  # (B N, CORNERS) int32
    corner_weights: Any  # (B N, CORNERS)
    table: Any  # (R, C)
    columns: Any  # (W, count) int32
    taps: Any  # (W, count)
    count: Any
    coarse: Any  # (B lines nodes, C)
    nodes: Any
    width: Any  # W
    shares: Any  # (2, C'), with SHARED
    mixing: Any  # (2, C', ALL), with SHARED (1, C', ALL)
    saved: Any  # (2, B N, C), with SAVE: filled with the messages


@triton.jit
def _penalty(
    image,
    p,
    points,
    messages,
    C: tl.constexpr,
    ALL: tl.constexpr,
    BLOCK: tl.constexpr,
    CORNERS: tl.constexpr,
    GRID: tl.constexpr,
    SHARED: tl.constexpr,
    SAVE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sum_m A_m h_m at the points p of an image, (POINTS, ALL) float32.

    With SAVE the messages h_m go to messages.saved. Channels from C to C' are zeros in the messages.
    """
    inside = p < points
    row = image.to(tl.int64) * points + p
    every = tl.num_programs(1).to(tl.int64) * points * C
    label = tl.arange(0, ALL)
    x, line = p % messages.width, p // messages.width
    first = (image.to(tl.int64) * (points // messages.width) + line) * messages.nodes
    sums = tl.zeros((p.shape[0], ALL), tl.float32)
    for start in range(0, C, BLOCK):
        c = start + tl.arange(0, BLOCK)
        mask = inside[:, None] & (c < C)[None, :]
        matrix = messages.mixing + c[:, None] * ALL + label[None, :]
        both = tl.zeros((p.shape[0], BLOCK), tl.float32)
        if CORNERS > 0:
            message = tl.zeros((p.shape[0], BLOCK), tl.float32)
            for corner in tl.static_range(CORNERS):
                v = tl.load(messages.vertices + row * CORNERS + corner, mask=inside, other=0).to(tl.int64)
                w = tl.load(messages.corner_weights + row * CORNERS + corner, mask=inside, other=0)
                message += w[:, None] * tl.load(messages.table + v[:, None] * C + c[None, :], mask=mask, other=0)
            if SAVE:
                tl.store(messages.saved + row[:, None] * C + c[None, :], message, mask=mask)
            if SHARED:
                both += tl.load(messages.shares + c)[None, :] * message
            else:
                sums = tl.dot(message, tl.load(matrix), sums, input_precision=PRECISION)
        if GRID:
            message = tl.zeros((p.shape[0], BLOCK), tl.float32)
            for k in range(messages.count):
                node = first + tl.load(messages.columns + x * messages.count + k, mask=inside, other=0)
                w = tl.load(messages.taps + x * messages.count + k, mask=inside, other=0)
                message += w[:, None] * tl.load(messages.coarse + node[:, None] * C + c[None, :], mask=mask, other=0)
            if SAVE:
                tl.store(messages.saved + every + row[:, None] * C + c[None, :], message, mask=mask)
            if SHARED:
                both += tl.load(messages.shares + tl.cdiv(C, BLOCK) * BLOCK + c)[None, :] * message
            else:
                second = matrix + tl.cdiv(C, BLOCK) * BLOCK * ALL
                sums = tl.dot(message, tl.load(second), sums, input_precision=PRECISION)
        if SHARED:
            sums = tl.dot(both, tl.load(matrix), sums, input_precision=PRECISION)
    return sums


@triton.jit
def update(
    unary,
    out,
    labels,
    points,
    messages,
    POINTS: tl.constexpr,
    C: tl.constexpr,
    ALL: tl.constexpr,
    BLOCK: tl.constexpr,
    CORNERS: tl.constexpr,
    GRID: tl.constexpr,
    SHARED: tl.constexpr,
    SAVE: tl.constexpr,
    SOFTMAX: tl.constexpr,
    PLANES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Qu = U - sum_m A_m Qm, equations (4.3) to (4.5), or with SOFTMAX its softmax (4.6); one image for each program of
    axis 1.

    unary (B, L, N); out (B, L, N) with PLANES, else (B N, C), zeros in the padding. With neither CORNERS nor GRID there
    are no messages: the initialisation.
    """
    image = tl.program_id(1)
    p = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    label = tl.arange(0, ALL)
    inside = (p < points)[:, None]
    at = (image.to(tl.int64) * labels + label)[None, :] * points + p[:, None]
    qu = tl.load(unary + at, mask=inside & (label < labels)[None, :], other=0).to(tl.float32)
    if (CORNERS > 0) or GRID:
        qu -= _penalty(image, p, points, messages, C, ALL, BLOCK, CORNERS, GRID, SHARED, SAVE, PRECISION)
    if SOFTMAX:
        qu = tl.where((label < labels)[None, :], qu, float("-inf"))
        e = tl.exp(qu - tl.max(qu, axis=1)[:, None])
        qu = e / tl.sum(e, axis=1)[:, None]
    if PLANES:
        tl.store(out + at, qu, mask=inside & (label < labels)[None, :])
    else:
        row = image.to(tl.int64) * points + p
        tl.store(out + row[:, None] * C + label[None, :], qu, mask=inside & (label < C)[None, :])


@triton.jit
def update_gradient(
    q,
    partial,
    total,
    out,
    labels,
    points,
    messages,
    POINTS: tl.constexpr,
    C: tl.constexpr,
    ALL: tl.constexpr,
    BLOCK: tl.constexpr,
    CORNERS: tl.constexpr,
    GRID: tl.constexpr,
    SHARED: tl.constexpr,
    SAVE: tl.constexpr,
    CHAINED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One iteration back: from h_m = K_m^T g to the gradient of the logits whose softmax is q.

    q (B N, C); total (B, L, N) collects that gradient, out (B N, C) receives it; partial (B, L, N) is what passes for
    further kernels made of dL/dQ, with CHAINED; the mixing matrices are A_m, not transposed.
    """
    image = tl.program_id(1)
    p = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    label = tl.arange(0, ALL)
    mask = (p < points)[:, None] & (label < labels)[None, :]
    at = (image.to(tl.int64) * labels + label)[None, :] * points + p[:, None]
    d = -_penalty(image, p, points, messages, C, ALL, BLOCK, CORNERS, GRID, SHARED, SAVE, PRECISION)
    if CHAINED:
        d += tl.load(partial + at, mask=mask, other=0)
    row = image.to(tl.int64) * points + p
    marginal = tl.load(q + row[:, None] * C + label[None, :], mask=mask, other=0).to(tl.float32)
    g = marginal * (d - tl.sum(marginal * d, axis=1)[:, None])
    tl.store(total + at, tl.load(total + at, mask=mask, other=0) + g, mask=mask)
    tl.store(out + row[:, None] * C + label[None, :], g, mask=(p < points)[:, None] & (label < C)[None, :])
