"""`DenseCRFLoss`: the sum over pairs, its gradient, what it does not depend on, what it is told that makes no sense."""

import itertools
import re

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from crfrnn import Bilateral, Features, Spatial
from crfrnn.losses import DenseCRFLoss
from tests.support import oracle
from tests.support.compare import assert_approximates, assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, generator, photo, predictions
from tests.support.scenes import scene

SHAPES = [(7,), (3, 4), (2, 2, 3)]
LABELS = 3


def kernels(method: str = "exact") -> list:
    return [Bilateral(2, 60, weight=0.7, method=method), Features(90, weight=0.4, method=method)]


def random_problem(*shape: int, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, L, *S) and a guide (B, 2, *S), float64."""
    logits = torch.randn(batch, LABELS, *shape, dtype=torch.float64, generator=generator(seed))
    guide = 255 * torch.rand(batch, 2, *shape, dtype=torch.float64, generator=generator(seed + 1))
    return logits, guide


def random_masks(*shape: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """A region, and labels of half of the pixels."""
    roi = (torch.rand(batch, *shape, generator=generator(2)) < 0.7).double()
    labels = torch.randint(0, LABELS, (batch, *shape), generator=generator(3))
    return roi, labels.masked_fill(torch.rand(batch, *shape, generator=generator(4)) < 0.5, 255)


def by_loops(loss: DenseCRFLoss, s: torch.Tensor, guide: torch.Tensor, roi=None, gate=None) -> float:
    """sum_ij g_i r_i r_j k_ij (1 - <S_i, S_j>) over the pixels of the region, over pairs of pixels."""
    paid, points = 0.0, s[0, 0].numel()
    r = torch.ones(len(s), points) if roi is None else roi.flatten(1)
    g = torch.ones(len(s), points) if gate is None else gate.flatten(1)
    for image, p in enumerate(s.flatten(2).numpy()):
        k = np.zeros((points, points))
        for kernel in loss.kernels:
            features = kernel.features(guide[image : image + 1])[0].flatten(1).numpy()  # pyright: ignore[reportAttributeAccessIssue]
            k += kernel.weight * oracle.normalised(oracle.kernel(features), loss.normalization)
        for i, j in itertools.product(range(points), repeat=2):
            agreement = sum(float(p[label, i] * p[label, j]) for label in range(len(p)))
            paid += float(g[image, i] * r[image, i] * r[image, j]) * k[i, j] * (1 - agreement)
    return loss.weight * paid / float(r.sum())


@each("shape", SHAPES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_sum_over_pairs(shape, normalization):
    logits, guide = random_problem(*shape)
    s, (roi, labels) = logits.softmax(dim=1), random_masks(*shape)
    loss = DenseCRFLoss(kernels(), weight=0.3, scale=1, normalization=normalization)
    gate = torch.where(labels == 255, 1.0, (roi - s.amax(dim=1)).clamp(min=0))
    for r, ls, g in ((None, None, None), (roi, None, None), (roi, labels, gate)):
        assert loss(s, guide, r, ls).item() == pytest.approx(by_loops(loss, s, guide, r, g), rel=1e-12)
        assert loss(logits, guide, r, ls, logits=True).item() == pytest.approx(loss(s, guide, r, ls).item(), rel=1e-12)


@each("shape", SHAPES)
@each("scale", [1, 0.5])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_gradcheck(shape, scale, normalization):
    logits, guide = random_problem(*(2 * size for size in shape) if scale < 1 else shape, batch=1)
    loss = DenseCRFLoss(kernels(), weight=1, scale=scale, normalization=normalization)
    roi = random_masks(*logits.shape[2:], batch=1)[0]
    assert torch.autograd.gradcheck(lambda x: loss(x, guide, roi, logits=True), logits.requires_grad_())
    s = logits.detach().softmax(dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, guide), s, atol=1e-7)


@each("masked", [False, True])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_gradient_is_autograds(normalization, masked):
    """Through the sum over pairs as a matrix; the gate is a number."""
    logits, guide = random_problem(3, 4)
    logits.requires_grad_()
    roi, labels = random_masks(3, 4) if masked else (None, None)
    loss = DenseCRFLoss(kernels(), weight=1, scale=1, normalization=normalization)
    (got,) = torch.autograd.grad(loss(logits, guide, roi, labels, logits=True), logits)

    s = logits.softmax(dim=1).flatten(2)
    eye = torch.eye(12, dtype=torch.float64).view(12, 3, 4).expand(2, 12, 3, 4)
    k = sum(
        kernel.weight * kernel.prepare(guide, normalization=normalization)(eye).flatten(2).mT for kernel in loss.kernels
    )
    r = torch.ones(2, 12) if roi is None else roi.flatten(1)
    g = torch.ones(2, 12)
    if roi is not None and labels is not None:
        g = torch.where(labels.flatten(1) == 255, 1.0, (r - s.detach().amax(dim=1)).clamp(min=0))
    pairs = (g * r).unsqueeze(2) * r.unsqueeze(1) * k
    (expected,) = torch.autograd.grad((pairs * (1 - s.mT @ s)).sum() / r.sum(), logits)
    assert_equal("gradient", got, expected, 1e-12)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_with_the_lattice(normalization):
    """The value and the gradient are those of the Gaussian as far as a lattice is: 10 and 15 % measured, here 20."""
    guide, logits = photo("coffee"), predictions("coffee").requires_grad_()
    results = []
    for method in ("permutohedral", "exact"):
        loss = DenseCRFLoss(Bilateral(40, 25, weight=1, method=method), 1, normalization=normalization)
        value = loss(logits, guide, logits=True)
        results.append((value.detach().view(1), *torch.autograd.grad(value, logits)))
    assert_approximates("value", results[0][0], results[1][0], per_cent=20)
    assert_approximates("gradient", results[0][1], results[1][1], per_cent=20)


@each("gated", [False, True])
@each("normalization", NORMALIZATIONS)
def test_labels_have_no_names_and_logits_no_zero(gated, normalization):
    logits, guide = random_problem(4, 6)
    labels = random_masks(4, 6)[1] if gated else None
    loss = DenseCRFLoss(kernels("permutohedral"), 1, normalization=normalization)
    expected = loss(logits, guide, labels=labels, logits=True)
    for other in (logits[:, [2, 0, 1]], logits + 5, logits + torch.randn(2, 1, 4, 6, generator=generator(9)).double()):
        assert_equal("loss", loss(other, guide, labels=labels, logits=True), expected, 1e-12)


@each("normalization", NORMALIZATIONS)
def test_a_mirror_image(normalization):
    logits, guide = random_problem(4, 6)
    labels = random_masks(4, 6)[1]
    loss = DenseCRFLoss(kernels(), 1, scale=1, normalization=normalization)
    turned = loss(logits.flip(3), guide.flip(3), labels=labels.flip(2), logits=True)
    assert_equal("loss", turned, loss(logits, guide, labels=labels, logits=True), 1e-12)


@each("normalization", NORMALIZATIONS)
def test_a_label_everywhere_costs_nothing(normalization):
    guide = random_problem(4, 6)[1]
    s = torch.zeros(2, LABELS, 4, 6, dtype=torch.float64)
    s[:, 1] = 1
    assert DenseCRFLoss(kernels(), 1, normalization=normalization)(s, guide).item() == 0


@each("normalization", ["after", "none"])
def test_a_batch_is_the_mean_of_its_images_and_size_does_not_count(normalization):
    logits, guide = random_problem(4, 6)
    loss = DenseCRFLoss([Bilateral(1e-3, 60, weight=1, method="exact")], 1, normalization=normalization, scale=1)
    one_by_one = [loss(logits[k : k + 1], guide[k : k + 1], logits=True) for k in range(2)]
    assert_equal("batch", loss(logits, guide, logits=True), torch.stack(one_by_one).mean(), 1e-12)
    near = DenseCRFLoss([Spatial(0.3, weight=1)], 1, normalization=normalization, scale=1)
    wide = torch.cat([logits, logits.flip(3)], dim=3), torch.cat([guide, guide.flip(3)], dim=3)
    assert_equal("twice as wide", near(*wide, logits=True), near(logits, guide, logits=True), 0.02)


def test_scales_as_published():
    """Probabilities linearly, guide, region and labels by their nearest pixel, bandwidths of position with them."""
    logits, guide = random_problem(9, 14)
    s, (roi, labels) = logits.softmax(dim=1), random_masks(9, 14)
    small = [interpolate(t.double().view(2, -1, 9, 14), (4, 7)) for t in (guide, roi, labels)]
    half = interpolate(s, (4, 7), mode="bilinear", align_corners=False)
    got = DenseCRFLoss([Bilateral(8, 60, weight=1)], 1)(s, guide, roi, labels)
    expected = DenseCRFLoss([Bilateral(4, 60, weight=1)], 1, scale=1)(half, small[0], small[1][:, 0], small[2][:, 0])
    assert_equal("loss", got, expected, 1e-12)


def made_scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A photograph (1, 3, H, W), the logits (1, 3, H, W) of an unsure network, and the truth (1, H, W)."""
    image, logits, truth = scene(seed)
    guide = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return guide, torch.from_numpy(logits)[None], torch.from_numpy(truth).long()[None]


@each("seed", range(3))
@each("normalization", ["after", "none"])
def test_falls_when_a_segmentation_follows_the_edges(seed, normalization):
    """The truth of a scene costs less than the same labels a few pixels off."""
    guide, _, truth = made_scene(seed)
    hot = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1).float()
    loss = DenseCRFLoss([Bilateral(10, 12, weight=1)], 1, scale=1, normalization=normalization)
    costs = [loss(hot.roll(shift, dims=3), guide).item() for shift in (0, 1, 2, 4, 8)]
    assert costs == sorted(costs)
    assert costs[0] < 0.6 * costs[1]


@each("seed", range(3))
def test_descent_cleans_a_noisy_segmentation(seed):
    """Without a label: twenty steps from logits with noise take half of the errors away."""
    guide, _, truth = made_scene(seed)
    hot = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1).float()
    logits = (2 * hot + 1.5 * torch.randn(hot.shape, generator=generator(seed))).requires_grad_()
    loss = DenseCRFLoss([Bilateral(10, 12, weight=1)], 1, scale=1, normalization="after")
    optimiser = torch.optim.Adam([logits], lr=0.1)

    def errors() -> float:
        return (logits.argmax(dim=1) != truth).float().mean().item()

    before = errors()
    for _ in range(20):
        optimiser.zero_grad()
        loss(logits, guide, logits=True).backward()
        optimiser.step()
    assert errors() < 0.5 * before


def test_empty_regions_and_batches():
    logits, guide = random_problem(4, 6)
    for loss in (DenseCRFLoss(), DenseCRFLoss(normalization="after")):
        (grad,) = torch.autograd.grad(
            value := loss(logits.requires_grad_(), guide, torch.zeros(2, 4, 6), logits=True), logits
        )
        assert value.item() == 0
        assert not grad.any()
    assert DenseCRFLoss()(logits[:0], guide[:0], logits=True).item() == 0


@each("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype):
    logits, guide = (t.float() for t in random_problem(4, 6))
    loss = DenseCRFLoss(kernels("permutohedral"), 1)
    expected = loss(logits, guide, logits=True)
    narrow = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(narrow, guide, logits=True)
    value.backward()
    assert value.dtype == torch.float32
    assert_approximates("loss", value.detach().view(1), expected.view(1), per_cent=1)
    assert narrow.grad is not None
    assert narrow.grad.isfinite().all()


def test_function_transforms():
    logits, guide = (t.float() for t in random_problem(4, 6))
    for loss in (DenseCRFLoss(kernels("permutohedral"), 1), DenseCRFLoss(kernels("permutohedral"), 1, 0.5, "after")):
        got = torch.func.grad(lambda x, loss=loss: loss(x, guide, logits=True))(logits)
        (expected,) = torch.autograd.grad(loss(logits.requires_grad_(), guide, logits=True), logits)
        logits = logits.detach()
        assert_equal("gradient", got, expected, 1e-6)


P, G = torch.rand(2, 3, 4, 6).softmax(dim=1), torch.rand(2, 3, 4, 6) * 255


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((P.numpy(), G), "probabilities: expected a tensor, got ndarray"),
        ((P[0], G), "guide: expected (batch, channels, *sizes) with the batch and the sizes of the probabilities"),
        ((P[:, :1], G), "probabilities: one label alone is never different; give both"),
        ((P.long(), G), "probabilities: expected numbers (batch, labels, *sizes)"),
        ((10 * P, G), "are no probabilities; take the softmax of logits first"),
        ((P / 0, G), "probabilities: NaN or infinity"),
        ((P * float("nan"), G), "probabilities: NaN or infinity"),
        ((P, G[:1]), "guide: expected (batch, channels, *sizes)"),
        ((P, G[..., :3]), "guide: expected (batch, channels, *sizes)"),
        ((P, G * float("nan")), "guide: NaN or infinity; clean the picture"),
        ((P, G.to("meta")), "guide: on meta, but the probabilities are on cpu; move one of them"),
        ((P, G, torch.ones(2, 4, 5)), "roi: expected (2, 4, 6), a number for each pixel, got (2, 4, 5)"),
        ((P, G, 255 * torch.ones(2, 4, 6)), "roi: 255..255; expected 1 where pixels count and 0 where not"),
        ((P, G, None, torch.zeros(4, 6)), "labels: expected (2, 4, 6), a number for each pixel, got (4, 6)"),
    ],
)
def test_one_line_for_what_makes_no_sense(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        DenseCRFLoss()(*arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kernels": []}, "kernels: give at least one"),
        ({"kernels": "spatial"}, "kernels: "),
        ({"weight": -1}, "weight: must be at least 0 and finite, got -1"),
        ({"weight": float("nan")}, "weight: must be at least 0 and finite, got nan"),
        ({"scale": 0}, "scale: must be above 0 and at most 1"),
        ({"scale": 2}, "scale: must be above 0 and at most 1"),
        ({"normalization": "mean"}, "normalization: 'mean' is none of after, symmetric, before, none"),
    ],
)
def test_settings_that_make_no_sense(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        DenseCRFLoss(**arguments)


def test_a_guide_in_other_units_is_warned_of():
    with pytest.warns(UserWarning, match="multiply colours in 0..1 by 255"):
        DenseCRFLoss(Bilateral(100, 15.125, weight=1))(P, G / 255)  # a bandwidth of which nobody was warned yet
