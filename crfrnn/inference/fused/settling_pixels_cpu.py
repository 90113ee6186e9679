"""The passes over the pixels that look at what moves; see `settling_cpu.py`.

Shapes are those of `numba_cpu.py`.
"""

import numpy as np

from crfrnn.inference.fused.numba_cpu import clear, read, write
from crfrnn.inference.fused.softmax_cpu import TILE, softmax_rows
from crfrnn.runtime.compiled import kernel_on_views, part_on_views


@part_on_views
def replace_rows(old, new):
    """old = new, both (n, C); returns max |new - old|."""
    largest = np.float32(0)
    for p in range(new.shape[0]):
        for channel in range(new.shape[1]):
            change = abs(new[p, channel] - old[p, channel])
            largest = change if change > largest else largest
            old[p, channel] = new[p, channel]
    return largest


@kernel_on_views
def update_and_compare(unary, diagonal, q, moved, kernels, part):
    """`numba_cpu.update`, with q (N, C) the marginals before and after; moved (strips,), how far any of them went."""
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    passed = scratch.mixed if kernels.mixing.size else scratch.messages
    moved[strip] = 0
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            new, here = scratch.line[begin:end], slice(first + begin, first + end)
            read(kernels, scratch, lanes, first, begin, end, y)
            softmax_rows(new, unary[here], passed, diagonal, scratch.sums, lanes)
            moved[strip] = max(moved[strip], replace_rows(q[here], new))
            write(kernels, scratch.line[:size], scratch, lanes, first, begin, end, y)
