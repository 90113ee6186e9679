"""Files through libraries that need not be there, and what goes wrong in them."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crfrnn.data.predictions import machine_memory


def library(path: Path, name: str, package: str) -> Any:
    """The module `name`; without it a ValueError that says what a file needs."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{path}: needs {name}; pip install '{package}'") from None


@contextmanager
def reading(path: Path, what: str = "volume") -> Iterator[None]:
    """Whatever makes a file unreadable, as a ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # lazrs panics, which is no Exception; what others raise, nobody can list
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: not a readable {what} ({' '.join(str(error).split())})") from None


def check_memory(claimed: int) -> None:
    """ValueError for a file that claims to hold more bytes than this machine."""
    if claimed > machine_memory():
        raise ValueError(f"{claimed / 1e9:,.0f} GB, more than the memory of this machine")
