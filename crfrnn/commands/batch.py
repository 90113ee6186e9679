"""One piece of work for each of many files: all cores, a progress bar, and failures that stay among themselves."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import wraps
from typing import Any, Generic, TypeVar

import torch

from crfrnn.commands.progress import steps_bar
from crfrnn.runtime import threads

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Finished(Generic[Job, Result]):
    """What came of a batch: results in the order of the jobs, and the jobs that failed with their one-line reason."""

    results: list[Result]
    failures: list[tuple[Job, str]]


def on_cores(verb: Callable[[Any], None]) -> Callable[[Any], None]:
    """A verb that keeps as many cores busy as its options' `jobs`, images beside each other or parts of one.

    torch's number of threads is what all work of this package goes by.
    """

    @wraps(verb)
    def bounded(options: Any) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(options.jobs or before)
        try:
            verb(options)
        finally:
            torch.set_num_threads(before)

    return bounded


def run_all(work: Callable[[Job], Result], jobs: Sequence[Job], title: str) -> Finished[Job, Result]:
    """Call ``work(job)`` for every job, one job for each thread where there are enough of them.

    An exception fails its job alone. Ctrl-C lets the jobs under way finish, so that no file is left half-written,
    and raises KeyboardInterrupt with the count of what is done.
    """

    wide = len(jobs) >= threads.count() > 1
    outcomes: dict[int, Result] = {}
    failures: dict[int, str] = {}
    numbers: dict[Future[Result], int] = {}
    with steps_bar(title) as progress, threads.side_by_side(threads.count()) if wide else ThreadPoolExecutor(1) as pool:
        progress(0, len(jobs))
        try:
            numbers |= {pool.submit(work, job): number for number, job in enumerate(jobs)}
            for future in as_completed(numbers):
                error = future.exception()
                if error is None:
                    outcomes[numbers[future]] = future.result()
                else:
                    failures[numbers[future]] = one_line(error)
                progress(len(outcomes) + len(failures), len(jobs))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            done = sum(future.done() and not future.cancelled() for future in numbers)
            message = f"interrupted: {done} of {len(jobs)} done, the same command does the rest"
            raise KeyboardInterrupt(message) from None
    return Finished([outcomes[n] for n in sorted(outcomes)], [(jobs[n], failures[n]) for n in sorted(failures)])


def one_line(error: BaseException) -> str:
    """What is said of an image that failed."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__}: {text}"
