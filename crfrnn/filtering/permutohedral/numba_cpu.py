"""Permutohedral lattice kernels for the CPU (Numba): arrays in, arrays filled, no policy.

Shapes: N points, d feature dimensions, d + 1 corners for each point, M lattice vertices, C channels.
Values are stored point-major, ``(N, C)`` and ``(M, C)``, so that every inner loop runs over contiguous
channels and vectorises. The derivation is in this folder's README; the readable twin is `reference.py`.

Every kernel is ``nogil``; the ones with ``start, stop`` are safe to run on disjoint ranges from several
threads, and no sum depends on how the range was divided.

The operations on rows of channels, and what `lanes` is, are in `filtering/rows.py`.
"""

import numpy as np
from numba import njit

from crfrnn.filtering.rows import blur_row, weighted_rows

EMPTY = -1
TILE = 64  # points embedded together: 64 x (d + 1) float64 stay in the L1 cache


@njit(nogil=True, cache=True)
def embed(features, scale, strides, weights, keys, start, stop):
    """Corners of the simplex around each point: barycentric weights and lattice keys.

    features (d, N); scale (d,); strides (words, d + 1), the last column 0; weights (N, d + 1);
    keys (words, N, d + 1). The arithmetic is float64 and in the order of `reference.embed`: a point on
    the face of a simplex must fall on the same side in both, or the sets of vertices differ.
    """
    d, corners = scale.size, scale.size + 1
    words = strides.shape[0]
    elevated = np.empty((corners, TILE))
    nearest = np.empty((corners, TILE))
    rank = np.empty((corners, TILE), np.int32)
    total = np.empty(TILE)
    by_rank = np.empty(corners + 1)
    coordinate_of = np.empty(corners, np.int64)
    inverse = 1.0 / corners
    for begin in range(start, stop, TILE):
        size = min(TILE, stop - begin)
        # elevate to the hyperplane sum(x) = 0
        total[:] = 0.0
        for k in range(d, 0, -1):
            for p in range(size):
                scaled = np.float64(features[k - 1, begin + p]) * scale[k - 1]
                elevated[k, p] = total[p] - k * scaled
                total[p] += scaled
        for p in range(size):
            elevated[0, p] = total[p]
            total[p] = 0.0
        # nearest remainder-0 point, coordinate by coordinate (in units of d + 1)
        for k in range(corners):
            for p in range(size):
                nearest[k, p] = np.ceil(elevated[k, p] * inverse - 0.5)
                total[p] += nearest[k, p]
                rank[k, p] = 0
        # rank of each coordinate's distance to it, then walk back to the hyperplane
        for i in range(corners):
            for j in range(i + 1, corners):
                for p in range(size):
                    less = (elevated[i, p] - nearest[i, p] * corners) < (elevated[j, p] - nearest[j, p] * corners)
                    rank[i, p] += np.int32(less)
                    rank[j, p] += np.int32(not less)
        for k in range(corners):
            for p in range(size):
                r = rank[k, p] + np.int32(total[p])
                shift = np.int32(r < 0) - np.int32(r > d)
                rank[k, p] = r + shift * np.int32(corners)
                nearest[k, p] += shift
        for p in range(size):
            for k in range(corners):
                r = np.int64(rank[k, p])
                by_rank[r] = elevated[k, p] * inverse - nearest[k, p]
                coordinate_of[r] = k
            row = begin + p
            weights[row, 0] = by_rank[d] + (1.0 - by_rank[0])
            for k in range(1, corners):
                weights[row, k] = by_rank[d - k] - by_rank[corners - k]
            for word in range(words):
                key = np.int64(0)
                step = np.int64(0)
                for k in range(d):
                    key += np.int64(nearest[k, p]) * corners * strides[word, k]
                    step += strides[word, k]
                keys[word, row, 0] = key
                for k in range(1, corners):
                    key += step - corners * strides[word, coordinate_of[corners - k]]
                    keys[word, row, k] = key


@njit(nogil=True, cache=True)
def _slot_of(low, high, bits):
    mixed = np.uint64(low) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(high) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= mixed >> np.uint64(32)
    return np.int64((mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))


@njit(nogil=True, cache=True)
def _grow(vertex_keys, count, bits):
    table = np.full(1 << bits, EMPTY, np.int32)
    mask = (1 << bits) - 1
    high = vertex_keys.shape[0] - 1
    for vertex in range(count):
        slot = _slot_of(vertex_keys[0, vertex], vertex_keys[high, vertex], bits)
        while table[slot] != EMPTY:
            slot = (slot + 1) & mask
        table[slot] = vertex
    return table


@njit(nogil=True, cache=True)
def number_vertices(keys, vertices, vertex_keys):
    """Give every distinct key a number, in order of first use. Returns (number of vertices, hash table).

    keys (words, N, d + 1); vertices (N, d + 1) int32; vertex_keys (words, at least M). `table` holds vertex
    numbers at the slots of their keys (open addressing, at most half full).
    """
    points, corners = keys.shape[1], keys.shape[2]
    high = keys.shape[0] - 1
    bits = 14
    table = np.full(1 << bits, EMPTY, np.int32)
    mask = (1 << bits) - 1
    count = 0
    for p in range(points):
        for r in range(corners):
            key, key2 = keys[0, p, r], keys[high, p, r]
            if p > 0 and key == keys[0, p - 1, r] and key2 == keys[high, p - 1, r]:
                vertices[p, r] = vertices[p - 1, r]  # most neighbours share their simplex
                continue
            slot = _slot_of(key, key2, bits)
            while True:
                vertex = table[slot]
                if vertex == EMPTY:
                    vertex = count
                    table[slot] = vertex
                    vertex_keys[0, vertex] = key
                    vertex_keys[high, vertex] = key2
                    count += 1
                    if 2 * count > mask:
                        bits += 1
                        mask = (1 << bits) - 1
                        table = _grow(vertex_keys, count, bits)
                    break
                if vertex_keys[0, vertex] == key and vertex_keys[high, vertex] == key2:
                    break
                slot = (slot + 1) & mask
            vertices[p, r] = vertex
    return count, table


@njit(nogil=True, cache=True)
def link_chain(vertex_keys, count, table, offsets, chain):
    """Order the vertices along one lattice axis. Returns the length of the order.

    offsets (words,): the key of the next vertex minus that of this one. chain (at least M,) int32: the
    vertices that have a neighbour along this axis, run by run; the last of each run is stored as ``~v``.
    A vertex without neighbours is left alone by the blur, so it is not listed at all.
    """
    bits = 0
    while (1 << bits) < table.size:
        bits += 1
    mask = table.size - 1
    high = vertex_keys.shape[0] - 1
    following = np.empty(count, np.int32)
    has_previous = np.zeros(count, np.bool_)
    for vertex in range(count):
        key = vertex_keys[0, vertex] + offsets[0]
        key2 = vertex_keys[high, vertex] + offsets[high]
        slot = _slot_of(key, key2, bits)
        found = table[slot]
        while found != EMPTY and not (vertex_keys[0, found] == key and vertex_keys[high, found] == key2):
            slot = (slot + 1) & mask
            found = table[slot]
        following[vertex] = found
        if found != EMPTY:
            has_previous[found] = True
    length = 0
    for vertex in range(count):
        if has_previous[vertex] or following[vertex] == EMPTY:
            continue
        current = vertex
        while following[current] != EMPTY:
            chain[length] = current
            length += 1
            current = following[current]
        chain[length] = ~current
        length += 1
    return length


@njit(nogil=True, cache=True)
def group_by_vertex(vertices, weights, count, starts, points, grouped):
    """Transpose the point-to-vertex table: the points of each vertex, in order, with their weights.

    vertices, weights (N, d + 1); starts (at least M + 1,); points, grouped (N (d + 1),). With this the
    splat is a gather: each vertex sums its own points, so threads never meet and the order is fixed.
    """
    starts[: count + 1] = 0
    for p in range(vertices.shape[0]):
        for r in range(vertices.shape[1]):
            starts[vertices[p, r] + 1] += 1
    for vertex in range(count):
        starts[vertex + 1] += starts[vertex]
    cursor = starts[:count].copy()
    for p in range(vertices.shape[0]):
        for r in range(vertices.shape[1]):
            at = cursor[vertices[p, r]]
            cursor[vertices[p, r]] = at + 1
            points[at] = p
            grouped[at] = weights[p, r]


@njit(nogil=True, cache=True)
def splat(values, starts, points, weights, lattice, lanes, start, stop):
    """lattice[v] = sum over the points p of vertex v of weight * values[p], for start <= v < stop.

    values (N, C); starts, points, weights as `group_by_vertex` made them; lattice (M, C).
    """
    one = lattice.dtype.type(1)
    for vertex in range(start, stop):
        weighted_rows(lattice[vertex], values, points, weights, starts[vertex], starts[vertex + 1], one, lanes)


@njit(nogil=True, cache=True)
def blur(lattice, chain, lanes, start, stop):
    """[1/2 1 1/2] along one axis, in place, for the runs that begin among the entries start..stop of `chain`."""
    before = np.zeros(lattice.shape[1], lattice.dtype)
    nothing = np.zeros(lattice.shape[1], lattice.dtype)
    at = start
    while at > 0 and at < stop and chain[at - 1] >= 0:
        at += 1  # a run that began earlier belongs to the range before
    inside = False
    while at < stop or inside:
        entry = chain[at]
        at += 1
        inside = entry >= 0
        if inside:
            following = chain[at]
            blur_row(lattice[entry], before, lattice[following if following >= 0 else ~following], lanes)
        else:
            blur_row(lattice[~entry], before, nothing, lanes)
            before[:] = 0


@njit(nogil=True, cache=True)
def slice_points(lattice, vertices, weights, factor, out, lanes, start, stop):
    """out[p] = factor[p] * the weighted sum of the corners of p, for start <= p < stop; out (N, C)."""
    corners = vertices.shape[1]
    for p in range(start, stop):
        weighted_rows(out[p], lattice, vertices[p], weights[p], 0, corners, factor[p], lanes)
