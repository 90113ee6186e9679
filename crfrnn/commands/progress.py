"""What is shown while work is done, and what is said of it. Names of files and classes are shown as plain text."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text
from tqdm import TqdmWarning

from crfrnn.data.files import printable

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets has its bars in letters
    from tqdm.auto import tqdm

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
    hidden = False if _in_notebook() else None  # None: unless it is a terminal, which a notebook is not either
    with tqdm(desc=printable(title), disable=hidden, leave=False, bar_format=BAR) as bar:

        def move(done: int, total: int) -> None:
            if bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield move


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter's runs this."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config
