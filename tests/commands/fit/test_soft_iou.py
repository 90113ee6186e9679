"""Soft IoU against its definition in loops, against the IoU itself, and against finite differences."""

import pytest
import torch
from torch import Tensor

from crfrnn.commands.fit.soft_iou import SoftMeanIoU, soft_counts, soft_mean_iou
from crfrnn.commands.metrics import confusion_matrix, scores
from crfrnn.data.datasets import VOID
from tests.support.compare import assert_equal


def problem(seed: int, labels: int = 4) -> tuple[Tensor, Tensor]:
    """Probabilities (L, 5, 7) float64, and a truth with void in which the last class never occurs."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(labels, 5, 7, generator=generator, dtype=torch.float64)
    truth = torch.randint(labels - 1, (5, 7), generator=generator)
    truth[2] = VOID
    return logits.softmax(0), truth


def by_loop(q: Tensor, truth: Tensor) -> float:
    ious = []
    for label in set(truth[truth != VOID].tolist()):
        intersection = union = 0.0
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if truth[y, x] != VOID:
                    here, true = q[label, y, x].item(), float(truth[y, x] == label)
                    intersection += here * true
                    union += here + true - here * true
        ious.append(intersection / union)
    return sum(ious) / len(ious)


@pytest.mark.parametrize("seed", range(3))
def test_definition(seed):
    q, truth = problem(seed)
    assert soft_mean_iou(soft_counts(q, truth)).item() == pytest.approx(by_loop(q, truth), abs=1e-12)


def test_certain_probabilities_give_the_iou_itself():
    q, truth = problem(0)
    labels = q.argmax(0)
    certain = torch.nn.functional.one_hot(labels, 4).movedim(-1, 0).double()
    expected = scores(confusion_matrix(labels, truth, 4)).mean_iou
    assert soft_mean_iou(soft_counts(certain, truth)).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("stray", [0.0, 0.25])
def test_a_class_that_never_occurs_in_the_truth_does_not_count(stray):
    q = torch.tensor([[1.0 - stray, 0.0], [0.0, 1.0], [stray, 0.0]], requires_grad=True)
    value = soft_mean_iou(soft_counts(q, torch.tensor([0, 1])))
    assert value.item() == pytest.approx((1 - stray + 1) / 2)
    assert torch.autograd.grad(value, q)[0][2].tolist() == [0, 0]


def test_gradient():
    q, truth = problem(1)
    logits = q.log().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_mean_iou(soft_counts(x.softmax(0), truth)), logits)


def test_the_slope_is_the_whole_sets_gradient():
    (q, truth), (other, other_truth) = problem(2), problem(3)
    q.requires_grad_()
    counts, others = soft_counts(q, truth), soft_counts(other, other_truth)
    (expected,) = torch.autograd.grad(soft_mean_iou(counts + others), q, retain_graph=True)
    measure = SoftMeanIoU(torch.stack([torch.zeros_like(others), others]))
    measure.remember(0, counts.detach())
    (gradient,) = torch.autograd.grad(counts, q, measure.slope())
    assert_equal("gradient", gradient, expected, 1e-12)
    assert measure.value() == pytest.approx(soft_mean_iou(counts + others).item())


@pytest.mark.parametrize(
    ("truth", "message"), [(torch.zeros(4, 7), "truth: "), (torch.full((5, 7), 4), "truth: class 4, but there are 4")]
)
def test_wrong_truths(truth, message):
    with pytest.raises(ValueError, match=message):
        soft_counts(problem(0)[0], truth.long())
