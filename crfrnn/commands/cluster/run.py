"""Images as a data set of Ray, workers as its actors, and what came of them counted here as it arrives."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from crfrnn.commands.cluster.images import Image
from crfrnn.commands.cluster.worker import Attempts, Task, Worker
from crfrnn.commands.progress import steps_bar
from crfrnn.runtime.loading import load

if TYPE_CHECKING:
    import pyarrow

FEWEST, MOST = 4, 256  # images that a worker is given at a time: what is looked at again when it dies
BATCHES = 32  # for each worker, where there are images enough: so long may the last of them work alone
CHUNK = 10_000


@dataclass
class Tally:
    """What came back so far."""

    returned: bytearray  # 1 for each image that did
    done: int = 0
    skipped: int = 0  # found done, as their worker had died behind them
    changed: float = 0.0  # the sum of the shares
    failures: dict[str, str] = field(default_factory=dict)  # name -> reason
    seconds: float = 0.0

    @property
    def finished(self) -> int:
        """How many images came back."""
        return self.done + self.skipped + len(self.failures)

    def add(self, row: dict[str, Any]) -> None:
        """Count one image, once."""
        if self.returned[row["number"]]:
            return
        self.returned[row["number"]] = 1
        if row["reason"]:
            self.failures[row["name"]] = row["reason"]
        elif row["skipped"]:
            self.skipped += 1
        else:
            self.done += 1
            self.changed += row["changed"]


def table_of(images: Iterable[Image]) -> "pyarrow.Table":
    """The images as a table, a hundred bytes each, numbered."""
    import pyarrow as pa  # noqa: PLC0415 (comes with Ray)

    texts = pa.list_(pa.string())
    schema = pa.schema({"number": pa.int64(), "name": pa.string(), "images": texts, "source": pa.string()})
    rows, chunks = ({"number": n, **image._asdict()} for n, image in enumerate(images)), []
    while chunk := list(islice(rows, CHUNK)):
        chunks.append(pa.RecordBatch.from_pylist(chunk, schema=schema))
    return pa.Table.from_batches(chunks, schema=schema)


def run_images(ray: Any, task: Task, images: "pyarrow.Table", title: str, cpus: int) -> Tally:
    """Do all of a table. KeyboardInterrupt says how far it came; ValueError where Ray gives up."""
    total, tally, start = len(images), Tally(bytearray(len(images))), time.perf_counter()
    with steps_bar(title) as progress:
        progress(0, total)
        try:
            for row in _results(ray, task, images, cpus):
                tally.add(row)
                progress(tally.finished, total)
        except KeyboardInterrupt:
            message = f"interrupted: {tally.finished} of {total} done, the same command does the rest"
            raise KeyboardInterrupt(message) from None
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            message = f"ray: {tally.finished} of {total} came back, the same command does the rest ({reason})"
            raise ValueError(message) from None
    tally.seconds = time.perf_counter() - start
    return tally


def _results(ray: Any, task: Task, images: "pyarrow.Table", cpus: int) -> Iterator[dict[str, Any]]:
    """What the workers say, in the order in which it comes.

    Ray gives a batch whose worker died to another one, as often as it takes.
    """
    ray.data.DataContext.get_current().enable_progress_bars = False
    workers = max(1, int(ray.cluster_resources().get("CPU", 1) // cpus))
    here = load("ray.util.scheduling_strategies", "NodeAffinitySchedulingStrategy")(
        ray.get_runtime_context().get_node_id(), soft=True
    )
    lasting = {"max_restarts": -1, "max_task_retries": -1}  # on another machine it knows less, which does no harm
    attempts = ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()
    rows = min(max(FEWEST, len(images) // (BATCHES * workers)), MOST)
    batches = [images.slice(first, rows) for first in range(0, len(images), rows)]
    results = ray.data.from_arrow(batches).map_batches(
        Worker,
        fn_constructor_args=(task, cpus, attempts),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        num_cpus=cpus,
    )
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()
