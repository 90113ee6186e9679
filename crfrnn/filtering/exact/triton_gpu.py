"""The dense Gaussian sum over tiles of points for the GPU (Triton): arrays in, arrays filled, no policy.

As attention without a matrix in memory: one program owns a tile of rows and walks over the tiles of columns that are
near it. All sums have one owner and a fixed order; nothing is added atomically. README.md derives the costs.

Arrays are contiguous: features (B, d, padded), values and out (B, C, padded), boxes (B, d, tiles), as `tiles.py` made
them, with padded = tiles * TILE. `near` (B, rows, tiles) and `near_count` (B, rows) list the tiles near each of the
`rows` tiles that begin with `first`.
"""

import triton
import triton.language as tl

MINUS_HALF_LOG2_E = tl.constexpr(-0.7213475204444817)  # exp(-x / 2) = 2^(this x)
TF32_BITS = tl.constexpr(-0x2000)  # sign, exponent and the upper 10 bits of the fraction of a float32


@triton.jit
def list_near(low, high, near, near_count, first, rows, tiles, reach, D: tl.constexpr, BLOCK: tl.constexpr):
    """The tiles whose boxes come within sqrt(reach) of each row tile's box, in ascending order. Grid (rows, B)."""
    row, image = tl.program_id(0), tl.program_id(1)
    boxes = image.to(tl.int64) * D * tiles
    place = image.to(tl.int64) * rows + row
    hits = 0
    for start in range(0, tiles, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < tiles
        squared = tl.zeros((BLOCK,), low.dtype.element_ty)
        for k in tl.static_range(D):
            axis = boxes + k * tiles
            below = tl.load(low + axis + first + row) - tl.load(high + axis + columns, inside, 0.0)
            above = tl.load(low + axis + columns, inside, 0.0) - tl.load(high + axis + first + row)
            gap = tl.maximum(tl.maximum(below, above), 0.0)
            squared += gap * gap
        hit = (inside & (squared <= reach)).to(tl.int32)
        slot = hits + tl.cumsum(hit, 0) - hit
        tl.store(near + place * tiles + slot, columns, mask=hit > 0)
        hits += tl.sum(hit, 0)
    tl.store(near_count + place, hits)


@triton.jit
def _kernel(features, padded, rows, columns, D: tl.constexpr, TILE: tl.constexpr):
    """exp(-|f_i - f_j|^2 / 2), (TILE, TILE), from differences: no cancellation, however far from the origin."""
    squared = tl.zeros((TILE, TILE), features.dtype.element_ty)
    for k in tl.static_range(D):
        axis = features + k * padded
        difference = tl.load(axis + rows)[:, None] - tl.load(axis + columns)[None, :]
        squared += difference * difference
    return tl.exp2(squared * MINUS_HALF_LOG2_E)


@triton.jit
def sum_near(
    features, values, rest, near, near_count, schedule, out, first, rows, tiles, channels,
    D: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j over the near tiles. Grid (rows, channel blocks, B).

    `schedule` (B, rows) says which row tile a program takes: those with the most neighbours begin first. With SPLIT
    the values are v = values + rest, where `values` has the bits of a tf32 number; otherwise `rest` is not read.
    """
    image = tl.program_id(2).to(tl.int64)
    row = tl.load(schedule + image * rows + tl.program_id(0))
    place = image * rows + row
    padded = tiles * TILE
    within = tl.arange(0, TILE)
    points = (first + row) * TILE + within
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    features += image * D * padded
    values += image * channels * padded
    rest += image * channels * padded
    near += place * tiles
    total = tl.zeros((TILE, CHANNELS), out.dtype.element_ty)
    for n in range(tl.load(near_count + place)):
        columns = tl.load(near + n) * TILE + within
        kernel = _kernel(features, padded, points, columns, D, TILE)
        at = channel[None, :].to(tl.int64) * padded + columns[:, None]
        block = tl.load(values + at)
        if SPLIT:
            top = (kernel.to(tl.int32, bitcast=True) & TF32_BITS).to(tl.float32, bitcast=True)
            total = tl.dot(kernel - top, block, total, input_precision=PRECISION, out_dtype=total.dtype)
            total = tl.dot(top, tl.load(rest + at), total, input_precision=PRECISION, out_dtype=total.dtype)
            total = tl.dot(top, block, total, input_precision=PRECISION, out_dtype=total.dtype)
        else:
            total = tl.dot(kernel.to(block.dtype), block, total, input_precision=PRECISION, out_dtype=total.dtype)
    at = (image * channels + channel[None, :]) * padded + points[:, None]
    tl.store(out + at, total)


@triton.jit
def sum_near_gradients(
    features, values, gradients, near, near_count, schedule, out, first, rows, tiles, channels,
    D: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr, AXES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j (g_i . v_j + v_i . g_j) exp(-|f_i - f_j|^2 / 2) (f_j - f_i), (B, d, padded). Grid (rows, B).

    The derivative of sum_i g_i . (K v)_i by the features. AXES is a power of two, at least D.
    """
    image = tl.program_id(1).to(tl.int64)
    row = tl.load(schedule + image * rows + tl.program_id(0))
    place = image * rows + row
    padded = tiles * TILE
    within = tl.arange(0, TILE)
    points = (first + row) * TILE + within
    axes = tl.arange(0, AXES)
    features += image * D * padded
    values += image * channels * padded
    gradients += image * channels * padded
    near += place * tiles
    total = tl.zeros((TILE, AXES), out.dtype.element_ty)
    for n in range(tl.load(near_count + place)):
        columns = tl.load(near + n) * TILE + within
        weights = tl.zeros((TILE, TILE), out.dtype.element_ty)
        for start in range(0, channels, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)
            mine = channel[None, :].to(tl.int64) * padded + points[:, None]
            theirs = channel[:, None].to(tl.int64) * padded + columns[None, :]
            g_i, v_j = tl.load(gradients + mine), tl.load(values + theirs)
            weights = tl.dot(g_i, v_j, weights, input_precision=PRECISION, out_dtype=total.dtype)
            v_i, g_j = tl.load(values + mine), tl.load(gradients + theirs)
            weights = tl.dot(v_i, g_j, weights, input_precision=PRECISION, out_dtype=total.dtype)
        weights *= _kernel(features, padded, points, columns, D, TILE)
        for k in tl.static_range(D):
            axis = features + k * padded
            difference = tl.load(axis + columns)[None, :] - tl.load(axis + points)[:, None]
            total += tl.sum(weights * difference, 1)[:, None] * (axes == k)[None, :]
    at = (image * D + axes[None, :]) * padded + points[:, None]
    tl.store(out + at, total, mask=(axes < D)[None, :])
