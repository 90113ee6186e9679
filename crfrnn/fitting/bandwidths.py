"""Where a fit begins, and which bandwidths it has: chosen among a few, by what they do to some of the images."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import torch

from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial
from crfrnn.fitting.sample import Sample, weights_of
from crfrnn.fitting.workers import Workers
from crfrnn.parameters import CRFParameters
from crfrnn.presets import PRESETS
from crfrnn.soft_iou import soft_mean_iou

SUBSET = 24  # images that decide
TEMPERATURES = (1.0, 0.5)  # with which each candidate is tried: the second is a CRF of half the weight
FACTOR = 1.6  # of a bandwidth, up and down
FURTHER = (
    CRFParameters((Bilateral(30, 5, weight=3), Spatial(1.5, weight=2))),
    CRFParameters((Bilateral(60, 8, weight=3), Spatial(1.0, weight=2))),
)


def neighbours(parameters: CRFParameters) -> list[CRFParameters]:
    """The same with one bandwidth larger or smaller, where it is one number."""
    found = []
    for number, kernel in enumerate(parameters.kernels):
        for name in _bandwidths(kernel):
            for factor in (FACTOR, 1 / FACTOR):
                changed = replace(kernel, **{name: factor * getattr(kernel, name)})  # type: ignore[type-var]
                kernels = (*parameters.kernels[:number], changed, *parameters.kernels[number + 1 :])
                found.append(replace(parameters, kernels=kernels))
    return found


def _bandwidths(kernel: Kernel) -> list[str]:
    names = {Bilateral: ("theta_alpha", "theta_beta"), Spatial: ("theta_gamma",)}.get(type(kernel), ())
    return [name for name in names if isinstance(getattr(kernel, name), int | float)]


def subset(samples: Sequence[Sample]) -> list[Sample]:
    """At most `SUBSET` of them, evenly spread."""
    step = max(1.0, len(samples) / SUBSET)
    return [samples[int(number * step)] for number in range(min(len(samples), SUBSET))]


def score(
    samples: Sequence[Sample], options: Sequence[CRFParameters], workers: Workers, temperatures: Sequence[float] = (1,)
) -> list[list[float]]:
    """Soft mean IoU over the samples for each option (rows), its temperature multiplied by each of these (columns)."""
    tasks = [(option, sample) for option in options for sample in samples]

    def work(task: tuple[CRFParameters, Sample]) -> torch.Tensor:
        option, sample = task
        weights, filters = weights_of(option, sample.classes), sample.filters(option)
        with torch.no_grad():
            temperature = torch.tensor(option.temperature)
            return torch.stack([sample.counts(filters, temperature * t, weights) for t in temperatures])

    counts = torch.stack(workers.over(tasks, work)).view(len(options), len(samples), len(temperatures), 2, -1)
    return [[soft_mean_iou(total).item() for total in row] for row in counts.sum(1)]


def begin(samples: Sequence[Sample], preset: str | None, workers: Workers) -> tuple[CRFParameters, CRFParameters]:
    """The best of the presets as it is, or the one that is asked for; and where the descent begins."""
    presets = [CRFParameters.of_preset(name) for name in ([preset] if preset else PRESETS)]
    options = presets if preset else [*presets, *FURTHER]
    chosen = subset(samples)
    values = score(chosen, options, workers, TEMPERATURES)
    start = max(range(len(presets)), key=lambda row: values[row][TEMPERATURES.index(1.0)])
    row, column = max(product(range(len(options)), range(len(TEMPERATURES))), key=lambda at: values[at[0]][at[1]])
    begun = replace(options[row], temperature=options[row].temperature * TEMPERATURES[column])
    return presets[start], improve(chosen, begun, workers)


def improve(samples: Sequence[Sample], parameters: CRFParameters, workers: Workers) -> CRFParameters:
    """One bandwidth larger or smaller, if one of these does better."""
    options = [parameters, *neighbours(parameters)]
    values = [line[0] for line in score(samples, options, workers)]
    return options[values.index(max(values))]
