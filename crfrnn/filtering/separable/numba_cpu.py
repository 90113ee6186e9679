"""Banded matrices along one axis for the CPU (Numba): arrays in, arrays filled, no policy."""

import numpy as np

from crfrnn.runtime.compiled import kernel, kernel_on_views
from crfrnn.runtime.rows import PAIR, band_rows

BLOCK = 8  # vectors of the later axes that are filtered along the whole axis before the next: they stay in the cache
ROWS, NODES = 16, 128  # of a plane that are filtered along both axes before the next; multiples of `PAIR`


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
    """A band along the columns of planes, and one along their rows, for the blocks start..stop of all of them.

    values (outer, n, m, C), out (outer, rows, nodes, C). A block has `ROWS` rows and `NODES` nodes in each, so that
    what is between the two bands stays in the cache. What `blocks_of_planes` counts.
    """
    outer, rows, nodes, channels = out.shape
    n, m = values.shape[1:3]
    down, across, width = -(-rows // ROWS), -(-nodes // NODES), BLOCK * len(lanes)
    flat = values.reshape(outer, n, m * channels)
    reach = weights.shape[1]
    longest = 0
    for left in range(0, starts.size, NODES // PAIR):
        longest = max(longest, starts[min(left + NODES // PAIR, starts.size) - 1] + reach - starts[left])
    between = np.empty((ROWS, longest * channels), out.dtype)
    for block in range(start, stop):
        o, first, left = block // across // down, block // across % down * ROWS, block % across * NODES
        count, right = min(ROWS, rows - first), min(nodes, left + NODES)
        some_rows = slice(first // PAIR, (first + count + 1) // PAIR)
        some_nodes = slice(left // PAIR, (right + 1) // PAIR)
        low, high = starts[some_nodes][0], starts[some_nodes][-1] + reach
        size = (high - low) * channels
        for at in range(0, size, width):
            end, origin = min(at + width, size), low * channels
            source = flat[o, :, origin + at : origin + end]
            band_rows(between[:count, at:end], source, first_starts[some_rows], first_weights[some_rows], lanes)
        here = starts[some_nodes] - low
        for row in range(count):
            nearby = between[row, :size].reshape(high - low, channels)
            band_rows(out[o, first + row, left:right], nearby, here, weights[some_nodes], lanes)


def blocks(shape, lanes):
    """How many blocks `apply_band` finds in an array (outer, rows, D)."""
    return shape[0] * -(-shape[2] // (BLOCK * len(lanes)))


def blocks_of_planes(shape):
    """How many blocks `apply_to_planes` finds in an array (outer, rows, nodes, C)."""
    return shape[0] * -(-shape[1] // ROWS) * -(-shape[2] // NODES)
