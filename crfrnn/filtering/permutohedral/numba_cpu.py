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

from crfrnn.filtering.rows import blur_row, prefetch_row, weighted_rows

EMPTY = -1
FIBONACCI, SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
AHEAD = 16  # entries between asking for a vertex and blurring it: a trip to memory takes about as long
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
    """Multiplicative hashing (Knuth), modulo 2^64: a slot among 2^bits for the words of a key."""
    mixed = np.uint64(low) * FIBONACCI ^ np.uint64(high) * SECOND_FACTOR
    mixed ^= mixed >> np.uint64(32)
    return np.int64((mixed * FIBONACCI) >> np.uint64(64 - bits))


@njit(nogil=True, cache=True)
def _find(key, key2, table, slot_keys, vertex_keys, bits):
    """The slot that holds this key in a table of 2^bits, or the empty slot where it belongs."""
    mask = table.size - 1
    slot = _slot_of(key, key2, bits)
    high = vertex_keys.shape[0] - 1
    while table[slot] != EMPTY and not (
        slot_keys[slot] == key and (high == 0 or vertex_keys[high, table[slot]] == key2)
    ):
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True)
def number_vertices(keys, vertices, vertex_keys):
    """Give every distinct key a number, in order of first use.

    keys (words, N, d + 1); vertices (N, d + 1); vertex_keys (words, at least M). Returns the number of vertices and
    a hash table: at the slot of a key (open addressing, at most half full) the number of its vertex in `table` and
    its first word in `slot_keys`, so that the two are fetched side by side.
    """
    points, corners = keys.shape[1], keys.shape[2]
    high = keys.shape[0] - 1
    bits = 14
    table = np.full(1 << bits, EMPTY, np.int32)
    slot_keys = np.empty(table.size, np.int64)
    count = 0
    for p in range(points):
        for r in range(corners):
            key, key2 = keys[0, p, r], keys[high, p, r]
            if p > 0 and key == keys[0, p - 1, r] and key2 == keys[high, p - 1, r]:
                vertices[p, r] = vertices[p - 1, r]  # neighbours often share their simplex
                continue
            slot = _find(key, key2, table, slot_keys, vertex_keys, bits)
            if table[slot] == EMPTY:
                table[slot] = count
                slot_keys[slot] = key
                vertex_keys[0, count] = key
                vertex_keys[high, count] = key2
                count += 1
            vertices[p, r] = table[slot]
            if 2 * count > table.size:
                bits += 1
                table = np.full(1 << bits, EMPTY, np.int32)
                slot_keys = np.empty(table.size, np.int64)
                for vertex in range(count):
                    key = vertex_keys[0, vertex]
                    slot = _find(key, vertex_keys[high, vertex], table, slot_keys, vertex_keys, bits)
                    table[slot] = vertex
                    slot_keys[slot] = key
    return count, table, slot_keys


@njit(nogil=True, cache=True)
def link_chain(vertex_keys, count, table, slot_keys, offsets, chain):
    """Order the vertices along one lattice axis. Returns the length of the order.

    offsets (words,): the key of the next vertex minus that of this one. chain (at least M,) int32: the
    vertices that have a neighbour along this axis, run by run; the last of each run is stored as ``~v``.
    A vertex without neighbours is left alone by the blur, so it is not listed at all.
    """
    bits = 0
    while (1 << bits) < table.size:
        bits += 1
    high = vertex_keys.shape[0] - 1
    following = np.empty(count, np.int32)
    has_previous = np.zeros(count, np.bool_)
    for vertex in range(count):
        key, key2 = vertex_keys[0, vertex] + offsets[0], vertex_keys[high, vertex] + offsets[high]
        found = table[_find(key, key2, table, slot_keys, vertex_keys, bits)]
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
        if at + AHEAD < stop:
            later = chain[at + AHEAD]
            prefetch_row(lattice, later if later >= 0 else ~later)
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
