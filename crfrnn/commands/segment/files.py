"""`crfrnn segment`: photographs from files and folders, label maps and pictures of them into files and folders."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from crfrnn.commands.batch import on_cores
from crfrnn.commands.device import device_of
from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import Targets, check_folders, check_outputs, run_jobs
from crfrnn.commands.progress import say, steps_bar, waiting
from crfrnn.commands.segment.licence import say_licence
from crfrnn.commands.segment.options import SegmentOptions
from crfrnn.commands.segment.segment import Segmentation, segment_photo, segment_strokes
from crfrnn.commands.segment.stroke_features import MODEL as FEATURES
from crfrnn.commands.shards import asked_for
from crfrnn.data.drawing.cutout import cut_out
from crfrnn.data.drawing.figure import compare_crf, compare_segmentation
from crfrnn.data.drawing.legend import Entry, entries_of, with_legend
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.data.files import IMAGE_SUFFIXES, files_by_stem
from crfrnn.data.images import as_shown, open_image, rgb_pixels, upright, write_image
from crfrnn.data.labels import GROUND, UNSURE, LabelMap, LabelStyle, Value, parse_unsure, write_labels
from crfrnn.data.predictions import write_predictions
from crfrnn.data.strokes import read_painted, read_strokes
from crfrnn.networks.models import MODELS, load_model
from crfrnn.networks.network import SegmentationNetwork

STROKES_ITERATIONS = 10
SHOWN = 6  # classes in the line that is printed


@dataclass(frozen=True)
class _Model:
    name: str
    network: SegmentationNetwork
    iterations: int | None
    chosen: tuple[int, ...]  # classes that are cut out

    @property
    def has_crf(self) -> bool:
        """Whether one does anything to its labels: T = 0 leaves it out."""
        crf = self.network.crf
        return crf is not None and (crf.eval_iterations if self.iterations is None else self.iterations) != 0


@dataclass(frozen=True)
class _Job:
    source: Path  # the photograph
    targets: Targets


@dataclass(frozen=True)
class _Outcome:
    size: tuple[int, int]  # (height, width)
    entries: list[Entry]
    changed: float  # share of the pixels whose label the CRF changed
    empty: bool  # whether nothing of it is cut out, where that is wanted


@on_cores
def segment_files(options: SegmentOptions) -> None:
    """What the options ask for; UsageError, before anything is read, where nobody could mean it."""
    photos = [Path(name) for name in dict.fromkeys(options.image)]
    targets = _targets(options)
    single = len(photos) == 1 and not photos[0].is_dir()
    if options.shard and (options.strokes or single):
        raise UsageError(f"shard: shares out several photographs, and {photos[0]} is one")
    if options.strokes:
        photo, void = _check_strokes(photos, options.unsure)
        source, targets = Path(options.strokes), targets.of(photo, several=False)
        check_outputs((photo, source), [targets])
        _segment_by_strokes(photo, source, void, targets, options)
        return
    for path in photos:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file or folder")
    if single:
        job = _Job(photos[0], targets.of(photos[0], several=False))
        check_outputs([job.source], [job.targets])
        _segment_photo(job, _load(options, targets))
    else:
        jobs, problems = _jobs(photos, targets)
        _segment_photos(jobs, problems, targets, _load(options, targets), options)


def _targets(options: SegmentOptions) -> Targets:
    return Targets.given(
        options.out, options.overlay, options.save_probabilities, options.compare, cutout=options.cutout
    )


def image_work(options: SegmentOptions) -> Callable[[Sequence[Path], Path | None, Targets], float]:
    """What `segment_files` does with a photograph, for who has the files of each: its own, None, and the results.

    It returns the share of the pixels whose label the CRF changed. The model is loaded once, here.
    """
    return partial(_one_of_many, _load(options, _targets(options)), "cuda" if options.ray_gpus else "cpu")


def _one_of_many(model: _Model, device: str, images: Sequence[Path], source: Path | None, targets: Targets) -> float:
    del source
    model.network.to(device)  # where it is after the first one
    return _work(_Job(images[0], targets), model).changed


def _load(options: SegmentOptions, targets: Targets) -> _Model:
    device = device_of(options.device)
    network, name = load_model(options.model)
    if options.model is None or options.model in MODELS:
        say_licence(name)
    if targets.compare is not None and network.crf is None:
        raise ValueError(f"compare: {name} has no CRF, so there is nothing to compare")
    chosen = _foreground(_style(network), options.classes) if targets.cutout is not None else ()
    return _Model(name, network.to(device), options.iterations, chosen)


def _style(network: SegmentationNetwork) -> LabelStyle:
    names = network.class_names or [str(number) for number in range(network.num_classes or 0)]
    return LabelStyle.named(names, network.palette)


def _foreground(style: LabelStyle, classes: list[str] | None) -> tuple[int, ...]:
    """The classes that are cut out: those that are named, or all but the background."""
    names = style.names()
    if not classes:
        classes = [name for name in names if name.casefold() not in GROUND]
        if len(classes) == len(names):
            raise UsageError(
                f"classes: none of them is a background, so say which to cut out; there are {', '.join(names)}"
            )
    try:
        return tuple(dict.fromkeys(map(style.number, classes)))
    except ValueError as error:
        raise UsageError(f"classes: {error}") from None


def _jobs(inputs: Sequence[Path], targets: Targets) -> tuple[list[_Job], dict[Path, str]]:
    """A job for each photograph, and those that cannot be done because another one has the same name."""
    check_folders([path if path.is_dir() else path.parent for path in inputs], targets)
    by_stem: dict[str, list[Path]] = {}
    for path in inputs:
        stems = files_by_stem(path, IMAGE_SUFFIXES, targets.paths()) if path.is_dir() else {path.stem: [path]}
        for stem, paths in stems.items():
            by_stem.setdefault(stem, []).extend(paths)
    if not by_stem:
        raise ValueError(f"{', '.join(map(str, inputs))}: no photographs ({' '.join(IMAGE_SUFFIXES)})")
    problems = {
        paths[0]: f"{' and '.join(map(str, paths))} have the same name" for paths in by_stem.values() if len(paths) > 1
    }
    photos = {stem: paths[0] for stem, paths in by_stem.items() if len(paths) == 1}
    jobs = [_Job(photo, targets.of(photo, several=True, name=stem)) for stem, photo in photos.items()]
    check_outputs(photos.values(), [job.targets for job in jobs])
    return jobs, problems


def _segment_photo(job: _Job, model: _Model) -> None:
    start = time.perf_counter()
    with waiting(f"segmenting {job.source.name}"):
        outcome = _work(job, model)
    seconds = time.perf_counter() - start
    height, width = outcome.size
    classes = ", ".join(map(str, outcome.entries[:SHOWN])) + ", ..." * (len(outcome.entries) > SHOWN)
    summary = f"segmented {job.source} ({width} x {height}) with {model.name} in {seconds:.1f} s: {classes}"
    say("; ".join([summary, *_told(model, [outcome])]))
    for path in job.targets.paths():
        say(f"wrote {path}")


def _segment_photos(
    jobs: list[_Job], problems: dict[Path, str], targets: Targets, model: _Model, options: SegmentOptions
) -> None:
    run_jobs(
        partial(_work, model=model),
        jobs,
        targets,
        words=("segmenting", "segmented"),
        summary=partial(_told, model),
        problems=problems,
        overwrite=options.overwrite,
        shard=asked_for(options.shard),
    )


def _told(model: _Model, outcomes: Sequence[_Outcome]) -> list[str]:
    """What the CRF changed, and how many cut-outs are empty."""
    empty = sum(outcome.empty for outcome in outcomes)
    left = "the cut-out" if len(outcomes) == 1 else f"{empty} of the cut-outs"
    told = [f"nothing is left in {left}"] if empty else []
    if not model.has_crf:
        return ["0 iterations: the CRF is left out"] * (model.network.crf is not None) + told
    return [
        f"the CRF changed the label of {np.mean([outcome.changed for outcome in outcomes]):.1%} of the pixels",
        *told,
    ]


def _work(job: _Job, model: _Model) -> _Outcome:
    """Read, segment and write one photograph."""
    targets = job.targets
    try:
        photo = rgb_pixels(as_shown(open_image(job.source)))
        wanted = targets.probabilities is not None
        result = segment_photo(
            model.network, photo, iterations=model.iterations, probabilities=wanted, chosen=model.chosen
        )
    except ValueError as error:
        raise error if str(job.source) in str(error) else ValueError(f"{job.source}: {error}") from error
    style = _style(model.network)
    entries = entries_of(result.labels, style.names(), style.colours())
    if targets.overlay is not None:
        write_image(targets.overlay, with_legend(draw_overlay(photo, result.labels, style.colours()), entries))
    if targets.compare is not None:
        both = (result.network_labels, result.labels)
        write_image(targets.compare, compare_crf(photo, *both, style.colours(), entries))
    _write_parts(photo, result, style, targets)
    height, width = result.labels.shape
    empty = result.chosen is not None and not (result.chosen > 0.5).any()
    return _Outcome((height, width), entries, float(np.mean(result.labels != result.network_labels)), empty)


def _check_strokes(photos: list[Path], unsure: str | int) -> tuple[Path, Value | None]:
    """The photograph, and what means "nothing drawn"; UsageError where it is not one, or this no value."""
    if len(photos) > 1 or photos[0].is_dir():
        got = f"{len(photos)} are given" if len(photos) > 1 else f"{photos[0]} is a folder"
        raise UsageError(f"strokes: they belong to one photograph, but {got}")
    try:
        return photos[0], None if unsure == "" else parse_unsure(unsure)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _segment_by_strokes(
    image: Path, source: Path, void: Value | None, targets: Targets, options: SegmentOptions
) -> None:
    drawn, void_rule = _read_strokes(source, image, void)
    _check_drawn(source, drawn, void_rule)
    chosen = _foreground(drawn.style, options.classes) if targets.cutout is not None else ()
    photo = rgb_pixels(upright(open_image(image), drawn.indices.shape))
    say_licence(FEATURES)
    start = time.perf_counter()
    with steps_bar(f"learning {image.name}") as progress:
        try:
            result = segment_strokes(
                photo,
                drawn.indices,
                void=UNSURE,
                iterations=STROKES_ITERATIONS if options.iterations is None else options.iterations,
                seed=options.seed,
                probabilities=targets.probabilities is not None,
                chosen=chosen,
                progress=progress,
            )
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    seconds = time.perf_counter() - start
    _write(photo, drawn, result, targets)
    height, width = result.labels.shape
    drawn_on = drawn.indices != UNSURE
    names = drawn.style.names()
    say(
        f"segmented {image} ({width} x {height}) in {seconds:.1f} s from strokes of {len(names)} classes"
        f" ({', '.join(names[:12])}{', ...' * (len(names) > 12)}) on {drawn_on.mean():.1%} of the pixels; {void_rule}"
    )
    say(f"{np.mean(result.labels[drawn_on] == drawn.indices[drawn_on]):.1%} of the stroke pixels kept their class")
    for path in targets.paths():
        say(f"wrote {path}")


def _read_strokes(source: Path, image: Path, void: Value | None) -> tuple[LabelMap, str]:
    try:
        return read_strokes(source, void)
    except ValueError:
        with open_image(source) as strokes:
            photo = rgb_pixels(upright(open_image(image), (strokes.height, strokes.width)))
        painted = read_painted(source, photo) if void is None else None
        if painted is None:
            raise
        return painted


def _check_drawn(source: Path, drawn: LabelMap, void_rule: str) -> None:
    """ValueError, in the colours of the file, where there are no strokes of two of them."""
    style = drawn.style
    if len(style.values) > 1:
        return
    count, name = ("only one", f", {style.names()[0]}") if style.values else ("no", "")
    colour = f" (#{bytes(style.colours()[0]).hex()})" if style.values and style.palette else ""
    raise ValueError(
        f"{source}: {count} colour is drawn{name}{colour}, and {void_rule}; draw on each thing and on the background,"
        " in a colour of its own for each and at least two pixels wide"
    )


def _write(photo: np.ndarray, drawn: LabelMap, result: Segmentation, targets: Targets) -> None:
    if targets.overlay is not None:
        write_image(targets.overlay, draw_overlay(photo, result.labels, drawn.style.colours()))
    if targets.compare is not None:
        both = (result.network_labels, result.labels)
        write_image(targets.compare, compare_segmentation(photo, drawn.indices, *both, drawn.style.colours()))
    _write_parts(photo, result, drawn.style, targets)


def _write_parts(photo: np.ndarray, result: Segmentation, style: LabelStyle, targets: Targets) -> None:
    """What has no words in it; the label map comes last: where it stands, everything does."""
    if targets.probabilities is not None and result.probabilities is not None:
        write_predictions(targets.probabilities, result.probabilities)
    if targets.cutout is not None and result.chosen is not None:
        write_image(targets.cutout, cut_out(photo, result.chosen))
    if targets.out is not None:
        write_labels(targets.out, result.labels, style)
