"""`crfrnn refine`: images of every kind and predictions from files and folders, labels into files and folders."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crfrnn.commands.batch import on_cores
from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import Targets, check_folders, check_outputs, held, run_jobs
from crfrnn.commands.progress import say, steps_bar, waiting
from crfrnn.commands.refine.inputs import with_background
from crfrnn.commands.refine.job import Coarse, Job, Outcome, Settings, check, settling
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.points import described, point_kernels, refine_points
from crfrnn.commands.refine.rasters import refine_raster
from crfrnn.commands.refine.refine import refine
from crfrnn.commands.refine.trace import Trace, curve_of
from crfrnn.commands.refine.whole import Moment
from crfrnn.commands.shards import asked_for
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.data.files import channels_of, each_alone, pair_by_stem
from crfrnn.data.images import write_image
from crfrnn.data.kinds import Kind, kind_of
from crfrnn.data.labels import UNSURE, LabelStyle
from crfrnn.data.predictions import Form, resized
from crfrnn.data.soft_masks import looks_soft
from crfrnn.inference.settled import SETTLED, Iterations
from crfrnn.runtime import threads


@on_cores
def refine_files(options: RefineOptions) -> None:
    """What the options ask for; UsageError, before anything is read, where nobody could mean it."""
    images, source = _paths(options.image), Path(options.source)
    targets = Targets.given(options.out, options.overlay, options.save_probabilities, trace=options.trace)
    settings = check(options, kind_of(images[0], targets.paths()))
    for path in (*images, source):
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
    for path in images:
        if path.is_dir() != source.is_dir():
            raise UsageError(f"image: {path} and {source} must both be files, or both folders")
    if options.shard and not source.is_dir():
        raise UsageError(f"shard: shares out the images of folders, and {source} is a file")
    if source.is_dir():
        _refine_folder(images, source, targets, settings)
    else:
        _refine_file(images, source, targets, settings)


def image_work(options: RefineOptions, kind: type[Kind]) -> Callable[[Sequence[Path], Path, Targets], float]:
    """What `refine_files` does with an image, for who has the files of each: its own, the predictions, the results.

    It returns the share of the points that changed their label. UsageError as in `refine_files`.
    """
    return partial(_one_of_many, check(options, kind))


def _one_of_many(settings: Settings, images: Sequence[Path], source: Path, targets: Targets) -> float:
    share = min(1.0, threads.count() / threads.cores())  # of the memory: a machine has as many workers as fit
    return _work(Job(tuple(images), source, targets), settings, share).changed


def _paths(text: str) -> tuple[Path, ...]:
    """One file or folder, or several with commas, whose names are then without any."""
    return (Path(text),) if Path(text).exists() else tuple(map(Path, text.split(",")))


def _refine_file(images: tuple[Path, ...], source: Path, targets: Targets, settings: Settings) -> None:
    image = images[0]
    job = Job(images, source, targets.of(image, several=False, kind=settings.kind))
    check_outputs((*images, source), [job.targets])
    _check_confidence([source], settings)
    start = time.perf_counter()
    if settings.kind.windowed:
        with steps_bar(f"refining {image.name}") as progress:
            outcome = refine_raster(job, settings, 1, progress)
    else:
        with waiting(f"refining {image.name}"):
            outcome = _work(job, settings)
    seconds = time.perf_counter() - start
    from_labels = settings.options.kind == "labels"
    names = f" ({', '.join(outcome.labels[:12])}{', ...' * (len(outcome.labels) > 12)})"
    count = f"{len(outcome.labels)} label{'s' * (len(outcome.labels) != 1)}"
    say(
        f"refined {image} ({outcome.extent}), {count}{names * (from_labels or settings.classes is not None)},"
        f" in {seconds:.2f} s; {outcome.changed:.1%} of the {settings.kind.points} changed their label"
    )
    if from_labels and settings.unsure is None and "255" in outcome.labels[2:]:
        say("note: 255 counts as a label here; say --unsure 255 if it means that there is none")
    for note in (*outcome.notes, *settling([outcome])):
        say(note)
    for path in job.targets.paths():
        say(f"wrote {path}" + (f" and {curve_of(path)}" if path == job.targets.trace else ""))


def _refine_folder(folders: tuple[Path, ...], source: Path, targets: Targets, settings: Settings) -> None:
    check_folders(folders, targets)
    images, *further = folders
    kind, of = settings.kind, settings.options.kind
    read = {"labels": kind.label_suffixes, "foreground": kind.foreground_suffixes}
    suffixes = read.get(of, kind.prediction_suffixes)
    if of == "labels" and kind.holds_labels and images.samefile(source):
        matched = each_alone(images, kind.suffixes, targets.paths())
    else:
        matched = pair_by_stem(images, source, suffixes, [*targets.paths(), *further], kind.suffixes)
    jobs = []
    for stem, (image, predictions) in matched.pairs.items():
        channels = [folder / path.relative_to(images) for path in channels_of(image, stem) for folder in folders]
        jobs.append(Job(tuple(channels), predictions, targets.of(image, several=True, name=stem, kind=kind)))
    if not jobs and not matched.problems:
        raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
    check_outputs((path for job in jobs for path in (*job.images, job.source)), [job.targets for job in jobs])
    shard = asked_for(settings.options.shard)
    _check_confidence([job.source for job in held(jobs, targets, shard)], settings)
    share = 1 / threads.count() if len(jobs) >= threads.count() else 1.0  # of the memory, for each at a time
    run_jobs(
        partial(_work, settings=settings, share=share),
        jobs,
        targets,
        words=("refining", "refined"),
        summary=lambda outcomes: [
            f"{np.mean([one.changed for one in outcomes]):.1%} of the {kind.points} changed their label",
            *settling(outcomes),
        ],
        problems=matched.problems,
        overwrite=settings.options.overwrite,
        shard=shard,
        note=f"left {matched.unused} images without predictions alone" if matched.unused else "",
    )


def _check_confidence(maps: Sequence[Path], settings: Settings) -> None:
    """UsageError, before any image is worked on, where one of the maps has too few labels for the confidence.

    With L labels it must be above 1 / L, which is what a label has that nothing is known of.
    """
    options = settings.options
    if options.kind != "labels" or options.confidence > 1 / 2:  # enough for any number of labels
        return
    with waiting("counting the labels"):
        for path in maps:
            try:
                labels = len(settings.kind.label_style(path, settings.unsure).values)
            except ValueError:  # reported when its turn comes
                continue
            if labels > 1 and options.confidence <= 1 / labels:
                raise UsageError(
                    f"confidence: {options.confidence} must be above 1 / {labels}, as {path} has {labels} labels"
                )


def _work(job: Job, settings: Settings, share: float = 1.0) -> Outcome:
    """Read, refine and write one image. The label map comes last: where it stands, everything does."""
    if settings.kind.windowed:
        return refine_raster(job, settings, share, lambda *_: None)
    options = settings.options
    name = "logits" if options.kind == "logits" else "probabilities"
    image = settings.kind.open(job.images).with_channels(settings.channels)
    image.check_place(job.source)
    coarse = _read(job.source, settings, image)
    values, before = coarse.planes, coarse.before
    image = image.fitting(values.shape[1:])
    if values.shape[1:] != image.size:
        values, before = resized(values, image.size, (job.source, job.images[0]), options.resize), None
    trace = Trace() if job.targets.trace else None
    try:
        if coarse.form.labels is None:
            values = with_background(values, name)
        if before is None:
            before = np.asarray(torch.from_numpy(values).max(0).indices)
        if len(values) == 1:
            marginals, notes, counts = _only_label(values, settings.crf["iterations"], trace), (), []
        else:
            marginals, notes, counts = _refined(image, {name: values}, settings, trace)
    except ValueError as error:
        raise ValueError(f"{', '.join(map(str, job.images))}, {job.source}: {error}") from error
    indices = np.asarray(torch.from_numpy(marginals).max(0).indices)  # argmax takes four times as long
    targets = job.targets
    if targets.overlay is not None:
        write_image(targets.overlay, draw_overlay(*image.picture(indices), coarse.style.colours()))
    if targets.probabilities is not None:
        alone = coarse.form.labels is None
        image.write_predictions(targets.probabilities, marginals[1:] if alone else marginals, coarse.form)
    if trace is not None and targets.trace is not None:
        trace.write(targets.trace, job.images[0].name)
    if targets.out is not None:
        image.write_labels(targets.out, indices, coarse.style)
    sure = before != UNSURE
    changed = float((indices != before)[sure].mean())
    return Outcome(image.extent, coarse.style.names(), changed, notes, tuple(counts))


def _refined(
    image: Kind, predictions: dict[str, np.ndarray], settings: Settings, trace: Trace | None
) -> tuple[np.ndarray, tuple[str, ...], list[int]]:
    """The marginals (L, *S) for predictions (L, *S), what there is to say of the CRF, and how many iterations it took
    to settle."""
    crf, guide, counts = settings.crf, image.guide(), []
    took = counts.append if crf["iterations"] == SETTLED else None
    values: dict[str, Any] = predictions
    if settings.device != "cpu":
        values = {name: torch.from_numpy(planes).to(settings.device) for name, planes in predictions.items()}
    if image.positions is None:
        q = refine(guide, **values, **crf, spacing=image.spacing, trace=trace, took=took)
        return torch.as_tensor(q).cpu().numpy(), (), counts
    kernels = crf["kernels"] or point_kernels(image.positions, guide)
    rows = {name: planes.T for name, planes in values.items()}  # (N, L), which no number of points makes doubtful
    follow = None if trace is None else lambda moment: trace(moment._replace(marginals=moment.marginals.T))
    known = {name: value for name, value in crf.items() if name not in ("preset", "standardize")}
    known |= {"kernels": kernels, "trace": follow, "took": took}
    q = refine_points(image.positions, attributes=guide, **rows, **known)
    names = ", ".join(image.channels or ()) or "none"
    note = f"attributes: {names}; {', '.join(map(described, kernels))}"
    return torch.as_tensor(q).cpu().numpy().T, (note,), counts


def _read(source: Path, settings: Settings, image: Kind) -> Coarse:
    """The predictions for one image."""
    options = settings.options
    if options.kind == "labels":
        coarse = image.labels(source, settings.unsure)
        _check_levels(source, coarse.style, options.many_labels)
        probabilities = coarse.probabilities(options.confidence)
        return Coarse(probabilities, Form.usual(image.dimensions), coarse.style, coarse.indices)
    if options.kind == "foreground":
        values, style = image.read_foreground(source)
    else:
        values, style = image.read_predictions(source, options.key), None
    form = Form.of(values.shape, image.sizes, image.dimensions)
    planes = form.planes(values)
    flat = values.ndim == image.dimensions == 2 and math.prod(image.size) in values.shape
    if flat and values.shape not in image.sizes:  # as pydensecrf has them
        shape = ", ".join(map(str, image.size))
        raise ValueError(f"{source}: shape {values.shape} has no rows; reshape it to (labels, {shape})")
    labels = max(2, len(planes))
    if settings.classes is not None:
        if len(settings.classes) != labels:
            raise ValueError(f"classes: {len(settings.classes)} of them, but there are {labels} labels")
        style = LabelStyle(settings.classes)
    return Coarse(planes, form, style or LabelStyle.voc(labels))


def _check_levels(path: Path, style: LabelStyle, allowed: bool) -> None:
    """UsageError for what is rather a soft mask."""
    if looks_soft(style) and not allowed:
        raise UsageError(
            f"{path}: {len(style.values)} levels of grey; is it a soft mask, how probable a foreground is?"
            " Then give --foreground instead of --labels. If each level is a label, add --many-labels"
        )


def _only_label(values: np.ndarray, iterations: Iterations, trace: Trace | None) -> np.ndarray:
    """The marginals of a CRF with one label, (1, *S) ones: it is everywhere, and all energies are 0."""
    if trace is not None:
        for t in range(1 + (1 if iterations == SETTLED else iterations)):
            trace(Moment(t, values, energy=0.0, free_energy=0.0, objective=0.0))
    return values
