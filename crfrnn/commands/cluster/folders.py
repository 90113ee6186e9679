"""What refine and segment share on a cluster: the places they are told, and a run with what is said of it."""

from collections.abc import Sequence

from crfrnn.commands.cluster.connect import check_seen, connected
from crfrnn.commands.cluster.images import Alone, Pairs
from crfrnn.commands.cluster.places import Names, Place
from crfrnn.commands.cluster.run import run_images, table_of
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import say, waiting
from crfrnn.data.kinds import KINDS, Kind, Photograph, kind_of
from crfrnn.data.predictions import SUFFIXES


def result_places(**told: str | None) -> dict[str, Place]:
    """Where each kind of result goes, by the names of `Targets`; "out" first."""
    return {target: Place.of(text) for target, text in told.items() if text}


def check_places(read: Sequence[Place], written: dict[str, Place]) -> None:
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


def kind_of_names(names: Sequence[str], place: Place) -> type[Kind]:
    """As `kind_of` a folder; of files that have one suffix the first is looked at, where it is on this machine."""
    kinds = []
    for suffix in [suffix for suffix in KINDS if suffix not in SUFFIXES]:
        if found := Names(names, (suffix,)):
            first = next(iter(found.values()))[0]
            kinds += [KINDS[suffix] if place.local is None else kind_of(place.local / first)] * len(found)
    return max(dict.fromkeys(kinds), key=kinds.count, default=Photograph)


def run_folder(
    task: Task, images: Pairs | Alone, address: str, cpus: int, words: tuple[str, str], unit: str = "images"
) -> None:
    """Do what is not done yet, and print what came of it; ValueError with a line for each image that failed."""
    with waiting("listing what there is to do"):
        table = table_of(images if task.overwrite else task.results.left(iter(images)))
        problems = images.problems
    count = len(images.photos) if isinstance(images, Alone) else len(images.predictions)
    if len(table):
        sources = [task.source] if task.source else []
        with connected(address) as ray:
            check_seen(ray, [*task.folders, *sources, *task.results.places.values()])
            tally = run_images(ray, task, table, words[0], cpus)
        speed = f" ({tally.done / tally.seconds:.1f} a second)" * (tally.done > 0)
        phrases = [f"{words[1]} {tally.done} {unit} in {tally.seconds:.1f} s{speed}"]
        phrases += [f"{tally.changed / tally.done:.1%} of the pixels changed their label"] if tally.done else []
        failures = tally.failures
    else:
        phrases, failures = [f"{words[1]} 0 {unit}"], {}
    done = count - len(problems) - len(table)
    phrases += [f"skipped {done} that were done (--overwrite redoes them)"] if done else []
    say("; ".join(phrases))
    for place in task.results.places.values():
        say(f"results are in {place}")
    if failures or problems:
        lines = [f"{name}: {reason}" for name, reason in sorted({**problems, **failures}.items())]
        raise ValueError("\n  ".join([f"{len(lines)} of {count} failed, the others are done", *lines]))
