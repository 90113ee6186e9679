"""Where a fit begins, and which kernels it has: chosen among a few, by what becomes of them on some of the images."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from crfrnn.commands.fit import descent
from crfrnn.commands.fit.sample import Sample, weights_of
from crfrnn.commands.fit.soft_iou import soft_mean_iou
from crfrnn.commands.fit.workers import Workers
from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial
from crfrnn.parameters import PRESETS, CRFParameters

SUBSET = 24  # images that decide
ROUNDS = 2  # of a descent on them
FACTOR = 1.6  # of a bandwidth, up and down
FURTHER = (  # beside the presets
    CRFParameters((Bilateral(30, 5, weight=3), Spatial(1.5, weight=2))),
    CRFParameters((Bilateral(60, 8, weight=3), Spatial(1.0, weight=2))),
    # Far and of almost one colour, near and of similar colours: with a choice between them for each class it was the
    # best of our trials on CamVid (docs/fit.md).
    CRFParameters((Bilateral(67, 3, weight=2), Bilateral(15, 8, weight=0.5), Spatial(1, weight=1)), "symmetric"),
)


def neighbours(parameters: CRFParameters) -> list[CRFParameters]:
    """The same with one bandwidth larger or smaller, where it is one number."""
    variants = []
    for number, kernel in enumerate(parameters.kernels):
        for name in _bandwidths(kernel):
            for factor in (FACTOR, 1 / FACTOR):
                changed = replace(kernel, **{name: factor * getattr(kernel, name)})  # type: ignore[type-var]
                kernels = (*parameters.kernels[:number], changed, *parameters.kernels[number + 1 :])
                variants.append(replace(parameters, kernels=kernels))
    return variants


def _bandwidths(kernel: Kernel) -> list[str]:
    names = {Bilateral: ("theta_alpha", "theta_beta"), Spatial: ("theta_gamma",)}.get(type(kernel), ())
    return [name for name in names if isinstance(getattr(kernel, name), int | float)]


def subset(samples: Sequence[Sample]) -> list[Sample]:
    """At most `SUBSET` of them, evenly spread."""
    step = max(1.0, len(samples) / SUBSET)
    return [samples[int(number * step)] for number in range(min(len(samples), SUBSET))]


def presets(name: str | None) -> list[CRFParameters]:
    """All of them, or the one of that name."""
    return [CRFParameters.of_preset(one) for one in ([name] if name else PRESETS)]


def best_preset(samples: Sequence[Sample], preset: str | None, workers: Workers) -> CRFParameters:
    """The best of the presets as it is, or the one that is asked for."""
    return _best(samples, presets(preset), workers)


def begin(samples: Sequence[Sample], preset: str | None, workers: Workers, seed: int = 0) -> CRFParameters:
    """Where the descent over all samples begins: the best of some that went a short way on a subset.

    These are the presets and `FURTHER`, or only the preset that is asked for. At the end each bandwidth is tried a
    little larger and smaller.
    """
    few = subset(samples)
    options = [*presets(preset), *(() if preset else FURTHER)]
    ends = [descent.descend(few, option, workers, per_class=False, rounds=ROUNDS, seed=seed) for option in options]
    best = _best(samples, ends, workers)
    return _best(few, [best, *neighbours(best)], workers)


def _best(samples: Sequence[Sample], options: Sequence[CRFParameters], workers: Workers) -> CRFParameters:
    """The one with the highest soft mean IoU of the samples."""
    if len(options) == 1:
        return options[0]
    tasks = [(option, sample) for option in options for sample in samples]

    def work(task: tuple[CRFParameters, Sample]) -> torch.Tensor:
        option, sample = task
        with torch.no_grad():
            temperature = torch.tensor(option.temperature)
            return sample.counts(sample.filters(option), temperature, weights_of(option, sample.classes))

    counts = torch.stack(workers.over(tasks, work)).unflatten(0, (len(options), len(samples)))
    values = [soft_mean_iou(total).item() for total in counts.sum(1)]
    return options[values.index(max(values))]


def steps(images: int) -> int:
    """Pieces of work of all of this, at most: each is one image."""
    few = min(images, SUBSET)
    options = [*presets(None), *FURTHER]
    scans = 1 + max(len(neighbours(option)) for option in options)
    return few * scans + images * len(PRESETS) + len(options) * (images + descent.steps(few, ROUNDS))
