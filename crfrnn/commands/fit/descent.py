"""Temperature and kernel weights by gradient descent on the soft mean IoU of the whole set.

All of them are positive, so it is their logarithms that move. The gradient of the whole set is a sum over its images
(`soft_iou.py`): each image's part is remembered until it is seen again, as in the stochastic average gradient method,
so that a step follows the whole set, and not the few images that it looked at.

Source: Schmidt, Le Roux and Bach, "Minimizing Finite Sums with the Stochastic Average Gradient", 2017.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from crfrnn.commands.fit.sample import Sample, weights_of
from crfrnn.commands.fit.soft_iou import SoftMeanIoU
from crfrnn.commands.fit.workers import Workers
from crfrnn.parameters import CRFParameters

ROUNDS = 4  # at most; each sees every image once, or a few times where they are few
STEPS = 12  # at least, in a round
BATCH = 8  # images for one step, at most
RATE = 0.12  # the largest step of a logarithm; halved after every round
GAIN = 2e-4  # a round that raises the soft mean IoU by less than this is the last
FLAT = 2e-4  # a gradient below this moves its parameter hardly at all (Adam's epsilon)
PULL = 1e-3  # towards the start: what a factor of e costs, in mean IoU


def descend(
    samples: Sequence[Sample],
    start: CRFParameters,
    workers: Workers,
    per_class: bool,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> CRFParameters:
    """The start with another temperature and other kernel weights, one for each kernel or, `per_class`, for each class.

    Stops early where a round over the images no longer pays, and returns the best that there was after a round.
    """
    initial = _Logarithms.of(start, samples[0].classes, per_class)
    values = initial.flat.clone()
    adam = torch.optim.Adam([values], betas=(0.9, 0.95), eps=FLAT, maximize=True)
    slopes, seen = torch.zeros(len(samples), len(values)), torch.zeros(len(samples), dtype=torch.bool)
    measure = SoftMeanIoU(_counts(samples, start, initial, workers))
    best, best_values = measure.value(), values.clone()
    generator = torch.Generator().manual_seed(seed)
    batch = max(1, min(BATCH, len(samples) // STEPS))
    for number in range(rounds):
        repeats = math.ceil(STEPS * batch / len(samples))
        order = torch.cat([torch.randperm(len(samples), generator=generator) for _ in range(repeats)])
        for chosen in order.split(batch):
            slope, now = measure.slope(), initial.at(values)

            def work(index: int, slope: Tensor = slope, now: "_Logarithms" = now) -> tuple[Tensor, Tensor]:
                return _gradient(samples[index], start, now, slope)

            for index, (counts, gradient) in zip(chosen.tolist(), workers.over(chosen.tolist(), work), strict=True):
                measure.remember(index, counts)
                slopes[index], seen[index] = gradient, True
            whole = slopes.sum(0) * (len(samples) / int(seen.sum()))
            values.grad = whole - 2 * PULL * (values - initial.flat)
            adam.param_groups[0]["lr"] = RATE / 2**number
            adam.step()
        measure = SoftMeanIoU(_counts(samples, start, initial.at(values), workers))
        gained = measure.value() - best
        if gained > 0:
            best, best_values = measure.value(), values.clone()
        if number and gained < GAIN:
            break
    return initial.at(best_values).parameters(start)


def steps(images: int, rounds: int = ROUNDS) -> int:
    """Pieces of work of `descend`, at most: each is one image."""
    batch = max(1, min(BATCH, images // STEPS))
    return images * (1 + rounds * (1 + math.ceil(STEPS * batch / images)))


class _Logarithms:
    """Logarithms of the temperature and of the weights (M, 1) or (M, L), as one vector (1 + M L,)."""

    def __init__(self, flat: Tensor, kernels: int, classes: int):
        self.flat, self.kernels, self.classes = flat, kernels, classes

    @classmethod
    def of(cls, parameters: CRFParameters, classes: int, per_class: bool) -> "_Logarithms":
        weights = weights_of(parameters, classes).clamp_min(1e-3).log()
        weights = weights if per_class else weights.mean(dim=1, keepdim=True)
        flat = torch.cat([torch.tensor([math.log(parameters.temperature)]), weights.flatten()])
        return cls(flat, len(weights), classes)

    def at(self, flat: Tensor) -> "_Logarithms":
        return _Logarithms(flat, self.kernels, self.classes)

    def unpacked(self) -> tuple[Tensor, Tensor]:
        """Temperature, and weights (M, L)."""
        return self.flat[0].exp(), self.flat[1:].view(self.kernels, -1).exp().expand(-1, self.classes)

    def parameters(self, start: CRFParameters) -> CRFParameters:
        """The kernels get the geometric mean of their classes' weights; what is left are factors of it."""
        logs = self.flat[1:].view(self.kernels, -1).double()
        means = logs.mean(dim=1, keepdim=True)
        kernels = tuple(
            replace(kernel, weight=mean)  # type: ignore[type-var]
            for kernel, mean in zip(start.kernels, means.exp().flatten().tolist(), strict=True)
        )
        factors = tuple(map(tuple, (logs - means).exp().tolist())) if logs.shape[1] > 1 else None
        temperature = float(self.flat[0].double().exp())
        return replace(start, kernels=kernels, temperature=temperature, class_weights=factors)


def _counts(samples: Sequence[Sample], start: CRFParameters, now: _Logarithms, workers: Workers) -> Tensor:
    """(N, 3, L), what every image comes to."""
    with torch.no_grad():
        return torch.stack(workers.over(samples, lambda sample: sample.counts(sample.filters(start), *now.unpacked())))


def _gradient(sample: Sample, start: CRFParameters, now: _Logarithms, slope: Tensor) -> tuple[Tensor, Tensor]:
    """What the image comes to, (3, L), and its part of the gradient of the whole set's soft mean IoU."""
    with torch.enable_grad():
        flat = now.flat.detach().requires_grad_()
        counts = sample.counts(sample.filters(start), *now.at(flat).unpacked())
        return counts.detach(), torch.autograd.grad(counts, flat, slope)[0]
