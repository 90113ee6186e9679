"""Processes that share the images of a folder: which are whose, and what each leaves behind for `crfrnn status`."""

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from crfrnn.commands.errors import UsageError, check_jobs
from crfrnn.data.files import writing

LOGS = ".crfrnn-shards"  # inside of the folder of results; hidden, so that no command takes it for images
ADDRESS = r"(?:ray://)?\[?([\w.:-]+?)\]?:(\d{1,5})"  # of a cluster of Ray: host and port
SLURM, KUBERNETES = "SLURM_ARRAY_TASK_", "JOB_COMPLETION"


@dataclass(frozen=True, order=True)
class Shard:
    """One of `count` parts of a set of names, whatever their order and whoever asks: a hash decides.

    >>> shards = [Shard.of(f"{number}/3") for number in (1, 2, 3)]
    >>> [[shard.holds(name) for shard in shards] for name in ("cat.png", "day/dog.png")]
    [[True, False, False], [False, False, True]]
    """

    count: int
    number: int  # from 1

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            last = max(1, self.count)
            raise UsageError(f"shard: {self} is outside; the first is 1/{last}, the last {last}/{last}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def of(cls, text: str, environment: Mapping[str, str] = os.environ) -> "Shard":
        """``3/16``, or ``auto``: as the array job or the indexed job says in which this process runs."""
        if text == "auto":
            return cls._of_job(environment)
        if not (parts := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)):
            raise UsageError(f"shard: expected one of several such as 3/16, or auto, got {text!r}")
        return cls(number=int(parts[1]), count=int(parts[2]))

    @classmethod
    def _of_job(cls, environment: Mapping[str, str]) -> "Shard":
        def number(name: str, default: int | None = None) -> int:
            text = environment.get(name, "" if default is None else str(default))
            if not re.fullmatch(r"\d{1,9}", text):
                raise UsageError(f"shard: auto needs a whole number in {name}, which is {text or 'not set'}")
            return int(text)

        if f"{SLURM}ID" in environment:
            count, first, step = number(f"{SLURM}COUNT"), number(f"{SLURM}MIN", 0), number(f"{SLURM}STEP", 1)
            steps, rest = divmod(number(f"{SLURM}ID") - first, step or 1)
            last = number(f"{SLURM}MAX", first + (count - 1) * step)
            if rest or last != first + (count - 1) * step:
                raise UsageError(
                    f"shard: auto needs a regular array such as --array=1-{count}; of this one say --shard K/N yourself"
                )
            return cls(count, steps + 1)
        if f"{KUBERNETES}_INDEX" in environment:
            return cls(number(f"{KUBERNETES}S"), number(f"{KUBERNETES}_INDEX") + 1)
        raise UsageError(
            f"shard: auto finds neither {SLURM}ID nor {KUBERNETES}_INDEX here; say which one, such as --shard 3/16"
        )

    def holds(self, name: str) -> bool:
        """Whether a name belongs to this part and so to no other."""
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1


def asked_for(text: str | None) -> Shard | None:
    """That of the option --shard; UsageError where it is none."""
    return None if text is None else Shard.of(text)


@dataclass(frozen=True)
class Sharing:
    """What the options --ray, --ray-cpus and --ray-gpus say of a cluster and of each worker there."""

    address: str
    cpus: int = 1
    gpus: float = 0


def check_sharing(
    shard: str | None, ray: str | None, ray_cpus: int, ray_gpus: float, jobs: int | None, device: str
) -> None:
    """UsageError where the options that share images out contradict each other or are none."""
    if asked_for(shard) and ray:
        raise UsageError("shard: Ray shares out the images itself; give one of --shard and --ray")
    if ray is not None and ray not in ("auto", "local") and not re.fullmatch(ADDRESS, ray):
        raise UsageError(f"ray: expected auto, local or an address such as head:6379, got {ray!r}")
    if ray is not None and jobs is not None:
        raise UsageError("jobs: are cores of this machine; with --ray say --ray-cpus, those of each worker")
    if ray is not None and device != "cpu":
        raise UsageError("device: is one of this machine; with --ray say --ray-gpus, those of each worker")
    check_jobs(jobs)
    if ray_cpus < 1:
        raise UsageError(f"ray-cpus: must be at least 1, got {ray_cpus}")
    if not 0 <= ray_gpus < float("inf") or (ray_gpus > 1 and ray_gpus % 1):
        raise UsageError(f"ray-gpus: expected a whole number, or a share of one such as 0.5, got {ray_gpus:g}")
    if ray_gpus and ray is None:
        raise UsageError("ray-gpus: belongs to --ray")


class Log:
    """What one shard was given, when it began and ended, and what failed.

    ``3-of-16.txt`` has the names of its results, one a line, written whole; ``3-of-16.jsonl`` grows by a line for each
    event. Each line is one write to the end of the file, and no two shards have a file in common. It begins with the
    end of the one before, which may have been broken off.
    """

    def __init__(self, folder: Path, shard: Shard):
        self.shard = shard
        name = f"{shard.number}-of-{shard.count}"
        self.names, self.events = folder / LOGS / f"{name}.txt", folder / LOGS / f"{name}.jsonl"

    @classmethod
    def all_in(cls, folder: Path) -> list["Log"]:
        """Those of every shard that ever began to write into a folder."""
        found = (re.fullmatch(r"(\d+)-of-(\d+)\.jsonl", path.name) for path in (folder / LOGS).glob("*.jsonl"))
        return [cls(folder, shard) for shard in sorted(Shard(int(m[2]), int(m[1])) for m in found if m)]

    @contextmanager
    def run(self, names: Iterable[str], images: int, again: str = "") -> Iterator["Log"]:
        """A run of the shard: its names, how many images all shards have together, and what does the rest of it."""
        with writing(self.names) as file:
            file.writelines(json.dumps(name).encode() + b"\n" for name in names)
        again = again or f"--shard {self.shard}"
        self.add(began=_now(), host=socket.gethostname(), images=images, again=again)
        yield self
        self.add(ended=_now())

    def failed(self, name: str, reason: str) -> None:
        """One image could not be done."""
        self.add(failed=name, reason=reason)

    def add(self, **event: Any) -> None:
        """Append an event."""
        line = b"\n" + json.dumps(event).encode() + b"\n"
        file = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def read_names(self) -> set[str]:
        """The names that its last run was given."""
        if not self.names.exists():
            return set()
        return {json.loads(line) for line in self.names.read_text(encoding="utf-8").splitlines()}

    def last_run(self) -> list[dict[str, Any]]:
        """The events since it began for the last time. A line that is empty or was broken off counts as absent."""
        run: list[dict[str, Any]] = []
        for line in self.events.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            run = [event] if "began" in event else [*run, event]
        return run


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
