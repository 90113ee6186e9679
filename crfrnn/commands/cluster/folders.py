"""What refine and segment share on a cluster: the places they are told, and a run with what is said of it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crfrnn.commands.cluster.connect import check_seen, connected
from crfrnn.commands.cluster.images import Alone, Pairs
from crfrnn.commands.cluster.places import Names, Place
from crfrnn.commands.cluster.run import run_images, table_of
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import say
from crfrnn.data.files import suffix_of
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
    taken = set(read)
    for target, place in written.items():
        if place in taken:
            raise UsageError(f"{target}: {place} must be a folder of its own, which nothing is read from")
        taken.add(place)
    for place in written.values():
        if place.local is not None and place.local.is_file():
            raise UsageError(f"out: {place} must be a folder, as several images go into it")


def kind_of_names(names: Sequence[str], place: Place) -> type[Kind]:
    """As `kind_of` a folder; of files that have one suffix the first is looked at, where it is on this machine."""
    counts, first = Counter[str](), {}
    for name in names:
        suffix = suffix_of(Path(name))
        if suffix in KINDS and suffix not in SUFFIXES:
            counts[suffix] += 1
            first.setdefault(suffix, name)
    kinds = Counter[type[Kind]]()
    for suffix in counts:
        kinds[KINDS[suffix] if place.local is None else kind_of(place.local / first[suffix])] += counts[suffix]
    return max(kinds, key=kinds.__getitem__, default=Photograph)


class Work(NamedTuple):
    """What is to be done. The names that were listed for it are gone by then: the table has those of what is left."""

    task: Task
    table: Any  # of Arrow
    problems: dict[str, str]  # files that belong to no image, and why
    count: int  # of all images, these too
    unit: str = "images"

    @classmethod
    def left(cls, task: Task, images: Pairs | Alone, unit: str = "images") -> "Work":
        """What of the images is not done yet; ValueError where there are none at all."""
        count = len(images.photos) if isinstance(images, Alone) else len(images.predictions)
        if not count:
            raise ValueError(f"{task.folders[0]}: holds no {unit}")
        table = table_of(images if task.overwrite else task.results.left(iter(images)))
        return cls(task, table, images.problems, count, unit)


def check_alone(shards: Names, names: Sequence[str], kind: type[Kind], place: Place) -> None:
    """UsageError where shards lie among images: which of them are meant?"""
    if any(suffix_of(Path(name)) in kind.suffixes for name in names):
        raise UsageError(
            f"image: {place} holds {kind.several} and shards, such as {next(iter(shards))}.tar; move one of them"
        )


def run_folder(work: Work, address: str, cpus: int, words: tuple[str, str]) -> None:
    """Do it, and print what came of it; ValueError with a line for each image that failed."""
    task, table, problems, count, unit = work
    if len(table):
        sources = [task.source] if task.source else []
        with connected(address) as ray:
            check_seen(ray, [*task.folders, *sources], [*task.results.places.values()])
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
