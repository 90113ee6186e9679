"""`crfrnn refine`: photographs and predictions from files and folders, label maps into files and folders."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import Targets, check_folders, check_outputs, run_jobs
from crfrnn.commands.progress import say, waiting
from crfrnn.commands.refine.clouds import holds_clouds, refine_clouds
from crfrnn.commands.refine.inputs import with_background
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.refine import Moment, refine
from crfrnn.commands.refine.trace import Trace, curve_of
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.data.files import IMAGE_SUFFIXES, pair_by_stem
from crfrnn.data.images import open_image, rgb_pixels, upright, write_image
from crfrnn.data.labels import UNSURE, LabelStyle, Value, parse_unsure, read_labels, write_labels
from crfrnn.data.predictions import SUFFIXES, Form, read_predictions, resized, write_predictions
from crfrnn.data.soft_masks import FOREGROUND, looks_soft, read_soft_mask
from crfrnn.filtering.permutohedral.stencil import check_accuracy
from crfrnn.parameters import CRFParameters, parse_kernel


@dataclass(frozen=True)
class _Settings:
    """The options, and what their words stand for."""

    options: RefineOptions
    unsure: Value | None
    crf: dict[str, Any]  # the keyword arguments of `refine`


@dataclass(frozen=True)
class _Job:
    image: Path
    source: Path  # the predictions
    targets: Targets


@dataclass(frozen=True)
class _Coarse:
    """Predictions as a file has them."""

    planes: np.ndarray  # (L, H, W), or (1, H, W) of a foreground or of the only label
    form: Form
    style: LabelStyle  # of the label map that they become
    before: np.ndarray | None = None  # the labels (H, W) where it was a label map


@dataclass(frozen=True)
class _Outcome:
    size: tuple[int, int]  # (height, width)
    labels: list[str]
    changed: float  # share of the pixels that had a label and got another one


def refine_files(options: RefineOptions) -> None:
    """What the options ask for; UsageError, before anything is read, where nobody could mean it."""
    settings = _check(options)
    image, source = Path(options.image), Path(options.source)
    targets = Targets.given(options.out, options.overlay, options.save_probabilities, trace=options.trace)
    for path in (image, source):
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
    if image.is_dir() != source.is_dir():
        raise UsageError(f"image: {image} and {source} must both be files, or both folders")
    if holds_clouds(image):
        refine_clouds(options, targets, settings.unsure, settings.crf)
    elif options.attributes is not None or options.classes is not None:
        raise UsageError(f"attributes, classes: are for clouds of points, and {image} is none")
    elif source.is_dir():
        _refine_folder(image, source, targets, settings)
    else:
        _refine_file(image, source, targets, settings)


def _check(options: RefineOptions) -> _Settings:
    """The options in the form in which they are used; UsageError where they make no CRF."""
    try:
        crf = CRFParameters.of_preset(
            options.preset,
            kernels=[parse_kernel(text) for text in options.kernel or ()] or None,
            normalization=options.normalization,
            solver=options.solver,
            iterations=options.iterations,
            temperature=options.temperature,
            class_weights=options.class_weights,
        )
        check_accuracy(options.accuracy)
        unsure = None if options.unsure == "" else parse_unsure(options.unsure)
    except ValueError as error:
        raise UsageError(str(error)) from None
    chosen = {"accuracy": options.accuracy, "tolerance": options.tolerance}
    if not options.kernel:  # by the preset's name, as `refine` then knows in which units its kernels are
        chosen |= {"preset": options.preset, "kernels": None}
    return _Settings(options, unsure, crf.options() | chosen)


def _refine_file(image: Path, source: Path, targets: Targets, settings: _Settings) -> None:
    job = _Job(image, source, targets.of(image, several=False))
    check_outputs((image, source), [job.targets])
    _check_confidence([source], settings)
    start = time.perf_counter()
    with waiting(f"refining {image.name}"):
        outcome = _work(job, settings)
    seconds = time.perf_counter() - start
    height, width = outcome.size
    from_labels = settings.options.kind == "labels"
    names = f" ({', '.join(outcome.labels[:12])}{', ...' * (len(outcome.labels) > 12)})"
    count = f"{len(outcome.labels)} label{'s' * (len(outcome.labels) != 1)}"
    say(
        f"refined {image} ({width} x {height}), {count}{names * from_labels},"
        f" in {seconds:.2f} s; {outcome.changed:.1%} of the pixels changed their label"
    )
    if from_labels and settings.unsure is None and "255" in outcome.labels[2:]:
        say("note: 255 counts as a label here; say --unsure 255 if it means that there is none")
    for path in job.targets.paths():
        say(f"wrote {path}" + (f" and {curve_of(path)}" if path == job.targets.trace else ""))


def _refine_folder(images: Path, source: Path, targets: Targets, settings: _Settings) -> None:
    check_folders([images], targets)
    suffixes = (".png",) if settings.options.kind in ("labels", "foreground") else SUFFIXES
    matched = pair_by_stem(images, source, suffixes, besides=targets.paths())
    jobs = [_Job(*pair, targets.of(pair[0], several=True, name=stem)) for stem, pair in matched.pairs.items()]
    if not jobs and not matched.problems:
        raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
    check_outputs((path for job in jobs for path in (job.image, job.source)), [job.targets for job in jobs])
    _check_confidence([job.source for job in jobs], settings)
    run_jobs(
        partial(_work, settings=settings),
        jobs,
        targets,
        words=("refining", "refined"),
        summary=lambda outcomes: [
            f"{np.mean([one.changed for one in outcomes]):.1%} of the pixels changed their label"
        ],
        problems=matched.problems,
        overwrite=settings.options.overwrite,
        note=f"left {matched.unused} images without predictions alone" if matched.unused else "",
    )


def _check_confidence(maps: Sequence[Path], settings: _Settings) -> None:
    """UsageError, before any image is worked on, where one of the maps has too few labels for the confidence.

    With L labels it must be above 1 / L, which is what a label has that nothing is known of.
    """
    options = settings.options
    if options.kind != "labels" or options.confidence > 1 / 2:  # enough for any number of labels
        return
    with waiting("counting the labels"):
        for path in maps:
            try:
                labels = len(read_labels(path, settings.unsure).style.values)
            except ValueError:  # reported when its turn comes
                continue
            if labels > 1 and options.confidence <= 1 / labels:
                raise UsageError(
                    f"confidence: {options.confidence} must be above 1 / {labels}, as {path} has {labels} labels"
                )


def _work(job: _Job, settings: _Settings) -> _Outcome:
    """Read, refine and write one image. The label map comes last: where it stands, everything does."""
    options = settings.options
    name = "logits" if options.kind == "logits" else "probabilities"
    image = open_image(job.image)
    coarse = _read(job.source, settings, (image.size, image.size[::-1]))
    values, before = coarse.planes, coarse.before
    image = upright(image, values.shape[1:])
    size = (image.height, image.width)
    if values.shape[1:] != size:
        values, before = resized(values, size, (job.source, job.image), options.resize), None
    trace = Trace() if job.targets.trace else None
    try:
        photo = rgb_pixels(image)
        if coarse.form.labels is None:
            values = with_background(values, name)
        if before is None:
            before = np.asarray(torch.from_numpy(values).max(0).indices)
        if len(values) == 1:
            marginals = _only_label(values, settings.crf["iterations"], trace)
        else:
            marginals = refine(photo, **{name: values}, **settings.crf, trace=trace)
    except ValueError as error:
        raise ValueError(f"{job.image}, {job.source}: {error}") from error
    indices = np.asarray(torch.from_numpy(marginals).max(0).indices)  # argmax takes four times as long
    targets = job.targets
    if targets.overlay is not None:
        write_image(targets.overlay, draw_overlay(photo, indices, coarse.style.colours()))
    if targets.probabilities is not None:
        alone = coarse.form.labels is None
        write_predictions(targets.probabilities, coarse.form.restored(marginals[1:] if alone else marginals))
    if trace is not None and targets.trace is not None:
        trace.write(targets.trace, job.image.name)
    write_labels(targets.out, indices, coarse.style)
    sure = before != UNSURE
    changed = float((indices != before)[sure].mean())
    return _Outcome(size, coarse.style.names(), changed)


def _read(source: Path, settings: _Settings, sizes: Sequence[Sequence[int]]) -> _Coarse:
    """The predictions for one image, which has one of these sizes, the first as it is stored: (width, height)."""
    options = settings.options
    if options.kind == "labels":
        coarse = read_labels(source, settings.unsure)
        _check_levels(source, coarse.style, options.many_labels)
        probabilities = coarse.probabilities(options.confidence)
        return _Coarse(probabilities, Form(axes=3, rows=1, labels=0), coarse.style, coarse.indices)
    if options.kind == "foreground":
        values, style = read_soft_mask(source), FOREGROUND
    elif source.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{source}: no array but a picture; a soft mask goes to --foreground, a label map to --labels")
    else:
        values, style = read_predictions(source, options.key), None
    form = Form.of(values.shape, sizes)
    planes = form.planes(values)
    (width, height), *_ = sizes
    if values.ndim == 2 and width * height in values.shape and values.shape not in sizes:  # as pydensecrf has them
        raise ValueError(f"{source}: shape {values.shape} has no rows; reshape it to (labels, {height}, {width})")
    return _Coarse(planes, form, style or LabelStyle.voc(max(2, len(planes))))


def _check_levels(path: Path, style: LabelStyle, allowed: bool) -> None:
    """UsageError for what is rather a soft mask."""
    if looks_soft(style) and not allowed:
        raise UsageError(
            f"{path}: {len(style.values)} levels of grey; is it a soft mask, how probable a foreground is?"
            " Then give --foreground instead of --labels. If each level is a label, add --many-labels"
        )


def _only_label(values: np.ndarray, iterations: int, trace: Trace | None) -> np.ndarray:
    """The marginals of a CRF with one label, (1, H, W) ones: it is everywhere, and all energies are 0."""
    if trace is not None:
        for t in range(iterations + 1):
            trace(Moment(t, values, energy=0.0, free_energy=0.0, objective=0.0))
    return values
