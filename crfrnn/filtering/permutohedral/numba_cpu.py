"""Permutohedral lattice kernels for the CPU (Numba): arrays in, arrays filled, no policy.

Splat, blur and slice, on the vertices that `vertices_cpu.py` numbered, which says what strips, owners and ghosts are.

Shapes: N points, d feature dimensions, d + 1 corners for each point, R rows of lattice vertices, C channels.
Values are stored point-major, ``(N, C)`` and ``(R, C)``, so that every inner loop runs over contiguous
channels and vectorises. The derivation is in this folder's README; the readable twin is `reference.py`.

Every kernel is ``nogil``; the ones with ``start, stop`` are safe to run on disjoint ranges from several
threads, for those that work on points on disjoint strips, and no sum depends on how the strips were shared out.

The operations on rows of channels, and what `lanes` is, are in `filtering/rows.py`.
"""

import numpy as np
from numba import njit

from crfrnn.filtering.rows import blur_row, prefetch_row, scatter_row, weighted_rows

AHEAD = 16  # entries between asking for a row and using it: a trip to memory takes about as long


@njit(nogil=True, cache=True)
def splat(values, vertices, weights, lattice, lanes, first, last, start, stop):
    """Every row v of first..last: lattice[v] = sum of weight * values[p] over the points p of start..stop around it.

    values (N, C); vertices, weights (N, d + 1); lattice (R, C); first..last are the rows of the strips start..stop.
    """
    one = lattice.dtype.type(1)
    lattice[first:last] = 0
    for p in range(start, stop):
        scatter_row(lattice, values[p], vertices[p], weights[p], one, lanes)


@njit(nogil=True, cache=True)
def add_ghosts(lattice, ghosts, owners, lanes):
    """lattice[owner] += lattice[ghost]; lattice (R, C)."""
    ones = np.ones(1, lattice.dtype)
    for ghost in range(ghosts.size):
        if ghost + AHEAD < ghosts.size:
            prefetch_row(lattice, owners[ghost + AHEAD])
        scatter_row(lattice, lattice[ghosts[ghost]], owners[ghost : ghost + 1], ones, ones[0], lanes)


@njit(nogil=True, cache=True)
def copy_to_ghosts(lattice, ghosts, owners, lanes, start, stop):
    """lattice[ghost] = lattice[owner] for the ghosts start..stop; lattice (R, C)."""
    ones = np.ones(1, lattice.dtype)
    for ghost in range(start, stop):
        weighted_rows(lattice[ghosts[ghost]], lattice, owners[ghost : ghost + 1], ones, 0, 1, ones[0], lanes)


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
def blur_wide(lattice, chain, taps, lanes, start, stop):
    """The same with a wider stencil: taps (r + 1,), the weights of a vertex and of those 1 to r steps away.

    A row is needed as it was until r later ones are done, so new rows wait for their turn in `later`.
    """
    radius = taps.size - 1
    one = taps.dtype.type(1)
    weights = np.concatenate((taps[:0:-1], taps))
    later = np.empty((radius + 1, lattice.shape[1]), lattice.dtype)
    run = np.empty(64, np.uint32)  # its rows, the first of them at `radius`: so that they line up with the weights
    slot, alone = np.empty(1, np.uint32), np.ones(1, lattice.dtype)
    at = start
    while at > 0 and at < stop and chain[at - 1] >= 0:
        at += 1  # a run that began earlier belongs to the range before
    while at < stop:
        length, inside = 0, True
        while inside:
            if at + AHEAD < stop:
                ahead = chain[at + AHEAD]
                prefetch_row(lattice, ahead if ahead >= 0 else ~ahead)
            if length + radius == run.size:
                run = np.concatenate((run, np.empty_like(run)))
            inside = chain[at] >= 0
            run[length + radius] = chain[at] if inside else ~chain[at]
            length += 1
            at += 1
        for k in range(length + radius):
            if k < length:
                first, last = max(0, radius - k), min(2 * radius + 1, length + radius - k)
                weighted_rows(later[k % (radius + 1)], lattice, run[k:], weights, first, last, one, lanes)
            if k >= radius:
                slot[0] = (k - radius) % (radius + 1)
                weighted_rows(lattice[run[k]], later, slot, alone, 0, 1, one, lanes)


@njit(nogil=True, cache=True)
def slice_points(lattice, vertices, weights, factor, out, lanes, start, stop):
    """out[p] = factor[p] * the weighted sum of the corners of p, for start <= p < stop; out (N, C)."""
    corners = vertices.shape[1]
    for p in range(start, stop):
        weighted_rows(out[p], lattice, vertices[p], weights[p], 0, corners, factor[p], lanes)
