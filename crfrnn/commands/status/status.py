"""How far the shards are that write into one folder, by their logs and by what lies in it."""

from dataclasses import dataclass, field
from pathlib import Path

from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import say
from crfrnn.commands.shards import Log, Shard
from crfrnn.commands.status.options import StatusOptions
from crfrnn.data.files import names_below


@dataclass
class Progress:
    """Counts over all shards: of images, and which shards have anything left."""

    images: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # result -> reason
    left: dict[str, str] = field(default_factory=dict)  # what is to be run again -> what is missing of it

    @property
    def missing(self) -> int:
        """Images of which there is neither a result nor a failure."""
        return max(0, self.images - self.done - len(self.failed))


def status(options: StatusOptions) -> None:
    """Print the counts; ValueError where anything failed or is missing."""
    if "://" in options.out:
        raise UsageError(f"out: {options.out} is no folder of this machine; the same command with --ray does the rest")
    out = Path(options.out)
    progress = progress_of(out)
    say(f"{progress.images} images: {progress.done} done, {len(progress.failed)} failed, {progress.missing} missing")
    for name, reason in sorted(progress.failed.items()):
        say(f"failed: {name}: {reason}")
    for again, why in progress.left.items():
        say(f"run again: {again} ({why})")
    if progress.failed or progress.missing or progress.left:
        raise ValueError(f"{out}: {len(progress.failed)} failed, {progress.missing} missing")


def progress_of(out: Path) -> Progress:
    """What stands in a folder that shards write to; ValueError where none has begun to.

    Of shards that have not begun nobody knows the names: what lies in the folder under a name that is theirs counts.
    """
    if not out.is_dir():
        raise ValueError(f"{out}: there is no such folder")
    logs = [(log, log.last_run()) for log in Log.all_in(out)]
    begun = [(run[0]["began"], log, run) for log, run in logs if run and "began" in run[0]]
    if not begun:
        raise ValueError(
            f"{out}: no shard has begun to write into it; refine and segment do, with --shard K/N or --ray"
        )
    _, newest, last = max(begun, key=lambda entry: entry[0])
    count, progress = newest.shard.count, Progress(images=last[0]["images"])
    there, runs = set(names_below(out)), {log.shard: (log, run) for _, log, run in begun if log.shard.count == count}
    for number in range(1, count + 1):
        shard = Shard(count, number)
        if shard not in runs:
            progress.left[f"--shard {shard}"] = "not begun"
            progress.done += sum(map(shard.holds, there))
            continue
        log, run = runs[shard]
        names = log.read_names()
        failed = {event["failed"]: event["reason"] for event in run if event.get("failed") in names}
        missing = len(names - there - failed.keys())
        progress.done += len(names & there - failed.keys())  # what is there of these is of a run before
        progress.failed |= failed
        if missing or failed:
            ended = any("ended" in event for event in run)
            how = "" if ended else f", under way or broken off, begun {run[0]['began']} on {run[0]['host']}"
            progress.left[run[0]["again"]] = f"{len(failed)} failed, {missing} missing{how}"
    return progress
