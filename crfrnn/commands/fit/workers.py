"""Work on many images at a time, each of them on one thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from crfrnn.runtime import threads

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Threads that take an image each. `over` returns the results in the order of the items, whatever the threads."""

    def __init__(self, pool: ThreadPoolExecutor, tick: Callable[[], None]):
        self._pool, self._tick = pool, tick

    def over(self, items: Iterable[Item], work: Callable[[Item], Result]) -> list[Result]:
        """``[work(item) for item in items]``, with a tick of the progress bar for each."""

        futures = [self._pool.submit(work, item) for item in items]
        try:
            results = []
            for future in futures:
                results.append(future.result())
                self._tick()
            return results
        finally:
            for future in futures:
                future.cancel()  # after an error or Ctrl-C the others need not begin


@contextmanager
def workers(tick: Callable[[], None] = lambda: None) -> Iterator[Workers]:
    """As many as there are threads; torch's own, within an operation, are off in them."""
    with threads.side_by_side(threads.count()) as pool:
        yield Workers(pool, tick)
