"""The vertices of the lattice on the CPU (Numba): which there are, and which are next to each other.

Arrays in, arrays filled, no policy: N points, d feature dimensions, d + 1 corners for each point, R rows of vertices.
The derivation is in this folder's README; the readable twin is `reference.py`.

The points are divided into strips that depend on their number alone (`runtime/layout.py`). A strip numbers the
vertices that it meets in the order of first use, in rows of its own, so that strips never write to the same row. A
vertex that several strips meet has a row in each: the first is its owner, the others are its ghosts, which are added
to the owner after the splat and copied from it after the blur.

Keys are looked up in a hash table, or, where they are those of a plane and the table has a place for each that there
may be (`direct`), where they belong: those of neighbouring points are found beside each other.
"""

import numpy as np

from crfrnn.runtime.compiled import kernel, part
from crfrnn.runtime.rows import prefetch_row

EMPTY = -1
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)  # an entry of a hash table
FIBONACCI, SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
THIRD = np.uint64(0xAAAAAAAAAAAAAAAB)  # times 3 it is 1, modulo 2^64
HALF = np.uint64(32)  # bits
LOW_HALF = np.uint64(0xFFFFFFFF)
CHUNK = 1024  # points whose keys are in the cache between embedding and numbering
FIRST_SLOTS = 1 << 14  # of a hash table that grows
AHEAD = 16  # keys between asking for a place in a hash table and using it
TILE = 64  # points embedded together: 64 x (d + 1) float64 stay in the L1 cache


@part
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
    beyond = np.empty((corners, TILE))
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
                beyond[k, p] = elevated[k, p] - nearest[k, p] * corners
                total[p] += nearest[k, p]
                rank[k, p] = 0
        # rank of each coordinate's distance to it, then walk back to the hyperplane
        for i in range(corners):
            for j in range(i + 1, corners):
                for p in range(size):
                    less = beyond[i, p] < beyond[j, p]
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


@part
def _hash(low, high, direct):
    """Of the words of a key: multiplicative hashing (Knuth) modulo 2^64, whose upper bits are the good ones, twice.

    Where it is `direct`, a third of the key, a multiple of three.
    """
    if direct:
        return np.uint64(low) * THIRD
    mixed = np.uint64(low) * FIBONACCI ^ np.uint64(high) * SECOND_FACTOR
    mixed = (mixed ^ mixed >> HALF) * FIBONACCI
    return mixed ^ mixed >> HALF


@part
def _find(low, high, table, keys, direct):
    """Look a key up: its number, or EMPTY, its slot, and the entry for it without its number.

    A hash table (open addressing, a power of two) holds numbers of columns of `keys` (words, n): the lower bits of a
    key's hash are its slot, the upper half stands before the number, so that hardly any other key is ever fetched.
    """
    mixed, last = _hash(low, high, direct), np.uint64(table.size - 1)
    slot = mixed & last
    while table[slot] != FREE:
        if (table[slot] ^ mixed) <= LOW_HALF:
            number = np.int64(table[slot] & LOW_HALF)
            if keys[0, number] == low and keys[keys.shape[0] - 1, number] == high:
                return number, slot, mixed & ~LOW_HALF
        slot = (slot + np.uint64(1)) & last
    return np.int64(EMPTY), slot, mixed & ~LOW_HALF


@part
def _ask_for(low, high, slots, direct):
    """Have the place of a key on its way to the cache when it is looked up; slots (n, 1), the table."""
    prefetch_row(slots, np.int64(_hash(low, high, direct) & np.uint64(slots.size - 1)))


@part
def _hashed(keys, count, size, direct):
    """A hash table of that size of the first keys; of equal ones, an owner and its ghosts, of the first."""
    table = np.full(size, FREE, np.uint64)
    for number in range(count):
        vertex, slot, mark = _find(keys[0, number], keys[keys.shape[0] - 1, number], table, keys, direct)
        if vertex == EMPTY:
            table[slot] = mark | np.uint64(number)
    return table


@kernel
def number_vertices(features, scale, strides, vertices, weights, vertex_keys, slots, start, stop):
    """Corners of the points start..stop, one strip, and a number for every distinct one in the order of first use.

    features, scale, strides, weights as in `embed`; vertices (N, d + 1) receives numbers from 0; vertex_keys
    (words, N (d + 1)) receives their keys from start (d + 1) on; slots (a power of two) of a direct table, or 0.
    Returns how many vertices there are.
    """
    corners = vertices.shape[1]
    keys = np.empty((strides.shape[0], CHUNK, corners), np.int64)
    high = keys.shape[0] - 1
    own = vertex_keys[:, start * corners : stop * corners]
    direct = slots > 0
    table = np.full(slots if direct else FIRST_SLOTS, FREE, np.uint64)
    count = 0
    for begin in range(start, stop, CHUNK):
        end = min(begin + CHUNK, stop)
        embed(features, scale, strides, weights, keys, begin, end)
        for p in range(end - begin):
            # emptier than usual, as a search that goes on is a wrong guess of the processor
            if not direct and 4 * (count + corners) > table.size:
                table = _hashed(own, count, 4 * table.size, direct)
            for r in range(corners):
                key, key2 = keys[0, p, r], keys[high, p, r]
                number, slot, mark = _find(key, key2, table, own, direct)
                if number == EMPTY:
                    number = count
                    table[slot] = mark | np.uint64(number)
                    own[0, number] = key
                    own[high, number] = key2
                    count += 1
                vertices[begin + p, r] = number
    return count


@kernel
def merge_strips(vertex_keys, places, rows, row_keys, ghosts, owners, table, direct):
    """Find the vertices that several strips met.

    The keys of strip s stand from places[s] on in vertex_keys and get the rows rows[s] to rows[s + 1]; row_keys
    (words, R) receives the key of every row; ghosts and owners (at least R,) the rows of vertices met before and
    theirs; table (a power of two above 2 R,) becomes the table of the owners. Returns the number of ghosts.
    """
    table[:] = FREE
    slots = table.reshape(table.size, 1)
    high = vertex_keys.shape[0] - 1
    count = 0
    for strip in range(places.size):
        shift = places[strip] - rows[strip]
        for row in range(rows[strip], rows[strip + 1]):
            key, key2 = vertex_keys[0, row + shift], vertex_keys[high, row + shift]
            if row + AHEAD < rows[strip + 1]:
                later = row + AHEAD + shift
                _ask_for(vertex_keys[0, later], vertex_keys[high, later], slots, direct)
            row_keys[0, row] = key
            row_keys[high, row] = key2
            owner, slot, mark = _find(key, key2, table, row_keys, direct)
            if owner == EMPTY:
                table[slot] = mark | np.uint64(row)
            else:
                ghosts[count] = row
                owners[count] = owner
                count += 1
    return count


@kernel
def surround(row_keys, ghosts, table, offsets, neighbours, direct):
    """Add the vertices that have at least so many neighbours among these.

    row_keys, ghosts, table as `merge_strips` made them; offsets (words, d + 1): the key of the next vertex along each
    axis minus that of this one. Returns the keys with those of the new rows behind them, and their hash table.
    """
    high, count = row_keys.shape[0] - 1, row_keys.shape[1]
    axes = offsets.shape[1]
    keys = np.empty((high + 1, 2 * count + 2 * axes), np.int64)
    keys[:, :count] = row_keys
    met = np.zeros(keys.shape[1], np.uint8)  # by how many
    rows, ghost = count, 0
    for vertex in range(count):
        if ghost < ghosts.size and ghosts[ghost] == vertex:
            ghost += 1
            continue
        if rows + 2 * axes > keys.shape[1]:
            larger = np.empty((high + 1, 2 * keys.shape[1]), np.int64)
            larger[:, :rows] = keys[:, :rows]
            keys = larger
            met = np.concatenate((met, np.zeros_like(met)))
        if 2 * (rows + 2 * axes) > table.size:
            table = _hashed(keys, rows, 4 * table.size, direct)
        for axis in range(axes):
            for sign in (1, -1):
                key = row_keys[0, vertex] + sign * offsets[0, axis]
                key2 = row_keys[high, vertex] + sign * offsets[high, axis]
                neighbour, slot, mark = _find(key, key2, table, keys, direct)
                if neighbour == EMPTY:
                    neighbour = rows
                    table[slot] = mark | np.uint64(rows)
                    keys[0, rows] = key
                    keys[high, rows] = key2
                    rows += 1
                met[neighbour] += 1
    if neighbours == 1:
        return keys[:, :rows].copy(), table
    kept = count
    for row in range(count, rows):
        if met[row] >= neighbours:
            keys[:, kept] = keys[:, row]
            kept += 1
    keys = keys[:, :kept].copy()
    return keys, _hashed(keys, kept, table.size, direct)


@kernel
def move_vertices(vertices, first, start, stop):
    """From numbers within a strip, which begin at 0, to rows, for the points start..stop; vertices (N, d + 1)."""
    for p in range(start, stop):
        for r in range(vertices.shape[1]):
            vertices[p, r] += first


@kernel
def note_keys(row_keys, ghosts, owned, occupied, direct):
    """owned (R - n,): the rows but for n ghosts. occupied (a power of two,): a set of all keys, a bit of it for each.

    A key's hash says which bit is its own. So other keys seem to be in the set, as many of them as bits are set, but a
    look at it costs next to nothing.
    """
    occupied[:] = 0
    ghost = 0
    for row in range(row_keys.shape[1]):
        if ghost < ghosts.size and ghosts[ghost] == row:
            ghost += 1
            continue
        owned[row - ghost] = row
        word, bit = _place_in_set(row_keys[0, row], row_keys[row_keys.shape[0] - 1, row], occupied, direct)
        occupied[word] |= np.uint64(1) << bit


@part
def _place_in_set(low, high, occupied, direct):
    mixed = _hash(low, high, direct)
    return mixed >> np.uint64(6) & np.uint64(occupied.size - 1), mixed & np.uint64(63)


@kernel
def link_chain(row_keys, owned, occupied, table, offsets, chain, direct):
    """Order the vertices along one lattice axis. Returns the length of the order.

    row_keys, table as `merge_strips` or `surround` made them; owned, occupied as `note_keys` did; offsets (words,): the
    key of the next vertex minus that of this one. chain (at least R,) int32: the vertices that have a neighbour along
    this axis, run by run; the last of each run is stored as ``~v``. A vertex without neighbours is left alone by the
    blur, so it is not listed at all, and neither is a ghost.

    Whether a vertex has a neighbour can't be guessed, and a wrong guess costs as much as a look at the L2 cache. So
    where nearly as many have one as have not, there is no branch.
    """
    high, count = row_keys.shape[0] - 1, row_keys.shape[1]
    begins = np.empty(owned.size + 1, np.uint32)  # vertices that seem to have a next one, then those where a run begins
    likely = 0
    for vertex in owned:
        key, key2 = row_keys[0, vertex] + offsets[0], row_keys[high, vertex] + offsets[high]
        word, bit = _place_in_set(key, key2, occupied, direct)
        begins[likely] = vertex
        likely += np.int64(occupied[word] >> bit & np.uint64(1))
    following, has_previous = np.full(count, EMPTY, np.int32), np.zeros(count, np.uint8)
    slots = table.reshape(table.size, 1)
    length = 0
    for k in range(likely):
        vertex = begins[k]
        if k + AHEAD < likely:
            later = begins[k + AHEAD]
            _ask_for(row_keys[0, later] + offsets[0], row_keys[high, later] + offsets[high], slots, direct)
        key, key2 = row_keys[0, vertex] + offsets[0], row_keys[high, vertex] + offsets[high]
        neighbour, _, _ = _find(key, key2, table, row_keys, direct)
        following[vertex] = neighbour
        if neighbour != EMPTY:
            has_previous[neighbour] = 1
            length += 1
    runs = 0
    for k in range(likely):
        vertex = begins[k]
        begins[runs] = vertex
        runs += np.int64((following[vertex] != EMPTY) & (has_previous[vertex] == 0))
    begins[runs] = 0  # read, but not used
    length += runs
    vertex, run = np.int64(begins[0]), 1
    for k in range(length):
        after = np.int64(following[np.uint32(vertex)])
        ends = after >> 63  # all bits, or none
        chain[k] = vertex ^ ends
        vertex = (after & ~ends) | (np.int64(begins[np.uint32(run)]) & ends)
        run -= ends
    return length
