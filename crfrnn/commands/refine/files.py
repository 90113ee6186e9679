"""`crfrnn refine`: photographs and predictions from files and folders, label maps into files and folders."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import Targets, check_outputs, run_jobs
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.refine import refine
from crfrnn.commands.refine.trace import Trace, curve_of
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.data.files import pair_by_stem
from crfrnn.data.images import open_image, rgb_pixels, upright, write_image
from crfrnn.data.labels import UNSURE, LabelStyle, Value, parse_unsure, read_labels, write_labels
from crfrnn.data.predictions import SUFFIXES, labels_first, read_predictions, resized, write_predictions
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
    if source.is_dir():
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
    start = time.perf_counter()
    with Console(stderr=True).status(f"refining {image.name}"):
        outcome = _work(job, settings)
    seconds = time.perf_counter() - start
    height, width = outcome.size
    from_labels = settings.options.kind == "labels"
    names = f" ({', '.join(outcome.labels[:12])}{', ...' * (len(outcome.labels) > 12)})"
    print(
        f"refined {image} ({width} x {height}), {len(outcome.labels)} labels{names * from_labels},"
        f" in {seconds:.2f} s; {outcome.changed:.1%} of the pixels changed their label"
    )
    if from_labels and settings.unsure is None and "255" in outcome.labels[2:]:
        print("note: 255 counts as a label here; say --unsure 255 if it means that there is none")
    for path in job.targets.paths():
        print(f"wrote {path}" + (f" and {curve_of(path)}" if path == job.targets.trace else ""))


def _refine_folder(images: Path, source: Path, targets: Targets, settings: _Settings) -> None:
    suffixes = (".png",) if settings.options.kind == "labels" else SUFFIXES
    matched = pair_by_stem(images, source, suffixes)
    jobs = [_Job(image, prediction, targets.of(image, several=True)) for image, prediction in matched.pairs.values()]
    if not jobs and not matched.problems:
        raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
    check_outputs((path for job in jobs for path in (job.image, job.source)), [job.targets for job in jobs])
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


def _work(job: _Job, settings: _Settings) -> _Outcome:
    """Read, refine and write one image. The label map comes last: where it stands, everything does."""
    options = settings.options
    image = open_image(job.image)
    if options.kind == "labels":
        coarse = read_labels(job.source, settings.unsure)
        values, style, before = coarse.probabilities(options.confidence), coarse.style, coarse.indices
    else:
        values = labels_first(read_predictions(job.source, options.key), (image.size, image.size[::-1]))
        style, before = LabelStyle.voc(len(values)), None
    image = upright(image, values.shape[1:])
    size = (image.height, image.width)
    if values.shape[1:] != size:
        values, before = resized(values, size, (job.source, job.image), options.resize), None
    if before is None:
        before = np.asarray(torch.from_numpy(values).argmax(0))
    try:
        photo = rgb_pixels(image)
        name = "logits" if options.kind == "logits" else "probabilities"
        trace = Trace() if job.targets.trace else None
        marginals = refine(photo, **{name: values}, **settings.crf, trace=trace)
    except ValueError as error:
        raise ValueError(f"{job.image}, {job.source}: {error}") from error
    indices = np.asarray(torch.from_numpy(marginals).argmax(0))
    targets = job.targets
    if targets.overlay is not None:
        write_image(targets.overlay, draw_overlay(photo, indices, style.colours()))
    if targets.probabilities is not None:
        write_predictions(targets.probabilities, marginals)
    if trace is not None and targets.trace is not None:
        trace.write(targets.trace, job.image.name)
    write_labels(targets.out, indices, style)
    sure = before != UNSURE
    changed = float((indices != before)[sure].mean())
    return _Outcome(size, style.names(), changed)
