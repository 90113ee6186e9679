"""The passes over the pixels with which labels leave a run; see `vanishing_cpu.py`.

Shapes are those of `numba_cpu.py`.
"""

import math

import numpy as np

from crfrnn.inference.fused.numba_cpu import PADDING, clear, read, write
from crfrnn.inference.fused.softmax_cpu import TILE, softmax_rows
from crfrnn.runtime.compiled import kernel_on_views, part_on_views

LEAST = 1e-12  # a share of at least that has a logarithm


@kernel_on_views
def survey(unary, diagonal, q, peaks, kernels, part):
    """An iteration that is not splatted, otherwise as `numba_cpu.update`, and how probable each label is at the most.

    unary (N, C); diagonal (M, C); q (N, C) receives Q; peaks (strips, C), the largest share that each label has of the
    best one's marginal in each strip of pixels.
    """
    scratch, lanes, width, strip, _, start, stop = part
    largest = peaks[strip]
    largest[:] = 0
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            rows = q[first + begin : first + end]
            read(kernels, scratch, lanes, first, begin, end, y)
            softmax_rows(rows, unary[first + begin : first + end], scratch.messages, diagonal, scratch.sums, lanes)
            for p in range(end - begin):
                best = np.float32(0)
                for channel in range(rows.shape[1]):
                    best = max(best, rows[p, channel])
                share = 1 / best
                for channel in range(rows.shape[1]):
                    largest[channel] = max(largest[channel], share * rows[p, channel])


@part_on_views
def _most_probable(shares):
    best = 0
    for label in range(shares.size):
        if shares[label] > shares[best]:
            best = label
    return best


@kernel_on_views
def leave_out(unary, q, labels, few_unary, few_q, kernels, part):
    """The logits and marginals of some labels, and of all the others together, the rest.

    unary, q (N, C); labels (K,), at least one; few_unary, few_q (N, C'), whose channel K is the rest.
    """
    scratch, lanes, _, _, _, start, stop = part
    nothing, count = (scratch.messages[:, :0], kernels.mixing[:0]), labels.size
    shares = scratch.mixed.reshape(TILE, unary.shape[1])  # softmax(U): what of it is the rest's says its U
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        softmax_rows(shares[: end - begin], unary[begin:end], *nothing, scratch.sums, lanes)
        for p in range(begin, end):
            prior, marginal, best = np.float32(1), np.float32(1), labels[0]
            for k in range(count):
                label = labels[k]
                few_unary[p, k], few_q[p, k] = unary[p, label], q[p, label]
                prior, marginal = prior - shares[p - begin, label], marginal - q[p, label]
                if shares[p - begin, label] > shares[p - begin, best]:
                    best = label
            if shares[p - begin, best] < LEAST:
                best = _most_probable(shares[p - begin])
            odds = max(prior, LEAST) / shares[p - begin, best]
            few_unary[p, count] = unary[p, best] + np.float32(math.log(odds))
            few_q[p, count] = max(marginal, np.float32(0))
            for k in range(count + 1, few_q.shape[1]):
                few_unary[p, k], few_q[p, k] = PADDING, 0


@kernel_on_views
def splat(q, kernels, part):
    """Q (N, C), as `numba_cpu.update` splats it."""
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            write(kernels, q[first : first + size], scratch, lanes, first, begin, end, y)
