"""What is shown while work is done, and what is said of it. Names of files and classes are shown as plain text."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text
from tqdm.auto import tqdm

from crfrnn.data.files import printable

BAR = "{desc} {bar} {n_fmt}/{total_fmt} {remaining}"


def say(text: str, flush: bool = False) -> None:
    """Print a line, or several, with names in it."""
    print(printable(text), flush=flush)


def waiting(text: str) -> AbstractContextManager[Any]:
    """A sign of life on a terminal, beside a text, for work whose steps nobody knows."""
    return Console(stderr=True).status(Text(printable(text)))


@contextmanager
def steps_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal and in a notebook, and nothing elsewhere, as a function of (steps done, steps in all)."""
    with tqdm(desc=printable(title), disable=None, leave=False, bar_format=BAR) as bar:

        def move(done: int, total: int) -> None:
            if bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield move
