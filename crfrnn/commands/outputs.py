"""What a verb writes for images: a file of each kind that was asked for, or folders full of them."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, TypeVar

from crfrnn.commands.batch import one_line, run_all
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import say
from crfrnn.commands.shards import Log, Shard
from crfrnn.data.files import stem_of, suffix_of
from crfrnn.data.images import format_of
from crfrnn.data.kinds import Kind, Photograph

IN_FOLDERS = {"overlay": ".jpg", "probabilities": ".npz", "compare": ".jpg", "trace": ".csv", "cutout": ".png"}
TRANSPARENT = (".png", ".webp")  # formats with an alpha channel that every browser shows
TRACES = (".csv", ".json")
OPTIONS = {"probabilities": "save-probabilities"}  # where the name on the command line is another one


@dataclass(frozen=True)
class Targets:
    """Where the results go: files, or folders for them; None is not wanted."""

    out: Path | None = None
    overlay: Path | None = None
    probabilities: Path | None = None
    compare: Path | None = None
    trace: Path | None = None  # its curve stands beside it, .svg
    cutout: Path | None = None

    @classmethod
    def given(
        cls,
        out: str | None,
        overlay: str | None = None,
        probabilities: str | None = None,
        compare: str | None = None,
        trace: str | None = None,
        cutout: str | None = None,
    ) -> "Targets":
        """What was said on the command line."""
        said = (out, overlay, probabilities, compare, trace, cutout)
        return cls(*(Path(name) if name else None for name in said))

    def paths(self) -> list[Path]:
        """Those that are wanted, the label map first."""
        return [path for _, path in self.wanted()]

    @property
    def lead(self) -> Path:
        """The one that comes last, where it stands everything does: the label map, or where none is wanted another."""
        return self.out or self.paths()[-1]

    def done(self) -> bool:
        """Whether all of them are there."""
        return all(path.exists() for path in self.paths())

    def of(self, image: Path, several: bool, name: str = "", kind: type[Kind] = Photograph) -> "Targets":
        """The files for one image: these, or, where there are several images, files in these folders.

        `name` is the image's path in its folder, without suffix, where that has folders in it: the outputs get the
        same ones. An existing folder may be given for a single image too. Raises UsageError, before anything is read,
        where these are no folders or have a suffix that says another kind of file.
        """
        placed: dict[str, Path | None] = {"out": None}
        labels = kind.written_as(image)
        suffixes = in_folders(image, kind)
        for target, path in self.wanted():
            suffix = suffixes[target]
            if several and (path.is_file() or suffix_of(path) == suffix):
                raise UsageError(f"{_option(target)}: {path} must be a folder, as several images go into it")
            inside = f"{name or stem_of(image).name}{suffix}"
            file = placed[target] = path / inside if several or path.is_dir() else path
            _check_target(target, file, kind, labels)
        return Targets(**placed)

    def wanted(self) -> list[tuple[str, Path]]:
        """Those that are wanted, each with its name here."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(kind, path) for kind, path in pairs if path is not None]


def in_folders(image: Path, kind: type[Kind]) -> dict[str, str]:
    """The suffix that each of an image's results has in a folder, by the names of `Targets`."""
    suffixes = {"out": kind.written_as(image)[0], **IN_FOLDERS}
    if suffixes["probabilities"] not in kind.probability_suffixes:
        suffixes["probabilities"] = kind.probability_suffixes[0]
    return suffixes


class Job(Protocol):
    """One image of many."""

    @property
    def targets(self) -> Targets: ...

    @property
    def source(self) -> Path:
        """The file by whose name a failure is reported."""
        ...


One = TypeVar("One", bound=Job)
Result = TypeVar("Result")


def check_outputs(inputs: Iterable[Path], targets: Iterable[Targets]) -> None:
    """UsageError where something would be written over what is read, or twice to one place."""
    read = {path.resolve() for path in inputs}
    outputs = [path.resolve() for one in targets for path in one.paths()]
    for path in outputs:
        if path in read:
            raise UsageError(f"out: {path} is read as an input and would be overwritten")
    if len(set(outputs)) < len(outputs):
        raise UsageError("out: two of the outputs have the same path")


def check_folders(photographs: Iterable[Path], targets: Targets) -> None:
    """UsageError where results would go into a folder of photographs, and be taken for some the next time."""
    read = {folder.resolve() for folder in photographs}
    for kind, path in targets.wanted():
        if path.resolve() in read:
            raise UsageError(f"{_option(kind)}: {path} is read as an input; give another folder")


def run_jobs(
    work: Callable[[One], Result],
    jobs: Sequence[One],
    targets: Targets,
    *,
    words: tuple[str, str],
    summary: Callable[[list[Result]], list[str]],
    problems: dict[Path, str],
    overwrite: bool,
    shard: Shard | None = None,
    note: str = "",
) -> None:
    """Do what is not done yet, on all cores, and print what came of it.

    Args:
        work: what to do with a job; it writes the targets.
        jobs: one for each image, with targets of its own.
        targets: the folders.
        words: what is going on and what was done, such as ("refining", "refined").
        summary: what to say of the results, in a few words each; asked only where there are any.
        problems: files that belong to no job, and why; they count as failures.
        overwrite: also do what is done.
        shard: do only those that belong to it, and leave a log.
        note: another thing to say.

    Raises ValueError with a line for each file that failed, after all others are done.
    """
    images = len(jobs) + len(problems)
    if shard is not None:
        jobs = held(jobs, targets, shard)
        problems = {path: reason for path, reason in problems.items() if shard.holds(path.as_posix())}
    todo = [job for job in jobs if overwrite or not job.targets.done()]
    start = time.perf_counter()
    if shard is None:
        finished = run_all(work, todo, words[0])
    else:
        names = [*(_result(job, targets) for job in jobs), *(path.as_posix() for path in problems)]
        with Log(targets.lead, shard).run(names, images) as log:
            for path, reason in problems.items():
                log.failed(path.as_posix(), reason)
            finished = run_all(_logged(work, targets, log), todo, f"{words[0]}, shard {shard}")
    seconds = time.perf_counter() - start
    count = len(finished.results)
    phrases = [f"{words[1]} {count} images in {seconds:.1f} s" + (f" ({count / seconds:.1f} a second)" * (count > 0))]
    phrases += summary(finished.results) if count else []
    if len(todo) < len(jobs):
        phrases.append(f"skipped {len(jobs) - len(todo)} that were done (--overwrite redoes them)")
    say("; ".join([*phrases, note] if note else phrases))
    for path in targets.paths() if count else ():
        say(f"wrote {count} files into {path}")
    failures = [*problems.items(), *((job.source, reason) for job, reason in finished.failures)]
    if failures:
        lines = [reason if str(path) in reason else f"{path}: {reason}" for path, reason in failures]
        total = len(jobs) + len(problems)
        raise ValueError("\n  ".join([f"{len(failures)} of {total} failed, the others are done", *lines]))


def held(jobs: Sequence[One], targets: Targets, shard: Shard | None) -> Sequence[One]:
    """Those that belong to a shard; without one, all."""
    return jobs if shard is None else [job for job in jobs if shard.holds(_result(job, targets))]


def _result(job: Job, targets: Targets) -> str:
    """The name by which a job belongs to a shard: that of its `Targets.lead` in the folder of all of them."""
    return job.targets.lead.relative_to(targets.lead).as_posix()


def _logged(work: Callable[[One], Result], targets: Targets, log: Log) -> Callable[[One], Result]:
    """The work, of which a failure is in the log as soon as it happens."""

    def logged(job: One) -> Result:
        try:
            return work(job)
        except Exception as error:
            log.failed(_result(job, targets), one_line(error))
            raise

    return logged


def _check_target(target: str, path: Path, kind: type[Kind], labels: Sequence[str]) -> None:
    suffix = suffix_of(path)
    if target == "out" and suffix not in labels:
        endings = " or ".join(labels)
        raise UsageError(f"out: labels of {kind.several} are written as {endings}, and {path} ends otherwise")
    if target == "probabilities" and suffix not in kind.probability_suffixes:
        raise UsageError(f"{_option(target)}: {path} must end in {' or '.join(kind.probability_suffixes)}")
    if target == "trace" and suffix not in TRACES:
        raise UsageError(f"trace: {path} must end in .csv or .json; the curve is drawn beside it, as .svg")
    if target == "cutout" and suffix not in TRANSPARENT:
        raise UsageError(f"cutout: {path} must end in {' or '.join(TRANSPARENT)}, which can be transparent")
    if target in ("overlay", "compare"):
        try:
            format_of(path)
        except ValueError as error:
            raise UsageError(f"{target}: {error}") from None


def _option(kind: str) -> str:
    return OPTIONS.get(kind, kind)
