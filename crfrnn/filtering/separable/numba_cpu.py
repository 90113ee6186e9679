"""Separable convolution for the CPU (Numba): arrays in, arrays filled, no policy.

Point-major values as in `permutohedral/numba_cpu.py`, seen as (outer, size, inner): the axis that is convolved has
`size` samples, and one sample is `inner` contiguous numbers, the later axes times the channels. A shift along the
axis is a shift by a multiple of `inner`, so the inner loops run over long contiguous pieces and vectorise.
"""

import numpy as np
from numba import njit

PIECE = 512  # numbers handled together: 2 (radius + 1) pieces of float32 stay in the L1 cache


@njit(nogil=True, cache=True)
def convolve(values, taps, out, start, stop):
    """out[o, x] = sum_k taps[|k|] values[o, x + k], nothing beyond the ends.

    values, out (outer, size, inner); taps (radius + 1,), radius < size. The work is cut into outer * pieces columns
    of at most PIECE numbers, or whole samples where one is shorter; this call does the columns start..stop.
    """
    size, inner = values.shape[1], values.shape[2]
    columns = (inner + PIECE - 1) // PIECE
    radius = taps.size - 1
    for column in range(start, stop):
        o, low = column // columns, column % columns * PIECE
        width = min(PIECE, inner - low)
        v, sums = values[o].ravel(), out[o].ravel()
        if columns > 1:
            for x in range(size):
                _piece(v, taps, sums, x * inner + low, width, inner, min(radius, x), min(radius, size - 1 - x))
            continue
        # short samples: the ends one by one, and between them many at a time, as all have both neighbours
        left, right = min(radius, size), max(size - radius, min(radius, size))
        for x in range(left):
            _piece(v, taps, sums, x * inner, inner, inner, min(radius, x), min(radius, size - 1 - x))
        for at in range(left * inner, right * inner, PIECE):
            _piece(v, taps, sums, at, min(PIECE, right * inner - at), inner, radius, radius)
        for x in range(right, size):
            _piece(v, taps, sums, x * inner, inner, inner, min(radius, x), min(radius, size - 1 - x))


@njit(nogil=True, cache=True)
def _piece(values, taps, out, at, width, step, before, after):
    """out[at : at + width] from `before` samples on the left and `after` on the right, `step` numbers apart."""
    sums = out[at : at + width]
    here = values[at : at + width]
    both = min(before, after)
    fours = both - both % 4
    for c in range(width):
        sums[c] = taps[0] * here[c]
    for k in range(1, fours + 1, 4):  # four pairs for each trip of the sums through the cache
        t0, t1, t2, t3 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        a = at - k * step
        b = at + k * step
        a0, a1 = values[a : a + width], values[a - step : a - step + width]
        a2, a3 = values[a - 2 * step : a - 2 * step + width], values[a - 3 * step : a - 3 * step + width]
        b0, b1 = values[b : b + width], values[b + step : b + step + width]
        b2, b3 = values[b + 2 * step : b + 2 * step + width], values[b + 3 * step : b + 3 * step + width]
        for c in range(width):
            sums[c] += (t0 * (a0[c] + b0[c]) + t1 * (a1[c] + b1[c])) + (t2 * (a2[c] + b2[c]) + t3 * (a3[c] + b3[c]))
    for k in range(fours + 1, both + 1):
        tap = taps[k]
        a0, b0 = values[at - k * step : at - k * step + width], values[at + k * step : at + k * step + width]
        for c in range(width):
            sums[c] += tap * (a0[c] + b0[c])
    for k in range(both + 1, max(before, after) + 1):
        tap = taps[k]
        shifted = at - k * step if before > after else at + k * step
        a0 = values[shifted : shifted + width]
        for c in range(width):
            sums[c] += tap * a0[c]


@njit(nogil=True, cache=True)
def scale_points(values, factor, out, start, stop):
    """out[p, c] = factor[p] * values[p, c] for the points start..stop."""
    for p in range(start, stop):
        f = factor[p]
        for c in range(values.shape[1]):
            out[p, c] = f * values[p, c]
