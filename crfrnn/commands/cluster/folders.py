"""What refine and segment share on a cluster: the places they are told, and a run with what is said of it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from crfrnn.commands.cluster.connect import check_gpus, check_seen, connected
from crfrnn.commands.cluster.images import Alone, Pairs, Results
from crfrnn.commands.cluster.names import Names
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.run import Todo, run_images, workers_of
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import say, waiting
from crfrnn.commands.shards import Log, Shard, Sharing
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
        place.exists()  # whether a store answers; a folder there need not be


def kind_of_names(names: Names, place: Place) -> type[Kind]:
    """As `kind_of` a folder; of files that have one suffix the first is looked at, where it is on this machine."""
    kinds = Counter[type[Kind]]()
    for suffix, count in names.suffixes().items():
        if suffix in KINDS and suffix not in SUFFIXES:
            first = next(iter(names.of([suffix]).values()))[0]
            kinds[KINDS[suffix] if place.local is None else kind_of(place.local / first)] += count
    return max(kinds, key=kinds.__getitem__, default=Photograph)


class Work(NamedTuple):
    """What is to be done, or was done before."""

    task: Task
    images: Pairs | Alone
    unit: str = "images"


def check_alone(shards: Names, names: Names, kind: type[Kind], place: Place) -> None:
    """UsageError where shards lie among images: which of them are meant?"""
    if names.of(kind.suffixes):
        raise UsageError(
            f"image: {place} holds {kind.several} and shards, such as {next(iter(shards))}.tar; move one of them"
        )


def run_folder(list_work: Callable[[], Work], ray: Sharing, words: tuple[str, str]) -> None:
    """Do it, and print what came of it; ValueError with a line for each image that failed."""
    with waiting("listing what there is to do"):
        task, images, unit = list_work()
        count, results = len(images), task.results
        if not count:
            raise ValueError(f"{task.folders[0]}: holds no {unit}")
        todo = Todo.of(images if task.overwrite else results.left(images))
        unused, problems = images.unused(), images.problems
    if todo.count:
        sources = [task.source] if task.source else []
        with connected(ray.address) as cluster:
            workers = workers_of(cluster, ray)
            if ray.gpus:
                check_gpus(cluster, ray.gpus)
            check_seen(cluster, [*task.folders, *sources], [*results.places.values()])
            with logged(results, images) as log:
                tally = run_images(cluster, task, todo, words[0], workers, log)
        speed = f" ({tally.done / tally.seconds:.1f} a second)" * (tally.done > 0)
        phrases = [f"{words[1]} {tally.done} {unit} in {tally.seconds:.1f} s{speed}"]
        phrases += [f"{tally.changed / tally.done:.1%} of the pixels changed their label"] if tally.done else []
        failures = tally.failures
    else:
        phrases, failures = [f"{words[1]} 0 {unit}"], {}
    done = count - len(problems) - todo.count
    phrases += [f"skipped {done} that were done (--overwrite redoes them)"] if done else []
    phrases += [f"left {unused} images without predictions alone"] if unused else []
    say("; ".join(phrases))
    for place in results.places.values():
        say(f"results are in {place}")
    if failures or problems:
        lines = [f"{name}: {reason}" for name, reason in sorted({**problems, **failures}.items())]
        raise ValueError("\n  ".join([f"{len(lines)} of {count} failed, the others are done", *lines]))


@contextmanager
def logged(results: Results, images: Pairs | Alone) -> Iterator[Callable[[str, str], None]]:
    """What `crfrnn status` reads, in a folder of this machine; a function that notes a result's name and its failure.

    All machines together are one shard, whose images are all there are.
    """
    out = results.lead.local
    if out is None:
        yield lambda *_: None
        return
    names = chain(map(results.file, images), images.problems)
    with Log(out, Shard(1, 1)).run(names, len(images), again="the same command with --ray") as log:
        for name, reason in images.problems.items():
            log.failed(name, reason)
        yield log.failed
