"""`crfrnn refine` on clouds of points: files in, the same files with refined classes out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import Targets, check_folders, check_outputs, run_jobs
from crfrnn.commands.progress import say, waiting
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.points import planes_of, point_kernels, refine_points
from crfrnn.commands.refine.trace import Trace, curve_of
from crfrnn.data.clouds import SUFFIXES, format_of, read_cloud
from crfrnn.data.clouds.cloud import Cloud, numbered
from crfrnn.data.files import Pairs, files_by_stem, pair_by_stem
from crfrnn.data.kinds import KINDS
from crfrnn.data.labels import UNSURE, LabelMap
from crfrnn.data.predictions import SUFFIXES as ARRAYS
from crfrnn.data.predictions import read_predictions, write_predictions
from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial
from crfrnn.parameters import DEFAULT

APART = 1e-3  # of a cloud's extent: labels that lie farther from its points are another cloud's


@dataclass(frozen=True)
class _Settings:
    options: RefineOptions
    unsure: int | None
    crf: dict[str, Any]  # the keyword arguments of `refine_points`
    names: list[str] | None  # of the attributes; None for the usual ones
    classes: list[int] | None  # the class of each label


@dataclass(frozen=True)
class _Job:
    cloud: Path
    source: Path  # the predictions
    targets: Targets


@dataclass(frozen=True)
class _Outcome:
    points: int
    classes: list[int]
    attributes: list[str]
    kernels: Sequence[Kernel]
    changed: float  # share of the points that had a label and got another one


def holds_clouds(path: Path) -> bool:
    """Whether a file is a cloud of points by its name, or a folder has such files and no images."""
    if not path.is_dir():
        return path.suffix.lower() in SUFFIXES
    return bool(files_by_stem(path, SUFFIXES)) and not files_by_stem(path, tuple(KINDS))


def refine_clouds(options: RefineOptions, targets: Targets, unsure: Any, crf: Mapping[str, Any]) -> None:
    """What the options ask for, whose image is a cloud or a folder of clouds; `crf` is what they make of a CRF."""
    settings = _check(options, unsure, crf)
    cloud, source = Path(options.image), Path(options.source)
    if source.is_dir():
        _refine_folder(cloud, source, targets, settings)
    else:
        _refine_file(cloud, source, targets, settings)


def _check(options: RefineOptions, unsure: Any, crf: Mapping[str, Any]) -> _Settings:
    """UsageError for what points do not have."""
    for name in ("overlay", "foreground", "resize", "many_labels", "standardize"):
        if getattr(options, name):
            raise UsageError(f"{name.replace('_', '-')}: is for photographs, and {options.image} is a cloud of points")
    if options.preset != DEFAULT:
        raise UsageError("preset: its bandwidths count in pixels; say --kernel, or nothing for the points' own")
    if not isinstance(unsure, int | None):
        raise UsageError(f"unsure: points have classes, give a number such as 0 instead of {options.unsure}")
    try:
        classes = None if options.classes is None else [int(word) for word in options.classes.split(",")]
    except ValueError:
        raise UsageError(f"classes: expected numbers such as 2,5,6, got {options.classes!r}") from None
    if classes is not None and (options.kind == "labels" or len(set(classes)) < len(classes)):
        wrong = "labels bring theirs" if options.kind == "labels" else f"{options.classes} has one twice"
        raise UsageError(f"classes: {wrong}")
    names = None if options.attributes is None else [name for name in options.attributes.split(",") if name]
    names = [] if names == ["none"] else names
    chosen = {key: crf[key] for key in crf if key not in ("preset", "standardize")}
    return _Settings(options, unsure, chosen, names, classes)


def _refine_file(cloud: Path, source: Path, targets: Targets, settings: _Settings) -> None:
    job = _Job(cloud, source, _placed(targets, cloud, cloud.stem if targets.out.is_dir() else ""))
    check_outputs((cloud, source), [job.targets])
    start = time.perf_counter()
    with waiting(f"refining {cloud.name}"):
        outcome = _work(job, settings)
    seconds = time.perf_counter() - start
    names = ", ".join(map(str, outcome.classes[:12])) + ", ..." * (len(outcome.classes) > 12)
    say(
        f"refined {cloud} ({outcome.points:,} points), {len(outcome.classes)} classes ({names}), in {seconds:.2f} s;"
        f" {outcome.changed:.1%} of the points changed their label"
    )
    say(f"attributes: {', '.join(outcome.attributes) or 'none'}; {', '.join(map(_described, outcome.kernels))}")
    for path in job.targets.paths():
        say(f"wrote {path}" + (f" and {curve_of(path)}" if path == job.targets.trace else ""))


def _refine_folder(clouds: Path, source: Path, targets: Targets, settings: _Settings) -> None:
    check_folders([clouds], targets)
    matched = _matched(clouds, source, targets, settings)
    jobs = [_Job(*pair, _placed(targets, pair[0], stem)) for stem, pair in matched.pairs.items()]
    if not jobs and not matched.problems:
        raise ValueError(f"{source}: holds no predictions for the clouds in {clouds}")
    check_outputs((path for job in jobs for path in (job.cloud, job.source)), [job.targets for job in jobs])
    run_jobs(
        partial(_work, settings=settings),
        jobs,
        targets,
        words=("refining", "refined"),
        summary=lambda outcomes: [
            f"{np.mean([one.changed for one in outcomes]):.1%} of the points changed their label"
        ],
        problems=matched.problems,
        overwrite=settings.options.overwrite,
        note=f"left {matched.unused} clouds without predictions alone" if matched.unused else "",
    )


def _matched(clouds: Path, source: Path, targets: Targets, settings: _Settings) -> Pairs:
    """The clouds and their predictions by name; clouds that bring labels are their own predictions."""
    labels = settings.options.kind == "labels"
    if not (labels and clouds.samefile(source)):
        return pair_by_stem(clouds, source, (*SUFFIXES, ".npy") if labels else ARRAYS, targets.paths(), SUFFIXES)
    found = files_by_stem(clouds, SUFFIXES, targets.paths())
    problems = {paths[0]: f"{paths[1].name} has the same name" for paths in found.values() if len(paths) > 1}
    return Pairs({stem: (paths[0], paths[0]) for stem, paths in found.items() if len(paths) == 1}, problems, [])


def _placed(targets: Targets, cloud: Path, stem: str) -> Targets:
    """The files for one cloud: these, or with a `stem` files of that name in these folders."""
    suffixes = {"out": cloud.suffix, "probabilities": ".npz", "trace": ".csv"}
    if stem:
        for kind, path in targets.wanted():
            if path.is_file():
                raise UsageError(f"{kind}: {path} must be a folder, as several clouds go into it")
        return Targets(**{kind: path / f"{stem}{suffixes[kind]}" for kind, path in targets.wanted()})
    if targets.out.suffix.lower() not in SUFFIXES or format_of(targets.out) != format_of(cloud):
        raise UsageError(f"out: {targets.out} must end in {cloud.suffix}, as the cloud does that it is a copy of")
    if targets.probabilities is not None and targets.probabilities.suffix.lower() not in ARRAYS:
        raise UsageError(f"save-probabilities: {targets.probabilities} must end in .npz or .npy")
    return targets


def _work(job: _Job, settings: _Settings) -> _Outcome:
    """Read, refine and write one cloud. The cloud comes last: where it stands, everything does."""
    cloud, options = read_cloud(job.cloud), settings.options
    names, columns = cloud.attributes(settings.names)
    try:
        if options.kind == "labels":
            coarse = _label_map(job.source, cloud, settings.unsure)
            rows = coarse.probabilities(options.confidence).T
            shape = rows.shape
            if shape[1] == 1:  # not a foreground: nothing else is possible
                rows = np.pad(rows, ((0, 0), (0, 1)))
            before, classes = coarse.indices, list(map(int, coarse.style.names()))
        else:
            values = read_predictions(job.source, options.key, dimensions=1)
            rows = planes_of(torch.from_numpy(values), len(cloud.positions), options.kind)[1].t().numpy()
            shape = values.shape
            before, classes = _most(rows, options.kind), _classes(rows, settings)
        kernels = settings.crf["kernels"] or point_kernels(cloud.positions, columns)
        trace = Trace() if job.targets.trace else None
        name = "logits" if options.kind == "logits" else "probabilities"
        crf = settings.crf | {"kernels": kernels, "trace": trace and partial(_follow, trace), name: rows}
        q = refine_points(cloud.positions, attributes=columns, **crf)
    except ValueError as error:
        known = str(job.source) in str(error) or str(job.cloud) in str(error)
        raise ValueError(str(error) if known else f"{job.cloud}, {job.source}: {error}") from error
    indices, q = _most(q, "probabilities"), q[:, : len(classes)]
    if job.targets.probabilities is not None:
        write_predictions(job.targets.probabilities, q if shape == q.shape else q.T.reshape(shape))
    if trace is not None and job.targets.trace is not None:
        trace.write(job.targets.trace, job.cloud.name)
    sure = before != UNSURE
    format_of(job.targets.out).write(job.targets.out, cloud, np.array(classes)[indices])
    return _Outcome(len(indices), classes, names, kernels, float((indices != before)[sure].mean()))


def _most(rows: np.ndarray, kind: str) -> np.ndarray:
    """The most probable label of each point, from (N, L), or (N, 1) of a foreground."""
    if rows.shape[1] == 1:
        return (rows[:, 0] > (0 if kind == "logits" else 0.5)).astype(np.int64)
    return torch.from_numpy(rows).max(dim=1).indices.numpy()


def _follow(trace: Trace, moment: Any) -> None:
    trace(moment._replace(marginals=np.asarray(moment.marginals).T))


def _label_map(source: Path, cloud: Cloud, unsure: int | None) -> LabelMap:
    """Labels from the cloud itself, from another one of the same points, or from an array (N,)."""
    if source.suffix.lower() in ARRAYS[:1]:
        coarse = numbered(source, read_predictions(source, dimensions=1), unsure)
    else:
        other = cloud if source.samefile(cloud.path) else read_cloud(source)
        coarse = other.label_map(unsure)
        if other.positions.shape == cloud.positions.shape:
            extent = np.ptp(cloud.positions, axis=0).max()
            if np.abs(other.positions - cloud.positions).max() > APART * extent:
                raise ValueError(f"{source}: its points lie elsewhere than those of {cloud.path}, or in another order")
    if len(coarse.indices) != len(cloud.positions):
        raise ValueError(f"{source}: {len(coarse.indices)} labels, but {cloud.path} has {len(cloud.positions)} points")
    return coarse


def _classes(rows: np.ndarray, settings: _Settings) -> list[int]:
    labels = max(2, rows.shape[1])
    if settings.classes is not None and len(settings.classes) != labels:
        raise ValueError(f"classes: {len(settings.classes)} of them, but there are {labels} labels")
    return settings.classes or list(range(labels))


def _described(kernel: Kernel) -> str:
    """A kernel as on the command line, with a bandwidth for each attribute where there are several.

    >>> _described(Bilateral(0.5, (100.0, 120.0), weight=8))
    'bilateral of 0.5 in position and 100, 120 in attributes, weight 8'
    """
    if isinstance(kernel, Bilateral):
        return f"bilateral of {_numbers(kernel.theta_alpha)} in position and {_numbers(kernel.theta_beta)} in" + (
            f" attributes, weight {kernel.weight:g}"
        )
    if isinstance(kernel, Spatial):
        return f"spatial of {_numbers(kernel.theta_gamma)} in position, weight {kernel.weight:g}"
    return type(kernel).__name__


def _numbers(theta: Any) -> str:
    return ", ".join(f"{number:g}" for number in (theta if isinstance(theta, tuple) else (theta,)))
