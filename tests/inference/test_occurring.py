"""Labels that are left out: what they hold at a pixel, and what leaving them out does to a run, against all labels."""

import math

import numpy as np
import pytest
import torch

from crfrnn import Bilateral, Spatial, mean_field, refine
from crfrnn.inference.occurring import occurring
from tests.support.each import each
from tests.support.problems import potts, random_values

TOLERANCE = 1e-3


def left_out(labels: int, kept: torch.Tensor) -> list[int]:
    return sorted({*range(labels)}.difference(kept.tolist()))


def with_rare_ones(labels: int, share: float, size: tuple[int, int], seed: int) -> np.ndarray:
    """Probabilities (L, H, W): four labels that are nearly alike, and a share of each pixel for all others together,
    of which every second one is a hundred times rarer."""
    rng = np.random.default_rng(seed)
    rare = rng.uniform(0.3, 1, (labels - 4, *size))
    rare[::2] /= 100
    rare *= share / rare.sum(axis=0)
    common = np.exp(rng.normal(0, 0.1, (4, *size)))
    return np.concatenate([common * (1 - share) / common.sum(axis=0), rare]).astype(np.float32)


class TestRule:
    @each("tolerance", [1e-3, 0.05])
    @each("spread", [0.01, 1.0, 4.0, 12.0])
    @pytest.mark.parametrize("labels", [2, 3, 21, 1203])
    def test_at_no_pixel_do_they_hold_more_than_the_tolerance(self, labels, spread, tolerance):
        logits = spread * (random_values(2, labels, 3, 5) + random_values(1, labels, 1, 1, seed=2))
        p = logits.softmax(dim=1)
        both = occurring(logits, tolerance), occurring(p, tolerance, p.amax(dim=(0, 2, 3)))
        for kept in both:
            share = p[:, left_out(labels, kept)].sum(dim=1) / p.amax(dim=1)
            assert share.max() <= tolerance * (1 + 1e-5)
            assert len(kept) >= 2
            assert kept.tolist() == sorted(kept.tolist())

    def test_as_many_as_it_allows_from_the_least_probable_on(self):
        p = torch.tensor([0.6, 0.3, 0.09945, 0.0003, 0.0002, 0.00005]).view(1, 6, 1)
        assert occurring(p.log(), 1e-3).tolist() == [0, 1, 2]  # 0.00055 of 0.6
        assert occurring(p.log(), 5e-4).tolist() == [0, 1, 2, 3]  # 0.00025, as 0.00055 is more than 0.0003
        assert occurring(p.log(), 1e-5).tolist() == [0, 1, 2, 3, 4, 5]

    def test_many_labels_that_are_nearly_alike_all_stay(self):
        assert len(occurring(0.1 * random_values(1, 1203, 4, 4), TOLERANCE)) == 1203


def test_a_thousand_classes_with_flat_scores_keep_their_labels():
    """Similarities through a softmax: no probability reaches the tolerance, and yet the best one is right."""
    truth = np.zeros((8, 8), int)
    truth[:, 4:], truth[4:] = 7, 1100
    scores = np.random.default_rng(1).normal(0, 0.01, (1203, 8, 8))
    np.put_along_axis(scores, truth[None], 0.1, axis=0)
    p = (np.exp(scores) / np.exp(scores).sum(axis=0)).astype(np.float32)
    assert p.max() < TOLERANCE
    image = np.repeat((truth[..., None] // 5).astype(np.uint8), 3, axis=2)
    assert (refine(image, p, iterations=2).argmax(axis=0) == truth).all()


KERNELS = [Bilateral(20, 40, weight=5, method="exact"), Spatial(3, weight=3, method="exact")]


@each("iterations", [10, 50])
@each("share", [0.12, 0.002])
@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_refine_is_the_run_over_all_labels(normalization, share, iterations):
    """204 labels. One by one all the rare ones are below the tolerance: together they are not."""
    image = np.random.default_rng(0).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    p = with_rare_ones(204, share, (9, 10), seed=0)
    options = {"kernels": KERNELS, "normalization": normalization, "iterations": iterations}
    some, every = refine(image, p, **options), refine(image, p, tolerance=0, **options)
    gone = np.flatnonzero(some.max(axis=(1, 2)) == 0)
    assert p[4:].max() < 2 * TOLERANCE
    assert (len(gone) > 50) == (share < 0.1)
    assert np.abs(some - every).max() < 2 * TOLERANCE
    nearest = p.copy()
    nearest[gone] = 0
    assert 0.5 * np.abs(nearest / nearest.sum(axis=0) - p).sum(axis=0).max() <= TOLERANCE
    exact = refine(image, nearest / nearest.sum(axis=0), tolerance=0, **options)
    np.testing.assert_allclose(some, exact, atol=2e-5)  # of the predictions that are so near


@each("strength", [0.1, 0.5, 1.0])
@each("seed", range(3))
def test_what_is_left_out_would_not_have_risen(seed, strength):
    """Marginals of the run over all labels, up to the weight for which the bound is derived, in 60 iterations."""
    tolerance = 0.02
    weight = strength / (math.e * tolerance)
    p = torch.from_numpy(with_rare_ones(40, 0.03, (8, 9), seed))[None]
    guide = 255 * torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(seed))
    filters = [Bilateral(20, 60, method="exact").prepare(guide), Spatial(2, method="exact").prepare(guide)]
    gone = left_out(40, occurring(p.log(), tolerance))
    assert gone
    for iterations in (1, 5, 60):
        weights = weight * torch.tensor([[0.6], [0.4]])
        q = mean_field(p.log(), filters, weights, potts(40), iterations).softmax(dim=1)
        assert q[:, gone].sum(dim=1).max() <= math.e * tolerance
