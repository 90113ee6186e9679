"""Images as a data set of Ray, workers as its actors, and what came of them counted here as it arrives."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from crfrnn.commands.cluster.attempts import Attempts
from crfrnn.commands.cluster.images import Image
from crfrnn.commands.cluster.worker import Task, Worker
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import steps_bar
from crfrnn.commands.shards import Sharing
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

    def add(self, row: dict[str, Any]) -> bool:
        """Count one image, once; whether it was new."""
        if self.returned[row["number"]]:
            return False
        self.returned[row["number"]] = 1
        if row["reason"]:
            self.failures[row["name"]] = row["reason"]
        elif row["skipped"]:
            self.skipped += 1
        else:
            self.done += 1
            self.changed += row["changed"]
        return True


@dataclass(frozen=True)
class Todo:
    """Images that wait in a file, numbered: however many there are, they take no memory. It has tables of so many rows.

    >>> todo = Todo.of(Image(name, [f"{name}.jpg"], "") for name in "abc")
    >>> todo.count, [table["name"].to_pylist() for table in todo.by(2)]
    (3, [['a', 'b'], ['c']])
    """

    file: IO[bytes]
    count: int
    rows: int = CHUNK

    @classmethod
    def of(cls, images: Iterable[Image]) -> "Todo":
        """Write them down."""
        import pyarrow as pa  # noqa: PLC0415 (comes with Ray)

        texts = pa.list_(pa.string())
        schema = pa.schema({"number": pa.int64(), "name": pa.string(), "images": texts, "source": pa.string()})
        rows = ({"number": number, **image._asdict()} for number, image in enumerate(images))
        file, count = tempfile.TemporaryFile(), 0  # noqa: SIM115 (it goes with the object)
        with pa.ipc.new_stream(file, schema) as stream:
            while chunk := list(islice(rows, CHUNK)):
                stream.write_batch(pa.RecordBatch.from_pylist(chunk, schema=schema))
                count += len(chunk)
        return cls(file, count)

    def by(self, rows: int) -> "Todo":
        """The same in tables of another size."""
        return replace(self, rows=rows)

    def __iter__(self) -> Iterator["pyarrow.Table"]:
        import pyarrow as pa  # noqa: PLC0415

        self.file.seek(0)
        for chunk in pa.ipc.open_stream(self.file):
            for first in range(0, len(chunk), self.rows):
                yield pa.Table.from_batches([chunk.slice(first, self.rows)])


@dataclass(frozen=True)
class Workers:
    """How many, and what each of them has."""

    number: int
    cpus: int
    gpus: float


def workers_of(ray: Any, sharing: Sharing) -> Workers:
    """As many as the machines of the cluster have cores and GPUs for; UsageError where they have none."""
    number, cpus, gpus = 0, sharing.cpus, sharing.gpus
    for node in ray.nodes():
        if node["Alive"]:
            fit = node["Resources"].get("CPU", 0) // cpus
            number += int(min(fit, node["Resources"].get("GPU", 0) / gpus + 1e-6) if gpus else fit)
    if not number:
        wanted = f"--ray-cpus {cpus}" + f" and --ray-gpus {gpus:g}" * (gpus > 0)
        raise UsageError(f"ray: no machine of the cluster has as much as {wanted} for a worker; ask for less")
    return Workers(number, cpus, gpus)


def run_images(
    ray: Any, task: Task, todo: Todo, title: str, workers: Workers, failed: Callable[[str, str], None]
) -> Tally:
    """Do all of them, and call `failed` with the file of a result and the reason why there is none.

    KeyboardInterrupt says how far it came; ValueError where Ray gives up.
    """
    total, tally, start = todo.count, Tally(bytearray(todo.count)), time.perf_counter()
    with steps_bar(title) as progress:
        progress(0, total)
        try:
            for row in _results(ray, task, todo, workers):
                if tally.add(row) and row["reason"]:
                    failed(row["file"], row["reason"])
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


def _results(ray: Any, task: Task, todo: Todo, workers: Workers) -> Iterator[dict[str, Any]]:
    """What the workers say, in the order in which it comes.

    Ray gives a batch whose worker died to another one, as often as it takes.
    """
    ray.data.DataContext.get_current().enable_progress_bars = False
    here = load("ray.util.scheduling_strategies", "NodeAffinitySchedulingStrategy")(
        ray.get_runtime_context().get_node_id(), soft=True
    )
    lasting = {"max_restarts": -1, "max_task_retries": -1}  # on another machine it knows less, which does no harm
    attempts = ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()
    rows = min(max(FEWEST, todo.count // (BATCHES * workers.number)), MOST)
    results = ray.data.from_blocks(todo.by(rows)).map_batches(  # from_arrow has a task for each batch, which waits
        Worker,
        fn_constructor_args=(task, workers.cpus, attempts),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers.number, initial_size=workers.number),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()
