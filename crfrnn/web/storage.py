"""The folder with the visitors' files: whose they are, and how many bytes they have together."""

import math
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from crfrnn.web.expiry import UPLOADED
from crfrnn.web.limits import MEGA
from crfrnn.web.shares import surrendered

SETTLE = 5  # seconds for which the size of the folder is believed
BLOCK = 4096  # bytes that a file or a folder takes at least


class Storage:
    """Bounds the files, except those that are there when it begins, and uploads that are under way.

    A file is the visitor's who is told of it first; those of which nobody was told have an owner of their own, nobody.
    Where there are too many, those go first that whoever holds most has had for longest.
    """

    def __init__(self, folder: Path, megabytes: float):
        self.folder, self.most = folder, megabytes * MEGA
        self._own = frozenset(folder.glob("*"))
        self._owners: dict[str, str] = {}  # name in the folder -> visitor
        self._names = re.compile(re.escape(str(folder).encode()) + rb'/([^/"\\\s]+)')
        self._looked, self._brought = -math.inf, 0
        self._lock = threading.Lock()

    def told(self, text: bytes, visitor: str) -> None:
        """A visitor is told the names of these files."""
        for name in self._names.findall(text):
            self._owners.setdefault(name.decode(errors="replace"), visitor)

    def brought(self, size: int) -> None:
        """An upload has come."""
        self._brought += size

    @property
    def due(self) -> bool:
        """Whether it is time to look how much there is."""
        return time.monotonic() - self._looked > SETTLE or self._brought > self.most / 10

    def tidy(self) -> None:
        """Back to the bound."""
        with self._lock:
            self._looked, self._brought = time.monotonic(), 0
            known = set(self._owners)
            found = sorted(self._visitors())
            for name in known - {path.name for _, path, _ in found}:
                del self._owners[name]
            excess = sum(size for _, _, size in found) - self.most
            for path, size in surrendered(
                ((path, size), self._owners.get(path.name, ""), size) for _, path, size in found
            ):
                if excess <= 0:
                    return
                _delete(path)
                excess -= size

    def _visitors(self) -> Iterator[tuple[float, Path, int]]:
        """(when it was last written to, the path, bytes) of all that lies in the folder and is a visitor's."""
        for path in self.folder.iterdir():
            try:
                if path not in self._own and not path.match(UPLOADED):
                    size = sum(max(BLOCK, part.lstat().st_size) for part in (path, *path.rglob("*")))
                    yield path.lstat().st_mtime, path, size
            except OSError:  # deleted in the meantime
                continue


def _delete(path: Path) -> None:
    for part in sorted([path, *path.rglob("*")], reverse=True):  # what is in a folder comes before the folder
        try:
            part.rmdir() if part.is_dir() else part.unlink()
        except OSError:
            continue
