"""Banded matrices along one axis for the CPU (Numba): arrays in, arrays filled, no policy."""

from numba import njit

from crfrnn.filtering.rows import weighted_rows


@njit(nogil=True, cache=True)
def apply_band(values, columns, weights, out, lanes, start, stop):
    """out[o, i] = sum_k weights[i, k] values[o, columns[i, k]] for the rows start..stop of (o, i).

    values (outer, n, D) and out (outer, rows, D), where D are the samples of the later axes, point-major with their
    channels; columns (rows, K) unsigned, weights (rows, K).
    """
    rows, terms = columns.shape
    one = out.dtype.type(1)
    o, i = start // rows, start % rows
    for _ in range(start, stop):
        weighted_rows(out[o, i], values[o], columns[i], weights[i], 0, terms, one, lanes)
        i += 1
        if i == rows:
            o, i = o + 1, 0
