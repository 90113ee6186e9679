"""One image that `crfrnn refine` works on, what it was told, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from crfrnn.commands.device import device_of
from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import Targets
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.windows import parse_memory
from crfrnn.data.kinds import Kind
from crfrnn.data.labels import LabelStyle, Value, parse_unsure
from crfrnn.data.predictions import Form
from crfrnn.filtering.permutohedral.stencil import check_accuracy
from crfrnn.inference.settled import MOST_ITERATIONS
from crfrnn.parameters import CRFParameters, parse_kernel


@dataclass(frozen=True)
class Settings:
    """The options, and what their words stand for."""

    options: RefineOptions
    kind: type[Kind]  # of the images
    unsure: Value | None
    parameters: CRFParameters
    crf: dict[str, Any]  # the same as keyword arguments of `refine`
    memory: float  # bytes
    channels: list[str] | None  # by their names, of what has names; None for the usual ones
    classes: tuple[int, ...] | None  # what each label is written as
    device: str = "cpu"  # of torch, which the CRF runs on


@dataclass(frozen=True)
class Job:
    images: tuple[Path, ...]  # one image, in several files where its channels lie apart
    source: Path  # the predictions
    targets: Targets


@dataclass(frozen=True)
class Coarse:
    """Predictions as a file has them."""

    planes: np.ndarray  # (L, *S), or (1, *S) of a foreground or of the only label
    form: Form
    style: LabelStyle  # of the label map that they become
    before: np.ndarray | None = None  # the labels (*S) where it was a label map


@dataclass(frozen=True)
class Outcome:
    extent: str
    labels: list[str]
    changed: float  # share of the points that had a label and got another one
    notes: tuple[str, ...] = ()
    taken: tuple[int, ...] = ()  # iterations, where it settled


def settling(outcomes: Sequence[Outcome]) -> list[str]:
    """How many iterations it took, where that was not given."""
    counts = sorted({count for one in outcomes for count in one.taken})
    if not counts:
        return []
    fewest = f"{counts[0]} to " if len(counts) > 1 else ""
    return [
        f"settled in {fewest}{counts[-1]} iterations"
        + f" (stopped at {MOST_ITERATIONS})" * (counts[-1] == MOST_ITERATIONS)
    ]


def check(options: RefineOptions, kind: type[Kind]) -> Settings:
    """The options in the form in which they are used; UsageError where they make no CRF."""
    if options.kind == "foreground" and not kind.foreground_suffixes:
        raise UsageError(f"foreground: of {kind.several} a foreground goes to --probabilities")
    if options.ray_gpus and kind.windowed:
        raise UsageError(f"ray-gpus: {kind.several} are refined on CPUs; leave it out")
    if options.device not in ("cpu", "auto") and kind.windowed:
        raise UsageError(f"device: {kind.several} are refined on CPUs, not on {options.device}; leave it out")
    for option in fields(options):
        if option.name in kind.lacks and getattr(options, option.name) != option.default:
            raise UsageError(f"{option.name.replace('_', '-')}: {kind.lacks[option.name]}")
    try:
        crf = CRFParameters.of_preset(
            options.preset,
            kernels=[parse_kernel(text) for text in options.kernel or ()] or None,
            normalization=options.normalization,
            solver=options.solver,
            iterations=options.iterations,
            temperature=options.temperature,
            class_weights=options.class_weights,
            standardize=options.standardize,
        )
        check_accuracy(options.accuracy)
        unsure = None if options.unsure == "" else parse_unsure(options.unsure)
        memory = parse_memory(options.memory)
    except ValueError as error:
        raise UsageError(str(error)) from None
    chosen = {"accuracy": options.accuracy, "tolerance": options.tolerance}
    if not options.kernel:  # by the preset's name, as `refine` then knows in which units its kernels are
        chosen |= {"preset": options.preset, "kernels": None}
    told = crf.options() | chosen, memory, _channels(options), _classes(options)
    return Settings(options, kind, unsure, crf, *told, "cuda" if options.ray_gpus else str(device_of(options.device)))


def _channels(options: RefineOptions) -> list[str] | None:
    if options.bands is not None:
        bands = options.bands.split(",")
        if not all(band.strip().isdecimal() for band in bands) or len(set(bands)) < len(bands):
            raise UsageError(f"bands: expected different numbers from 1 on, such as 4,3,2, got {options.bands!r}")
        return bands
    if options.attributes is None:
        return None
    return [] if options.attributes == "none" else [name for name in options.attributes.split(",") if name]


def _classes(options: RefineOptions) -> tuple[int, ...] | None:
    if options.classes is None:
        return None
    try:
        classes = tuple(int(word) for word in options.classes.split(","))
    except ValueError:
        raise UsageError(f"classes: expected numbers such as 2,5,6, got {options.classes!r}") from None
    if options.kind == "labels" or len(set(classes)) < len(classes):
        wrong = "labels bring theirs" if options.kind == "labels" else f"{options.classes} has one twice"
        raise UsageError(f"classes: {wrong}")
    return classes
