"""One iteration over the pixels for the CPU (Numba): slice, weighting, compatibility, unary, softmax and the next
splat in one pass, line by line. Arrays in, arrays filled, no policy.

Shapes: N points in lines of W (the last may be shorter), L labels, C >= L channels in memory, M kernels: first the
lattices, then the separable ones. Marginals live in a line's buffer between the softmax and the splat, and nowhere
else unless they are kept for the backward pass.

The messages of lattice m are sums over the d + 1 corners of each point in the table of its blurred values. A separable
kernel is a chain of banded matrices (`separable/grid_cpu.py`): the first two, along x and along y, from points to the
rows of a coarse grid, and the last two, from there to the points of one line, are applied here, what is between them
elsewhere.

The compatibility transform of kernel m is A_m = mu W_m. Where it is 1 c_m^T + diag(e_m) for every m, as in the Potts
model, it is an elementwise product; the first term is the same for all labels and cancels in the softmax. Otherwise
it is a product with the matrix `mixing` (M C, C), which is empty in the first case.
"""

from typing import NamedTuple

import numpy as np

from crfrnn.inference.fused.softmax_cpu import TILE, logits_rows, probability_rows, softmax_backward_rows, softmax_rows
from crfrnn.runtime.compiled import kernel_on_views, part_on_views
from crfrnn.runtime.rows import PAIR, add_product, band_rows, prefetch_row, scatter_rows, sum_rows, transpose
from crfrnn.runtime.vectors import LANES

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
    """The separable kernels of one image, in the same form; what bands are is said in `runtime/rows.py`.

    The coarse grid has rows of nodes; the sums E are those of `separable/grid_cpu.py`.
    """

    count: int
    coarse: tuple  # (rows or more, nodes C): read
    spread_rows: tuple  # (lines, K) unsigned, from rows of the coarse grid to the nodes of a line
    spread_weights: tuple  # (lines, K)
    refine_starts: tuple  # from the nodes of a line to its points
    refine_weights: tuple
    gather_starts: tuple  # from the points of a line to its nodes
    gather_weights: tuple
    sum_ends: tuple  # (lines + 1,), from the nodes of lines to rows of the coarse grid
    sum_into: tuple  # (E,) unsigned
    sum_lines: tuple  # (E, K) unsigned
    sum_weights: tuple  # (E, K)
    sums: tuple  # (rows or more, nodes C): filled


class Kernels(NamedTuple):
    """All kernels of one image."""

    lattices: Lattices
    grids: Grids
    mixing: np.ndarray  # (M C, C), or empty


class Buffers(NamedTuple):
    """Room for what belongs to one line or one tile of it, of one thread."""

    line: np.ndarray  # (W, C), values
    nodes: np.ndarray  # (M', nodes, C), of the separable kernels' coarse grids
    messages: np.ndarray  # (TILE, M, C)
    mixed: np.ndarray  # (TILE, 1, C), the same after `mixing`
    sums: np.ndarray  # (2, TILE, LANES), see `softmax_cpu.py`
    gathered: tuple  # (window, nodes C) for each of them: nodes of the last few lines
    done: np.ndarray  # (M',) int64, how many pairs of these are done


class Part(NamedTuple):
    """What one call passes over: whole lines, and whole strips (`permutohedral/vertices_cpu.py`)."""

    scratch: Buffers
    lanes: tuple
    width: int  # W
    strip: int  # the first
    after: int  # the last is before this one
    start: int  # points
    stop: int


def buffers(kernels: int, windows: list[tuple[int, int]], width: int, channels: int) -> Buffers:
    """For M kernels, of which the separable ones have a window of so many lines and nodes in each."""
    float32 = np.float32
    return Buffers(
        np.empty((width, channels), float32),
        np.empty((len(windows), max([0, *(nodes for _, nodes in windows)]), channels), float32),
        np.zeros((TILE, kernels, channels), float32),  # rows behind the last point of a tile are mixed, too
        np.empty((TILE, 1, channels), float32),
        np.empty((2, TILE, LANES), float32),
        tuple(np.empty((lines, nodes * channels), float32) for lines, nodes in windows or [(0, 0)]),
        np.empty(len(windows), np.int64),
    )


@part_on_views
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


@part_on_views
def to_planes(rows, planes, start, stop):
    """The reverse: rows (at least stop - start, C) -> the points start..stop of planes (L, N)."""
    labels = planes.shape[0]
    whole = labels - labels % LANES
    for begin in range(start, stop, TILE):
        end = min(begin + TILE, stop)
        blocks = end - (end - begin) % LANES
        for label in range(labels):  # what the next tile is written to
            prefetch_row(planes[label : label + 1, end : min(end + TILE, planes.shape[1])], 0)
        for label in range(0, whole, LANES):
            for p in range(begin, blocks, LANES):
                transpose(planes, label, p, rows, p - start, label)
        for label in range(labels):
            for p in range(begin if label >= whole else blocks, end):
                planes[label, p] = rows[p - start, label]


@part_on_views
def read(kernels, scratch, lanes, first, begin, end, y):
    """The messages at the pixels begin..end of line y, which starts at point `first`, and with `mixing` those mixed."""
    lattices, grids, mixing = kernels
    start, stop, size, messages = first + begin, first + end, end - begin, scratch.messages
    channels = messages.shape[2]
    for m in range(lattices.count):
        corners, weights = lattices.corners[m][start:stop], lattices.weights[m][start:stop]
        sum_rows(messages[:size, m], lattices.table[m], corners, weights, lattices.after[m][start:stop], lanes)
    for g in range(grids.count):
        table, nodes = grids.coarse[g], scratch.nodes[g]
        pairs = slice(begin // PAIR, (end + PAIR - 1) // PAIR)
        starts, weights = grids.refine_starts[g][pairs], grids.refine_weights[g][pairs]
        # first the nodes of this line around these pixels, side by side as those of the other lines are
        low, high = starts[0] * channels, (starts[starts.size - 1] + weights.shape[1]) * channels
        into, lines, across = nodes.reshape(1, nodes.size), grids.spread_rows[g], grids.spread_weights[g]
        sum_rows(into[:, low:high], table[:, low:high], lines[y : y + 1], across[y : y + 1], None, lanes)
        band_rows(messages[:size, lattices.count + g], nodes, starts, weights, lanes)
    if mixing.size:
        scratch.mixed[:] = 0
        add_product(
            scratch.mixed[:, 0], messages.reshape(messages.shape[0], messages.shape[1] * channels), mixing, lanes
        )


@part_on_views
def write(kernels, values, scratch, lanes, first, begin, end, y):
    """Splat the pixels begin..end of line y, which starts at point `first`; values (W, C) are those of the line.

    The separable kernels' nodes are gathered as far as the pixels before `end` suffice; after the last they are
    summed along y, where a sum has all its lines.
    """
    lattices, grids, _ = kernels
    start, stop = first + begin, first + end
    for m in range(lattices.count):
        corners, weights, factors = lattices.corners[m], lattices.weights[m], lattices.before[m][start:stop]
        scatter_rows(lattices.sums[m], values[begin:end], corners[start:stop], weights[start:stop], factors, lanes)
    for g in range(grids.count):
        starts, weights = grids.gather_starts[g], grids.gather_weights[g]
        low = high = scratch.done[g] if begin else 0
        while high < starts.size and starts[high] + weights.shape[1] <= end:
            high += 1
        window = scratch.gathered[g]
        line = window[y % window.shape[0]].reshape(window.shape[1] // values.shape[1], values.shape[1])
        band_rows(line[PAIR * low : PAIR * high], values, starts[low:high], weights[low:high], lanes)
        scratch.done[g] = high
        if end == values.shape[0]:
            lines, across = grids.sum_lines[g], grids.sum_weights[g]
            for k in range(grids.sum_ends[g][y], grids.sum_ends[g][y + 1]):
                row = grids.sum_into[g][k]
                sum_rows(grids.sums[g][row : row + 1], window, lines[k : k + 1], across[k : k + 1], None, lanes)


@part_on_views
def clear(lattices, strip, after):
    """Zeros for the rows of the strips from `strip` up to `after`, before anything is splatted there."""
    for m in range(lattices.count):
        lattices.sums[m][lattices.rows[m][strip] : lattices.rows[m][after]] = 0


@part_on_views
def start_rows(planes, smallest, u, q, scratch, lanes, start, stop):
    """Points of planes (L, N) that are as in `initialise` -> U and its softmax, rows u, q (stop - start, C)."""
    to_rows(planes, u, PADDING, start, stop)
    if smallest > 0:
        probability_rows(q, u, smallest, scratch.sums, lanes)
    else:
        softmax_rows(q, u, scratch.messages[:, :0], scratch.line[:0], scratch.sums, lanes)


@kernel_on_views
def initialise(planes, smallest, unary, kept, kernels, part):
    """U as rows, Q = softmax(U), splatted.

    planes (L, N): U, or where `smallest` is above 0 probabilities, whose logarithm U is, of at least that;
    unary, kept (N, C) receive U and Q, or are empty.
    """
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        q = kept[first : first + size] if kept.size else scratch.line[:size]
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            rows = scratch.mixed.reshape(TILE, q.shape[1])[: end - begin]
            u = unary[first + begin : first + end] if unary.size else rows
            start_rows(planes, smallest, u, q[begin:end], scratch, lanes, first + begin, first + end)
            write(kernels, q, scratch, lanes, first, begin, end, y)


@kernel_on_views
def update(unary, diagonal, kept, kernels, part):
    """Q = softmax(U - sum_m e_m Qm), equations (4.3) to (4.6), splatted.

    unary (N, C); diagonal e (M, C), or with `mixing` ones (1, C); kept (N, C) receives Q, or is empty.
    """
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    passed = scratch.mixed if kernels.mixing.size else scratch.messages
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        q = kept[first : first + size] if kept.size else scratch.line[:size]
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            read(kernels, scratch, lanes, first, begin, end, y)
            softmax_rows(q[begin:end], unary[first + begin : first + end], passed, diagonal, scratch.sums, lanes)
            write(kernels, q, scratch, lanes, first, begin, end, y)


@kernel_on_views
def finish(unary, diagonal, common, normalize, out, kernels, part):
    """The last iteration: Qu = U - sum_m (e_m Qm + c_m . Qm), (4.3) to (4.5), or with `normalize` its softmax.

    common c (M, C), or with `mixing` zeros (1, C); out (L, N); the rest as in `update`.
    """
    scratch, lanes, width, _, _, start, stop = part
    passed = scratch.mixed if kernels.mixing.size else scratch.messages
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            read(kernels, scratch, lanes, first, begin, end, y)
            u, rows = unary[first + begin : first + end], scratch.line[: end - begin]
            if normalize:
                softmax_rows(rows, u, passed, diagonal, scratch.sums, lanes)
            else:
                logits_rows(rows, u, passed, diagonal, common, scratch.sums, lanes)
            to_planes(rows, out, first + begin, first + end)


@kernel_on_views
def start_gradient(planes, total, kernels, part):
    """The gradient of the last Qu as rows, splatted.

    planes (L, N); total (N, C), which will collect the gradient of U.
    """
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        line = total[first : first + size]
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            to_rows(planes, line[begin:end], np.float32(0), first + begin, first + end)
            write(kernels, line, scratch, lanes, first, begin, end, y)


@kernel_on_views
def update_gradient(q, diagonal, common, total, products, planes, kernels, part):
    """One iteration back: from h_m = K_m^T g to the gradient of the logits whose softmax is q, splatted.

    q (N, C); total (N, C) collects that gradient; products (parts, M C, C) collects h_m q^T, for each part of the
    pixels by itself, or is empty; diagonal and common as in `finish`. The last time nothing is splatted, and total goes
    to planes (L, N), which are empty before.
    """
    scratch, lanes, width, strip, after, start, stop = part
    splats = planes.size == 0
    if splats:
        clear(kernels.lattices, strip, after)
    passed = scratch.mixed if kernels.mixing.size else scratch.messages
    every = scratch.messages.reshape(len(scratch.messages), scratch.messages.shape[1] * scratch.messages.shape[2])
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            here, g = slice(first + begin, first + end), scratch.line[begin:end]
            read(kernels, scratch, lanes, first, begin, end, y)
            if products.size:
                add_product(products[strip], every[: end - begin].T, q[here], lanes)
            softmax_backward_rows(g, total[here], q[here], passed, diagonal, common, scratch.sums, lanes)
            if splats:
                write(kernels, scratch.line, scratch, lanes, first, begin, end, y)
            else:
                to_planes(total[here], planes, first + begin, first + end)
