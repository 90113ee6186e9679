"""What is shown while work is done, and what is said of it. Names of files and classes are shown as plain text."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from crfrnn.data.files import printable


def say(text: str, flush: bool = False) -> None:
    """Print a line, or several, with names in it."""
    print(printable(text), flush=flush)


def waiting(text: str) -> AbstractContextManager[Any]:
    """A sign of life on a terminal, beside a text, for work whose steps nobody knows."""
    return Console(stderr=True).status(Text(printable(text)))


@contextmanager
def steps_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, and nothing elsewhere, as a function of (steps done, steps in all)."""
    console = Console(stderr=True)
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(printable(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
