"""Banded matrices along one axis for the CPU (Numba): arrays in, arrays filled, no policy."""

from numba import njit

from crfrnn.filtering.rows import weighted_rows


@njit(nogil=True, cache=True)
def apply_band(values, columns, weights, out, lanes, start, stop):
    """out[o, i, x] = sum_k weights[i, k] values[o, columns[i, k], x] for the rows start..stop of (o, i).

    values (outer, n * inner, C) and out (outer, rows, inner, C), point-major: `inner` samples of the later axes for
    each of the n along this one. columns (rows, K) unsigned, already times `inner`; weights (rows, K).
    """
    rows, inner = out.shape[1], out.shape[2]
    terms = columns.shape[1]
    one = out.dtype.type(1)
    for row in range(start, stop):
        o, i = row // rows, row % rows
        for x in range(inner):
            weighted_rows(out[o, i, x], values[o, x:], columns[i], weights[i], 0, terms, one, lanes)
