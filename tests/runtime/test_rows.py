"""The vector operations equal the plain Python that stands beside each of them."""

from typing import Any

import numpy as np
import pytest
from numba import njit

from crfrnn.runtime import layout, rows
from tests.support.compare import assert_equal
from tests.support.each import each

pytestmark = pytest.mark.slow  # each shape is compiled
CHANNELS = [8, 16, 24, 32, 64, 96]  # one block of each width, and several of the widest
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}
FLOATS = sorted(TOLERANCE)


@njit
def sum_rows(out, table, chosen, weights, factors, lanes):
    rows.sum_rows(out, table, chosen, weights, factors, lanes)


@njit
def scatter_rows(table, values, chosen, weights, factors, lanes):
    rows.scatter_rows(table, values, chosen, weights, factors, lanes)


@njit
def band_rows(out, table, starts, weights, lanes):
    rows.band_rows(out, table, starts, weights, lanes)


@njit
def add_product(sums, left, right, lanes):
    rows.add_product(sums, left, right, lanes)


@njit
def blur_row(row, before, after, inside, lanes):
    rows.blur_row(row, before, after, inside, lanes)


@njit
def transpose(out, row, column, source, source_row, source_column):
    rows.transpose(out, row, column, source, source_row, source_column)


def noise(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def wide(array: np.ndarray | None) -> Any:
    return None if array is None else array.astype(np.float64)


@pytest.mark.parametrize("dtype", FLOATS)
class TestAnyFloat:
    @each("channels", CHANNELS)
    @each("terms", [0, 1, *rows.CORNERS, *rows.LINES, 9])
    @each("scaled", [True, False])
    def test_sum_rows(self, channels, dtype, terms, scaled):
        table, (chosen, weights, factors) = noise(20, channels, dtype=dtype), self.matrix(terms, dtype, scaled)
        got = np.full((6, channels), np.nan, dtype)
        sum_rows(got[:5], table, chosen, weights, factors, layout.lanes(channels))
        expected = np.empty((5, channels))
        rows.sum_rows_python(expected, wide(table), chosen, wide(weights), wide(factors), ())
        assert_equal("sums", got[:5], expected, 10 * TOLERANCE[dtype])
        assert np.isnan(got[5]).all()

    @each("channels", CHANNELS)
    def test_sum_rows_that_stand_apart(self, channels, dtype):
        table, (chosen, weights, factors) = noise(20, 3 * channels, dtype=dtype), self.matrix(6, dtype, True)
        part, got = table[:, channels : 2 * channels], np.full((5, 2, channels), np.nan, dtype)
        sum_rows(got[:, 1], part, chosen, weights, factors, layout.lanes(channels))
        expected = np.empty((5, channels))
        rows.sum_rows_python(expected, wide(part), chosen, wide(weights), wide(factors), ())
        assert_equal("sums", got[:, 1], expected, 10 * TOLERANCE[dtype])
        assert np.isnan(got[:, 0]).all()

    @each("channels", CHANNELS)
    @each("terms", [0, 1, *rows.CORNERS, *rows.LINES, 9])
    @each("scaled", [True, False])
    def test_scatter_rows(self, channels, dtype, terms, scaled):
        table, values = noise(20, channels, dtype=dtype), noise(5, channels, dtype=dtype, seed=2)
        chosen, weights, factors = self.matrix(terms, dtype, scaled)
        expected = wide(table)
        rows.scatter_rows_python(expected, wide(values), chosen, wide(weights), wide(factors), ())
        scatter_rows(table, values, chosen, weights, factors, layout.lanes(channels))
        assert_equal("table", table, expected, 10 * TOLERANCE[dtype])

    def matrix(self, terms: int, dtype: str, scaled: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """A sparse one of 5 rows; some columns occur twice."""
        chosen = np.random.default_rng(3).integers(0, 20, (5, terms)).astype(np.uint32)
        return chosen, noise(5, terms, dtype=dtype, seed=1), noise(5, dtype=dtype, seed=4) if scaled else None

    @each("channels", CHANNELS)
    @each("count", [0, 1, 2, 7, 8])
    @each("reach", [1, 4, 9])
    def test_band_rows(self, channels, dtype, count, reach):
        """Of a part of a wider table, as the later axes of a grid are."""
        table, pairs = noise(20, 3 * channels, dtype=dtype), -(-count // rows.PAIR)
        part, got = table[:, channels : 2 * channels], np.full((count + 1, channels), np.nan, dtype)
        starts = np.random.default_rng(3).integers(0, 20 - reach, pairs)
        weights = noise(pairs, reach, rows.PAIR, dtype=dtype, seed=1)
        band_rows(got[:count], part, starts, weights, layout.lanes(channels))
        expected = np.empty((count, channels))
        rows.band_rows_python(expected, wide(part), starts, wide(weights), ())
        assert_equal("sums", got[:count], expected, 10 * TOLERANCE[dtype])
        assert np.isnan(got[count]).all()

    @each("channels", CHANNELS)
    @each("size", [0, 1, 13])
    @each("turned", [True, False])
    def test_add_product(self, channels, dtype, size, turned):
        sums, left, right = (noise(*s, dtype=dtype) for s in ((16, channels), (size, 16), (size, channels)))
        left = left.T if turned else np.ascontiguousarray(left.T)
        expected = wide(sums)
        rows.add_product_python(expected, wide(left), wide(right), ())
        add_product(sums, left, right, layout.lanes(channels))
        assert_equal("sums", sums, expected, 10 * TOLERANCE[dtype])

    @each("channels", CHANNELS)
    @each("inside", [True, False])
    def test_blur_row(self, channels, dtype, inside):
        self.blur_row(channels, dtype, inside, layout.lanes(channels))

    @staticmethod
    def blur_row(channels, dtype, inside, lanes):
        row, before, after = (noise(channels, dtype=dtype, seed=seed) for seed in range(3))
        if not inside:
            after[:] = np.inf  # another run's
        expected_row, expected_before = wide(row), wide(before)
        rows.blur_row_python(expected_row, expected_before, wide(after), inside, ())
        blur_row(row, before, after, inside, lanes)
        assert_equal("row", row, expected_row, TOLERANCE[dtype])
        assert_equal("before", before, expected_before, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
class TestOneNumber:
    """What a lattice does to rows of one channel, with one lane."""

    def test_blur_row(self, dtype):
        for inside in (True, False):
            TestAnyFloat.blur_row(1, dtype, inside, (0,))

    def test_there_and_back(self, dtype):
        """sum_rows and scatter_rows are the same sparse matrix and its transpose as NumPy's."""
        random = np.random.default_rng(5)
        chosen, weights = random.integers(0, 20, (5, 6)).astype(np.uint32), noise(5, 6, dtype=dtype)
        matrix = np.zeros((5, 20))
        np.add.at(matrix, (np.arange(5)[:, None], chosen), weights)
        table, values, factors = (noise(n, 1, dtype=dtype, seed=n) for n in (20, 5, 6))
        got, sums = np.empty((5, 1), dtype), np.zeros((20, 1), dtype)
        sum_rows(got, table, chosen, weights, factors[:5, 0], (0,))
        scatter_rows(sums, values, chosen, weights, None, (0,))
        assert_equal("sums", got, factors[:5] * (matrix @ table), 10 * TOLERANCE[dtype])
        assert_equal("scattered", sums, matrix.T @ values, 10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_transpose(dtype):
    source, got = noise(11, 20, dtype=dtype), np.full((17, 13), np.nan, dtype)
    transpose(got, 4, 5, source, 2, 9)
    expected = np.full((17, 13), np.nan, dtype)
    expected[4:12, 5:13] = source[2:10, 9:17].T
    np.testing.assert_array_equal(got, expected)
