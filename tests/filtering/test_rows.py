"""The vector operations equal the plain Python that stands beside each of them."""

import numpy as np
import pytest
from numba import njit

from crfrnn.filtering import layout, rows
from tests.compare import assert_equal

CHANNELS = [8, 16, 24, 32, 64, 96]  # one block of each width, and several of the widest
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}
FLOATS = sorted(TOLERANCE)


@njit
def weighted_rows(out, table, chosen, weights, begin, end, factor, lanes):
    rows.weighted_rows(out, table, chosen, weights, begin, end, factor, lanes)


@njit
def scatter_row(table, row, chosen, weights, factor, lanes):
    rows.scatter_row(table, row, chosen, weights, factor, lanes)


@njit
def add_products(sums, left, right, size, lanes):
    rows.add_products(sums, left, right, size, lanes)


@njit
def blur_row(row, before, after, lanes):
    rows.blur_row(row, before, after, lanes)


@njit
def transpose(out, row, column, source, source_row, source_column):
    rows.transpose(out, row, column, source, source_row, source_column)


def noise(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", FLOATS)
class TestAnyFloat:
    @pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 1), (2, 5), (0, 9)])
    def test_weighted_rows(self, channels, dtype, begin, end):
        table, weights = noise(20, channels, dtype=dtype), noise(9, dtype=dtype, seed=1)
        chosen = np.array([3, 19, 0, 7, 7, 1, 18, 2, 11], np.uint32)
        got, factor = np.full(channels, np.nan, dtype), np.dtype(dtype).type(0.7)
        weighted_rows(got, table, chosen, weights, begin, end, factor, layout.lanes(channels))
        expected = np.empty(channels)
        rows.weighted_rows_python(expected, wide(table), chosen, wide(weights), begin, end, 0.7, ())
        assert_equal("weighted rows", got, expected, 10 * TOLERANCE[dtype])

    def test_weighted_rows_that_stand_apart(self, channels, dtype):
        table, weights = noise(20, 3 * channels, dtype=dtype), noise(5, dtype=dtype, seed=1)
        chosen, part = np.array([3, 19, 0, 7, 7], np.uint32), table[:, channels : 2 * channels]
        got, one = np.full(channels, np.nan, dtype), np.dtype(dtype).type(1)
        weighted_rows(got, part, chosen, weights, 0, 5, one, layout.lanes(channels))
        expected = np.empty(channels)
        rows.weighted_rows_python(expected, wide(part), chosen, wide(weights), 0, 5, 1.0, ())
        assert_equal("weighted rows", got, expected, 10 * TOLERANCE[dtype])

    @pytest.mark.parametrize("terms", [0, 1, 6])
    def test_scatter_row(self, channels, dtype, terms):
        table, row, weights = (noise(*shape, dtype=dtype) for shape in ((20, channels), (channels,), (6,)))
        chosen, factor = np.array([3, 19, 0, 7, 7, 1], np.uint32)[:terms], np.dtype(dtype).type(0.7)
        expected = wide(table)
        rows.scatter_row_python(expected, wide(row), chosen, wide(weights), 0.7, ())
        scatter_row(table, row, chosen, weights[:terms], factor, layout.lanes(channels))
        assert_equal("table", table, expected, 10 * TOLERANCE[dtype])

    @pytest.mark.parametrize("size", [0, 1, 13])
    def test_add_products(self, channels, dtype, size):
        sums, left, right = (noise(*s, dtype=dtype) for s in ((16, channels), (13, 16), (20, channels)))
        expected = wide(sums)
        rows.add_products_python(expected, wide(left), wide(right), size, ())
        add_products(sums, left, right, size, layout.lanes(channels))
        assert_equal("sums", sums, expected, 10 * TOLERANCE[dtype])

    def test_blur_row(self, channels, dtype):
        row, before, after = (noise(channels, dtype=dtype, seed=seed) for seed in range(3))
        expected_row, expected_before = wide(row), wide(before)
        rows.blur_row_python(expected_row, expected_before, wide(after), ())
        blur_row(row, before, after, layout.lanes(channels))
        assert_equal("row", row, expected_row, TOLERANCE[dtype])
        assert_equal("before", before, expected_before, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_transpose(dtype):
    source, got = noise(11, 20, dtype=dtype), np.full((17, 13), np.nan, dtype)
    transpose(got, 4, 5, source, 2, 9)
    expected = np.full((17, 13), np.nan, dtype)
    expected[4:12, 5:13] = source[2:10, 9:17].T
    np.testing.assert_array_equal(got, expected)
