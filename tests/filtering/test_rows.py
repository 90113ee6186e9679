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
def softmax_row(out, unary, messages, weights, lanes):
    rows.softmax_row(out, unary, messages, weights, lanes)


@njit
def logits_row(out, unary, messages, diagonal, common, lanes):
    rows.logits_row(out, unary, messages, diagonal, common, lanes)


@njit
def softmax_backward_row(grad, total, q, messages, diagonal, common, lanes):
    rows.softmax_backward_row(grad, total, q, messages, diagonal, common, lanes)


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


@pytest.mark.parametrize("kernels", [0, 1, 3])
@pytest.mark.parametrize("channels", CHANNELS)
class TestPixels:
    """float32, as the fused recurrence is."""

    def arguments(self, channels: int, kernels: int) -> list[np.ndarray]:
        return [noise(kernels, channels, seed=seed) for seed in range(2)]

    @pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
    def test_softmax_row(self, channels, kernels, scale):
        unary, got = np.float32(scale) * noise(channels, seed=5), np.full(channels, np.nan, np.float32)
        messages, weights = self.arguments(channels, kernels)
        softmax_row(got, unary, messages, weights, layout.lanes(channels))
        expected = np.empty(channels)
        rows.softmax_row_python(expected, wide(unary), wide(messages), wide(weights), ())
        assert_equal("softmax", got, expected, 4e-6 if scale < 100 else 1e-3)  # float32 logits of 1e4 end at 1e-3
        assert got.sum() == pytest.approx(1, abs=1e-6)

    def test_softmax_of_padding(self, channels, kernels):
        """Channels that are no labels have logits of -1e30 and no share."""
        unary, got = noise(channels, seed=5), np.full(channels, np.nan, np.float32)
        unary[channels // 2 :] = -1e30
        messages, weights = self.arguments(channels, kernels)
        softmax_row(got, unary, messages, weights, layout.lanes(channels))
        assert got[channels // 2 :].max() <= 1.001 * np.exp(rows.LOWEST)
        assert got.sum() == pytest.approx(1, abs=1e-6)

    def test_logits_row(self, channels, kernels):
        unary, got = noise(channels, seed=5), np.full(channels, np.nan, np.float32)
        messages, diagonal = self.arguments(channels, kernels)
        common = noise(kernels, channels, seed=9)
        logits_row(got, unary, messages, diagonal, common, layout.lanes(channels))
        expected = np.empty(channels)
        rows.logits_row_python(expected, wide(unary), wide(messages), wide(diagonal), wide(common), ())
        assert_equal("logits", got, expected, 4e-6)

    def test_softmax_backward_row(self, channels, kernels):
        q = np.exp(noise(channels, seed=5))
        q /= q.sum()
        messages, diagonal = self.arguments(channels, kernels)
        common, total = noise(kernels, channels, seed=9), noise(channels, seed=10)
        got, got_total = np.full(channels, np.nan, np.float32), total.copy()
        softmax_backward_row(got, got_total, q, messages, diagonal, common, layout.lanes(channels))
        expected, expected_total = np.empty(channels), wide(total)
        rows.softmax_backward_row_python(
            expected, expected_total, wide(q), wide(messages), wide(diagonal), wide(common), ()
        )
        assert_equal("gradient", got, expected, 4e-6)
        assert_equal("total", got_total, expected_total, 4e-6)


def test_exponential():
    """exp by a polynomial, through a softmax of two: relative error below 2e-7 from 0 down to where it saturates."""
    for x in np.linspace(0, rows.LOWEST + 0.1, 400, dtype=np.float32):
        unary, got = np.full(8, -np.inf, np.float32), np.empty(8, np.float32)
        unary[:2] = 0, x
        nothing = np.empty((0, 8), np.float32)
        softmax_row(got, unary, nothing, nothing, layout.lanes(8))
        assert float(got[1]) / float(got[0]) == pytest.approx(np.exp(np.float64(x)), rel=3e-7)
