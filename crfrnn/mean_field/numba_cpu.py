"""One iteration over the pixels for the CPU (Numba): slice, weighting, compatibility, unary, softmax and the next
splat in one pass, line by line. Arrays in, arrays filled, no policy.

Shapes: N points in lines of W (the last may be shorter), L labels, C >= L channels in memory, M kernels: first the
lattices, then the separable ones. Marginals live in a line's buffer between the softmax and the splat, and nowhere
else unless they are kept for the backward pass.

The messages of lattice m are sums over the d + 1 corners of each point in the table of its blurred values. A separable
kernel is a chain of banded matrices (`separable/grid_cpu.py`): the first, along x, and the last two, along y to one
line and along x to its points, are applied here, what is between them elsewhere.

A pass over the points start..stop works on whole lines and on the strips from `strip` up to `after`
(`permutohedral/vertices_cpu.py`).

The compatibility transform of kernel m is A_m = mu W_m. Where it is 1 c_m^T + diag(e_m) for every m, as in the Potts
model, it is an elementwise product; the first term is the same for all labels and cancels in the softmax. Otherwise
it is a product with the matrix `mixing` (M C, C), which is empty in the first case.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from crfrnn.filtering.rows import add_products, scatter_row, transpose, weighted_rows
from crfrnn.filtering.vectors import LANES
from crfrnn.mean_field.softmax_cpu import logits_row, softmax_backward_row, softmax_rows

TILE = 64  # points whose messages are in the L1 cache together
PADDING = np.float32(-1e30)  # logits of the channels that are no labels


class Lattices(NamedTuple):
    """The lattices of one image: tuples with an entry for each, and at least one; `count` may be 0 all the same."""

    count: int
    corners: tuple  # (N, d + 1) unsigned
    weights: tuple  # (N, d + 1)
    after: tuple  # (N,), multiplies what is read
    before: tuple  # (N,), multiplies what is splatted
    rows: tuple  # (strips + 1 or more,), where the rows of each strip begin
    table: tuple  # (R, C), blurred: read
    sums: tuple  # (R, C), splatted to


class Grids(NamedTuple):
    """The separable kernels of one image, in the same form; bands as columns (rows, K) unsigned, weights (rows, K)."""

    count: int
    coarse: tuple  # (n, nodes C): read
    spread_columns: tuple  # along y: from coarse to one line, for each line
    spread_weights: tuple
    refine_columns: tuple  # along x: from that line to its points
    refine_weights: tuple
    gather_columns: tuple  # along x: from the points of a line
    gather_weights: tuple
    gathered: tuple  # (lines * nodes, C): filled


@njit(nogil=True, cache=True)
def to_rows(planes, rows, padding, start, stop):
    """Points start..stop of planes (L, N) -> rows (at least stop - start, C); `padding` in the channels beyond L."""
    labels, channels = planes.shape[0], rows.shape[1]
    whole = labels - labels % LANES
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        blocks = end - (end - begin) % LANES
        for label in range(0, whole, LANES):
            for p in range(begin, blocks, LANES):
                transpose(rows, p - start, label, planes, label, p)
        for label in range(labels):
            for p in range(begin if label >= whole else blocks, end):
                rows[p - start, label] = planes[label, p]
        for p in range(begin, end):
            for label in range(labels, channels):
                rows[p - start, label] = padding


@njit(nogil=True, cache=True)
def to_planes(rows, planes, start, stop):
    """The reverse: rows (at least stop - start, C) -> the points start..stop of planes (L, N)."""
    labels = planes.shape[0]
    whole = labels - labels % LANES
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        blocks = end - (end - begin) % LANES
        for label in range(0, whole, LANES):
            for p in range(begin, blocks, LANES):
                transpose(planes, label, p, rows, p - start, label)
        for label in range(labels):
            for p in range(begin if label >= whole else blocks, end):
                planes[label, p] = rows[p - start, label]


@njit(nogil=True, cache=True)
def _line_buffers(grids, mixing, kernels, width, channels):
    """Room for what belongs to one line: coarse nodes (M', nodes, C), messages (TILE, M, C), and those mixed.

    With the last comes the index of the rows of `mixing`, all of which are summed for each pixel.
    """
    nodes = 0
    for g in range(grids.count):
        nodes = max(nodes, grids.gather_columns[g].shape[0])
    coarse = np.empty((grids.count, nodes, channels), np.float32)
    messages = np.empty((TILE, kernels, channels), np.float32)
    mixed = (
        np.empty((TILE if mixing.size else 0, 1, channels), np.float32),
        np.arange(mixing.shape[0]).astype(np.uint32),
    )
    return np.empty((width, channels), np.float32), coarse, messages, mixed


@njit(nogil=True, cache=True)
def _spread(grids, y, coarse, lanes):
    """The coarse nodes of line y, for every separable kernel; coarse (M', nodes, C)."""
    for g in range(grids.count):
        columns, weights, table = grids.spread_columns[g], grids.spread_weights[g], grids.coarse[g]
        line = coarse[g].reshape(coarse[g].size)[: table.shape[1]]
        weighted_rows(line, table, columns[y], weights[y], 0, columns.shape[1], np.float32(1), lanes)


@njit(nogil=True, cache=True)
def _read(lattices, grids, coarse, mixing, messages, mixed, lanes, first, begin, end):
    """The messages at the pixels begin..end of the line from point `first` on, (TILE, M, C), or mixed (TILE, 1, C)."""
    one = np.float32(1)
    for m in range(lattices.count):
        table, corners, weights, factor = lattices.table[m], lattices.corners[m], lattices.weights[m], lattices.after[m]
        for x in range(begin, end):
            p = first + x
            weighted_rows(messages[x - begin, m], table, corners[p], weights[p], 0, corners.shape[1], factor[p], lanes)
    for g in range(grids.count):
        columns, weights, m = grids.refine_columns[g], grids.refine_weights[g], lattices.count + g
        for x in range(begin, end):
            weighted_rows(messages[x - begin, m], coarse[g], columns[x], weights[x], 0, columns.shape[1], one, lanes)
    if not mixing.size:
        return messages
    every, (sums, rows) = messages.reshape(TILE, mixing.shape[0]), mixed
    for p in range(end - begin):
        weighted_rows(sums[p, 0], mixing, rows, every[p], 0, rows.size, one, lanes)
    return sums


@njit(nogil=True, cache=True)
def _splat(lattices, line, lanes, first, begin, end):
    """Add the pixels begin..end of a line (W, C) that starts at point `first` to the vertices around them."""
    for m in range(lattices.count):
        sums, corners, weights, factor = lattices.sums[m], lattices.corners[m], lattices.weights[m], lattices.before[m]
        for x in range(begin, end):
            p = first + x
            scatter_row(sums, line[x], corners[p], weights[p], factor[p], lanes)


@njit(nogil=True, cache=True)
def _gather(grids, line, lanes, y):
    """Apply the first band of every separable kernel to line y (W, C)."""
    one = np.float32(1)
    for g in range(grids.count):
        columns, weights = grids.gather_columns[g], grids.gather_weights[g]
        nodes = columns.shape[0]
        for node in range(nodes):
            out = grids.gathered[g][y * nodes + node]
            weighted_rows(out, line, columns[node], weights[node], 0, columns.shape[1], one, lanes)


@njit(nogil=True, cache=True)
def _clear(lattices, strip, after):
    """Zeros for the rows of the strips from `strip` up to `after`, before anything is splatted there."""
    for m in range(lattices.count):
        lattices.sums[m][lattices.rows[m][strip] : lattices.rows[m][after]] = 0


@njit(nogil=True, cache=True)
def initialise(planes, unary, kept, lattices, grids, mixing, lanes, width, strip, after, start, stop):
    """U as rows, Q = softmax(U), splatted.

    planes (L, N); unary (N, C); kept (N, C) receives Q, or is empty.
    """
    _clear(lattices, strip, after)
    channels = unary.shape[1]
    line, no_messages = np.empty((width, channels), np.float32), np.empty((width, 0, channels), np.float32)
    no_weights = np.empty((0, channels), np.float32)
    for first in range(start, stop, width):
        size = min(width, stop - first)
        to_rows(planes, unary[first:], PADDING, first, first + size)
        q = kept[first : first + size] if kept.size else line
        softmax_rows(q[:size], unary[first:], no_messages, no_weights, lanes)
        _splat(lattices, q, lanes, first, 0, size)
        _gather(grids, q, lanes, first // width)


@njit(nogil=True, cache=True)
def update(unary, diagonal, kept, lattices, grids, mixing, lanes, width, strip, after, start, stop):
    """Q = softmax(U - sum_m e_m Qm), equations (4.3) to (4.6), splatted.

    unary (N, C); diagonal e (M, C), or with `mixing` ones (1, C); kept (N, C) receives Q, or is empty.
    """
    _clear(lattices, strip, after)
    kernels = lattices.count + grids.count
    line, coarse, messages, mixed = _line_buffers(grids, mixing, kernels, width, unary.shape[1])
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        q = kept[first : first + size] if kept.size else line
        _spread(grids, y, coarse, lanes)
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            passed = _read(lattices, grids, coarse, mixing, messages, mixed, lanes, first, begin, end)
            softmax_rows(q[begin:end], unary[first + begin :], passed, diagonal, lanes)
            _splat(lattices, q, lanes, first, begin, end)
        _gather(grids, q, lanes, y)


@njit(nogil=True, cache=True)
def finish(unary, diagonal, common, normalize, out, lattices, grids, mixing, lanes, width, strip, after, start, stop):
    """The last iteration: Qu = U - sum_m (e_m Qm + c_m . Qm), (4.3) to (4.5), or with `normalize` its softmax.

    common c (M, C), or with `mixing` zeros (1, C); out (L, N); the rest as in `update`.
    """
    kernels = lattices.count + grids.count
    line, coarse, messages, mixed = _line_buffers(grids, mixing, kernels, width, unary.shape[1])
    for first in range(start, stop, width):
        size = min(width, stop - first)
        _spread(grids, first // width, coarse, lanes)
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            passed = _read(lattices, grids, coarse, mixing, messages, mixed, lanes, first, begin, end)
            if normalize:
                softmax_rows(line[begin:end], unary[first + begin :], passed, diagonal, lanes)
            else:
                for x in range(begin, end):
                    logits_row(line[x], unary[first + x], passed[x - begin], diagonal, common, lanes)
            to_planes(line[begin:], out, first + begin, first + end)


@njit(nogil=True, cache=True)
def start_gradient(planes, total, lattices, grids, mixing, lanes, width, strip, after, start, stop):
    """The gradient of the last Qu as rows, splatted.

    planes (L, N); total (N, C), which will collect the gradient of U.
    """
    _clear(lattices, strip, after)
    for first in range(start, stop, width):
        size = min(width, stop - first)
        line = total[first : first + size]
        to_rows(planes, line, np.float32(0), first, first + size)
        _splat(lattices, line, lanes, first, 0, size)
        _gather(grids, line, lanes, first // width)


@njit(nogil=True, cache=True)
def update_gradient(
    q, diagonal, common, total, products, planes, lattices, grids, mixing, lanes, width, strip, after, start, stop
):
    """One iteration back: from h_m = K_m^T g to the gradient of the logits whose softmax is q, splatted.

    q (N, C); total (N, C) collects that gradient; products (parts, M C, C) collects h_m q^T, for each part of the
    pixels by itself, or is empty; diagonal and common as in `finish`. The last time nothing is splatted, and total goes
    to planes (L, N), which are empty before.
    """
    more = planes.size == 0
    if more:
        _clear(lattices, strip, after)
    kernels, channels = lattices.count + grids.count, q.shape[1]
    line, coarse, messages, mixed = _line_buffers(grids, mixing, kernels, width, channels)
    every = messages.reshape(TILE, kernels * channels)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        _spread(grids, y, coarse, lanes)
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            passed = _read(lattices, grids, coarse, mixing, messages, mixed, lanes, first, begin, end)
            if products.size:
                add_products(products[strip], every, q[first + begin :], end - begin, lanes)
            for x in range(begin, end):
                p = first + x
                softmax_backward_row(line[x], total[p], q[p], passed[x - begin], diagonal, common, lanes)
            if more:
                _splat(lattices, line, lanes, first, begin, end)
        if more:
            _gather(grids, line, lanes, y)
        else:
            to_planes(total[first:], planes, first, first + size)
