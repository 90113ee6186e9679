"""`crfrnn.fit`: the parameters of a dense CRF from labelled images, and what they are worth on images held out."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.fit.held_out import merit, painted_over, table
from crfrnn.commands.fit.sample import Sample
from crfrnn.commands.fit.search import START, Search, folds_of
from crfrnn.commands.fit.workers import Workers, workers
from crfrnn.commands.gain import Gain, gain, iou, mean_iou
from crfrnn.commands.metrics import class_counts, confusion_matrix, doubts
from crfrnn.commands.progress import steps_bar
from crfrnn.commands.refine.inputs import checked, fitting
from crfrnn.commands.refine.refine import refine
from crfrnn.data.datasets import VOID
from crfrnn.data.drawing.html import html_table
from crfrnn.data.predictions import AXES
from crfrnn.inference.recurrence import check_iterations
from crfrnn.parameters import CRFParameters

ALONE, FITTED = "predictions", "fitted"
LIKELY = 0.1  # a gain that bootstrap does not find on so many of the resampled sets is none
Measure = Callable[[int, Mapping[str, CRFParameters | None]], dict[str, Tensor]]


@dataclass(frozen=True)
class Images:
    """Labelled images: each item is an image, its predictions, its truth and, where positions are not counted in
    pixels, its spacing, read together when they are needed.

    Predictions are probabilities or, with `logits`, logits.
    """

    items: Sequence[tuple[Any, ...]]
    logits: bool = False
    names: Sequence[str] | None = None  # how errors call the images; by their numbers without
    standardize: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def _item(self, number: int) -> tuple[Any, Any, Any, Any]:
        """The image, its predictions, its truth, and its spacing or None."""
        image, predictions, truth, *spacing = self.items[number]
        return image, predictions, truth, spacing[0] if spacing else None

    def sample(self, number: int) -> Sample:
        """The image in the size in which parameters are searched; a ValueError where its parts do not fit."""
        try:
            image, predictions, truth, spacing = self._item(number)
            name = "logits" if self.logits else "probabilities"
            guide, unary, pixels = checked(image, predictions, name, spacing, self.standardize)
            truth = torch.as_tensor(np.asarray(truth))
            _check_truth(truth, tuple(guide.shape[2:]), unary.shape[1])
            return Sample.of(guide, unary, truth, pixels)
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
        """`class_counts` of the image in its own size, without a CRF (None) and with these parameters."""
        image, predictions, truth, spacing = self._item(number)
        truth, name = torch.as_tensor(np.asarray(truth)).long(), "logits" if self.logits else "probabilities"
        counts = {}
        values = fitting(image, predictions, name, True, spacing, self.standardize).planes
        for option, parameters in options.items():
            q = values
            if parameters is not None:
                crf = replace(parameters, standardize=self.standardize)
                q = refine(image, **{name: values}, **crf.options(), spacing=spacing)
            counts[option] = class_counts(confusion_matrix(q.max(0).indices, truth, len(values)))
        return counts


class Together(Sequence[tuple[Any, ...]]):
    """Sequences as one; a ValueError where they differ in length. One spacing of numbers is that of all images."""

    def __init__(
        self,
        images: Sequence[Any],
        predictions: Sequence[Any],
        truths: Sequence[Any],
        spacing: Sequence[Any] | None = None,
    ):
        self._parts: tuple[Sequence[Any], ...] = images, predictions, truths
        if spacing is not None:
            alike = isinstance(spacing[0], Real)
            self._parts += ([spacing] * len(images) if alike else spacing,)
        for name, items in zip(("predictions", "truths", "spacing"), self._parts[1:], strict=False):
            if len(items) != len(images):
                raise ValueError(f"{name}: {len(items)}, but there are {len(images)} images")

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, number: Any) -> Any:
        return tuple(part[number] for part in self._parts)


@dataclass(frozen=True)
class CrossValidation:
    """What every image comes to, (N, 3, L), by what was done to it; nothing was chosen on the image itself.

    Without a CRF (`ALONE`), with the best of the presets (`START`), and with what was learned (`FITTED`).
    """

    counts: dict[str, Tensor]
    seed: int = 0

    def mean_iou(self, name: str) -> float:
        return mean_iou(self.counts[name])

    def gain(self, name: str, over: str = ALONE) -> Gain:
        """What it brings, with its bootstrap interval."""
        return gain(self.counts[name], self.counts[over], self.seed)

    def pays(self, name: str) -> bool:
        """Whether it is better than the predictions alone, in the mean and without harm, and hardly by chance."""
        better = merit(self.counts[name], self.counts[ALONE]) > self.mean_iou(ALONE)
        return better and self.gain(name).chance < LIKELY

    @property
    def best(self) -> str:
        """`FITTED`, but `START` where only that pays, or where it is better and hardly by chance."""
        if not self.pays(START):
            return FITTED
        return START if not self.pays(FITTED) or self.gain(START, FITTED).chance < LIKELY else FITTED


@dataclass(frozen=True)
class Fit:
    """What a fit found.

    Args:
        parameters: what to use, `parameters.options()` for `crfrnn.refine`, `parameters.as_yaml()` for a file.
        chosen: ``scalar weights``, ``class weights``, or ``start``: a preset as it is, as nothing fitted was better.
        helps: whether a CRF with these parameters is better than none, on held-out images.
        held_out: what the fit came to on images that it had not seen.
    """

    parameters: CRFParameters
    chosen: str
    helps: bool
    held_out: CrossValidation = field(repr=False)

    def table(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """IoU of each class on held-out images, before and after: rows of text, the heading first."""
        columns = {name: iou(counts) for name, counts in self.held_out.counts.items()}
        return table(columns, names or [str(number) for number in range(len(columns[ALONE]))])

    def _repr_html_(self) -> str:
        """For notebooks: the table, and what it means."""
        return f"{html_table(self.table())}{escape(self.verdict())}"

    def verdict(self) -> str:
        """Whether it helps, and by how much: one sentence or two."""
        found, images = self.held_out, len(self.held_out.counts[ALONE])
        if self.helps and found.best == FITTED:
            chosen = "a preset as it is" if self.chosen == START else self.chosen
            return (
                f"The CRF helps: mean IoU {100 * found.mean_iou(ALONE):.2f} -> {100 * found.mean_iou(FITTED):.2f},"
                f" {found.gain(FITTED)} on held-out images ({images});"
                f" {found.gain(FITTED, START)} over the best preset. Chosen: {chosen}."
            )
        if self.helps:
            return (
                f"Fitting did not help: {found.gain(FITTED, START)} over the best preset on held-out images ({images})."
                f" The parameters are that preset's, unchanged, which is worth {found.gain(START)}."
            )
        gone = painted_over(found.counts[FITTED], found.counts[ALONE])
        cost = f", and it paints over class {', '.join(map(str, gone))}" if gone else ""
        return (
            f"A CRF does not help here: {found.gain(FITTED)} on held-out images ({images}), fitted{cost};"
            f" {found.gain(START)} with the best preset. The parameters are that preset's, unchanged;"
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
    iterations: int = 5,
    seed: int = 0,
    spacing: Sequence[Any] | None = None,
    standardize: bool = False,
) -> Fit:
    """Temperature, bandwidths and kernel weights that raise the mean IoU of a network's predictions.

    Everything that is chosen is chosen once for each fold, on the others, and measured on that one, so that the figures
    are those of images that had no part in any choice. Then it is chosen on all images. Weights move from a preset's,
    and have factors for each class, only where that is hardly by chance; where no CRF is better than the predictions,
    the parameters are a preset's as it is. Means are over the classes that occur in the truths. A UserWarning says,
    before the search, where some never do, or where much is void.

    Args:
        images: N photographs as `crfrnn.refine` takes them, (H, W, 3) uint8 or (3, H, W) tensors. Lists, or anything
            with a length that gives an item for a number: an item is read when it is needed, twice in all.
        predictions: N arrays of probabilities (L, H, W), or of another form that `crfrnn.refine` takes; of a binary
            network the foreground is class 1.
        truths: N arrays of class numbers (H, W), 255 where no class counts.
        logits: the predictions are logits.
        preset: begin with this one; with the best of all where it is left out.
        folds: of the cross-validation, neighbours together: images that resemble each other, as the frames of a video
            do, should follow each other in the lists.
        iterations: T of the result, and of the search: what is best for one is not for another. A preset as it is has
            its own.
        seed: of the bootstrap's draws.
        spacing: one for all images or one for each, as `crfrnn.refine` takes it: of volumes (z, y, x) in millimetres.
        standardize: bring intensities to 0..255, as `crfrnn.refine` does; the parameters found say so too.

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
    data = Images(Together(images, predictions, truths, spacing), logits, standardize=standardize)
    return fit_images(data, preset, folds, iterations, seed)


def fit_images(
    data: Images,
    preset: str | None = None,
    folds: int = 2,
    iterations: int = 5,
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
        _check_agreement(samples)
        search = Search(samples, preset, iterations, pool, seed)
        everything = range(len(data))
        held_out = cross_validate(search, everything, folds, data.measured, pool, seed)
        learned = search.learn(everything)
    helps = held_out.pays(held_out.best)
    fitted = helps and held_out.best == FITTED
    chosen, parameters = (learned.rung, learned.parameters) if fitted else (START, learned.start)
    provenance = _provenance(held_out, chosen, helps, folds)
    return Fit(replace(parameters, fitted=provenance, standardize=data.standardize), chosen, helps, held_out)


def cross_validate(
    search: Search, images: Sequence[int], folds: int, measured: Measure, pool: Workers, seed: int = 0
) -> CrossValidation:
    """Every image measured with what was learned from the other folds."""
    counts: list[dict[str, Tensor]] = []
    for training, held_out in folds_of(images, folds):
        learned = search.learn(training)
        options = {ALONE: None, START: learned.start, FITTED: learned.parameters}
        if learned.rung == START:  # the same: not to be measured twice
            del options[FITTED]
        for one in pool.over(held_out, lambda number, options=options: measured(number, options)):
            counts.append({**one, FITTED: one.get(FITTED, one[START])})
    return CrossValidation({name: torch.stack([one[name] for one in counts]) for name in counts[0]}, seed)


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
        raise ValueError(f"truths: {tuple(truth.shape)} ({', '.join(AXES[len(size)])}), but the image has {size}")
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


def _check_agreement(samples: Sequence[Sample]) -> None:
    if not any(bool(one.alone()[0].any()) for one in samples):
        raise ValueError(
            "truths: no pixel of any image is what the predictions call it; their class numbers must mean the same"
        )


def _provenance(held_out: CrossValidation, chosen: str, helps: bool, folds: int) -> dict[str, Any]:
    value = held_out.gain(held_out.best)
    return {
        "images": len(held_out.counts[ALONE]),
        "folds": folds,
        "chosen": chosen,
        "helps": helps,
        "held_out_mean_iou": {name: round(100 * held_out.mean_iou(name), 2) for name in held_out.counts},
        "held_out_gain": [round(100 * number, 2) for number in (value.value, value.low, value.high)],
    }


def steps(images: int, folds: int) -> int:
    """Pieces of work, at most: each is one image read, searched, measured, moved, or moved far."""
    return images * (3 + 3 * folds)


def ticks(bar: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """A function to call after each step."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        bar(min(done, total), total)

    return tick
