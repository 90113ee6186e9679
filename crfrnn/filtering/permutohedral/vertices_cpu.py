"""The vertices of the lattice on the CPU (Numba): which there are, and which are next to each other.

Arrays in, arrays filled, no policy: N points, d feature dimensions, d + 1 corners for each point, R rows of vertices.
The derivation is in this folder's README; the readable twin is `reference.py`.

The points are divided into strips that depend on their number alone (`runtime/layout.py`). A strip numbers the
vertices that it meets in the order of first use, in rows of its own, so that strips never write to the same row. A
vertex that several strips meet has a row in each: the first is its owner, the others are its ghosts, which are added
to the owner after the splat and copied from it after the blur.
"""

import numpy as np

from crfrnn.runtime.compiled import kernel, part
from crfrnn.runtime.rows import prefetch_row

EMPTY = -1
BOXED = np.dtype(np.uint32).itemsize  # bytes of an entry of a table that has one for every key
ONE = np.uint64(1)
FIBONACCI, SECOND_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
HALF = np.uint64(32)  # bits
LOW_HALF = np.uint64(0xFFFFFFFF)
CHUNK = 1024  # points whose keys are in the cache between embedding and numbering
AHEAD = 16  # keys between asking for a place in a hash table and using it
TILE = 64  # points embedded together: 64 x (d + 1) float64 stay in the L1 cache


@part
def embed(features, scale, strides, lowest, weights, keys, start, stop):
    """Corners of the simplex around each point: barycentric weights and lattice keys.

    features (d, N); scale (d,); strides (words, d + 1) and lowest (words,) as in `lattice_cpu.Numbering`;
    weights (N, d + 1); keys (words, at least stop - start, d + 1). The arithmetic is float64 and in the order of
    `reference.embed`: a point on the face of a simplex must fall on the same side in both, or the sets of vertices
    differ.
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
                key = -lowest[word]
                step = np.int64(0)
                for k in range(corners):
                    key += np.int64(nearest[k, p]) * corners * strides[word, k]
                    step += strides[word, k]
                keys[word, row - start, 0] = key
                for k in range(1, corners):
                    key += step - corners * strides[word, coordinate_of[corners - k]]
                    keys[word, row - start, k] = key


@part
def _hash(low, high):
    """Of the words of a key: multiplicative hashing (Knuth) modulo 2^64, whose upper bits are the good ones, twice."""
    mixed = np.uint64(low) * FIBONACCI ^ np.uint64(high) * SECOND_FACTOR
    mixed = (mixed ^ mixed >> HALF) * FIBONACCI
    return mixed ^ mixed >> HALF


@part
def _find(low, high, table, keys):
    """Look a key up: its number, or EMPTY, its slot, and the entry for it without its number.

    A table holds numbers of columns of `keys` (words, n), from 1 on, as 0 is a free slot. One with an entry of 32 bits
    for each key, all of which are less than its size, needs no search. One of 64 bits is hashed (open addressing, a
    power of two): the lower bits of a key's hash are its slot, the upper half stands before the number, so that hardly
    any other key is ever fetched.
    """
    if table.itemsize == BOXED:
        return np.int64(table[np.uint64(low)]) - 1, np.uint64(low), np.uint64(0)
    mixed, last = _hash(low, high), np.uint64(table.size - 1)
    slot = mixed & last
    while table[slot] != 0:
        if (np.uint64(table[slot]) ^ mixed) <= LOW_HALF:
            number = np.int64(table[slot] & LOW_HALF) - 1
            if keys[0, number] == low and keys[keys.shape[0] - 1, number] == high:
                return number, slot, mixed & ~LOW_HALF
        slot = (slot + ONE) & last
    return np.int64(EMPTY), slot, mixed & ~LOW_HALF


@part
def _enter(table, slot, mark, number):
    """A number in the slot that `_find` said, with what stands before it."""
    table[slot] = mark | np.uint64(number + 1)


@part
def _ask_for(low, high, slots):
    """Have the place of a key on its way to the cache when it is looked up; slots (n, 1), the table."""
    slot = np.uint64(low) if slots.itemsize == BOXED else _hash(low, high) & np.uint64(slots.size - 1)
    prefetch_row(slots, np.int64(slot))


@part
def _hashed(keys, count, size, like):
    """A hash table of that size of the first keys; of equal ones, an owner and its ghosts, of the first."""
    table = np.zeros(size, like.dtype)
    for number in range(count):
        vertex, slot, mark = _find(keys[0, number], keys[keys.shape[0] - 1, number], table, keys)
        if vertex == EMPTY:
            _enter(table, slot, mark, number)
    return table


@kernel
def number_vertices(features, scale, strides, lowest, vertices, weights, vertex_keys, table, start, stop):
    """Corners of the points start..stop, one strip, and a number for every distinct one in the order of first use.

    features, scale, strides, lowest, weights as in `embed`; vertices (N, d + 1) receives numbers from 0; vertex_keys
    (words, N (d + 1)) receives their keys from start (d + 1) on; table is an empty one, see `_find`. Returns how many
    vertices there are.
    """
    corners = vertices.shape[1]
    keys = np.empty((strides.shape[0], CHUNK, corners), np.int64)
    high = keys.shape[0] - 1
    own = vertex_keys[:, start * corners : stop * corners]
    count = 0
    for begin in range(start, stop, CHUNK):
        end = min(begin + CHUNK, stop)
        embed(features, scale, strides, lowest, weights, keys, begin, end)
        for p in range(end - begin):
            # emptier than usual, as a search that goes on is a wrong guess of the processor
            if table.itemsize != BOXED and 4 * (count + corners) > table.size:
                table = _hashed(own, count, 4 * table.size, table)
            for r in range(corners):
                key, key2 = keys[0, p, r], keys[high, p, r]
                number, slot, mark = _find(key, key2, table, own)
                if number == EMPTY:
                    number = count
                    _enter(table, slot, mark, number)
                    own[0, number] = key
                    own[high, number] = key2
                    count += 1
                vertices[begin + p, r] = number
    if table.itemsize == BOXED:
        for number in range(count):
            table[np.uint64(own[0, number])] = 0
    return count


@kernel
def merge_strips(vertex_keys, places, rows, row_keys, ghosts, owners, table):
    """Find the vertices that several strips met.

    The keys of strip s stand from places[s] on in vertex_keys and get the rows rows[s] to rows[s + 1]; row_keys
    (words, R) receives the key of every row; ghosts and owners (at least R,) the rows of vertices met before and
    theirs; table, an empty one (hashed, a power of two above 2 R,), receives the owners. Returns the number of ghosts.
    """
    slots = table.reshape(table.size, 1)
    high = vertex_keys.shape[0] - 1
    count = 0
    for strip in range(places.size):
        shift = places[strip] - rows[strip]
        for row in range(rows[strip], rows[strip + 1]):
            key, key2 = vertex_keys[0, row + shift], vertex_keys[high, row + shift]
            if row + AHEAD < rows[strip + 1]:
                _ask_for(vertex_keys[0, row + AHEAD + shift], vertex_keys[high, row + AHEAD + shift], slots)
            row_keys[0, row] = key
            row_keys[high, row] = key2
            owner, slot, mark = _find(key, key2, table, row_keys)
            if owner == EMPTY:
                _enter(table, slot, mark, row)
            else:
                ghosts[count] = row
                owners[count] = owner
                count += 1
    return count


@kernel
def surround(row_keys, ghosts, table, offsets, neighbours):
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
        if table.itemsize != BOXED and 2 * (rows + 2 * axes) > table.size:
            table = _hashed(keys, rows, 4 * table.size, table)
        for axis in range(axes):
            for sign in (1, -1):
                key = row_keys[0, vertex] + sign * offsets[0, axis]
                key2 = row_keys[high, vertex] + sign * offsets[high, axis]
                neighbour, slot, mark = _find(key, key2, table, keys)
                if neighbour == EMPTY:
                    neighbour = rows
                    _enter(table, slot, mark, rows)
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
    return keys, _hashed(keys, kept, table.size, table)


@kernel
def move_vertices(vertices, first, start, stop):
    """From numbers within a strip, which begin at 0, to rows, for the points start..stop; vertices (N, d + 1)."""
    for p in range(start, stop):
        for r in range(vertices.shape[1]):
            vertices[p, r] += first


@kernel
def note_keys(row_keys, ghosts, owned, occupied):
    """owned (R - n,): the rows but for n ghosts. occupied (a power of two,): a set of all keys, a bit of it for each.

    A key's hash says which bit is its own. So other keys seem to be in the set, as many of them as bits are set, but a
    look at it costs next to nothing. There is none, an array of size 0, beside a table with an entry for every key.
    """
    occupied[:] = 0
    ghost = 0
    for row in range(row_keys.shape[1]):
        if ghost < ghosts.size and ghosts[ghost] == row:
            ghost += 1
            continue
        owned[row - ghost] = row
        if occupied.size == 0:
            continue
        word, bit = _place_in_set(row_keys[0, row], row_keys[row_keys.shape[0] - 1, row], occupied)
        occupied[word] |= np.uint64(1) << bit


@part
def _place_in_set(low, high, occupied):
    mixed = _hash(low, high)
    return mixed >> np.uint64(6) & np.uint64(occupied.size - 1), mixed & np.uint64(63)


@kernel
def link_chain(row_keys, owned, occupied, table, offsets, chain):
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
        begins[likely] = vertex
        if occupied.size:
            word, bit = _place_in_set(
                row_keys[0, vertex] + offsets[0], row_keys[high, vertex] + offsets[high], occupied
            )
            likely += np.int64(occupied[word] >> bit & ONE)
        else:
            likely += 1
    following, has_previous = np.full(count, EMPTY, np.int32), np.zeros(count + 1, np.uint8)
    slots = table.reshape(table.size, 1)
    length = 0
    for k in range(likely):
        vertex = begins[k]
        if k + AHEAD < likely:
            later = begins[k + AHEAD]
            _ask_for(row_keys[0, later] + offsets[0], row_keys[high, later] + offsets[high], slots)
        neighbour, _, _ = _find(
            row_keys[0, vertex] + offsets[0], row_keys[high, vertex] + offsets[high], table, row_keys
        )
        following[vertex] = neighbour
        has_previous[neighbour] = 1  # of none, -1, it is the last, which is nobody's
        length += np.int64(neighbour != EMPTY)
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
