"""The vector operations of the last steps equal the plain Python that stands beside each of them."""

import itertools

import numpy as np
import pytest
from numba import njit

from crfrnn.inference.fused import softmax_cpu
from crfrnn.runtime import layout
from crfrnn.runtime.vectors import LOWEST
from tests.runtime.test_rows import CHANNELS, noise, wide
from tests.support.compare import assert_equal
from tests.support.each import each

ROOM = np.full((2, softmax_cpu.TILE, 8), np.nan, np.float32)


@njit
def softmax_rows(out, unary, messages, weights, room, lanes):
    softmax_cpu.softmax_rows(out, unary, messages, weights, room, lanes)


@njit
def probability_rows(out, rows, smallest, room, lanes):
    softmax_cpu.probability_rows(out, rows, smallest, room, lanes)


@njit
def logits_rows(out, unary, messages, diagonal, common, room, lanes):
    softmax_cpu.logits_rows(out, unary, messages, diagonal, common, room, lanes)


@njit
def softmax_backward_rows(grad, total, q, messages, diagonal, common, room, lanes):
    softmax_cpu.softmax_backward_rows(grad, total, q, messages, diagonal, common, room, lanes)


@pytest.mark.parametrize("kernels", [0, 1, 3])
class TestPixels:
    """float32, as the fused recurrence is."""

    @each("channels", CHANNELS)
    @each("count, scale", [(0, 1.0), *itertools.product([1, 4, 11, softmax_cpu.TILE], [0.0, 1.0, 30.0, 1e4])])
    def test_softmax_rows(self, channels, kernels, count, scale):
        unary = np.float32(scale) * noise(count + 1, channels, seed=5)
        got = np.full((count + 1, channels), np.nan, np.float32)
        messages, weights = noise(count + 2, kernels, channels), noise(kernels, channels, seed=1)
        softmax_rows(got[:count], unary, messages, weights, ROOM, layout.lanes(channels))
        expected = np.empty((count, channels))
        softmax_cpu.softmax_rows_python(expected, wide(unary), wide(messages), wide(weights), ROOM, ())
        for row in range(count):
            limit = 4e-6 if scale < 100 else 1e-3  # float32 logits of 1e4 end at 1e-3
            assert_equal("softmax", got[row], expected[row], limit)
            assert got[row].sum() == pytest.approx(1, abs=1e-6)
        assert np.isnan(got[count]).all()

    @each("channels", CHANNELS)
    def test_softmax_of_padding(self, channels, kernels):
        """Channels that are no labels have logits of -1e30 and no share."""
        unary, got = noise(3, channels, seed=5), np.full((3, channels), np.nan, np.float32)
        unary[:, channels // 2 :] = -1e30
        messages, weights = noise(3, kernels, channels), noise(kernels, channels, seed=1)
        softmax_rows(got, unary, messages, weights, ROOM, layout.lanes(channels))
        assert got[:, channels // 2 :].max() <= 1.001 * np.exp(LOWEST)
        assert got.sum(axis=1) == pytest.approx(1, abs=1e-6)

    @each("channels", CHANNELS)
    @each("count", [0, 1, 11])
    def test_logits_rows(self, channels, kernels, count):
        unary, got = noise(count, channels, seed=5), np.full((count, channels), np.nan, np.float32)
        messages, diagonal = noise(count, kernels, channels), noise(kernels, channels, seed=1)
        common = noise(kernels, channels, seed=9)
        logits_rows(got, unary, messages, diagonal, common, ROOM, layout.lanes(channels))
        expected = np.empty((count, channels))
        softmax_cpu.logits_rows_python(expected, wide(unary), wide(messages), wide(diagonal), wide(common), ROOM, ())
        assert_equal("logits", got, expected, 4e-6)

    @each("channels", CHANNELS)
    @each("count", [0, 1, 11])
    @each("shared", [True, False])
    def test_softmax_backward_rows(self, channels, kernels, count, shared):
        q = np.exp(noise(count, channels, seed=5))
        q /= q.sum(axis=1, keepdims=True)
        messages, diagonal = noise(count, kernels, channels), noise(kernels, channels, seed=1)
        common, total = noise(kernels if shared else 0, channels, seed=9), noise(count, channels, seed=10)
        got, got_total = np.full((count, channels), np.nan, np.float32), total.copy()
        softmax_backward_rows(got, got_total, q, messages, diagonal, common, ROOM, layout.lanes(channels))
        expected, expected_total = np.empty((count, channels)), wide(total)
        softmax_cpu.softmax_backward_rows_python(
            expected, expected_total, wide(q), wide(messages), wide(diagonal), wide(common), ROOM, ()
        )
        assert_equal("gradient", got, expected, 4e-6)
        assert_equal("total", got_total, expected_total, 4e-6)


def test_exponential():
    """exp by a polynomial, through a softmax of two: as exact as its docstring says, down to where it saturates."""
    xs = np.linspace(0, LOWEST + 0.1, 400, dtype=np.float32)
    unary, got = np.full((400, 8), -np.inf, np.float32), np.empty((400, 8), np.float32)
    unary[:, 0], unary[:, 1] = 0, xs
    nothing = np.empty((400, 0, 8), np.float32), np.empty((0, 8), np.float32)
    for tile in (slice(start, start + softmax_cpu.TILE) for start in range(0, 400, softmax_cpu.TILE)):
        softmax_rows(got[tile], unary[tile], *nothing, ROOM, layout.lanes(8))
    ratio, x = got[:, 1].astype(np.float64) / got[:, 0], xs.astype(np.float64)
    assert (np.abs(ratio / np.exp(x) - 1) <= 3e-7 - 2e-8 * x).all()


@each("channels", CHANNELS)
@each("count", [0, 1, 11])
def test_probability_rows(channels, count):
    """Logarithms within two units of the last place over 45 orders of magnitude; of no label, and of NaN, none."""
    exponents = np.random.default_rng(0).uniform(-38, 7, (count + 1, channels))
    rows = np.power(10, exponents).astype(np.float32)
    rows[:count, channels - 3 :] = 1 + 1e-3 * noise(count, 3)  # where the logarithm is near 0
    rows[:count, 0], rows[:count, 1], rows[:count, 2], rows[:count, 3] = -1e30, 0, 1e-12, -1e-3
    before, out = rows.copy(), np.full_like(rows, 7)
    probability_rows(out[:count], rows[:count], np.float32(1e-10), ROOM, layout.lanes(channels))
    expected, shares = wide(before[:count]), wide(out[:count])
    softmax_cpu.probability_rows_python(shares, expected, 1e-10, None, ())
    assert np.abs(rows[:count] - expected).max(initial=0, where=expected > -1e29) < 1e-5
    error = np.abs(rows[:count] / np.where(expected == 0, 1, expected) - 1)
    assert error.max(initial=0, where=expected != 0) < 2.4e-7
    assert (rows[:count, 0] == np.float32(-1e30)).all()
    assert rows[:count, 1:4] == pytest.approx(np.log(1e-10))
    assert out[:count] == pytest.approx(shares, rel=1e-6, abs=0)
    assert (out[:count, 0] == 0).all()
    assert np.array_equal(rows[count], before[count])
    assert (out[count] == 7).all()
    rows[:] = np.nan
    probability_rows(out, rows, np.float32(1e-10), ROOM, layout.lanes(channels))
    assert np.isnan(rows).all()


def test_probabilities_and_their_logarithms_have_the_same_marginals():
    rows = np.full((11, 8), -1e30, np.float32)
    rows[:, :5] = np.random.default_rng(0).dirichlet(np.full(5, 0.2), 11)
    marginals, expected = np.empty_like(rows), np.empty_like(rows)
    probability_rows(marginals, rows, np.float32(1e-10), ROOM, layout.lanes(8))
    softmax_cpu.softmax_rows_python(expected, rows, np.empty((11, 0, 8)), np.empty((0, 8)), None, ())
    assert marginals[:, :5] == pytest.approx(expected[:, :5], rel=1e-5)
    assert (marginals[:, 5:] == 0).all()
