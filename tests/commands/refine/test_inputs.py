"""What `refine` takes: impossible labels."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from crfrnn.commands.refine.refine import refine as typed
from crfrnn.filtering.kernels import Bilateral, Spatial
from tests.commands.refine.test_refine import brute_force

refine: Any = typed  # callers give it anything
LABELS, HEIGHT, WIDTH = 4, 12, 17


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("tolerance", [0, 1e-3])
def test_impossible_labels(image, tolerance):
    """Minus infinity in some pixels, in one label everywhere, in all labels but one: as a logit of -1e4."""
    logits = np.random.default_rng(4).standard_normal((LABELS, HEIGHT, WIDTH)).astype(np.float32)
    logits[0, :, :5] = -np.inf
    logits[2] = -np.inf
    logits[1:, 3] = -np.inf
    kernels = [Bilateral(6, 20, weight=2, method="exact"), Spatial(1.5, weight=1, method="exact")]
    options = {"kernels": kernels, "iterations": 3, "tolerance": tolerance}
    logits[0, 3] = 0.5
    finite = np.where(np.isinf(logits), np.float32(-1e4), logits)
    probabilities = np.exp(finite - finite.max(0)) / np.exp(finite - finite.max(0)).sum(0)
    with np.errstate(divide="ignore"):
        expected = brute_force(image, probabilities, kernels, "after", 3)
    actual = refine(image, logits=logits, **options)
    assert_allclose(actual, expected, atol=1e-4)
    assert (actual[np.isinf(logits)] == 0).all()
    for more in ({"temperature": 0.5}, {"solver": "damped:0.5"}):
        q = refine(image, logits=logits, **options, **more)
        assert np.isfinite(q).all()
        assert (q[np.isinf(logits)] <= 1e-20).all()
    moments = []
    refine(image, logits=logits, **options, trace=moments.append)
    assert np.isfinite([moment.free_energy for moment in moments]).all()
    with pytest.raises(ValueError, match=r"^logits: minus infinity for all labels of a pixel"):
        refine(image, logits=np.where(np.arange(WIDTH) == 2, -np.inf, logits))


def test_impossible_labels_of_other_dtypes(image):
    logits = np.random.default_rng(4).standard_normal((3, HEIGHT, WIDTH))
    logits[1, 2:5] = -np.inf
    expected = refine(image, logits=logits, iterations=2)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        actual = refine(image, logits=torch.from_numpy(logits).to(dtype), iterations=2)
        assert_allclose(actual.float().numpy(), expected, atol=0.02)
