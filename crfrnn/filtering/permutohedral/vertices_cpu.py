"""The vertices of the lattice on the CPU (Numba): which there are, and which are next to each other.

Arrays in, arrays filled, no policy: N points, d feature dimensions, d + 1 corners for each point, R rows of vertices.
The derivation is in this folder's README; the readable twin is `reference.py`.

The points are divided into strips that depend on their number alone (`filtering/layout.py`). A strip numbers the
vertices that it meets in the order of first use, in rows of its own, so that strips never write to the same row. A
vertex that several strips meet has a row in each: the first is its owner, the others are its ghosts, which are added
to the owner after the splat and copied from it after the blur.
"""

import numpy as np

from crfrnn.filtering.compiled import kernel

EMPTY = -1
FIBONACCI, SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
CHUNK = 1024  # points whose keys are in the cache between embedding and numbering
TILE = 64  # points embedded together: 64 x (d + 1) float64 stay in the L1 cache


@kernel
def embed(features, scale, strides, weights, keys, start, stop):
    """Corners of the simplex around each point: barycentric weights and lattice keys.

    features (d, N); scale (d,); strides (words, d + 1), the last column 0; weights (N, d + 1);
    keys (words, at least stop - start, d + 1). The arithmetic is float64 and in the order of `reference.embed`: a
    point on the face of a simplex must fall on the same side in both, or the sets of vertices differ.
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
                keys[word, row - start, 0] = key
                for k in range(1, corners):
                    key += step - corners * strides[word, coordinate_of[corners - k]]
                    keys[word, row - start, k] = key


@kernel
def _slot_of(low, high, bits):
    """Multiplicative hashing (Knuth), modulo 2^64: a slot among 2^bits for the words of a key."""
    mixed = np.uint64(low) * FIBONACCI ^ np.uint64(high) * SECOND_FACTOR
    mixed ^= mixed >> np.uint64(32)
    return np.int64((mixed * FIBONACCI) >> np.uint64(64 - bits))


@kernel
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


@kernel
def number_vertices(features, scale, strides, vertices, weights, vertex_keys, start, stop):
    """Corners of the points start..stop, one strip, and a number for every distinct one in the order of first use.

    features, scale, strides, weights as in `embed`; vertices (N, d + 1) receives numbers from 0; vertex_keys
    (words, N (d + 1)) receives their keys from start (d + 1) on. Returns how many vertices there are.
    """
    corners = vertices.shape[1]
    keys = np.empty((strides.shape[0], CHUNK, corners), np.int64)
    high = keys.shape[0] - 1
    own = vertex_keys[:, start * corners : stop * corners]
    bits = 14
    table = np.full(1 << bits, EMPTY, np.int32)
    slot_keys = np.empty(table.size, np.int64)  # beside the numbers in the same slots: most searches end here
    count = 0
    for begin in range(start, stop, CHUNK):
        end = min(begin + CHUNK, stop)
        embed(features, scale, strides, weights, keys, begin, end)
        for p in range(end - begin):
            for r in range(corners):
                key, key2 = keys[0, p, r], keys[high, p, r]
                if p > 0 and key == keys[0, p - 1, r] and key2 == keys[high, p - 1, r]:
                    vertices[begin + p, r] = vertices[begin + p - 1, r]  # neighbours often share their simplex
                    continue
                slot = _find(key, key2, table, slot_keys, own, bits)
                if table[slot] == EMPTY:
                    table[slot] = count
                    slot_keys[slot] = key
                    own[0, count] = key
                    own[high, count] = key2
                    count += 1
                vertices[begin + p, r] = table[slot]
                if 2 * count > table.size:
                    bits += 1
                    table = np.full(1 << bits, EMPTY, np.int32)
                    slot_keys = np.empty(table.size, np.int64)
                    for vertex in range(count):
                        slot = _find(own[0, vertex], own[high, vertex], table, slot_keys, own, bits)
                        table[slot] = vertex
                        slot_keys[slot] = own[0, vertex]
    return count


@kernel
def merge_strips(vertex_keys, places, rows, row_keys, ghosts, owners, table, slot_keys):
    """Find the vertices that several strips met.

    The keys of strip s stand from places[s] on in vertex_keys and get the rows rows[s] to rows[s + 1]; row_keys
    (words, R) receives the key of every row; ghosts and owners (at least R,) the rows of vertices met before and
    theirs. table, slot_keys (a power of two above 2 R,) become a hash table: at the slot of a key (open addressing) the
    row of its owner, EMPTY where there is none, and its first word. Returns the number of ghosts.
    """
    table[:] = EMPTY
    bits, high = _bits(table), vertex_keys.shape[0] - 1
    found = 0
    for strip in range(places.size):
        shift = places[strip] - rows[strip]
        for row in range(rows[strip], rows[strip + 1]):
            key, key2 = vertex_keys[0, row + shift], vertex_keys[high, row + shift]
            row_keys[0, row] = key
            row_keys[high, row] = key2
            slot = _find(key, key2, table, slot_keys, row_keys, bits)
            if table[slot] == EMPTY:
                table[slot] = row
                slot_keys[slot] = key
            else:
                ghosts[found] = row
                owners[found] = table[slot]
                found += 1
    return found


@kernel
def surround(row_keys, ghosts, table, slot_keys, offsets, neighbours):
    """Add the vertices that have at least so many neighbours among these.

    row_keys, table, slot_keys, ghosts as in `link_chain`; offsets (words, d + 1): the key of the next vertex along
    each axis minus that of this one. Returns the keys with those of the new rows behind them, and their hash table.
    """
    high, count = row_keys.shape[0] - 1, row_keys.shape[1]
    axes = offsets.shape[1]
    keys = np.empty((high + 1, 2 * count + 2 * axes), np.int64)
    keys[:, :count] = row_keys
    met = np.zeros(keys.shape[1], np.uint8)  # by how many
    found, ghost = count, 0
    for vertex in range(count):
        if ghost < ghosts.size and ghosts[ghost] == vertex:
            ghost += 1
            continue
        if found + 2 * axes > keys.shape[1]:
            more = np.empty((high + 1, 2 * keys.shape[1]), np.int64)
            more[:, :found] = keys[:, :found]
            keys = more
            met = np.concatenate((met, np.zeros_like(met)))
        if 2 * (found + 2 * axes) > table.size:
            table, slot_keys = _hash_rows(keys[:, :found], ghosts, 4 * table.size)
        bits = _bits(table)
        for axis in range(axes):
            for sign in (1, -1):
                key = row_keys[0, vertex] + sign * offsets[0, axis]
                key2 = row_keys[high, vertex] + sign * offsets[high, axis]
                slot = _find(key, key2, table, slot_keys, keys, bits)
                if table[slot] == EMPTY:
                    table[slot] = found
                    slot_keys[slot] = key
                    keys[0, found] = key
                    keys[high, found] = key2
                    found += 1
                met[table[slot]] += 1
    if neighbours == 1:
        return keys[:, :found].copy(), table, slot_keys
    kept = count
    for row in range(count, found):
        if met[row] >= neighbours:
            keys[:, kept] = keys[:, row]
            kept += 1
    keys = keys[:, :kept].copy()
    table, slot_keys = _hash_rows(keys, ghosts, table.size)
    return keys, table, slot_keys


@kernel
def _bits(table):
    bits = 0
    while (1 << bits) < table.size:
        bits += 1
    return bits


@kernel
def _hash_rows(keys, ghosts, size):
    """A hash table of that size for all rows but the ghosts, as `merge_strips` makes it; keys (words, R)."""
    table = np.full(size, EMPTY, np.int32)
    slot_keys = np.empty(size, np.int64)
    bits, high, ghost = _bits(table), keys.shape[0] - 1, 0
    for row in range(keys.shape[1]):
        if ghost < ghosts.size and ghosts[ghost] == row:
            ghost += 1
            continue
        slot = _find(keys[0, row], keys[high, row], table, slot_keys, keys, bits)
        table[slot] = row
        slot_keys[slot] = keys[0, row]
    return table, slot_keys


@kernel
def move_vertices(vertices, first, start, stop):
    """From numbers within a strip, which begin at 0, to rows, for the points start..stop; vertices (N, d + 1)."""
    for p in range(start, stop):
        for r in range(vertices.shape[1]):
            vertices[p, r] += first


@kernel
def link_chain(row_keys, ghosts, table, slot_keys, offsets, chain):
    """Order the vertices along one lattice axis. Returns the length of the order.

    row_keys, table, slot_keys as `merge_strips` made them; ghosts in ascending order; offsets (words,): the key of the
    next vertex minus that of this one. chain (at least R,) int32: the vertices that have a neighbour along this axis,
    run by run; the last of each run is stored as ``~v``. A vertex without neighbours is left alone by the blur, so it
    is not listed at all, and neither is a ghost.
    """
    bits = _bits(table)
    high, count = row_keys.shape[0] - 1, row_keys.shape[1]
    following = np.empty(count, np.int32)
    has_previous = np.zeros(count, np.bool_)
    ghost = 0
    for vertex in range(count):
        if ghost < ghosts.size and ghosts[ghost] == vertex:
            ghost += 1
            following[vertex] = EMPTY  # and no previous one, as no search finds it
            continue
        key, key2 = row_keys[0, vertex] + offsets[0], row_keys[high, vertex] + offsets[high]
        found = table[_find(key, key2, table, slot_keys, row_keys, bits)]
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
