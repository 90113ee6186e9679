"""One look at probabilities for the CPU (Numba): arrays in, arrays filled, no policy."""

import numpy as np

from crfrnn.runtime.compiled import kernel_on_views


@kernel_on_views
def survey(planes, block, plane_bits, highest, sums, block_bits):
    """planes (L, N), block (P,) float32; plane_bits, block_bits: their bits as int32; highest (L,), sums (2,) int32.

    Fills the bits of the highest number of each label and of the lowest and the highest sum over the labels, and
    returns those of the lowest number. P points at a time, whose sums stay in the cache.

    Numbers that are not negative are in the order of their bits, with infinity and NaN behind them, and whole numbers
    are compared without asking which of two NaN is to be kept. Where the result is negative, there are others, and
    what was filled means nothing.
    """
    labels, points = planes.shape
    lowest, least, most = np.int32(0x7FFFFFFF), np.int32(0x7FFFFFFF), np.int32(-0x7FFFFFFF)
    highest[:] = most
    for begin in range(0, points, block.size):
        size = min(block.size, points - begin)
        block[:size] = 0
        for label in range(labels):
            p, bits = planes[label, begin : begin + size], plane_bits[label, begin : begin + size]
            high = highest[label]
            for k in range(size):
                block[k] += p[k]
                high, lowest = max(high, bits[k]), min(lowest, bits[k])
            highest[label] = high
        for k in range(size):
            least, most = min(least, block_bits[k]), max(most, block_bits[k])
    sums[0], sums[1] = least, most
    return lowest
