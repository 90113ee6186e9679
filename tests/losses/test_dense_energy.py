"""`DenseEnergyLoss` beside the published arithmetic, written out, and beside `DenseCRFLoss`."""

import pytest
import torch
from torch.nn.functional import interpolate

from crfrnn import Bilateral
from crfrnn.losses import DenseCRFLoss, DenseEnergyLoss
from tests.losses.test_dense_crf import random_masks, random_problem
from tests.support.compare import assert_equal
from tests.support.each import each

SHARE = 0.7055354889643041  # of the Gaussian's mass, 1 / (1 + 2^-5) over 1.3744


@each("gated", [False, True])
def test_the_published_arithmetic(gated):
    logits, guide = (t.float() for t in random_problem(10, 14))
    guide = torch.cat([guide, guide[:, :1]], dim=1)
    p, (roi, labels) = logits.softmax(dim=1).requires_grad_(), random_masks(10, 14)
    seg_label = labels[:, None] if gated else None
    value = DenseEnergyLoss(1e-3, 60, 8, 0.5)(guide, p, roi.float(), seg_label)
    (gradient,) = torch.autograd.grad(value, p)

    s = interpolate(p, (5, 7), mode="bilinear", align_corners=False)
    r = interpolate(roi.float()[:, None], (5, 7))
    gate = torch.ones_like(r)
    if gated:
        unlabelled = interpolate(labels[:, None].float(), (5, 7)).long() == 255
        gate = (r - s.detach().max(dim=1, keepdim=True)[0]).clamp(min=0)
        gate[unlabelled] = 1
    filtered = SHARE * Bilateral(4, 60).prepare(interpolate(guide, (5, 7)), normalization="none")(s.detach() * r)
    expected = -1e-3 * (s * r * gate * filtered).sum() / 2
    (expected_gradient,) = torch.autograd.grad(s, p, -2 * 1e-3 * gate * filtered / 2 * r)
    assert_equal("loss", value.detach(), expected.detach(), 1e-5)
    assert_equal("gradient", gradient, expected_gradient, 1e-5)


def test_the_documented_factor():
    """weight there is 0.7055 * weight * pixels here: the same gradient of the logits."""
    logits, guide = (t.float() for t in random_problem(10, 14))
    guide, weight = torch.cat([guide, guide[:, :1]], dim=1), 1e-3
    logits.requires_grad_()
    published = DenseEnergyLoss(weight, 60, 8, 0.5)(guide, logits.softmax(dim=1))
    ours = DenseCRFLoss(Bilateral(8, 60, weight=1), 0.7055 * weight * 5 * 7)(logits, guide, logits=True)
    (expected,), (got,) = (torch.autograd.grad(loss, logits) for loss in (published, ours))
    assert_equal("gradient", got, expected, 1e-4)


def test_wrong_arguments():
    images, p = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 4).softmax(dim=1)
    for arguments, said in (
        ((images, 3 * p), "segmentations: .* take the softmax"),
        ((images, p, torch.ones(1, 1, 1, 4, 4)), "ROIs: expected"),
        ((images, p, None, torch.ones(1, 3, 4, 4)), "seg_label: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            DenseEnergyLoss(1e-7, 15, 100, 0.5)(*arguments)
    with pytest.raises(ValueError, match="scale_factor: must be above 0"):
        DenseEnergyLoss(1e-7, 15, 100, 0)
    with pytest.raises(ValueError, match="theta_beta: a bandwidth must be positive"):
        DenseEnergyLoss(1e-7, 0, 100, 0.5)
