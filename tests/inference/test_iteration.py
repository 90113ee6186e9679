"""One iteration: each of the five steps, and all of them, against the oracle's loops."""

import numpy as np
import pytest
import torch

from crfrnn import Features, GaussianFilter, Spatial
from crfrnn.inference.iteration import (
    adding_unary,
    compatibility_transform,
    iteration,
    message_passing,
    normalization,
    weighting,
)
from tests.support import oracle
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, random_features, random_values, weights_of

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.float64, id="float64")]
SIZES = [(shape, labels) for shape in [(12,), (3, 4), (2, 3, 2), (1, 1)] for labels in (2, 3, 21)]
KINDS = ["scalar", "class", "full"]


def exact_filters(features: list[torch.Tensor], normalized: str) -> list[GaussianFilter]:
    return [Features(method="exact").prepare(f, normalization=normalized) for f in features]


def images(*batches: torch.Tensor):
    """The images of each batch as float64 arrays (C, N)."""
    return zip(*(batch.double().flatten(2).numpy() for batch in batches), strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
class TestSteps:
    @each("shape, labels", SIZES)
    def test_normalization(self, shape, labels, dtype):
        logits = 5 * random_values(2, labels, *shape, dtype=dtype)
        expected = np.stack([oracle.softmax(u) for (u,) in images(logits)]).reshape(logits.shape)
        assert_equal("Q", normalization(logits), expected, TOLERANCE[dtype])

    @each("shape, labels", SIZES)
    def test_message_passing(self, shape, labels, dtype):
        """(4.2), M = 2"""
        q = random_values(2, labels, *shape, dtype=dtype).softmax(dim=1)
        features = [random_features(2, d, shape, dtype=dtype, seed=d) for d in (1, 3)]
        messages = message_passing(exact_filters(features, "after"), q)
        assert len(messages) == 2
        for m, f in enumerate(features):
            expected = np.stack([oracle.gaussian_filter(v, g, "after") for v, g in images(q, f)])
            assert_equal(f"Qm for m = {m}", messages[m], expected.reshape(q.shape), TOLERANCE[dtype])

    @pytest.mark.parametrize("kind", KINDS)
    @each("shape, labels", SIZES)
    def test_weighting(self, shape, labels, dtype, kind):
        """(4.3)"""
        messages = [random_values(2, labels, *shape, dtype=dtype, seed=m) for m in range(3)]
        weights = weights_of(kind, 3, labels, dtype=dtype)
        expected = np.zeros((2, labels, messages[0][0, 0].numel()))
        for m, message in enumerate(messages):
            for to in range(labels):
                for of in range(labels):
                    w = oracle.weight(weights.double().numpy(), m, to, of)
                    expected[:, to] += w * message.double().flatten(2).numpy()[:, of]
        got = weighting(messages, weights)
        assert_equal("Qw", got, expected.reshape(messages[0].shape), TOLERANCE[dtype])

    @each("shape, labels", SIZES)
    def test_compatibility_transform(self, shape, labels, dtype):
        """(4.4): mu(l, l') is what label l pays for a neighbour with label l'."""
        weighted = random_values(2, labels, *shape, dtype=dtype)
        mu = random_values(labels, labels, dtype=dtype, seed=7)
        flat, matrix = weighted.double().flatten(2).numpy(), mu.double().numpy()
        expected = np.zeros(flat.shape)
        for label in range(labels):
            for other in range(labels):
                expected[:, label] += matrix[label, other] * flat[:, other]
        got = compatibility_transform(weighted, mu)
        assert_equal("Qc", got, expected.reshape(weighted.shape), TOLERANCE[dtype])

    @each("shape, labels", SIZES)
    def test_adding_unary(self, shape, labels, dtype):
        """(4.5): the penalty is subtracted."""
        u, penalty = (random_values(2, labels, *shape, dtype=dtype, seed=seed) for seed in (1, 2))
        assert_equal("Qu", adding_unary(u, penalty), u.double().numpy() - penalty.double().numpy(), TOLERANCE[dtype])


@each("normalized", NORMALIZATIONS)
@pytest.mark.parametrize("kind", KINDS)
@each("kernels", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_iteration_equals_the_oracle(dtype, kernels, kind, normalized):
    shape, labels = (3, 4), 3
    logits, other = (random_values(2, labels, *shape, dtype=dtype, seed=seed) for seed in (1, 2))
    q = other.softmax(dim=1)
    features = [random_features(2, 2, shape, dtype=dtype, seed=m) for m in range(kernels)]
    weights, mu = weights_of(kind, kernels, labels, dtype=dtype), random_values(labels, labels, dtype=dtype, seed=7)
    got = iteration(logits, q, exact_filters(features, normalized), weights, mu)
    expected = [
        oracle.iteration(u, p, list(f), weights.double().numpy(), mu.double().numpy(), normalized)
        for u, p, *f in images(logits, q, *features)
    ]
    assert_equal("Qu", got, np.stack(expected).reshape(logits.shape), TOLERANCE[dtype])


def test_potts_by_hand():
    """Two labels, one point, w = 1: each label pays the other's probability."""
    q = torch.tensor([[[0.8], [0.2]]])
    gaussian = Spatial(1.0, method="exact").prepare(torch.zeros(1, 1, 1))
    got = iteration(torch.zeros(1, 2, 1), q, [gaussian], torch.ones(1, 1), 1 - torch.eye(2))
    assert_equal("Qu", got.flatten(), torch.tensor([-0.2, -0.8]), 1e-7)


def test_an_asymmetric_compatibility_by_hand():
    """mu(0, 1) = 2 alone: label 0 pays twice the probability of label 1 nearby, label 1 pays nothing."""
    q = torch.tensor([[[0.75], [0.25]]])
    gaussian = Spatial(1.0, method="exact").prepare(torch.zeros(1, 1, 1))
    mu = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    got = iteration(torch.zeros(1, 2, 1), q, [gaussian], torch.ones(1, 1), mu)
    assert_equal("Qu", got.flatten(), torch.tensor([-0.5, 0.0]), 1e-7)
