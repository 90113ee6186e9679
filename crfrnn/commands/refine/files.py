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
from crfrnn.commands.refine.refine import refine
from crfrnn.commands.refine.trace import Trace, curve_of
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.data.files import pair_by_stem
from crfrnn.data.images import open_image, rgb_pixels, upright, write_image
from crfrnn.data.labels import UNSURE, LabelStyle, Value, parse_unsure, read_labels, write_labels
from crfrnn.data.predictions import SUFFIXES, labels_first, read_predictions, resized, write_predictions
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.filtering.permutohedral.stencil import check_accuracy
from crfrnn.inference.solvers import find_solver
from crfrnn.parameters import check_class_weights, check_temperature, find_preset, parse_kernel


@dataclass(frozen=True)
class _Options:
    source: str  # which of probabilities, logits and labels the predictions are
    key: str | None
    confidence: float
    unsure: Value | None
    resize: bool
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


def refine_files(
    image: str,
    *,
    out: str,
    probabilities: str | None = None,
    logits: str | None = None,
    labels: str | None = None,
    key: str | None = None,
    confidence: float = 0.7,
    unsure: str | int = "",
    preset: str = "crfrnn",
    iterations: int = 10,
    kernel: list[str] | None = None,
    normalization: str | None = None,
    accuracy: int = 1,
    tolerance: float = 1e-3,
    solver: str = "mean-field",
    temperature: float = 1.0,
    class_weights: list[list[float]] | None = None,
    fitted: dict[str, Any] | None = None,
    resize: bool = False,
    overlay: str | None = None,
    save_probabilities: str | None = None,
    trace: str | None = None,
    overwrite: bool = False,
) -> None:
    """Sharpen rough predictions along the edges of a photograph.

    Give the photograph and one of --probabilities, --logits and --labels. Folders work too: predictions are matched
    to photographs by name (cat.npz to cat.jpg), and a second run does what the first one left.

    Args:
        image: the photograph, or a folder of photographs.
        out: the refined label map, a PNG, or a folder for them.
        probabilities: (labels, height, width) in a .npy or .npz file, or a folder of such files.
        logits: the same, before the softmax.
        labels: a coarse label map instead: a palette, grey or colour-coded PNG, or a folder of them.
        key: the name of the array in .npz files that hold several.
        confidence: with --labels, the probability that a given label is right.
        unsure: with --labels, the index (255) or colour (0,0,0 or "#000000") that means "no label here".
        preset: bandwidths and weights: crfrnn, pydensecrf, deeplab-v1 or deeplab-v2.
        iterations: mean-field iterations.
        kernel: instead of the preset's kernels, bilateral:THETA_ALPHA,THETA_BETA,WEIGHT or
            spatial:THETA_GAMMA,WEIGHT; say it again for each further one.
        normalization: instead of the preset's: after, symmetric, before or none.
        accuracy: 1 to 3: how close to the exact CRF the bilateral filter comes, for how much time.
        tolerance: leave out labels that are nowhere more probable than this; 0 leaves none out.
        solver: what an iteration does: mean-field, damped:STEP, convergent, entropic-frank-wolfe:STEP,LAMBDA or
            euclidean-frank-wolfe:STEP,LAMBDA.
        temperature: divides the logits (the logarithms of the probabilities); below 1 the network counts for more.
        class_weights: for each kernel, a factor of its weight for each class, as crfrnn fit finds them.
        fitted: what a file of crfrnn fit says of itself; nothing is done with it.
        resize: scale predictions of another size to the photograph's, bilinearly.
        overlay: also write the photograph tinted by the refined labels.
        save_probabilities: also write the refined probabilities, float16, .npz or .npy.
        trace: also write the energies of every iteration, .csv or .json, and beside them their curve, .svg.
        overwrite: in folders, redo what is already there.
    """
    options = _check(
        {"probabilities": probabilities, "logits": logits, "labels": labels},
        key=key,
        confidence=confidence,
        unsure=unsure,
        resize=resize,
        crf={
            "preset": preset,
            "iterations": iterations,
            "kernels": kernel,
            "normalization": normalization,
            "accuracy": accuracy,
            "tolerance": tolerance,
            "solver": solver,
            "temperature": temperature,
            "class_weights": class_weights,
        },
    )
    del fitted
    source = Path(probabilities or logits or labels or "")
    targets = Targets.given(out, overlay, save_probabilities, trace=trace)
    for path in (Path(image), source):
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
    if Path(image).is_dir() != source.is_dir():
        raise UsageError(f"image: {image} and {source} must both be files, or both folders")
    if source.is_dir():
        _refine_folder(Path(image), source, targets, options, overwrite)
    else:
        _refine_file(Path(image), source, targets, options)


def _check(sources: dict[str, str | None], *, unsure: str | int, crf: dict[str, Any], **others) -> _Options:
    """The options in the form in which they are used; UsageError, before anything is read, where they make no sense."""
    given = [name for name, path in sources.items() if path]
    if len(given) != 1:
        raise UsageError("give one of --probabilities, --logits and --labels" + (", not several" if given else ""))
    if given != ["labels"] and unsure != "":
        raise UsageError("unsure: belongs to --labels")
    try:
        find_preset(crf["preset"])
        find_solver(crf["solver"])
        kernels = [parse_kernel(text) for text in crf["kernels"]] if crf["kernels"] else None
        void = None if unsure == "" else parse_unsure(unsure)
        check_accuracy(crf["accuracy"])
        preset = find_preset(crf["preset"])
        kernels = [parse_kernel(text) for text in crf["kernels"]] if crf["kernels"] else None
        void = None if unsure == "" else parse_unsure(unsure)
        check_temperature(crf["temperature"])
        if crf["class_weights"] is not None:
            check_class_weights(crf["class_weights"], len(kernels or preset.kernels))
    except ValueError as error:
        raise UsageError(str(error)) from None
    if crf["normalization"] not in (None, *NORMALIZATIONS):
        raise UsageError(f"normalization: {crf['normalization']!r} is none of {', '.join(NORMALIZATIONS)}")
    if crf["iterations"] < 0:
        raise UsageError(f"iterations: must be at least 0, got {crf['iterations']}")
    if not 0 < others["confidence"] < 1:
        raise UsageError(f"confidence: must lie between 0 and 1, got {others['confidence']}")
    return _Options(source=given[0], unsure=void, crf=crf | {"kernels": kernels}, **others)


def _refine_file(image: Path, source: Path, targets: Targets, options: _Options) -> None:
    job = _Job(image, source, targets.of(image, several=False))
    check_outputs((image, source), [job.targets])
    start = time.perf_counter()
    with Console(stderr=True).status(f"refining {image.name}"):
        outcome = _work(job, options)
    seconds = time.perf_counter() - start
    height, width = outcome.size
    found = f" ({', '.join(outcome.labels[:12])}{', ...' * (len(outcome.labels) > 12)})"
    print(
        f"refined {image} ({width} x {height}), {len(outcome.labels)} labels{found * (options.source == 'labels')},"
        f" in {seconds:.2f} s; {outcome.changed:.1%} of the pixels changed their label"
    )
    if options.source == "labels" and options.unsure is None and "255" in outcome.labels[2:]:
        print("note: 255 counts as a label here; say --unsure 255 if it means that there is none")
    for path in job.targets.paths():
        print(f"wrote {path}" + (f" and {curve_of(path)}" if path == job.targets.trace else ""))


def _refine_folder(images: Path, source: Path, targets: Targets, options: _Options, overwrite: bool) -> None:
    suffixes = (".png",) if options.source == "labels" else SUFFIXES
    matched = pair_by_stem(images, source, suffixes)
    jobs = [_Job(image, prediction, targets.of(image, several=True)) for image, prediction in matched.pairs.values()]
    if not jobs and not matched.problems:
        raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
    check_outputs((path for job in jobs for path in (job.image, job.source)), [job.targets for job in jobs])
    run_jobs(
        partial(_work, options=options),
        jobs,
        targets,
        words=("refining", "refined"),
        told=lambda outcomes: [f"{np.mean([one.changed for one in outcomes]):.1%} of the pixels changed their label"],
        problems=matched.problems,
        overwrite=overwrite,
        note=f"left {matched.unused} images without predictions alone" if matched.unused else "",
    )


def _work(job: _Job, options: _Options) -> _Outcome:
    """Read, refine and write one image. The label map comes last: where it stands, everything does."""
    image = open_image(job.image)
    if options.source == "labels":
        coarse = read_labels(job.source, options.unsure)
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
        name = "logits" if options.source == "logits" else "probabilities"
        trace = Trace() if job.targets.trace else None
        marginals = refine(photo, **{name: values}, **options.crf, trace=trace)
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
