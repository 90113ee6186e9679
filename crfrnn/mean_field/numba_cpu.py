"""The pixel-wise half of one iteration for the CPU (Numba): slice, weighting, compatibility, unary and softmax in one
pass over the rows of pixels. Arrays in, arrays filled, no policy. Shapes as in `filtering/permutohedral/numba_cpu.py`:
N points, L labels, C >= L channels in memory, M kernels.

The messages of kernel m are read from a table: the blurred lattice with the d + 1 corners of each point, or an array
(N, C) of filtered values with one "corner", the point itself. The compatibility transform is
A_m = mu W_m = 1 c_m^T + diag(e_m); the first term is the same for all labels and cancels in the softmax.
"""

import numpy as np
from numba import njit

from crfrnn.filtering.rows import softmax_row, weighted_rows

TILE = 32  # pixels whose messages are in the L1 cache together
PADDING = np.float32(-1e30)  # logits of the channels that are no labels


@njit(nogil=True, cache=True)
def to_rows(planes, rows, padding, start, stop):
    """planes (L, N) -> rows (N, C) for the points start..stop; `padding` in the channels beyond L."""
    labels, channels = planes.shape[0], rows.shape[1]
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        for label in range(labels):
            for p in range(begin, end):
                rows[p, label] = planes[label, p]
        for p in range(begin, end):
            for label in range(labels, channels):
                rows[p, label] = padding


@njit(nogil=True, cache=True)
def to_planes(rows, planes, start, stop):
    """rows (N, C) -> planes (L, N) for the points start..stop."""
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        for label in range(planes.shape[0]):
            for p in range(begin, end):
                planes[label, p] = rows[p, label]


@njit(nogil=True, cache=True)
def _read(table, corners, weights, factor, m, messages, lanes, start, stop):
    """The messages of one kernel at the points start..stop; messages (TILE, M, C)."""
    count = corners.shape[1]
    for p in range(start, stop):
        weighted_rows(messages[p - start, m], table, corners[p], weights[p], 0, count, factor[p], lanes)


@njit(nogil=True, cache=True)
def update(unary, tables, corners, weights, factors, diagonal, q, lanes, start, stop):
    """Q = softmax(U - sum_m e_m Qm), equations (4.3) to (4.6), for the points start..stop.

    unary, q (N, C); for each kernel a table (n, C), corners and weights (N, k), factors (N,): tuples of M arrays;
    diagonal e (M, C).
    """
    messages = np.empty((TILE, len(tables), q.shape[1]), q.dtype)
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        for m in range(len(tables)):
            _read(tables[m], corners[m], weights[m], factors[m], m, messages, lanes, begin, end)
        for p in range(begin, end):
            softmax_row(q[p], unary[p], messages[p - begin], diagonal, lanes)


@njit(nogil=True, cache=True)
def finish(logits, tables, corners, weights, factors, diagonal, common, out, lanes, start, stop):
    """Qu = U - sum_m (e_m Qm + c_m . Qm), the last iteration's logits, equations (4.3) to (4.5).

    logits, out (L, N); common c and diagonal e (M, C); the rest as in `update`.
    """
    kernels, channels = diagonal.shape
    messages = np.empty((TILE, kernels, channels), out.dtype)
    penalty = np.empty((TILE, channels), out.dtype)
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        for m in range(kernels):
            _read(tables[m], corners[m], weights[m], factors[m], m, messages, lanes, begin, end)
        for p in range(end - begin):
            same = out.dtype.type(0)
            for m in range(kernels):
                for c in range(channels):
                    same += common[m, c] * messages[p, m, c]
            penalty[p] = same
            for m in range(kernels):
                for c in range(channels):
                    penalty[p, c] += diagonal[m, c] * messages[p, m, c]
        for label in range(out.shape[0]):
            for p in range(begin, end):
                out[label, p] = logits[label, p] - penalty[p - begin, label]


@njit(nogil=True, cache=True)
def initialise(unary, q, nothing, lanes, start, stop):
    """Q = softmax(U) for the points start..stop; unary, q (N, C); nothing (0, C)."""
    for p in range(start, stop):
        softmax_row(q[p], unary[p], nothing, nothing, lanes)


@njit(nogil=True, cache=True)
def softmax_backward(q, grad_q, grad_logits, total, start, stop):
    """grad_logits = q (grad_q - <q, grad_q>), and total += grad_logits; all (N, C), for the points start..stop."""
    channels = q.shape[1]
    for p in range(start, stop):
        dot = q.dtype.type(0)
        for c in range(channels):
            dot += q[p, c] * grad_q[p, c]
        for c in range(channels):
            g = q[p, c] * (grad_q[p, c] - dot)
            grad_logits[p, c] = g
            total[p, c] += g


@njit(nogil=True, cache=True)
def scale_entries(weights, factor, points, out, start, stop):
    """out[k] = weights[k] * factor[points[k]]: a normalisation folded into the weights of a splat."""
    for k in range(start, stop):
        out[k] = weights[k] * factor[points[k]]
