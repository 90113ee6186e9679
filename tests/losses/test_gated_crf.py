"""`GatedCRFLoss` beside loops over pixels and their neighbours."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from crfrnn import Bilateral, Spatial
from crfrnn.losses import GatedCRFLoss
from tests.losses.test_dense_crf import random_problem
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import generator

KERNELS = [Bilateral(3, 60, weight=0.9), Spatial(2, weight=0.3)]
SHAPES = [(9,), (4, 5), (3, 2, 4)]


def by_loops(loss: GatedCRFLoss, s: torch.Tensor, guide: torch.Tensor, source, destination) -> float:
    """sum_i d_i sum_j s_j k_ij (1 - <S_i, S_j>) / sum_i d_i over a window, without the pixel itself."""
    shape, paid = s.shape[2:], 0.0
    for image in range(len(s)):
        for i, j in itertools.product(itertools.product(*map(range, shape)), repeat=2):
            if i == j or max(abs(a - b) for a, b in zip(i, j, strict=True)) > loss.radius:  # pyright: ignore[reportOperatorIssue]
                continue
            away = sum((a - b) ** 2 for a, b in zip(i, j, strict=True))
            colours = ((guide[(image, slice(None), *i)] - guide[(image, slice(None), *j)]) ** 2).sum().item()
            k = 0.9 * math.exp(-0.5 * (away / 3**2 + colours / 60**2)) + 0.3 * math.exp(-0.5 * away / 2**2)
            agreement = (s[(image, slice(None), *i)] * s[(image, slice(None), *j)]).sum().item()
            d = 1.0 if destination is None else destination[(image, *i)].item()
            paid += d * (1.0 if source is None else source[(image, *j)].item()) * k * (1 - agreement)
    counted = destination if destination is not None else source
    return loss.weight * paid / (s[:, 0].numel() if counted is None else counted.sum().item())


def random_mask(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return (torch.rand(2, *shape, generator=generator(seed)) < 0.6).double()


@each("shape", SHAPES)
@each("masks", itertools.product([False, True], repeat=2))
@each("radius", [1, 2])
def test_the_sum_over_a_window(shape, masks, radius):
    logits, guide = random_problem(*shape)
    source, destination = (random_mask(shape, 5 + k) if given else None for k, given in enumerate(masks))
    loss = GatedCRFLoss(KERNELS, weight=0.4, radius=radius)
    s = logits.softmax(dim=1).requires_grad_()
    value = loss(s, guide, source, destination)
    assert value.item() == pytest.approx(by_loops(loss, s.detach(), guide, source, destination), rel=1e-10)
    assert loss(logits, guide, source, destination, logits=True).item() == pytest.approx(value.item(), rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: loss(x, guide, source, destination), s)


def test_a_radius_for_each_axis():
    logits, guide = random_problem(6, 7)
    rows = GatedCRFLoss(KERNELS, 1, radius=(0, 2))(logits, guide, logits=True)
    one_by_one = [GatedCRFLoss(KERNELS, 1, radius=(2,))(logits[:, :, y], guide[:, :, y], logits=True) for y in range(6)]
    assert_equal("loss", rows, torch.stack(one_by_one).mean(), 1e-10)
    whole = GatedCRFLoss(KERNELS, 1, radius=50)(logits, guide, logits=True)
    assert_equal("beyond the picture", GatedCRFLoss(KERNELS, 1, radius=6)(logits, guide, logits=True), whole, 1e-12)


def test_larger_guides_and_masks_are_averaged():
    logits, guide = random_problem(8, 12)
    small = logits[..., :4, :6].softmax(dim=1)
    source = torch.ones(2, 8, 12)
    source[:, 0] = 0
    expected_source = torch.ones(2, 4, 6)
    expected_source[:, 0] = 0  # half of it is not in the mask
    got = GatedCRFLoss(KERNELS)(small, guide, source)
    assert_equal("loss", got, GatedCRFLoss(KERNELS)(small, adaptive_avg_pool2d(guide, (4, 6)), expected_source), 1e-12)


@each("masks", [{"source": torch.zeros(2, 4, 6)}, {"destination": torch.zeros(2, 4, 6)}])
def test_empty_masks(masks):
    logits, guide = random_problem(4, 6)
    value = GatedCRFLoss(KERNELS)(logits.requires_grad_(), guide, **masks, logits=True)
    assert value.item() == 0
    assert not torch.autograd.grad(value, logits)[0].any()


def test_labels_have_no_names():
    logits, guide = random_problem(4, 6)
    loss = GatedCRFLoss(KERNELS)
    assert_equal("loss", loss(logits[:, [1, 2, 0]] + 3, guide, logits=True), loss(logits, guide, logits=True), 1e-12)


def test_what_makes_no_sense():
    p, guide = torch.rand(2, 3, 4, 6).softmax(dim=1), torch.rand(2, 3, 4, 6)
    for arguments, said in (
        ((5 * p, guide), "are no probabilities; take the softmax of logits first"),
        ((p, guide[..., :5]), "guide: expected (batch, channels, *sizes) with the batch and at least the sizes"),
        ((p, guide / 0), "guide: NaN or infinity"),
        ((p, guide, torch.ones(2, 3, 6)), "source: expected (2, 4, 6), a number for each pixel"),
        ((p, guide, None, -torch.ones(2, 4, 6)), "destination: -1..-1; expected 1 where pixels count and 0 where not"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            GatedCRFLoss()(*arguments)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"radius": 2.5}, "radius: expected whole pixels"),
        ({"radius": -1}, "radius: expected whole pixels"),
        ({"kernels": []}, "kernels: give at least one"),
    ]
    for settings, said in wrong:
        with pytest.raises(ValueError, match=said):
            GatedCRFLoss(**settings)
    with pytest.raises(ValueError, match="radius: 3 numbers for 2 axes"):
        GatedCRFLoss(radius=(1, 1, 1))(p, guide)
