"""The passes over the pixels with which labels leave a run; see `vanishing_cpu.py`.

Shapes are those of `numba_cpu.py`. Each of these passes makes U and the marginals of the first iteration anew from the
planes that were given, tile by tile, so that neither is ever kept for all labels.
"""

import math

import numpy as np

from crfrnn.inference.fused.numba_cpu import PADDING, clear, read, start_rows, write
from crfrnn.inference.fused.softmax_cpu import TILE, softmax_rows
from crfrnn.runtime.compiled import kernel_on_views
from crfrnn.runtime.vectors import LANES

LEAST = 1e-12  # a share of at least that has a logarithm


@kernel_on_views
def survey(planes, smallest, diagonal, peaks, kernels, part):
    """How probable each label is at the most after an iteration of which nothing is kept.

    planes (L, N), smallest as in `numba_cpu.initialise`; diagonal (M, C); peaks (strips, C), the largest share that
    each label has of the best one's marginal in each strip of pixels.
    """
    scratch, lanes, width, strip, _, start, stop = part
    channels, largest = peaks.shape[1], peaks[strip]
    u, best = scratch.mixed.reshape(TILE, channels), scratch.sums.reshape(2 * TILE * LANES)
    best_bits = best.view(np.int32)
    largest[:] = 0
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            q = scratch.line[begin:end]
            start_rows(planes, smallest, u[: end - begin], q, scratch, lanes, first + begin, first + end)
            read(kernels, scratch, lanes, first, begin, end, y)
            softmax_rows(q, u, scratch.messages, diagonal, scratch.sums, lanes)
            bits = q.view(
                np.int32
            )  # numbers that are not negative are in the order of theirs, which are compared at once
            for p in range(end - begin):
                most = np.int32(0)
                for channel in range(channels):
                    most = max(most, bits[p, channel])
                best_bits[p] = most
            for p in range(end - begin):
                share = 1 / best[p]
                for channel in range(channels):
                    of_best = share * q[p, channel]
                    largest[channel] = of_best if of_best > largest[channel] else largest[channel]


@kernel_on_views
def go_on(planes, smallest, unary, kept, diagonal, kernels, part):
    """The second iteration with all labels: U as rows (N, C), Q = softmax(U - sum_m e_m Qm), splatted.

    kept (N, C) receives Q, or is empty.
    """
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        line = kept[first : first + size] if kept.size else scratch.line[:size]
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            u, q = unary[first + begin : first + end], line[begin:end]
            start_rows(planes, smallest, u, q, scratch, lanes, first + begin, first + end)
            read(kernels, scratch, lanes, first, begin, end, y)
            softmax_rows(q, u, scratch.messages, diagonal, scratch.sums, lanes)
            write(kernels, line, scratch, lanes, first, begin, end, y)


@kernel_on_views
def leave_out_rows(u, q, labels, few):
    """U and its softmax, rows u (n or more, C) and q (n, C), to few (n, C'): what of it is the rest's says its U."""
    count = labels.size
    for p in range(few.shape[0]):
        left, best = np.float32(1), labels[0]
        for k in range(count):
            label = labels[k]
            few[p, k] = u[p, label]
            left -= q[p, label]
            best = label if q[p, label] > q[p, best] else best
        if q[p, best] < LEAST:
            for label in range(q.shape[1]):
                best = label if q[p, label] > q[p, best] else best
        few[p, count] = u[p, best] + np.float32(math.log(max(left, LEAST) / q[p, best]))
        few[p, count + 1 :] = PADDING


@kernel_on_views
def leave_out(planes, smallest, diagonal, labels, unary, kept, kernels, part, few_kernels, few_part):
    """The second iteration with some labels and all the others together, the rest.

    labels (K,), at least one; unary (N, C') receives U, channel K that of the rest; kept (N, C') Q, or it is empty;
    `few_kernels` and `few_part`, of C' channels, are splatted to.
    """
    scratch, lanes, width, strip, after, start, stop = part
    few, few_lanes, channels, count = few_part.scratch, few_part.lanes, diagonal.shape[1], labels.size
    u = scratch.mixed.reshape(TILE, channels)
    clear(few_kernels.lattices, strip, after)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        line = kept[first : first + size] if kept.size else few.line[:size]
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            q = scratch.line[begin:end]
            start_rows(planes, smallest, u[: end - begin], q, scratch, lanes, first + begin, first + end)
            leave_out_rows(u, q, labels, unary[first + begin : first + end])
            read(kernels, scratch, lanes, first, begin, end, y)
            softmax_rows(q, u, scratch.messages, diagonal, scratch.sums, lanes)
            for p in range(begin, end):
                left = np.float32(1)
                for k in range(count):
                    line[p, k] = scratch.line[p, labels[k]]
                    left -= line[p, k]
                line[p, count] = max(left, np.float32(0))
                line[p, count + 1 :] = 0
            write(few_kernels, line, few, few_lanes, first, begin, end, y)
