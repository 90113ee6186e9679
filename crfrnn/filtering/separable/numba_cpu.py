"""Banded matrices along one axis for the CPU (Numba): arrays in, arrays filled, no policy."""

import numpy as np

from crfrnn.filtering.compiled import kernel, kernel_on_views
from crfrnn.filtering.rows import sum_rows

BLOCK = 8  # vectors of the later axes that are filtered along the whole axis before the next: they stay in the cache


@kernel_on_views
def apply_band(values, columns, weights, out, lanes, start, stop):
    """out[o, i] = sum_k weights[i, k] values[o, columns[i, k]] for the blocks start..stop of all (o, D).

    values (outer, n, D) and out (outer, rows, D), where D are the samples of the later axes, point-major with their
    channels; columns (rows, K) unsigned, weights (rows, K). What `blocks` counts.
    """
    width = BLOCK * len(lanes)
    each = -(-out.shape[2] // width)
    for block in range(start, stop):
        o, at = block // each, block % each * width
        sum_rows(out[o, :, at : at + width], values[o, :, at : at + width], columns, weights, None, lanes)


@kernel
def apply_bands(values, first_columns, first_weights, columns, weights, out, lanes, start, stop):
    """Two bands along the same axis, the second right after the first; the rest as in `apply_band`."""
    width = BLOCK * len(lanes)
    each = -(-out.shape[2] // width)
    between = np.empty((first_columns.shape[0], width), out.dtype)
    for block in range(start, stop):
        o, at = block // each, block % each * width
        into = out[o, :, at : at + width]
        sum_rows(between[:, : into.shape[1]], values[o, :, at : at + width], first_columns, first_weights, None, lanes)
        sum_rows(into, between[:, : into.shape[1]], columns, weights, None, lanes)


def blocks(shape, lanes):
    """How many blocks `apply_band` finds in an array (outer, rows, D)."""
    return shape[0] * -(-shape[2] // (BLOCK * len(lanes)))
