"""Mean IoU over a data set as a smooth function of probabilities: what a fit maximises.

With y_ic = 1 where class c is true at pixel i, and probabilities q_ic, summed over every pixel of every image:

    I_c = sum_i q_ic y_ic        U_c = sum_i q_ic + y_ic - q_ic y_ic        soft mIoU = mean_c I_c / U_c

The mean is over the classes that occur in the truth, so that the same ones count whatever q is. For probabilities 0 and
1 this is the IoU itself. The measure belongs to the whole set: its mean over images would count a class in each image
by itself. So that a few images at a time can be worked on, `SoftMeanIoU` remembers what every image came to when it was
last seen.

Source: Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC 2016.
"""

import torch
from torch import Tensor

from crfrnn.commands.metrics import class_iou
from crfrnn.data.datasets import VOID


def soft_counts(probabilities: Tensor, truth: Tensor) -> Tensor:
    """(3, L): of each class, soft intersection I_c, what is called so (sum of q) and what is so (sum of y).

    Args:
        probabilities: (L, *S), summing to 1 over the classes.
        truth: class numbers (*S); pixels that are `VOID` (255) do not count.

    >>> soft_counts(torch.tensor([[0.75, 0.5], [0.25, 0.5]]), torch.tensor([0, 255]))
    tensor([[0.7500, 0.0000],
            [0.7500, 0.2500],
            [1.0000, 0.0000]])
    """
    if probabilities.shape[1:] != truth.shape:
        raise ValueError(
            f"truth: {tuple(truth.shape)} has another size than the probabilities, {tuple(probabilities.shape)}"
        )
    sure = truth != VOID
    q, y = probabilities[:, sure], truth[sure].long()
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < len(q):
        raise ValueError(f"truth: class {int(y.max())}, but there are {len(q)} classes")
    intersection = q.new_zeros(len(q)).index_add(0, y, q.gather(0, y[None])[0])
    return torch.stack([intersection, q.sum(1), torch.bincount(y, minlength=len(q)).to(q.dtype)])


def soft_mean_iou(counts: Tensor) -> Tensor:
    """The mean over the classes that occur in the truth of I_c / U_c; counts (3, L) -> a number.

    >>> soft_mean_iou(torch.tensor([[3.0, 1.0, 0.0], [3.0, 2.0, 1.0], [4.0, 3.0, 0.0]]))
    tensor(0.5000)
    """
    return class_iou(*counts[:, counts[2] > 0]).mean()  # the others are taken out before 0 / 0 gives NaN gradients


class SoftMeanIoU:
    """The soft mean IoU of a data set of which a few images are seen at a time.

    Args:
        counts: (images, 3, L), what each image comes to before the first step.

    >>> q, truth = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 1])
    >>> measure = SoftMeanIoU(torch.stack([soft_counts(q, truth), soft_counts(q, 1 - truth)]))
    >>> measure.value(), measure.slope()[0].tolist()
    (0.25, [0.1875, 0.25])
    """

    def __init__(self, counts: Tensor):
        self.counts = counts.clone()

    def remember(self, image: int, counts: Tensor) -> None:
        """What an image comes to now, (3, L)."""
        self.counts[image] = counts

    def value(self) -> float:
        """With what every image came to when it was last seen."""
        return soft_mean_iou(self.counts.sum(0)).item()

    def slope(self) -> Tensor:
        """(3, L): the derivative of the value with respect to the counts of any image.

        The counts are sums over the images, so the whole set's gradient is a sum over the images, too: of this times
        the derivative of each image's counts.
        """
        with torch.enable_grad():
            total = self.counts.sum(0).requires_grad_()
            return torch.autograd.grad(soft_mean_iou(total), total)[0]
