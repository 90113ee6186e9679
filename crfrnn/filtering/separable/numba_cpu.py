"""Banded matrices along one axis for the CPU (Numba): arrays in, arrays filled, no policy."""

import numpy as np

from crfrnn.filtering.compiled import kernel, kernel_on_views
from crfrnn.filtering.rows import band_rows

BLOCK = 8  # vectors of the later axes that are filtered along the whole axis before the next: they stay in the cache


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
def apply_bands(values, count, first_starts, first_weights, starts, weights, out, lanes, start, stop):
    """Two bands along the same axis, the second right after the first, of `count` rows; the rest as in `apply_band`."""
    width = BLOCK * len(lanes)
    each = -(-out.shape[2] // width)
    between = np.empty((count, width), out.dtype)
    for block in range(start, stop):
        o, at = block // each, block % each * width
        into = out[o, :, at : at + width]
        part = between[:, : into.shape[1]]
        band_rows(part, values[o, :, at : at + width], first_starts, first_weights, lanes)
        band_rows(into, part, starts, weights, lanes)


def blocks(shape, lanes):
    """How many blocks `apply_band` finds in an array (outer, rows, D)."""
    return shape[0] * -(-shape[2] // (BLOCK * len(lanes)))
