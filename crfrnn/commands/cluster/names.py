"""Names of files by their stems, on disk: however many there are, they take no memory."""

import os
import sqlite3
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import Any

from crfrnn.data.files import suffix_of


class Names(Mapping[str, list[str]]):
    """Names of files by their stems, as `files_by_stem` has them, in a database that goes with the object.

    >>> names = Names(["day/cat.jpg", "day/cat.PNG", "notes.txt"])
    >>> dict(names.of((".jpg", ".png"))), names.suffixes()
    ({'day/cat': ['day/cat.PNG', 'day/cat.jpg']}, {'.jpg': 1, '.png': 1, '.txt': 1})
    """

    def __init__(self, names: Iterable[str]):
        self._database = sqlite3.connect("")  # a temporary file
        self._database.execute("CREATE TABLE files (stem BLOB, ending BLOB, suffix TEXT)")
        self._database.executemany("INSERT INTO files VALUES (?, ?, ?)", map(_row, names))
        self._database.execute("CREATE INDEX by_stem ON files (stem, suffix, ending)")
        self._allowed, self._suffixes = "1", ()

    def of(self, suffixes: Sequence[str]) -> "Names":
        """Those with one of the suffixes, from the same database."""
        some = copy(self)
        some._allowed, some._suffixes = f"suffix IN ({', '.join('?' * len(suffixes))})", tuple(suffixes)
        return some

    def suffixes(self) -> dict[str, int]:
        """How many files have which suffix."""
        return dict(self._select("suffix, COUNT(*)", end="GROUP BY suffix ORDER BY suffix"))

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        stem, ending, suffix = _row(name)
        found = self._select("1", "AND stem = ? AND suffix = ? AND ending = ?", stem, suffix, ending)
        return next(found, None) is not None

    def items(self) -> ItemsView[str, list[str]]:
        return _Items(self)

    def __getitem__(self, stem: str) -> list[str]:
        found = self._select("ending", "AND stem = ?", os.fsencode(stem), end="ORDER BY ending")
        if files := [stem + os.fsdecode(ending) for (ending,) in found]:
            return files
        raise KeyError(stem)

    def __iter__(self) -> Iterator[str]:
        return (os.fsdecode(stem) for (stem,) in self._select("DISTINCT stem", end="ORDER BY stem"))

    def __len__(self) -> int:
        ((count,),) = self._database.execute(
            f"SELECT COUNT(*) FROM (SELECT 1 FROM files WHERE {self._allowed} GROUP BY stem)", self._suffixes
        )
        return count

    def _select(self, columns: str, where: str = "", *values: object, end: str = "") -> Iterator[Any]:
        return self._database.execute(
            f"SELECT {columns} FROM files WHERE {self._allowed} {where} {end}", (*self._suffixes, *values)
        )


class _Items(ItemsView[str, list[str]]):
    """All in one look, in the order of the stems."""

    _mapping: Names

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        rows = self._mapping._select("stem, ending", end="ORDER BY stem")
        for stem, files in groupby(rows, key=lambda row: row[0]):
            name = os.fsdecode(stem)
            yield name, sorted(name + os.fsdecode(ending) for _, ending in files)


def _row(name: str) -> tuple[bytes, bytes, str]:
    """The stem and what follows it, as bytes: a name of Linux need not be text; and the suffix in lower case."""
    suffix = suffix_of(name)
    stem = len(name) - len(suffix)
    return os.fsencode(name[:stem]), os.fsencode(name[stem:]), suffix
