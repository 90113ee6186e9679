"""The pixel-wise half of one iteration for the CPU (Numba): slice, weighting, compatibility, unary and softmax in one
pass over the rows of pixels. Arrays in, arrays filled, no policy. Shapes as in `filtering/permutohedral/numba_cpu.py`:
N points, L labels, C >= L channels in memory, M kernels.

The messages of kernel m are read from a table: the blurred lattice with the d + 1 corners of each point, or an array
(N, C) of filtered values with one "corner", the point itself. The compatibility transform is
A_m = mu W_m = 1 c_m^T + diag(e_m); the first term is the same for all labels and cancels in the softmax.
"""

import numpy as np
from numba import njit

from crfrnn.filtering.rows import logits_row, softmax_backward_row, softmax_row, weighted_rows

TILE = 64  # pixels whose messages are in the L1 cache together
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
def update_rows(
    unary,
    tables,
    corners,
    weights,
    factors,
    diagonal,
    coarse,
    spread_columns,
    spread_weights,
    refine_columns,
    refine_weights,
    gather_columns,
    gather_weights,
    q,
    gathered,
    lanes,
    start,
    stop,
):
    """`update` for the rows of pixels start..stop of an image, with a separable kernel as the last one.

    Its bands as in `separable/numba_cpu.py`: coarse (ny nx, C) is spread along y to one row (nx, C), which is refined
    along x at the pixels; the new q of the row is gathered along x into gathered (H nx, C) while it is in the cache.
    """
    width, nodes = refine_columns.shape[0], gather_columns.shape[0]
    last = len(tables)
    one = q.dtype.type(1)
    ones = np.ones(width, q.dtype)
    row = np.empty((nodes, q.shape[1]), q.dtype)
    messages = np.empty((TILE, last + 1, q.shape[1]), q.dtype)
    for y in range(start, stop):
        for i in range(nodes):
            terms = spread_columns.shape[1]
            weighted_rows(row[i], coarse[i:], spread_columns[y], spread_weights[y], 0, terms, one, lanes)
        for begin in range(0, width, TILE):
            end = min(begin + TILE, width)
            first = y * width + begin
            for m in range(last):
                _read(tables[m], corners[m], weights[m], factors[m], m, messages, lanes, first, first + end - begin)
            _read(row, refine_columns, refine_weights, ones, last, messages, lanes, begin, end)
            for p in range(end - begin):
                softmax_row(q[first + p], unary[first + p], messages[p], diagonal, lanes)
        line = q[y * width : (y + 1) * width]
        for i in range(nodes):
            terms = gather_columns.shape[1]
            weighted_rows(gathered[y * nodes + i], line, gather_columns[i], gather_weights[i], 0, terms, one, lanes)


@njit(nogil=True, cache=True)
def finish(unary, tables, corners, weights, factors, diagonal, common, normalize, out, lanes, start, stop):
    """The last iteration: Qu = U - sum_m (e_m Qm + c_m . Qm), (4.3) to (4.5), or with `normalize` its softmax.

    unary (N, C); out (L, N); diagonal e and common c (M, C); the rest as in `update`.
    """
    messages = np.empty((TILE, len(tables), unary.shape[1]), unary.dtype)
    rows = np.empty((TILE, unary.shape[1]), unary.dtype)
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        for m in range(len(tables)):
            _read(tables[m], corners[m], weights[m], factors[m], m, messages, lanes, begin, end)
        for p in range(end - begin):
            if normalize:
                softmax_row(rows[p], unary[begin + p], messages[p], diagonal, lanes)
            else:
                logits_row(rows[p], unary[begin + p], messages[p], diagonal, common, lanes)
        for label in range(out.shape[0]):
            for p in range(begin, end):
                out[label, p] = rows[p - begin, label]


@njit(nogil=True, cache=True)
def initialise(planes, unary, q, lanes, start, stop):
    """U as rows, and Q = softmax(U), for the points start..stop; planes (L, N), unary, q (N, C)."""
    nothing = np.empty((0, q.shape[1]), q.dtype)
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        to_rows(planes, unary, PADDING, begin, end)
        for p in range(begin, end):
            softmax_row(q[p], unary[p], nothing, nothing, lanes)


@njit(nogil=True, cache=True)
def read_messages(tables, corners, weights, factors, out, lanes, start, stop):
    """The messages of all kernels at the points start..stop; out (N, M, C)."""
    for m in range(len(tables)):
        _read(tables[m], corners[m], weights[m], factors[m], m, out[start:], lanes, start, stop)


@njit(nogil=True, cache=True)
def update_gradient(q, messages, diagonal, common, grad, total, lanes, start, stop):
    """From h_m = K_m^T g to the gradient of the iteration before, for the points start..stop.

    q, grad, total (N, C); messages h (N, M, C); diagonal e and common c (M, C). grad becomes the gradient of the
    logits whose softmax is q; total collects it.
    """
    for p in range(start, stop):
        softmax_backward_row(grad[p], total[p], q[p], messages[p], diagonal, common, lanes)


@njit(nogil=True, cache=True)
def scale_entries(weights, factor, points, out, start, stop):
    """out[k] = weights[k] * factor[points[k]]: a normalisation folded into the weights of a splat."""
    for k in range(start, stop):
        out[k] = weights[k] * factor[points[k]]
