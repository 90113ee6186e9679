"""The vector operations of the last steps equal the plain Python that stands beside each of them."""

import numpy as np
import pytest
from numba import njit

from crfrnn.filtering import layout
from crfrnn.filtering.vectors import LOWEST
from crfrnn.mean_field import softmax_cpu
from tests.compare import assert_equal
from tests.filtering.test_rows import CHANNELS, noise, wide


@njit
def softmax_rows(out, unary, messages, weights, lanes):
    softmax_cpu.softmax_rows(out, unary, messages, weights, lanes)


@njit
def logits_row(out, unary, messages, diagonal, common, lanes):
    softmax_cpu.logits_row(out, unary, messages, diagonal, common, lanes)


@njit
def softmax_backward_row(grad, total, q, messages, diagonal, common, lanes):
    softmax_cpu.softmax_backward_row(grad, total, q, messages, diagonal, common, lanes)


@pytest.mark.parametrize("kernels", [0, 1, 3])
@pytest.mark.parametrize("channels", CHANNELS)
class TestPixels:
    """float32, as the fused recurrence is."""

    def arguments(self, channels: int, kernels: int) -> list[np.ndarray]:
        return [noise(kernels, channels, seed=seed) for seed in range(2)]

    @pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
    @pytest.mark.parametrize("count", [0, 1, 4, 11])
    def test_softmax_rows(self, channels, kernels, scale, count):
        unary = np.float32(scale) * noise(count + 1, channels, seed=5)
        got = np.full((count + 1, channels), np.nan, np.float32)
        messages, weights = noise(count + 2, kernels, channels), noise(kernels, channels, seed=1)
        softmax_rows(got[:count], unary, messages, weights, layout.lanes(channels))
        expected = np.empty((count, channels))
        softmax_cpu.softmax_rows_python(expected, wide(unary), wide(messages), wide(weights), ())
        for row in range(count):
            limit = 4e-6 if scale < 100 else 1e-3  # float32 logits of 1e4 end at 1e-3
            assert_equal("softmax", got[row], expected[row], limit)
            assert got[row].sum() == pytest.approx(1, abs=1e-6)
        assert np.isnan(got[count]).all()

    def test_softmax_of_padding(self, channels, kernels):
        """Channels that are no labels have logits of -1e30 and no share."""
        unary, got = noise(3, channels, seed=5), np.full((3, channels), np.nan, np.float32)
        unary[:, channels // 2 :] = -1e30
        messages, weights = noise(3, kernels, channels), noise(kernels, channels, seed=1)
        softmax_rows(got, unary, messages, weights, layout.lanes(channels))
        assert got[:, channels // 2 :].max() <= 1.001 * np.exp(LOWEST)
        assert got.sum(axis=1) == pytest.approx(1, abs=1e-6)

    def test_logits_row(self, channels, kernels):
        unary, got = noise(channels, seed=5), np.full(channels, np.nan, np.float32)
        messages, diagonal = self.arguments(channels, kernels)
        common = noise(kernels, channels, seed=9)
        logits_row(got, unary, messages, diagonal, common, layout.lanes(channels))
        expected = np.empty(channels)
        softmax_cpu.logits_row_python(expected, wide(unary), wide(messages), wide(diagonal), wide(common), ())
        assert_equal("logits", got, expected, 4e-6)

    def test_softmax_backward_row(self, channels, kernels):
        q = np.exp(noise(channels, seed=5))
        q /= q.sum()
        messages, diagonal = self.arguments(channels, kernels)
        common, total = noise(kernels, channels, seed=9), noise(channels, seed=10)
        got, got_total = np.full(channels, np.nan, np.float32), total.copy()
        softmax_backward_row(got, got_total, q, messages, diagonal, common, layout.lanes(channels))
        expected, expected_total = np.empty(channels), wide(total)
        softmax_cpu.softmax_backward_row_python(
            expected, expected_total, wide(q), wide(messages), wide(diagonal), wide(common), ()
        )
        assert_equal("gradient", got, expected, 4e-6)
        assert_equal("total", got_total, expected_total, 4e-6)


def test_exponential():
    """exp by a polynomial, through a softmax of two: relative error below 2e-7 from 0 down to where it saturates."""
    xs = np.linspace(0, LOWEST + 0.1, 400, dtype=np.float32)
    unary, got = np.full((400, 8), -np.inf, np.float32), np.empty((400, 8), np.float32)
    unary[:, 0], unary[:, 1] = 0, xs
    softmax_rows(got, unary, np.empty((400, 0, 8), np.float32), np.empty((0, 8), np.float32), layout.lanes(8))
    ratio = got[:, 1].astype(np.float64) / got[:, 0]
    assert ratio == pytest.approx(np.exp(xs.astype(np.float64)), rel=3e-7)
