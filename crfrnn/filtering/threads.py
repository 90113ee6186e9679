"""Run a kernel's range on several threads.

Numba's own thread pools do not survive a fork (DataLoader workers) and abort on concurrent calls, so the kernels
are plain nogil functions and the range is divided here. A kernel's result must not depend on the division.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch

_local = threading.local()
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def count() -> int:
    """Threads that one call may use: torch's intra-op setting, or 1 inside `single`."""
    return getattr(_local, "limit", 0) or torch.get_num_threads()


@contextmanager
def single() -> Iterator[None]:
    """Calls of this thread use one thread each: for work that is already parallel over images."""
    previous = getattr(_local, "limit", 0)
    _local.limit = 1
    try:
        yield
    finally:
        _local.limit = previous


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1), thread_name_prefix="crfrnn")
        return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads: make a new pool when one is needed."""
    global _pool, _pool_lock
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def over_range(kernel: Callable[[int, int], object], size: int, smallest: int = 1) -> None:
    """Call ``kernel(start, stop)`` on disjoint ranges that cover 0..size, at least `smallest` long."""
    parts = max(1, min(count(), size // max(1, smallest)))
    bounds = [size * part // parts for part in range(parts + 1)]
    together([partial(kernel, start, stop) for start, stop in pairwise(bounds)])


def together(tasks: list[Callable[[], object]]) -> None:
    """Run tasks that do not depend on each other, the last one on this thread."""
    if count() == 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    futures = [_executor().submit(task) for task in tasks[:-1]]
    try:
        tasks[-1]()
    finally:
        for future in futures:
            future.exception()  # wait for all, whatever happened
    for future in futures:
        future.result()
