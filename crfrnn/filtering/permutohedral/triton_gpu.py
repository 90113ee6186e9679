"""Permutohedral lattice kernels for a GPU (Triton): arrays in, arrays filled, no policy.

Shapes: N points in each of B images, d feature dimensions, E = B N (d + 1) entries, one for each corner of each point;
R rows of lattice vertices, known on the device alone (`count`), with room for E; C channels in memory (layout_gpu.py).
All images of a batch share one lattice: the image's number is part of a vertex' key. The readable twin is
`reference.py`; the design, and why no two programs ever write to the same place, are in this folder's README.
"""

import triton
import triton.language as tl


@triton.jit
def embed(
    features,
    scale,
    strides,
    weights,
    keys,
    points,
    entries,
    D: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Corners of the simplex around each point: barycentric weights and keys; one image for each program of axis 1.

    features (B, d, N); scale (d,) float64; strides (2, d + 1) int64, the last column for the image; weights
    (B N, d + 1); keys (words, E). The arithmetic is float64 and in the order of `reference.embed`, and must be
    compiled without fusing a product and a sum: a point on a face must fall on the same side in both.
    """
    image = tl.program_id(1)
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = p < points
    inverse: tl.constexpr = 1.0 / (D + 1)

    # elevate to the hyperplane sum(x) = 0
    total = tl.zeros((BLOCK,), tl.float64)
    elevated = ()
    for k in tl.static_range(D, 0, -1):
        x = tl.load(features + (image * D + k - 1) * points + p, mask=inside, other=0).to(tl.float64)
        x = x * tl.load(scale + k - 1)
        elevated = (total - k * x,) + elevated
        total = total + x
    elevated = (total,) + elevated

    # the nearest point of remainder 0, coordinate by coordinate, in units of d + 1
    nearest, remainder = (), ()
    excess = tl.zeros((BLOCK,), tl.float64)
    for k in tl.static_range(D + 1):
        whole = tl.ceil(elevated[k] * inverse - 0.5)
        excess = excess + whole
        nearest = nearest + (whole,)
        remainder = remainder + (elevated[k] - whole * (D + 1),)

    # rank of each coordinate's remainder, ties to the later one, then back to the hyperplane
    rank, fraction, base = (), (), ()
    for i in tl.static_range(D + 1):
        r = excess.to(tl.int32)
        for j in tl.static_range(D + 1):
            if i < j:
                r += (remainder[i] < remainder[j]).to(tl.int32)
            elif j < i:
                r += (remainder[j] >= remainder[i]).to(tl.int32)
        shift = (r < 0).to(tl.int32) - (r > D).to(tl.int32)
        rank = rank + (r + shift * (D + 1),)
        moved = nearest[i] + shift.to(tl.float64)
        fraction = fraction + (elevated[i] * inverse - moved,)
        base = base + (moved.to(tl.int64) * (D + 1),)

    ordered = ()
    for r in tl.static_range(D + 1):
        of_rank = tl.zeros((BLOCK,), tl.float64)
        for k in tl.static_range(D + 1):
            of_rank = tl.where(rank[k] == r, fraction[k], of_rank)
        ordered = ordered + (of_rank,)
    entry = (image * points + p) * (D + 1)
    tl.store(weights + entry, ordered[D] + (1.0 - ordered[0]), mask=inside)
    for k in tl.static_range(1, D + 1):
        tl.store(weights + entry + k, ordered[D - k] - ordered[D + 1 - k], mask=inside)

    # corner k adds k to every coordinate, less d + 1 where the rank is above d - k; the key is linear in them
    for word in tl.static_range(WORDS):
        of_word = strides + word * (D + 1)
        key = tl.zeros((BLOCK,), tl.int64) + image * tl.load(of_word + D)
        step = tl.load(of_word)
        for k in tl.static_range(D):
            key += base[k] * tl.load(of_word + k)
            if k > 0:
                step += tl.load(of_word + k)
        into = keys + word * entries + entry
        tl.store(into, key, mask=inside)
        for k in tl.static_range(1, D + 1):
            key += step
            for c in tl.static_range(D):
                key -= tl.where(rank[c] == D + 1 - k, (D + 1) * tl.load(of_word + c), 0)
            tl.store(into + k, key, mask=inside)


@triton.jit
def fill_rows(sorted_keys, row_of, starts, row_keys, entries, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    """Where each row's run of entries begins, and its key: starts (E + 1,), row_keys (words, E).

    sorted_keys (words, E); row_of (E,), the row of each entry in sorted order, each row for a run of them.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(row_of + i, mask=i < entries, other=0)
    before = tl.load(row_of + i - 1, mask=(i > 0) & (i < entries), other=-1)
    first = (row != before) & (i < entries)
    tl.store(starts + row, i.to(tl.int32), mask=first)
    for word in tl.static_range(WORDS):
        key = tl.load(sorted_keys + word * entries + i, mask=first, other=0)
        tl.store(row_keys + word * entries + row, key, mask=first)


@triton.jit
def _first_row(row_keys, low, high, entries, count, steps, wanted, WORDS: tl.constexpr):
    """The first row whose key is not below (high, low), and whether it is equal: a binary search."""
    left = tl.zeros(low.shape, tl.int32)
    right = tl.zeros(low.shape, tl.int32) + count
    for _ in range(steps):
        middle = (left + right) // 2
        searching = wanted & (left < right)
        there = tl.load(row_keys + middle, mask=searching, other=0)
        below = there < low
        if WORDS == 2:
            top = tl.load(row_keys + entries + middle, mask=searching, other=0)
            below = (top < high) | ((top == high) & below)
        left = tl.where(searching & below, middle + 1, left)
        right = tl.where(searching & ~below, middle, right)
    is_there = wanted & (left < count)
    equal = tl.load(row_keys + left, mask=is_there, other=0) == low
    if WORDS == 2:
        equal = equal & (tl.load(row_keys + entries + left, mask=is_there, other=0) == high)
    return left, is_there & equal


@triton.jit
def link(
    row_keys,
    strides,
    owners,
    ghosts,
    following,
    previous,
    count_at,
    entries,
    steps,
    D: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Neighbours along every axis, and which rows belong together.

    row_keys (words, E), ascending; owners (E,) receives the first row with the same key, ghosts (E,), zeros before, how
    many rows follow an owner; following and previous (d + 1, E), -1 before, receive the rows one step along each axis.
    """
    count = tl.load(count_at)
    for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        row = start + tl.arange(0, BLOCK)
        inside = row < count
        low = tl.load(row_keys + row, mask=inside, other=0)
        high = low
        if WORDS == 2:
            high = tl.load(row_keys + entries + row, mask=inside, other=0)
        owner, _ = _first_row(row_keys, low, high, entries, count, steps, inside, WORDS)
        tl.store(owners + row, owner, mask=inside)
        has_next = inside & (row + 1 < count)
        same = tl.load(row_keys + row + 1, mask=has_next, other=0) == low
        if WORDS == 2:
            same = same & (tl.load(row_keys + entries + row + 1, mask=has_next, other=0) == high)
        tl.store(ghosts + owner, row - owner, mask=inside & (row > owner) & ~(has_next & same))
        owned = inside & (row == owner)
        for axis in tl.static_range(D + 1):
            target, target_high = low, high
            for k in tl.static_range(D):
                target += tl.load(strides + k)
                if WORDS == 2:
                    target_high += tl.load(strides + D + 1 + k)
            if axis < D:
                target -= (D + 1) * tl.load(strides + axis)
                if WORDS == 2:
                    target_high -= (D + 1) * tl.load(strides + D + 1 + axis)
            neighbour, there = _first_row(row_keys, target, target_high, entries, count, steps, owned, WORDS)
            at = axis * entries.to(tl.int64)
            tl.store(following + at + row, neighbour, mask=there)
            tl.store(previous + at + neighbour, row, mask=there)


@triton.jit
def number_corners(
    order, row_of, owners, weights, vertices, points, sorted_weights, entries, D: tl.constexpr, BLOCK: tl.constexpr
):
    """The row of each corner, and for the splat the point and the weight of each entry in sorted order.

    order, row_of (E,); owners (E,); weights, vertices (B N, d + 1); points, sorted_weights (E,).
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < entries
    entry = tl.load(order + i, mask=inside, other=0)
    row = tl.load(row_of + i, mask=inside, other=0)
    tl.store(vertices + entry, tl.load(owners + row, mask=inside, other=0), mask=inside)
    tl.store(points + i, (entry // (D + 1)).to(tl.int32), mask=inside)
    tl.store(sorted_weights + i, tl.load(weights + entry, mask=inside, other=0), mask=inside)


@triton.jit
def splat(
    values,
    points,
    weights,
    starts,
    table,
    count_at,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """table[r] = sum of weight * values[point] over the entries of row r, in their order: a gather, no atomics.

    values (B N, C); points, weights (E,) and starts (E + 1,) in sorted order; table (R, C), of the accumulators' type.
    """
    count = tl.load(count_at)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    for start in range(tl.program_id(0) * ROWS, count, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        first = tl.load(starts + row, mask=row < count, other=0)
        last = tl.load(starts + row + 1, mask=row < count, other=0)
        sums = tl.zeros((ROWS, WIDTH), table.dtype.element_ty)
        longest = tl.max(last - first)
        for k in range(0, longest, AHEAD):
            i = first[:, None] + k + tl.arange(0, AHEAD)[None, :]
            p = tl.load(points + i, mask=i < last[:, None], other=0).to(tl.int64)
            w = tl.load(weights + i, mask=i < last[:, None], other=0)
            mask = (i < last[:, None])[:, :, None] & (c < C)[None, None, :]
            v = tl.load(values + p[:, :, None] * C + c[None, None, :], mask=mask, other=0)
            sums += tl.sum(w[:, :, None] * v.to(sums.dtype), axis=1)
        at = row.to(tl.int64)[:, None] * C + c[None, :]
        tl.store(table + at, sums, mask=(row < count)[:, None] & (c < C)[None, :])


@triton.jit
def add_ghosts(table, ghosts, count_at, C: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Add the rows that follow an owner to it, in their order; table (R, C), ghosts (E,) how many they are."""
    count = tl.load(count_at)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    for start in range(tl.program_id(0) * ROWS, count, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        following = tl.load(ghosts + row, mask=row < count, other=0)
        most = tl.max(following)
        if most > 0:
            at = row.to(tl.int64)[:, None] * C + c[None, :]
            mask = (following > 0)[:, None] & (c < C)[None, :]
            sums = tl.load(table + at, mask=mask, other=0)
            for k in range(1, most + 1):
                sums += tl.load(table + at + k * C, mask=mask & (following >= k)[:, None], other=0)
            tl.store(table + at, sums, mask=mask)


@triton.jit
def blur(table, out, following, previous, count_at, C: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """[1/2 1 1/2] along one axis, from one table (R, C) to the other; following, previous (R,), -1 for none."""
    count = tl.load(count_at)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    for start in range(tl.program_id(0) * ROWS, count, tl.num_programs(0) * ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (c < C)[None, :]
        after = tl.load(following + row, mask=row < count, other=-1)
        before = tl.load(previous + row, mask=row < count, other=-1)
        at = row.to(tl.int64)[:, None] * C + c[None, :]
        own = tl.load(table + at, mask=(row < count)[:, None] & inside, other=0)
        a = tl.load(table + after.to(tl.int64)[:, None] * C + c[None, :], mask=(after >= 0)[:, None] & inside, other=0)
        b = tl.load(
            table + before.to(tl.int64)[:, None] * C + c[None, :], mask=(before >= 0)[:, None] & inside, other=0
        )
        tl.store(out + at, own + 0.5 * (a + b), mask=(row < count)[:, None] & inside)


@triton.jit
def slice_points(
    table,
    vertices,
    weights,
    out,
    points,
    C: tl.constexpr,
    CORNERS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """out[p] = the weighted sum of the corners of p; table (R, C), vertices, weights (B N, d + 1), out (B N, C)."""
    p = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (p < points)[:, None] & (c < C)[None, :]
    sums = tl.zeros((ROWS, WIDTH), table.dtype.element_ty)
    for corner in tl.static_range(CORNERS):
        v = tl.load(vertices + p * CORNERS + corner, mask=p < points, other=0).to(tl.int64)
        w = tl.load(weights + p * CORNERS + corner, mask=p < points, other=0)
        sums += w[:, None] * tl.load(table + v[:, None] * C + c[None, :], mask=inside, other=0)
    tl.store(out + p[:, None] * C + c[None, :], sums, mask=inside)
