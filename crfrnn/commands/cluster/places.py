"""Folders on this machine, on a file system that machines share, and behind the URLs of fsspec (s3://, gs://, ...)."""

import logging
import os
import posixpath
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from crfrnn.commands.errors import UsageError
from crfrnn.data.files import names_below

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}  # that fsspec asks for
SECONDS = 15  # in which a cluster or an object store answers; their clients wait for minutes
REFUSED = r"(?i)credential|anonymous|forbidden|unauthorized|access ?denied|\b40[13]\b"  # for want of keys


@dataclass(frozen=True)
class Place:
    """A folder. Names of files are relative to it, with slashes."""

    url: str

    @classmethod
    def of(cls, text: str) -> "Place":
        """A local folder by its whole path, so that it means the same on every machine; anything else as it is."""
        plain = text.removeprefix("file://")
        return cls(text.rstrip("/") if "://" in plain else os.path.abspath(plain))

    def __str__(self) -> str:
        return self.url

    @property
    def local(self) -> Path | None:
        """Its path where it is a folder of a file system."""
        return None if "://" in self.url else Path(self.url)

    @property
    def protocol(self) -> str:
        """Such as ``s3``."""
        return self.url.partition("://")[0] if self.local is None else "file"

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec  # noqa: PLC0415 (half a second that no local folder needs)

        if not (logger := logging.getLogger(PACKAGES.get(self.protocol, "fsspec"))).handlers:
            logger.addHandler(logging.NullHandler())  # what it has to say comes as an exception, too
        try:
            return fsspec.core.url_to_fs(self.url)
        except ImportError:
            package = PACKAGES.get(self.protocol, f"the package for {self.protocol}")
            raise UsageError(f"{self.url}: needs {package}; pip install {package}") from None
        except ValueError as error:
            raise UsageError(f"{self.url}: {error}") from None

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and its name of the folder. What goes wrong there is one line that names the folder."""
        try:
            yield self._opened
        except (UsageError, FileNotFoundError):
            raise
        except Exception as error:  # what the clients of object stores raise, nobody can list
            text = " ".join(str(error).split()) or "nothing more is known"
            keys = re.search(REFUSED, f"{type(error).__name__} {text}")
            repair = "; give credentials as its client expects, such as in environment variables" if keys else ""
            raise ValueError(f"{self.url}: cannot be used ({type(error).__name__}: {text}){repair}") from None

    def exists(self) -> bool:
        """Whether it is there; a folder of an object store is where something lies in it.

        ValueError where the store cannot be used, or does not answer in `SECONDS`.
        """
        if self.local is not None:
            return self.local.is_dir()
        answers: list[bool | Exception] = []
        asking = threading.Thread(target=self._ask, args=(answers,), daemon=True)  # the command may end before it
        asking.start()
        asking.join(SECONDS)
        if not answers:
            raise ValueError(
                f"{self.url}: no answer within {SECONDS} s; can this machine reach it, and are there credentials?"
            )
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def _ask(self, answers: list[bool | Exception]) -> None:
        try:
            with self._reached() as (fs, root):
                fs.invalidate_cache()
                answers.append(bool(fs.exists(root)))
        except Exception as error:
            answers.append(error)

    def holds(self, name: str) -> bool:
        """Whether a file of this name is there."""
        if self.local is not None:
            return (self.local / name).exists()
        with self._reached() as (fs, root):
            return bool(fs.exists(f"{root}/{name}"))

    def names(self, besides: Iterable["Place"] = ()) -> Iterator[str]:
        """All files, none that is hidden or lies in one of the other places."""
        inside = tuple(f"{place.url.removeprefix(f'{self.url}/')}/" for place in besides if place.url != self.url)
        for name in self._all():
            if not name.startswith(inside):
                yield name

    def _all(self) -> Iterator[str]:
        if self.local is not None:
            yield from names_below(self.local)
            return
        with self._reached() as (fs, root):
            fs.invalidate_cache()
            inside = fs.ls(root, detail=True) if fs.exists(root) else []
            for entry in inside:  # what lies in each is listed at once, which takes the fewest requests
                paths = fs.find(entry["name"]) if entry["type"] == "directory" else [entry["name"]]
                fs.invalidate_cache()
                names = (path[len(root) :].lstrip("/") for path in paths)
                yield from (name for name in names if name and not any(p.startswith(".") for p in name.split("/")))

    def fetch(self, name: str, into: Path) -> Path:
        """A file that can be opened: itself, or a copy in a folder."""
        if self.local is not None:
            return self.local / name
        copy = into / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._reached() as (fs, root):
                fs.get_file(f"{root}/{name}", str(copy))
        except FileNotFoundError:
            raise ValueError(f"{self.url}/{name}: there is no such file") from None
        return copy

    def put(self, file: Path, name: str) -> None:
        """Copy a file to it; an object store shows it whole or not at all."""
        with self._reached() as (fs, root):
            fs.makedirs(posixpath.dirname(f"{root}/{name}"), exist_ok=True)
            fs.put_file(str(file), f"{root}/{name}")

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
            return
        with self._reached() as (fs, root):
            if fs.exists(f"{root}/{name}"):
                fs.rm_file(f"{root}/{name}")
