"""Permutohedral lattice kernels for the CPU (Numba): arrays in, arrays filled, no policy.

Splat, blur and slice, on the vertices that `vertices_cpu.py` numbered, which says what strips, owners and ghosts are.

Shapes: N points, d feature dimensions, d + 1 corners for each point, R rows of lattice vertices, C channels.
Values are stored point-major, ``(N, C)`` and ``(R, C)``, so that every inner loop runs over contiguous
channels and vectorises. The derivation is in this folder's README; the readable twin is `reference.py`.

Every kernel is ``nogil``; the ones with ``start, stop`` are safe to run on disjoint ranges from several
threads, for those that work on points on disjoint strips, and no sum depends on how the strips were shared out.

The operations on rows of channels, and what `lanes` is, are in `runtime/rows.py`.
"""

import numpy as np

from crfrnn.runtime.compiled import kernel, kernel_on_views, part_on_views
from crfrnn.runtime.rows import blur_row, prefetch_row, scatter_rows, sum_rows

AHEAD = 16  # entries between asking for a row and using it: a trip to memory takes about as long


@kernel_on_views
def splat(values, vertices, weights, lattice, lanes, first, last, start, stop):
    """Every row v of first..last: lattice[v] = sum of weight * values[p] over the points p of start..stop around it.

    values (N, C); vertices, weights (N, d + 1); lattice (R, C); first..last are the rows of the strips start..stop.
    """
    lattice[first:last] = 0
    scatter_rows(lattice, values[start:stop], vertices[start:stop], weights[start:stop], None, lanes)


@kernel_on_views
def add_ghosts(lattice, ghosts, owners):
    """lattice[owner] += lattice[ghost]; lattice (R, C); ghosts, owners (n,)."""
    for k in range(ghosts.size):
        if k + AHEAD < ghosts.size:
            prefetch_row(lattice, owners[k + AHEAD])
        owner, ghost = lattice[owners[k]], lattice[ghosts[k]]
        for channel in range(owner.size):
            owner[channel] += ghost[channel]


@kernel_on_views
def copy_to_ghosts(lattice, ghosts, owners, start, stop):
    """lattice[ghost] = lattice[owner] for the ghosts start..stop; the rest as in `add_ghosts`."""
    for k in range(start, stop):
        owner, ghost = lattice[owners[k]], lattice[ghosts[k]]
        for channel in range(ghost.size):
            ghost[channel] = owner[channel]


@kernel
def blur(lattice, chain, lanes, start, stop):
    """[1/2 1 1/2] along one axis, in place, for the runs that begin among the entries start..stop of `chain`."""
    _blur(lattice, chain, np.zeros(lattice.shape[1], lattice.dtype), lanes, start, stop)


@part_on_views
def _row(entry):
    """Of an entry v or ``~v``; unsigned, as an index that may be negative costs a comparison."""
    return np.uint32(entry ^ (entry >> 31))


@part_on_views
def _blur(lattice, chain, before, lanes, start, stop):
    """Runs are short, and where they end can't be guessed: so nothing branches there."""
    at = start
    while at > 0 and at < stop and chain[at - 1] >= 0:
        at += 1  # a run that began earlier belongs to the range before
    inside = False
    while at < stop or inside:
        if at + AHEAD < stop:
            prefetch_row(lattice, _row(chain[at + AHEAD]))
        entry = chain[at]
        at += 1
        inside = entry >= 0
        following = chain[at] if at < stop or inside else entry  # of another run where this one ends
        blur_row(lattice[_row(entry)], before, lattice[_row(following)], inside, lanes)


@kernel
def blur_wide(lattice, chain, taps, lanes, start, stop):
    """The same with a wider stencil: taps (r + 1,), the weights of a vertex and of those 1 to r steps away.

    A row is needed as it was until r later ones are done, so new rows wait for their turn in `later`.
    """
    radius = taps.size - 1
    weights = np.concatenate((taps[:0:-1], taps)).reshape(1, 2 * radius + 1)
    later = np.empty((radius + 1, lattice.shape[1]), lattice.dtype)
    run = np.empty((1, 64), np.uint32)  # its rows, the first of them at `radius`: so that they line up with the weights
    at = start
    while at > 0 and at < stop and chain[at - 1] >= 0:
        at += 1  # a run that began earlier belongs to the range before
    while at < stop:
        length, inside = 0, True
        while inside:
            if at + AHEAD < stop:
                prefetch_row(lattice, _row(chain[at + AHEAD]))
            if length + radius == run.size:
                run = np.concatenate((run, np.empty_like(run)), axis=1)
            inside = chain[at] >= 0
            run[0, length + radius] = _row(chain[at])
            length += 1
            at += 1
        for k in range(length + radius):
            if k < length:
                first, last = max(0, radius - k), min(2 * radius + 1, length + radius - k)
                into = later[k % (radius + 1) : k % (radius + 1) + 1]
                sum_rows(into, lattice, run[:, k + first : k + last], weights[:, first:last], None, lanes)
            if k >= radius:
                lattice[run[0, k]] = later[(k - radius) % (radius + 1)]


@kernel_on_views
def slice_points(lattice, vertices, weights, factor, out, lanes, start, stop):
    """out[p] = factor[p] * the weighted sum of the corners of p, for start <= p < stop; out (N, C)."""
    points = slice(start, stop)
    sum_rows(out[points], lattice, vertices[points], weights[points], factor[points], lanes)
