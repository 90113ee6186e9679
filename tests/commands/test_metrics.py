"""Metrics against loops over pixels, SciPy's distance transform and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from crfrnn.commands.metrics import RADII, Evaluation, boundary_rings, confusion_matrix, doubts, scores
from crfrnn.data.datasets import VOID


def problem(seed: int, labels: int = 4, size: tuple[int, int] = (23, 31)) -> tuple[torch.Tensor, torch.Tensor]:
    """A truth of blobs with void in it, and a prediction that is right on most pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(labels, (5, 6), generator=generator)
    truth = coarse.repeat_interleave(5, 0).repeat_interleave(6, 1)[: size[0], : size[1]].clone()
    prediction = torch.where(
        torch.rand(size, generator=generator) < 0.3, torch.randint(labels, size, generator=generator), truth
    )
    truth[4:7] = VOID
    return prediction, truth.to(torch.uint8)


def by_loop(prediction, truth, labels, counted) -> np.ndarray:
    confusion = np.zeros((labels, labels), int)
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            if truth[y, x] != VOID and counted[y, x]:
                confusion[truth[y, x], prediction[y, x]] += 1
    return confusion


def distance_to_boundary(truth: np.ndarray) -> np.ndarray:
    padded = np.pad(truth.astype(int), 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    neighbours = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    inside = ~np.any([centre != neighbour for neighbour in neighbours], axis=0)
    return np.asarray(distance_transform_edt(inside))


@pytest.mark.parametrize("seed", range(3))
def test_confusion_and_trimaps(seed):
    prediction, truth = problem(seed)
    distance = distance_to_boundary(truth.numpy())
    everywhere = by_loop(prediction, truth, 4, np.ones(truth.shape, bool))
    assert confusion_matrix(prediction, truth, 4).tolist() == everywhere.tolist()
    evaluation = Evaluation(4)
    evaluation.add(prediction, truth)
    trimaps = evaluation.trimaps()
    assert tuple(trimaps) == RADII
    for radius in (1, 2, 3, 5, 20):
        expected = scores(torch.tensor(by_loop(prediction, truth, 4, distance < radius)))
        assert trimaps[radius].mean_iou == expected.mean_iou
        assert trimaps[radius].pixel_accuracy == expected.pixel_accuracy
    evaluation.add(prediction, truth)  # a second image
    assert evaluation.counts.sum(0).tolist() == (2 * everywhere).tolist()


@pytest.mark.parametrize("size", [(1, 30), (30, 1), (17, 40), (2, 2)])
def test_rings_are_the_exact_distance(size):
    labels = torch.zeros(size, dtype=torch.uint8)
    labels[-1, -1] = 3
    distance = distance_to_boundary(labels.numpy())
    for radius in (1, 4, 20):
        expected = np.minimum(np.floor(distance) + 1, radius + 1)
        assert boundary_rings(labels, radius).tolist() == expected.tolist()


def test_without_a_boundary_nothing_is_near_it():
    assert (boundary_rings(torch.zeros(6, 5), 3) == 4).all()
    evaluation = Evaluation(2, radii=(3,))
    evaluation.add(torch.zeros(6, 5, dtype=torch.long), torch.zeros(6, 5, dtype=torch.long))
    assert np.isnan(evaluation.trimaps()[3].mean_iou)
    assert evaluation.scores().mean_iou == 1


def test_absent_classes_do_not_count():
    result = scores(torch.tensor([[4, 0, 1], [0, 0, 0], [0, 0, 5]]))
    assert torch.isnan(result.iou[1])
    assert result.mean_iou == pytest.approx((4 / 5 + 5 / 6) / 2)
    only_predicted = scores(torch.tensor([[4, 1], [0, 0]]))
    assert torch.isnan(only_predicted.iou[1])
    assert only_predicted.mean_iou == pytest.approx(4 / 5)


def test_two_predictions_are_compared_by_the_same_classes():
    """One pixel that is called a class that is nowhere costs what that pixel costs, near the boundaries too."""
    truth = torch.arange(60).div(15, rounding_mode="floor").clamp(max=2).repeat(20, 1)
    values = []
    for called in (1, 3):  # a class that occurs elsewhere, and one that never does
        prediction = truth.clone()
        prediction[4, 40] = called
        evaluation = Evaluation(4, radii=(12,))
        evaluation.add(prediction, truth)
        values.append([evaluation.scores().mean_iou, evaluation.trimaps()[12].mean_iou])
    assert values[1] == pytest.approx(values[0], abs=2e-3)
    assert values[1] > values[0]  # the other class has no false pixel


@pytest.mark.parametrize(
    ("pixels", "void", "expected"),
    [
        ([50, 40, 10], 5, []),
        ([50, 40, 0], 5, ["c never occurs in the truth: the mean IoU leaves it out"]),
        ([50, 0, 0], 0, ["2 of 3 classes never occur in the truth (b, c): the mean IoU leaves them out"]),
        ([40, 20, 10], 30, ["30.0% of the truth is void (255 always is) and does not count"]),
    ],
)
def test_doubts(pixels, void, expected):
    assert doubts(pixels, void, "abc") == expected


def test_masks_stored_as_0_and_255_are_doubtful():
    absent, stored = doubts([99, 0], 1, ["ground", "cat"])
    assert absent.startswith("cat never occurs")
    assert stored.startswith("1.0% of the truth is void")
    assert "store them as 0 and 1" in stored
    assert doubts([1] + [0] * 20, 0, [str(number) for number in range(21)]) == [
        "20 of 21 classes never occur in the truth (1, 2, 3, 4, 5, 6, 7, 8 and 12 more): the mean IoU leaves them out"
    ]


@pytest.mark.parametrize("seed", range(2))
def test_equal_to_torchmetrics(seed):
    classification = pytest.importorskip(
        "torchmetrics.classification", reason="torchmetrics comes with the extra train"
    )
    metric = classification.MulticlassJaccardIndex(5, ignore_index=VOID)
    evaluation = Evaluation(5, radii=())
    for image in range(3):  # class 4 occurs nowhere
        prediction, truth = problem(10 * seed + image)
        metric.update(prediction[None], truth[None].long())
        evaluation.add(prediction, truth)
    assert evaluation.scores().mean_iou == pytest.approx(metric.compute().item(), abs=1e-6)


def test_refusals():
    numbers = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"^prediction: .* another shape"):
        Evaluation(2).add(numbers, numbers.T)
    with pytest.raises(ValueError, match=r"^prediction: .* another shape"):
        confusion_matrix(numbers, numbers[0], 2)
    with pytest.raises(ValueError, match=r"^prediction: class 7, but there are 2"):
        confusion_matrix(numbers + 7, numbers, 2)
    with pytest.raises(ValueError, match=r"^truth: class 7, but there are 2"):
        confusion_matrix(numbers, numbers + 7, 2)
    with pytest.raises(ValueError, match=r"^radius: "):
        boundary_rings(numbers, 0)
