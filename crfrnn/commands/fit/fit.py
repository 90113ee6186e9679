"""`crfrnn.fit`: the parameters of a dense CRF from labelled images, and what they are worth on images held out."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.fit import candidates, descent
from crfrnn.commands.fit.held_out import Gain, gain, merit, painted_over, table
from crfrnn.commands.fit.sample import Sample
from crfrnn.commands.fit.workers import Workers, workers
from crfrnn.commands.metrics import Scores, confusion_matrix, doubts, scores
from crfrnn.commands.progress import steps_bar
from crfrnn.commands.refine.inputs import checked, fitting
from crfrnn.commands.refine.refine import refine
from crfrnn.data.datasets import VOID
from crfrnn.inference.recurrence import check_iterations
from crfrnn.parameters import CRFParameters

ALONE, START = "predictions", "start"
RUNGS = ("scalar weights", "class weights")  # from few parameters to many; more only where held-out images pay for them
LIKELY = 0.1  # a gain that bootstrap does not find on so many of the resampled sets is none


@dataclass(frozen=True)
class Images:
    """Labelled images: each item is an image, its predictions and its truth, read together when they are needed.

    Predictions are probabilities or, with `logits`, logits.
    """

    items: Sequence[tuple[Any, Any, Any]]
    logits: bool = False
    names: Sequence[str] | None = None  # how errors call the images; by their numbers without

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, number: int) -> Sample:
        """The image in the size in which parameters are searched; a ValueError where its parts do not fit."""
        try:
            image, predictions, truth = self.items[number]
            guide, unary = checked(image, predictions, "logits" if self.logits else "probabilities")
            truth = torch.as_tensor(np.asarray(truth))
            _check_truth(truth, tuple(guide.shape[2:]), unary.shape[1])
            return Sample.of(guide, unary, truth)
        except ValueError as error:
            called = self.names[number] if self.names else f"number {number}"
            raise ValueError(f"{called}: {error}") from None

    def samples(self, pool: Workers) -> list[Sample]:
        """All of them; a ValueError where their predictions have different classes."""
        samples = pool.over(range(len(self)), self.sample)
        for number, one in enumerate(samples):
            if one.classes != samples[0].classes:
                called = self.names[number] if self.names else f"number {number}"
                raise ValueError(f"{called}: predictions for {one.classes} classes, the first has {samples[0].classes}")
        return samples

    def measured(self, number: int, options: Mapping[str, CRFParameters | None]) -> dict[str, Tensor]:
        """Confusion matrices (L, L) of the image in its own size, without a CRF (None) and with these parameters."""
        image, predictions, truth = self.items[number]
        truth, name = torch.as_tensor(np.asarray(truth)).long(), "logits" if self.logits else "probabilities"
        values = fitting(image, predictions, name, colour_units=True)[1]
        confusions = {}
        for option, parameters in options.items():
            q = values if parameters is None else refine(image, **{name: values}, **parameters.options())
            confusions[option] = confusion_matrix(q.argmax(0), truth, len(values))
        return confusions


class Together(Sequence[tuple[Any, Any, Any]]):
    """Three sequences as one; a ValueError where they differ in length."""

    def __init__(self, images: Sequence[Any], predictions: Sequence[Any], truths: Sequence[Any]):
        for name, items in (("predictions", predictions), ("truths", truths)):
            if len(items) != len(images):
                raise ValueError(f"{name}: {len(items)}, but there are {len(images)} images")
        self._parts = images, predictions, truths

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, number: Any) -> Any:
        return tuple(part[number] for part in self._parts)


@dataclass(frozen=True)
class CrossValidation:
    """Confusion matrices of every image, (N, L, L), by what was done to it; nothing was fitted on the image itself.

    Without a CRF (`ALONE`), with the best of the presets (`START`), and with each of `RUNGS`.
    """

    counts: dict[str, Tensor]

    @property
    def best(self) -> str:
        """The rung with the highest `held_out.merit`; the one with fewer parameters where they are equal."""
        return max(RUNGS, key=lambda rung: (merit(self.counts[rung], self.counts[ALONE]), -RUNGS.index(rung)))

    def scores(self, name: str) -> Scores:
        return scores(self.counts[name].sum(0))

    def gain(self, name: str, over: str = ALONE) -> Gain:
        """What it brings, with its bootstrap interval."""
        return gain(self.counts[name], self.counts[over])

    def pays(self, name: str) -> bool:
        """Whether it is better than the predictions alone, in the mean and without harm, and hardly by chance."""
        better = merit(self.counts[name], self.counts[ALONE]) > self.scores(ALONE).mean_iou
        return better and self.gain(name).chance < LIKELY


@dataclass(frozen=True)
class Fit:
    """What a fit found.

    Args:
        parameters: what to use, `parameters.options()` for `crfrnn.refine`, `parameters.as_yaml()` for a file.
        chosen: ``scalar weights``, ``class weights``, or ``start``: the unchanged parameters, as nothing fitted was
            better on held-out images.
        helps: whether a CRF with these parameters is better than none, on held-out images.
        held_out: what the fit came to on images that it had not seen.
    """

    parameters: CRFParameters
    chosen: str
    helps: bool
    held_out: CrossValidation = field(repr=False)

    def table(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """IoU of each class on held-out images, before and after: rows of text, the heading first."""
        columns = {ALONE: self.held_out.scores(ALONE), START: self.held_out.scores(START)}
        if self.chosen != START:
            columns["fitted"] = self.held_out.scores(self.chosen)
        classes = len(columns[ALONE].iou)
        return table(columns, names or [str(number) for number in range(classes)])

    def verdict(self) -> str:
        """Whether it helps, and by how much: one sentence or two."""
        images = len(self.held_out.counts[ALONE])
        best = self.held_out.best
        if self.chosen != START:
            return (
                f"The CRF helps: mean IoU {100 * self.held_out.scores(ALONE).mean_iou:.2f} ->"
                f" {100 * self.held_out.scores(best).mean_iou:.2f}, {self.held_out.gain(best)} on held-out images"
                f" ({images}); {self.held_out.gain(best, START)} over the start. Chosen: {best}."
            )
        if self.helps:
            return (
                f"Fitting did not help: {self.held_out.gain(best, START)} over the start on held-out images ({images})."
                f" The parameters are the unchanged start, which is worth {self.held_out.gain(START)}."
            )
        gone = painted_over(self.held_out.counts[best], self.held_out.counts[ALONE])
        cost = f", and it paints over class {', '.join(map(str, gone))}" if gone else ""
        return (
            f"A CRF does not help here: {self.held_out.gain(best)} on held-out images ({images}), fitted{cost};"
            f" {self.held_out.gain(START)} as it was. The parameters are the unchanged start;"
            " the predictions are better left as they are."
        )


def fit(
    images: Sequence[Any],
    predictions: Sequence[Any],
    truths: Sequence[Any],
    *,
    logits: bool = False,
    preset: str | None = None,
    folds: int = 2,
    iterations: int = 10,
    seed: int = 0,
) -> Fit:
    """Temperature, bandwidths and kernel weights that raise the mean IoU of a network's predictions.

    First it is cross-validated: fitted on all folds but one and measured on that one, so that the figures are those of
    images that nothing was fitted on. Then it is fitted on all images, with weights for each class only if these were
    better held out. Where nothing fitted is better than what it began with, the parameters are the unchanged ones.
    Means are over the classes that occur in the truths. A UserWarning says, before the search, where some never do, or
    where much is void.

    Args:
        images: N photographs as `crfrnn.refine` takes them, (H, W, 3) uint8 or (3, H, W) tensors. Lists, or anything
            with a length that gives an item for a number: an item is read when it is needed, a few times in all.
        predictions: N arrays of probabilities (L, H, W), or of another form that `crfrnn.refine` takes; of a binary
            network the foreground is class 1.
        truths: N arrays of class numbers (H, W), 255 where no class counts.
        logits: the predictions are logits.
        preset: begin with this one; with the best of several where it is left out.
        folds: of the cross-validation, neighbours together: images that resemble each other, as the frames of a video
            do, should follow each other in the lists.
        iterations: T of the result, and of the measurement.
        seed: of the order in which images are seen.

    Raises:
        ValueError: fewer than two images, lists of different lengths, a truth with other classes or of another size,
            and what `crfrnn.refine` refuses.

    >>> image = np.zeros((12, 16, 3), np.uint8)
    >>> image[:, 8:] = 200
    >>> truth = (image[..., 0] > 0).astype(np.uint8)
    >>> sure = np.stack([1.0 - truth, truth]) * 0.9 + 0.05
    >>> fit([image] * 4, [sure] * 4, [truth] * 4).helps  # nothing to improve
    False
    """
    return fit_images(Images(Together(images, predictions, truths), logits), preset, folds, iterations, seed)


def fit_images(
    data: Images,
    preset: str | None = None,
    folds: int = 2,
    iterations: int = 10,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    say: Callable[[str], object] = warnings.warn,
) -> Fit:
    """`fit` for images that know their names, and for classes that do: `say` is called with what is doubtful."""
    check(data, preset, folds, iterations)
    with steps_bar("fitting") as bar, workers(ticks(bar, steps(len(data), folds))) as pool:
        samples = data.samples(pool)
        for doubt in _doubts(samples, classes):
            say(doubt)
        held_out = cross_validate(data, samples, pool, preset, folds, iterations, seed)
        best = held_out.best
        start, rungs = learn(samples, pool, preset, seed, only=best)
    better = merit(held_out.counts[best], held_out.counts[ALONE]) > merit(
        held_out.counts[START], held_out.counts[ALONE]
    )
    fitted = held_out.pays(best) and better
    chosen = best if fitted else START
    parameters = replace(rungs[best] if fitted else start, iterations=iterations)
    helps = held_out.pays(chosen)
    return Fit(replace(parameters, fitted=_provenance(held_out, chosen, helps, folds)), chosen, helps, held_out)


def learn(
    samples: Sequence[Sample], pool: Workers, preset: str | None, seed: int, only: str | None = None
) -> tuple[CRFParameters, dict[str, CRFParameters]]:
    """The start, unchanged, and the parameters of every rung, or of those up to `only`."""
    start = candidates.best_preset(samples, preset, pool)
    begun = candidates.begin(samples, preset, pool, seed)
    scalar = descent.descend(samples, begun, pool, per_class=False, seed=seed)
    rungs = {RUNGS[0]: scalar}
    if only != RUNGS[0]:
        rungs[RUNGS[1]] = descent.descend(samples, scalar, pool, per_class=True, seed=seed)
    return start, rungs


def cross_validate(
    data: Images,
    samples: Sequence[Sample],
    pool: Workers,
    preset: str | None = None,
    folds: int = 2,
    iterations: int = 10,
    seed: int = 0,
) -> CrossValidation:
    """Every image measured, in its own size, with what was learned from the other folds."""
    counts: dict[str, list[Tensor]] = {name: [] for name in (ALONE, START, *RUNGS)}
    for held_out in np.array_split(np.arange(len(data)), folds):
        training = [sample for number, sample in enumerate(samples) if number not in set(held_out.tolist())]
        start, rungs = learn(training, pool, preset, seed)
        learned = {name: replace(one, iterations=iterations) for name, one in {START: start, **rungs}.items()}
        options: dict[str, CRFParameters | None] = {ALONE: None, **learned}
        for measured in pool.over(held_out.tolist(), lambda number, options=options: data.measured(number, options)):
            for name, confusion in measured.items():
                counts[name].append(confusion)
    return CrossValidation({name: torch.stack(confusions) for name, confusions in counts.items()})


def check(data: Images, preset: str | None, folds: int, iterations: int) -> None:
    """ValueError where nothing could be fitted."""
    count = len(data)
    if count < 2:
        raise ValueError(f"images: {count}, but a fit needs at least 2: some to learn from and others to measure on")
    if not 2 <= folds <= count:
        raise ValueError(f"folds: must be 2 to {count}, the number of images, got {folds}")
    check_iterations(iterations, least=1)
    if preset is not None:
        CRFParameters.of_preset(preset)


def _check_truth(truth: Tensor, size: tuple[int, ...], classes: int) -> None:
    if tuple(truth.shape) != size:
        raise ValueError(f"truths: {tuple(truth.shape)} (height, width), but the image has {size}")
    if truth.is_floating_point() or truth.is_complex():
        raise ValueError(f"truths: class numbers are whole numbers, got {truth.dtype}")
    sure = truth[truth != VOID]
    if not sure.numel():
        raise ValueError(f"truths: every pixel is {VOID}, void")
    if not 0 <= int(sure.min()) <= int(sure.max()) < classes:
        wrong = int(sure.max()) if int(sure.max()) >= classes else int(sure.min())
        raise ValueError(f"truths: class {wrong}, but the predictions have {classes} classes; {VOID} is void")


def _doubts(samples: Sequence[Sample], classes: Sequence[str] | None) -> list[str]:
    pixels = torch.stack([one.pixels for one in samples]).sum(0).tolist()
    names = classes or [f"class {number}" for number in range(len(pixels))]
    return [f"truths: {doubt}" for doubt in doubts(pixels, sum(one.void for one in samples), names)]


def _provenance(held_out: CrossValidation, chosen: str, helps: bool, folds: int) -> dict[str, Any]:
    value = held_out.gain(chosen)
    return {
        "images": len(held_out.counts[ALONE]),
        "folds": folds,
        "chosen": chosen,
        "helps": helps,
        "held_out_mean_iou": {
            name: round(100 * held_out.scores(name).mean_iou, 2) for name in dict.fromkeys((ALONE, START, chosen))
        },
        "held_out_gain": [round(100 * number, 2) for number in (value.value, value.low, value.high)],
    }


def steps(images: int, folds: int) -> int:
    """Pieces of work, at most: each is one image."""

    def learned(count: int) -> int:
        return candidates.steps(count) + 2 * descent.steps(count)

    parts = [images - len(part) for part in np.array_split(np.arange(images), folds)]
    return 2 * images + sum(map(learned, parts)) + learned(images)


def ticks(bar: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """A function to call after each step."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        bar(min(done, total), total)

    return tick
