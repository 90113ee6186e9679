"""Rung 4 by Hypothesis: whatever the shape, the scale and the ties, the fast filters equal their references."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crfrnn.filtering.gaussian_filter import prepare, prepare_grid
from tests.support.compare import assert_equal
from tests.support.problems import NORMALIZATIONS, device_for, fast_rows, random_features, random_values

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
dtypes = st.sampled_from(sorted(TOLERANCE, key=str))
normalizations = st.sampled_from(NORMALIZATIONS)
shapes = st.one_of(
    st.tuples(st.integers(1, 1000)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
)


def check(filters, values: torch.Tensor) -> None:
    fast, slow = filters
    assert_equal("filtered values", fast(values), slow(values), TOLERANCE[values.dtype])
    assert_equal("transposed filter", fast.transpose(values), slow.transpose(values), TOLERANCE[values.dtype])


@pytest.mark.parametrize("row", fast_rows("permutohedral"))
@given(
    shape=shapes,
    batch=st.integers(1, 3),
    channels=st.integers(1, 12),
    dimensions=st.integers(1, 8),
    log_spread=st.floats(-3, 5),
    offset=st.sampled_from([0.0, -0.5, 7.0]),
    grain=st.sampled_from([0.0, 1.0, 0.5]),
    dtype=dtypes,
    normalization=normalizations,
)
def test_lattice(row, shape, batch, channels, dimensions, log_spread, offset, grain, dtype, normalization):
    """Features over 1e-3 to 1e5 bandwidths, some of them whole or half numbers, which lie on faces of simplices."""
    spread, device = 10**log_spread, device_for(row, dtype)
    features = random_features(batch, dimensions, shape, spread=spread, dtype=dtype) + offset * spread
    if grain:
        features = (features / grain).round() * grain
    try:
        fast = prepare(features.to(device), normalization=normalization, implementation=row.name)
    except ValueError as error:
        assert str(error).startswith("features: spread over")  # noqa: PT017
        return
    slow = prepare(features.to(device), normalization=normalization, implementation="reference")
    check((fast, slow), random_values(batch, channels, *shape, dtype=dtype).to(device))


@pytest.mark.parametrize("row", fast_rows("separable"))
@given(
    shape=shapes,
    batch=st.integers(1, 3),
    channels=st.integers(1, 12),
    logs=st.tuples(*[st.floats(-1.5, 2)] * 3),
    dtype=dtypes,
    normalization=normalizations,
)
def test_separable(row, shape, batch, channels, logs, dtype, normalization):
    device, thetas = device_for(row, dtype), tuple(10**log for log in logs[: len(shape)])
    filters = [
        prepare_grid(shape, thetas, normalization=normalization, implementation=name, dtype=dtype, device=device)
        for name in (row.name, "reference")
    ]
    check(filters, random_values(batch, channels, *shape, dtype=dtype).to(device))
