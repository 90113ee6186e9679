"""How good a segmentation is: confusion matrix, mean IoU, and accuracy close to the boundaries (trimaps)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crfrnn.data.datasets import VOID

RADII = tuple(range(1, 21))  # pixels, as in the DenseCRF and DeepLab papers
MUCH_VOID = 0.25  # share of the pixels; the contours of VOC are 5 %, what Cityscapes does not count is 10 %
SHOWN = 8  # classes that a line names


def confusion_matrix(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """(L, L) int64: how many pixels of class i (row) were called j (column).

    Args:
        prediction: class numbers 0..L-1, any shape.
        truth: of the same shape; pixels that are `VOID` (255) do not count.
        num_classes: L.

    >>> confusion_matrix(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 255]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction: {tuple(prediction.shape)} has another shape than the truth, {tuple(truth.shape)}"
        )
    return _count(torch.zeros_like(truth, dtype=torch.int64), prediction, truth, num_classes, groups=1)[0]


def _count(group: Tensor, prediction: Tensor, truth: Tensor, num_classes: int, groups: int) -> Tensor:
    """(groups, L, L): one confusion matrix for each group of pixels."""
    sure = truth != VOID
    g, t, p = group[sure].long(), truth[sure].long(), prediction[sure].long()
    for name, numbers in (("truth", t), ("prediction", p)):
        if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < num_classes:
            raise ValueError(f"{name}: class {int(numbers.max())}, but there are {num_classes} classes")
    places = (g * num_classes + t) * num_classes + p
    return torch.bincount(places, minlength=groups * num_classes**2).view(groups, num_classes, num_classes)


def class_counts(confusion: Tensor) -> Tensor:
    """(3, L): of each class the pixels that are of it and were called so, those called so, and those that are of it.

    >>> class_counts(torch.tensor([[3, 1], [0, 4]])).tolist()
    [[3, 4], [3, 5], [4, 4]]
    """
    return torch.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says. All in 0..1; NaN where there was nothing to count.

    `iou` (L,) is the intersection over union of each class, NaN for a class that does not occur in the truth;
    `mean_iou` is the mean of the others, `pixel_accuracy` the share of the pixels that are right. Which classes count
    is thus a matter of the truth alone: two predictions for the same images are compared by the same ones.
    """

    iou: Tensor
    mean_iou: float
    pixel_accuracy: float


def scores(confusion: Tensor) -> Scores:
    """Scores of a confusion matrix (L, L), rows truth and columns prediction, summed over a whole set.

    Source: the measure of Pascal VOC (Everingham et al., IJCV 2015).

    >>> scores(torch.tensor([[3, 1], [0, 4]])).pixel_accuracy
    0.875
    >>> scores(torch.tensor([[3, 1], [0, 0]])).mean_iou  # the second class was called once and is nowhere
    0.75
    """
    counts = confusion.double()
    iou = class_iou(*class_counts(counts))
    return Scores(iou, iou.nanmean().item(), (counts.diagonal().sum() / counts.sum()).item())


def class_iou(right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of each class, NaN where it does not occur in the truth; sums over a whole set.

    Args:
        right: (..., L), of the pixels that are of a class and were called so.
        predicted: of the pixels that were called so.
        true: of the pixels that are.
    """
    return torch.where(true > 0, right / (predicted + true - right), torch.nan)


def class_dice(right: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Dice coefficient of each class, twice the intersection over both sizes; NaN where there is none of it at all.

    Args: as those of `class_iou`, of one image.

    >>> class_dice(torch.tensor([3, 0]), torch.tensor([4, 0]), torch.tensor([4, 0]))
    tensor([0.7500,    nan])
    """
    return torch.where(predicted + true > 0, 2 * right / (predicted + true), torch.nan)


def doubts(pixels: Sequence[int], void: int, names: Sequence[str]) -> list[str]:
    """What whoever measures on a truth should know before: a line for each doubt, none where all is as usual.

    Args:
        pixels: (L,) how many there are of each class in the whole set.
        void: how many do not count.
        names: of the classes.

    >>> doubts([90, 0], 10, ["ground", "cat"])[0]
    'cat never occurs in the truth: the mean IoU leaves it out'
    >>> doubts([90, 20], 5, ["ground", "cat"])
    []
    """
    lines = []
    absent = [name for name, count in zip(names, pixels, strict=True) if not count]
    if absent:
        several = len(absent) > 1
        shown = ", ".join(absent[:SHOWN]) + f" and {len(absent) - SHOWN} more" * (len(absent) > SHOWN)
        what = f"{len(absent)} of {len(names)} classes never occur" if several else f"{shown} never occurs"
        listed = f" ({shown})" * several
        lines.append(f"{what} in the truth{listed}: the mean IoU leaves {'them' if several else 'it'} out")
    share = void / max(1, void + sum(pixels))
    one_class = len(absent) == len(names) - 1
    if share > MUCH_VOID or (void and one_class):
        repair = "; masks stored as 0 and 255 are read as class 0 and void: store them as 0 and 1" * one_class
        lines.append(f"{share:.1%} of the truth is void ({VOID} always is) and does not count{repair}")
    return lines


def boundary_rings(labels: Tensor, radius: int) -> Tensor:
    """How far each pixel is from a boundary: ring 1, 2, ..., `radius`, and `radius` + 1 for all beyond.

    A boundary pixel is one with another label above, below, left or right of it; void is a label like any other, as
    void contours are where VOC draws its boundaries. A pixel is in ring r if its nearest boundary pixel is less than
    r and at least r - 1 pixels away, exactly, centre to centre. The trimap of r pixels is the union of rings 1..r.

    Args:
        labels: (H, W).
        radius: in pixels, at least 1.

    Returns:
        (H, W) int64.

    >>> boundary_rings(torch.tensor([[0, 0, 0, 1, 1]]), radius=2)
    tensor([[3, 2, 1, 1, 2]])
    """
    if radius < 1:
        raise ValueError(f"radius: must be at least 1 pixel, got {radius}")
    edge = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    far = (radius + 1) ** 2
    squared = torch.where(edge, 0, far)
    squared = _lowered(_lowered(squared, radius).T, radius).T  # the exact transform is separable
    # with d^2 = k a whole number, r - 1 <= d < r  <=>  r = floor(d) + 1
    return (squared.double().sqrt().floor().long() + 1).clamp(max=radius + 1)


def _lowered(squared: Tensor, radius: int) -> Tensor:
    """min over |s| <= radius of squared[y + s, x] + s^2: the parabolas' lower envelope, down the columns."""
    lowest = squared.clone()
    height = len(squared)
    for step in range(1, min(radius, height - 1) + 1):
        torch.minimum(lowest[step:], squared[:-step] + step**2, out=lowest[step:])
        torch.minimum(lowest[:-step], squared[step:] + step**2, out=lowest[:-step])
    return lowest


class Evaluation:
    """Counts over a whole set, one image after another: the confusion matrix, and one for each trimap.

    Args:
        num_classes: L.
        radii: widths of the trimaps in pixels; none for the confusion matrix alone, which is faster.

    Source: trimaps: Kohli, Ladicky, Torr, "Robust higher order potentials", IJCV 2009; Kraehenbuehl and Koltun, NIPS
    2011; Chen et al., "DeepLab", TPAMI 2018.

    >>> evaluation = Evaluation(num_classes=2, radii=(1,))
    >>> truth = torch.tensor([[0, 0, 0, 1, 1, 1]])
    >>> evaluation.add(torch.tensor([[0, 0, 1, 1, 1, 1]]), truth)
    >>> evaluation.scores().pixel_accuracy, evaluation.trimaps()[1].pixel_accuracy
    (0.8333333333333334, 0.5)
    """

    def __init__(self, num_classes: int, radii: tuple[int, ...] = RADII):
        self.num_classes, self.radii = num_classes, tuple(radii)
        self.reach = max(self.radii, default=0)
        self.counts = torch.zeros(self.reach + 2, num_classes, num_classes, dtype=torch.int64)

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Count one image: class numbers (H, W), and the truth (H, W) with `VOID`."""
        if prediction.shape != truth.shape:
            raise ValueError(
                f"prediction: {tuple(prediction.shape)} has another shape than the truth, {tuple(truth.shape)}"
            )
        rings = boundary_rings(truth, self.reach) if self.reach else torch.zeros_like(truth, dtype=torch.int64)
        self.counts += _count(rings, prediction, truth, self.num_classes, self.reach + 2).cpu()

    def scores(self) -> Scores:
        """Over all pixels."""
        return scores(self.counts.sum(0))

    def trimaps(self) -> dict[int, Scores]:
        """Over the pixels within r pixels of a boundary, for each radius r."""
        within = self.counts.cumsum(0)
        return {radius: scores(within[radius]) for radius in self.radii}
