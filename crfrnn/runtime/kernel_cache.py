"""Compiled CPU kernels on the disk, for the next process.

Numba has such a cache, but one that knows only the file that a kernel is written in: after a change in `rows.py`, which
is compiled into nearly all of them, it answers with the old arithmetic. Nor can it do without a folder to write to, or
with a file that was cut off. So the kernels have a cache of their own: one file for each kernel and signature, written
to the first of these places that takes it, read from the first that has it.

1. ``NUMBA_CACHE_DIR``, where that is set, and then nowhere else,
2. ``__pycache__`` beside the source: what a container's image was built with serves there though nobody may write,
3. the user's folder for caches,
4. a folder in the system's one for temporary files that belongs to this user alone.

Where none takes it, each process compiles anew, and says so once.
"""

import dis
import hashlib
import importlib.metadata
import importlib.util
import logging
import marshal
import os
import pickle
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

logger = logging.getLogger("crfrnn")

SEAL = 2 * hashlib.sha256().digest_size  # bytes at the beginning of a file, the digest of all that it is about


class KernelCache(_Cache):
    """What a dispatcher of Numba has as its `_cache`: it asks for a signature, and gives what it had to compile."""

    def __init__(self, function: Callable):
        self.function = function

    @property
    def cache_path(self) -> str:
        return ", ".join(str(folder) for folder, _ in places(self.function.__module__))

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        target_context.refresh()
        key = self._key(sig, target_context.codegen())
        for folder, _ in places(self.function.__module__):
            # What is absent, cut off, of other sources or not for us to read is as if it were not there.
            with suppress(Exception):
                content = (folder / self._file(key)).read_bytes()
                seal, payload = content[:SEAL], content[SEAL:]
                if seal == _seal(key, payload):
                    return CompileResult._rebuild(target_context, *pickle.loads(payload))
        _say_once("compiling CPU kernels, once on this machine: about fifteen seconds for all of them")
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        key = self._key(sig, data.codegen)
        payload = dumps(data._reduce())
        for folder, mode in places(self.function.__module__):
            with suppress(OSError):
                folder.mkdir(mode, parents=True, exist_ok=True)
                _replace(folder / self._file(key), _seal(key, payload) + payload)
                return
        _say_once(
            "the compiled CPU kernels cannot be kept, so that each process compiles them anew: "
            "set NUMBA_CACHE_DIR to a folder that can be written to"
        )

    def flush(self) -> None:
        """Nothing: what is kept is replaced when its sources change."""

    enable = disable = flush

    def _key(self, sig: Any, codegen: Any) -> tuple[str, ...]:
        """Which machine code: of which function and types, for which processor, from which sources."""
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        return name, str(sig), repr(codegen.magic_tuple()), stamp(self.function.__module__)

    def _file(self, key: tuple[str, ...]) -> str:
        """The same for all sources, so that those of a new version replace the old ones."""
        module = self.function.__module__.rpartition(".")[2]
        return f"{module}.{self.function.__name__}-{_digest(*key[:-1])[:16]}.nbc"


def _seal(key: tuple[str, ...], payload: bytes) -> bytes:
    return _digest(*key, payload).encode()


def _digest(*parts: str | bytes) -> str:
    digests = (hashlib.sha256(part.encode() if isinstance(part, str) else part).digest() for part in parts)
    return hashlib.sha256(b"".join(digests)).hexdigest()


@cache
def stamp(module: str) -> str:
    """A digest of all that a module's kernels are made of: files, the package's version and the compiler's."""
    try:
        version = importlib.metadata.version(_package(module))
    except importlib.metadata.PackageNotFoundError:  # a copy of the folder that nobody installed
        version = ""
    versions = version, numba.__version__, llvmlite.__version__
    return _digest(*versions, *(part for name, content in sorted(sources(module).items()) for part in (name, content)))


def sources(module: str) -> dict[str, bytes]:
    """A module of the package and all that it imports from the package: what they are made of, by their names."""
    contents: dict[str, bytes] = {}
    left = [module]
    while left:
        name = left.pop()
        spec = _spec(name)
        if spec is None or name in contents:
            continue
        code, text = spec.loader.get_code(name), spec.loader.get_source(name)
        contents[name] = marshal.dumps(code) if text is None else text.encode()  # a frozen program has no text
        left += [name for name in _imports(code) if name.startswith(f"{_package(module)}.")]
    return contents


def _imports(code: CodeType) -> Iterator[str]:
    """What a module imports: modules, and names that may be modules."""
    module = ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            module = step.argval
            yield module
        elif step.opname == "IMPORT_FROM":
            yield f"{module}.{step.argval}"


def _package(module: str) -> str:
    return module.partition(".")[0]


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a name in a module
        return None


def places(module: str) -> Iterator[tuple[Path, int]]:
    """Folders for a module's kernels, the best one first, with the rights that a new one gets."""
    frozen = getattr(sys, "frozen", False)  # a program in one file unpacks itself into another folder each time
    installation = sys.executable if frozen else str(_spec(_package(module)).origin)
    own = f"{_package(module)}-{_digest(installation)[:16]}"
    if chosen := config.CACHE_DIR:  # pyright: ignore[reportAttributeAccessIssue] (set when it is imported)
        yield Path(chosen, own), 0o777
        return
    if not frozen:
        yield Path(_spec(module).origin).parent / "__pycache__", 0o777
    yield Path(AppDirs("numba", appauthor=False).user_cache_dir, own), 0o777
    with suppress(OSError):  # there may be no folder for temporary files
        yield from _temporary(own)


def _temporary(own: str) -> Iterator[tuple[Path, int]]:
    """All may write to the system's folder: what somebody else has put there is not to be run."""
    if not hasattr(os, "getuid"):  # on Windows it is the user's
        yield Path(tempfile.gettempdir(), own), 0o700
        return
    folder = Path(tempfile.gettempdir(), f"{own}-{os.getuid()}")
    try:
        status = folder.lstat()
    except FileNotFoundError:
        yield folder, 0o700
    else:
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
            yield folder, 0o700


def _replace(path: Path, content: bytes) -> None:
    """All of it or nothing, whoever reads or writes at the same time."""
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@cache
def _say_once(message: str) -> None:
    logger.warning(message)
