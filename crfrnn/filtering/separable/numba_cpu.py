"""Banded matrices along one axis for the CPU (Numba): arrays in, arrays filled, no policy."""

import numpy as np

from crfrnn.filtering.compiled import kernel, kernel_on_views
from crfrnn.filtering.rows import PAIR, band_rows

BLOCK = 8  # vectors of the later axes that are filtered along the whole axis before the next: they stay in the cache
ROWS = 16  # of a plane, an even number


@kernel_on_views
def apply_band(values, starts, weights, out, lanes, start, stop):
    """A banded matrix along the middle axis (see `rows.band_rows`) for the blocks start..stop of all (o, D).

    values (outer, n, D) and out (outer, rows, D), where D are the samples of the later axes, point-major with their
    channels; starts (rows / 2,), weights (rows / 2, K, 2). What `blocks` counts.
    """
    width = BLOCK * len(lanes)
    each = -(-out.shape[2] // width)
    for block in range(start, stop):
        o, at = block // each, block % each * width
        band_rows(out[o, :, at : at + width], values[o, :, at : at + width], starts, weights, lanes)


@kernel
def apply_to_planes(values, first_starts, first_weights, starts, weights, out, lanes, start, stop):
    """A band along the columns of planes, and one along their rows, for the blocks start..stop of `ROWS` rows.

    values (outer, n, m, C), out (outer, rows, nodes, C). What is between the two stays in the cache.
    """
    outer, rows, _, channels = out.shape
    n, m = values.shape[1:3]
    each, width = -(-rows // ROWS), BLOCK * len(lanes)
    flat = values.reshape(outer, n, m * channels)
    between = np.empty((ROWS, m * channels), out.dtype)
    for block in range(start, stop):
        o, first = block // each, block % each * ROWS
        count = min(ROWS, rows - first)
        pairs = slice(first // PAIR, (first + count + 1) // PAIR)
        for at in range(0, m * channels, width):
            into = between[:count, at : at + width]
            band_rows(into, flat[o, :, at : at + width], first_starts[pairs], first_weights[pairs], lanes)
        for row in range(count):
            band_rows(out[o, first + row], between[row].reshape(m, channels), starts, weights, lanes)


def blocks(shape, lanes):
    """How many blocks `apply_band` finds in an array (outer, rows, D)."""
    return shape[0] * -(-shape[2] // (BLOCK * len(lanes)))


def blocks_of_rows(shape):
    """How many blocks `apply_to_planes` finds in an array (outer, rows, nodes, C)."""
    return shape[0] * -(-shape[1] // ROWS)
