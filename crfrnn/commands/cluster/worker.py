"""What a worker of the cluster does: an actor with the compiled kernels in memory, which works on batches of images."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crfrnn.commands.batch import one_line
from crfrnn.commands.cluster.images import Image, Results
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.outputs import Targets

if TYPE_CHECKING:
    import pyarrow

DEATHS = 2  # of workers over one image, after the one that gave its batch away
Work = Callable[[Sequence[Path], Any, Targets], float]


@dataclass(frozen=True)
class Task:
    """All that a worker must know, sent to each once.

    `work` is what the command without Ray does with an image: called with its files, its predictions and where the
    results go, it writes them and returns the share of the pixels that changed their label.
    """

    work: Work
    folders: Sequence[Place]  # of the images: one, or one for each modality
    source: Place | None  # of the predictions
    results: Results
    overwrite: bool

    def do(self, image: Image) -> float | None:
        """Do one image; None where another worker, which died after it, has done it."""
        if not self.overwrite and self.results.done(image):
            return None
        with tempfile.TemporaryDirectory(prefix="crfrnn-") as name:  # it stays empty where all places are local
            folder = Path(name)
            images = [
                place.fetch(file, folder / f"image-{number}")
                for file in image.images
                for number, place in enumerate(self.folders)
            ]
            source = self.source.fetch(image.source, folder / "source") if self.source else None
            changed = self.work(images, source, self.results.targets(image, folder / "results"))
            self.results.publish(folder / "results")
        return changed


class Worker:
    """The actor. A batch is a table of numbered `Image`s; a row for each comes back, with a reason where it failed.

    A batch that a worker has died over is worked on with care: the images one by one are begun and ended, and that over
    which several have died fails.
    """

    def __init__(self, task: Task, threads: int, attempts: Any):
        torch.set_num_threads(threads)
        self.task, self.attempts = task, attempts

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        """The answers for a batch."""
        import pyarrow as pa  # noqa: PLC0415 (comes with Ray)

        images = batch.to_pylist()
        with self._attempt(f"batch {images[0]['number']}") as attempt:
            rows = [self._row(image.pop("number"), Image(**image), careful=attempt > 1) for image in images]
        columns = {"skipped": pa.bool_(), "changed": pa.float64(), "reason": pa.string()}
        names = {"number": pa.int64(), "name": pa.string(), "file": pa.string()}
        return pa.Table.from_pylist(rows, schema=pa.schema({**names, **columns}))

    @contextmanager
    def _attempt(self, what: str) -> Iterator[int]:
        import ray  # noqa: PLC0415

        attempt: Any = ray.get(self.attempts.begin.remote(what))
        try:
            yield attempt
        finally:
            self.attempts.end.remote(what)

    def _row(self, number: int, image: Image, careful: bool) -> dict[str, object]:
        known = {"number": number, "name": image.name, "file": self.task.results.file(image)}
        row: dict[str, object] = {**known, "skipped": False, "changed": 0.0, "reason": ""}
        try:
            with self._attempt(image.name) if careful else nullcontext(1) as attempt:
                if attempt > DEATHS:
                    return row | {"reason": f"{DEATHS} workers died over it; is there memory enough?"}
                changed = self.task.do(image)
        except Exception as error:  # fails its image alone
            return row | {"reason": one_line(error) or type(error).__name__}
        return row | ({"skipped": True} if changed is None else {"changed": changed})
