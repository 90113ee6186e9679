"""Pixels that do not count: the CRF of the others, as if there were no others."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from crfrnn import Bilateral, Spatial, mean_field, refine
from crfrnn.inference.fused import choice
from tests.support.problems import random_values

NORMALIZATIONS = ("after", "symmetric", "before", "none")
LABELS, SIZE = 3, (9, 12)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (*SIZE, 3)).astype(np.float32)
P = RNG.dirichlet(np.ones(LABELS), SIZE).transpose(2, 0, 1).astype(np.float32)
MASK = RNG.random(SIZE) > 0.4
KERNELS = [Bilateral(4, 90, weight=0.7, method="exact"), Spatial(1.5, weight=0.4, method="exact")]


def of_points(normalization: str, iterations: int) -> np.ndarray:
    """(L, N) of the pixels of the mask alone: mean field in float64 over their N x N matrices."""
    places = np.argwhere(MASK).astype(float)
    matrices = []
    for kernel in KERNELS:
        if isinstance(kernel, Bilateral):
            points = np.column_stack([places / 4, IMAGE[MASK].astype(float) / 90])
        else:
            points = places / 1.5
        k = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 2)
        n = k.sum(1, keepdims=True)
        scaled = {"after": k / n, "symmetric": k / np.sqrt(n * n.T), "before": k / n.T, "none": k}
        matrices.append(float(kernel.weight) * scaled[normalization])
    unary = np.log(P[:, MASK].astype(float))
    q = P[:, MASK].astype(float)
    for _ in range(iterations):
        scores = unary + q @ np.sum(matrices, axis=0).T
        q = np.exp(scores - scores.max(0))
        q /= q.sum(0)
    return q


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_equals_brute_force_over_the_pixels_that_count(normalization):
    options: dict[str, Any] = {"kernels": KERNELS, "normalization": normalization, "iterations": 3, "tolerance": 0}
    q = refine(IMAGE, P, mask=MASK, **options)
    assert_allclose(q[:, MASK], of_points(normalization, 3), atol=2e-5)
    assert_array_equal(q[:, ~MASK], np.float32(1 / LABELS))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_whatever_lies_there(normalization):
    """NaN as well, with the lattice and the separable filter too."""
    image, p = IMAGE.copy(), P.copy()
    image[~MASK], p[:, ~MASK] = np.nan, np.nan
    options: dict[str, Any] = {"kernels": ["bilateral:4,90,0.7", "spatial:1.5,0.4"], "normalization": normalization}
    assert_array_equal(refine(image, p, mask=MASK, **options), refine(IMAGE, P, mask=MASK, **options))
    everywhere = refine(IMAGE, P, mask=np.ones_like(MASK), **options)
    assert_allclose(everywhere, refine(IMAGE, P, **options), atol=2e-6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("theta", [1.5, 6.0])  # the second one on a coarse grid
def test_the_fused_recurrence_equals_the_plain_one(normalization, theta, strips, monkeypatch):
    kernels = [Bilateral(4, 90, weight=0.7), Spatial((theta, 2.0), weight=0.4)]
    options: dict[str, Any] = {"kernels": kernels, "normalization": normalization, "iterations": 3}
    fused = refine(IMAGE, P, mask=MASK, **options)
    monkeypatch.setattr(choice, "fused", lambda problem: "the plain one is wanted")
    assert_allclose(fused, refine(IMAGE, P, mask=MASK, **options), atol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradients_of_the_fused_recurrence(normalization, monkeypatch):
    """Beside autograd through the plain recurrence, in the logits and the kernel weights."""
    mask, guide = torch.from_numpy(MASK)[None], torch.from_numpy(IMAGE).movedim(2, 0)[None]
    kernels = [Bilateral(4, 90), Spatial((6.0, 2.0))]
    filters = [k.prepare(guide, normalization="none").within(mask, normalization) for k in kernels]
    found = []
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(choice, "fused", lambda problem: "the plain one is wanted")
        logits = torch.from_numpy(P).log()[None].requires_grad_()
        weights = torch.tensor([[0.7], [0.4]], requires_grad=True)
        y = mean_field(logits, filters, weights, 1 - torch.eye(LABELS), 3)
        (y * random_values(*y.shape)).sum().backward()
        found.append((logits.grad, weights.grad))
    for fused, expected in zip(*found, strict=True):
        scale = float(expected.abs().max())
        assert_allclose(fused / scale, expected / scale, atol=2e-5)


def test_standardize_looks_at_the_pixels_that_count():
    image = np.where(MASK[..., None], IMAGE, -9999)
    q = refine(image, P, mask=MASK, standardize=True)
    assert_array_equal(q, refine(np.where(MASK[..., None], IMAGE, 7), P, mask=MASK, standardize=True))


def test_forms_and_labels_that_do_not_occur():
    p = np.concatenate([P * 0.99999, np.full((1, *SIZE), 1e-5, np.float32)])
    q = refine(IMAGE, p, mask=MASK, kernels=KERNELS)
    assert not q[-1, MASK].any()  # though it has 1 / L elsewhere
    foreground = refine(IMAGE, P[0], mask=torch.from_numpy(MASK), kernels=KERNELS)
    assert_array_equal(foreground[~MASK], np.float32(0.5))
    volume = refine(IMAGE[..., 0][None], P[:, None], mask=MASK[None], kernels=KERNELS, spacing=(1, 1, 1))
    assert_allclose(volume[:, 0], refine(IMAGE[..., 0], P, mask=MASK, kernels=KERNELS), atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match=r"^mask: shape \(9, 11\), expected \(9, 12\), True where a pixel counts"):
        refine(IMAGE, P, mask=MASK[:, 1:])
    with pytest.raises(ValueError, match=r"^mask: no pixel counts"):
        refine(IMAGE, P, mask=np.zeros_like(MASK))
    with pytest.raises(ValueError, match=r"^mask: energies are of whole images"):
        refine(IMAGE, P, mask=MASK, trace=print)
    with pytest.raises(ValueError, match=r"^mask: is of one image"):
        refine([IMAGE], [P], mask=MASK)
    with pytest.raises(ValueError, match=r"^image: a masked array; .* which pixels count with mask=$"):
        refine(np.ma.masked_array(IMAGE, np.repeat(~MASK[..., None], 3, 2)), P)
    with pytest.raises(ValueError, match=r"^normalization: a filter within a mask is made of one prepared with 'none'"):
        Spatial(2).prepare(torch.zeros(1, 1, *SIZE)).within(torch.from_numpy(MASK)[None], "after")
