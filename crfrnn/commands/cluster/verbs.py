"""`crfrnn refine` and `crfrnn segment`, here or, with --ray, on a cluster: the same work for each image."""

from collections.abc import Sequence

from crfrnn.commands.cluster.connect import check_seen, connected
from crfrnn.commands.cluster.images import Alone, Pairs, Results
from crfrnn.commands.cluster.places import Names, Place
from crfrnn.commands.cluster.run import run_images, table_of
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.outputs import OPTIONS, Targets
from crfrnn.commands.progress import say, waiting
from crfrnn.commands.refine.files import image_work as refine_work
from crfrnn.commands.refine.files import refine_files
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.segment.files import image_work as segment_work
from crfrnn.commands.segment.files import segment_files
from crfrnn.commands.segment.options import SegmentOptions
from crfrnn.data.kinds import KINDS, Kind, Photograph
from crfrnn.data.predictions import SUFFIXES


def refine(options: RefineOptions) -> None:
    """What the options ask for, here or on a cluster."""
    if options.ray is None:
        refine_files(options)
        return
    folders = [Place.of(text) for text in options.image.split(",")]
    source = Place.of(options.source)
    places = _result_places(
        Targets.given(options.out, options.overlay, options.save_probabilities, trace=options.trace), options
    )
    _check_places([*folders, source], places)
    names = [*folders[0].names(besides=places.values())]
    kind = _kind_of(names)
    work = refine_work(options, kind)
    read = {"labels": kind.label_suffixes, "foreground": kind.foreground_suffixes}
    suffixes = read.get(options.kind, kind.prediction_suffixes)
    if options.kind == "labels" and kind.holds_labels and source == folders[0]:
        images: Pairs | Alone = Alone(Names(names, kind.suffixes), with_predictions=True)
    else:
        besides = [*places.values(), *folders]
        predictions = Names(source.names(besides=[place for place in besides if place != source]), suffixes)
        if not predictions:
            raise ValueError(f"{source}: holds no {' or '.join(suffixes)} files")
        if source == folders[0]:
            taken = {file for files in predictions.values() for file in files}
            names = [name for name in names if name not in taken]
        images = Pairs(Names(names, kind.suffixes), predictions, folders[0])
    task = Task(work, folders, source, Results(places, kind), options.overwrite)
    _run(task, images, options, words=("refining", "refined"))


def segment(options: SegmentOptions) -> None:
    """What the options ask for, here or on a cluster."""
    if options.ray is None:
        segment_files(options)
        return
    if options.strokes or len(options.image) > 1:
        raise UsageError("ray: takes one folder of photographs, and no strokes")
    folder = Place.of(options.image[0])
    places = _result_places(
        Targets.given(options.out, options.overlay, options.save_probabilities, options.compare), options
    )
    _check_places([folder], places)
    images = Alone(Names(folder.names(besides=places.values()), Photograph.suffixes))
    task = Task(segment_work(options), [folder], None, Results(places, Photograph), options.overwrite)
    _run(task, images, options, words=("segmenting", "segmented"))


def _result_places(targets: Targets, options: RefineOptions | SegmentOptions) -> dict[str, Place]:
    """Where each kind of result goes; `Targets` holds paths, which would spoil URLs, and says which are wanted."""
    wanted = [target for target, _ in targets.wanted()]
    return {target: Place.of(getattr(options, OPTIONS.get(target, target).replace("-", "_"))) for target in wanted}


def _check_places(read: Sequence[Place], written: dict[str, Place]) -> None:
    for place in (*read, *written.values()):
        if place.protocol == "memory":
            raise UsageError(f"ray: {place} is the memory of one process, which its workers do not share")
    for place in read:
        if not place.exists():
            kind = "" if place.local is None or not place.local.exists() else " (it is a file)"
            raise ValueError(f"{place}: there is no such folder{kind}; --ray works on folders")
    if len(set(written.values())) < len(written) or set(read) & set(written.values()):
        raise UsageError(f"out: {written['out']} and the like must be folders of their own, which nothing is read from")
    for place in written.values():
        if place.local is not None and place.local.is_file():
            raise UsageError(f"out: {place} must be a folder, as several images go into it")


def _kind_of(names: Sequence[str]) -> type[Kind]:
    """As `kind_of` a folder."""
    kinds = [kind for suffix, kind in KINDS.items() if suffix not in SUFFIXES for _ in Names(names, (suffix,))]
    return max(dict.fromkeys(kinds), key=kinds.count, default=Photograph)


def _run(task: Task, images: Pairs | Alone, options: RefineOptions | SegmentOptions, words: tuple[str, str]) -> None:
    """Do what is not done yet, and print what came of it; ValueError with a line for each image that failed."""
    assert options.ray is not None
    with waiting("listing what there is to do"):
        table = table_of(images if task.overwrite else task.results.left(iter(images)))
        problems = images.problems
    count = len(images.photos) if isinstance(images, Alone) else len(images.predictions)
    if len(table):
        sources = [task.source] if task.source else []
        with connected(options.ray) as ray:
            check_seen(ray, [*task.folders, *sources, *task.results.places.values()])
            tally = run_images(ray, task, table, words[0], options.ray_cpus)
        speed = f" ({tally.done / tally.seconds:.1f} a second)" * (tally.done > 0)
        phrases = [f"{words[1]} {tally.done} images in {tally.seconds:.1f} s{speed}"]
        phrases += [f"{tally.changed / tally.done:.1%} of the pixels changed their label"] if tally.done else []
        failures = tally.failures
    else:
        phrases, failures = [f"{words[1]} 0 images"], {}
    done = count - len(problems) - len(table)
    phrases += [f"skipped {done} that were done (--overwrite redoes them)"] if done else []
    say("; ".join(phrases))
    for place in task.results.places.values():
        say(f"results are in {place}")
    if failures or problems:
        lines = [f"{name}: {reason}" for name, reason in sorted({**problems, **failures}.items())]
        raise ValueError("\n  ".join([f"{len(lines)} of {count} failed, the others are done", *lines]))
