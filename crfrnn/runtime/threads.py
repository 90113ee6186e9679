"""Run a kernel's range on several threads.

Numba's own thread pools do not survive a fork (DataLoader workers) and abort on concurrent calls, so the kernels
are plain nogil functions and the range is divided here. A kernel's result must not depend on the division.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")

_local = threading.local()
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


class Team(ThreadPoolExecutor):
    """Threads that share the cores: those for which there is no task help the others."""

    def __init__(self, size: int, initializer: Callable[[], None]):
        super().__init__(size, initializer=initializer)
        self._size, self._unfinished, self._counting = size, 0, threading.Lock()

    def submit(self, fn, /, *args, **kwargs):
        self._count(1)
        future = super().submit(self._run, fn, *args, **kwargs)
        future.add_done_callback(lambda done: self._count(-1) if done.cancelled() else None)
        return future

    def _run(self, fn, /, *args, **kwargs):
        try:
            return fn(*args, **kwargs)
        finally:
            self._count(-1)

    def _count(self, tasks: int) -> None:
        with self._counting:
            self._unfinished += tasks

    def share(self) -> int:
        """Threads that each task may use now."""
        return self._size // min(max(1, self._unfinished), self._size)


def count() -> int:
    """Threads that one call may use: torch's intra-op setting, or less inside `limited` and `side_by_side`."""
    limit, team = getattr(_local, "limit", 0), getattr(_local, "team", None)
    return limit or (team.share() if team else torch.get_num_threads())


def cores() -> int:
    """Those of the machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limited(limit: int) -> Iterator[None]:
    """Calls of this thread use at most so many threads each: for work that is already parallel."""
    previous = getattr(_local, "limit", 0)
    _local.limit = max(1, limit)
    try:
        yield
    finally:
        _local.limit = previous


@contextmanager
def side_by_side(workers: int) -> Iterator[Team]:
    """A pool whose threads are all the parallelism there is: each works alone as long as all have something to do.

    In torch's own operations it always does: those would otherwise have a team of threads for each of ours, which wait
    for work at the cost of the others. torch keeps their number for each thread, and for all the one that new threads
    begin with: that is put back at once.
    """
    before, begun = torch.get_num_threads(), threading.Barrier(workers + 1)

    def begin() -> None:
        _local.team = pool
        torch.get_num_threads()  # asked first, as the first to ask in a thread makes it what new threads begin with
        torch.set_num_threads(1)
        begun.wait()

    with Team(workers, begin) as pool:
        try:
            first = [pool.submit(int) for _ in range(workers)]  # each starts a thread, as none is idle
            begun.wait()
            wait(first)
        except BaseException:
            begun.abort()
            raise
        finally:
            torch.set_num_threads(before)
        yield pool


def for_each(task: Callable[[int], Result], number: int) -> list[Result]:
    """task(0) to task(number - 1), the images of a batch: side by side where there is one for each thread at least.

    Fewer come one after the other, each with all threads: one image alone divides less well than a batch. Tasks record
    no gradient; torch's modes are those of a thread, so that of the caller goes with them.
    """
    workers = count()
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad
    recorded_nowhere = mode()(task)
    if workers == 1 or number < workers:
        return [recorded_nowhere(k) for k in range(number)]
    with side_by_side(workers) as pool:
        return list(pool.map(recorded_nowhere, range(number)))


def _executor() -> ThreadPoolExecutor:
    """As many threads as there are cores: when the calling one waits for them, it takes none."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="crfrnn")
        return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads: make a new pool when one is needed."""
    global _pool, _pool_lock
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def over_range(kernel: Callable[[int, int], object], size: int, smallest: int = 1) -> None:
    """Call ``kernel(start, stop)`` on each of the `parts`."""
    together([partial(kernel, *part) for part in parts(size, smallest)])


def parts(size: int, smallest: int = 1) -> list[tuple[int, int]]:
    """Disjoint ranges that cover 0..size, one for each thread, but at least `smallest` long."""
    number = max(1, min(count(), size // max(1, smallest)))
    return list(pairwise(size * part // number for part in range(number + 1)))


def together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run tasks that do not depend on each other, each thread taking the next one that is left; results in order.

    Tasks may call this themselves: this thread goes on until none is left, so nobody waits in a circle.
    """
    workers = min(count(), len(tasks))
    if workers <= 1:
        return [task() for task in tasks]
    left = deque(enumerate(tasks))
    results: dict[int, Result] = {}

    def work() -> None:
        while left:
            try:
                number, task = left.popleft()
            except IndexError:  # another thread took the last one
                return
            results[number] = task()

    futures = [_executor().submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        left.clear()
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
    for future in begun:
        future.result()  # raises what a task raised
    return [results[number] for number in range(len(tasks))]
