"""What a server must not keep: visitors' files at their age, and connections on which nothing is asked.

Gradio deletes the files that it has handed out or taken in whole. Uploads that are broken off, and what handlers write
for themselves, it does not know; here the folder is looked through itself.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

CHECKS = 4  # in the time for which a file, or a silent connection, is kept
UPLOADED = "tmp*"  # what is being uploaded; what came whole gets a folder of its own

Watch = Callable[[], Coroutine[Any, Any, None]]


def expire(folder: Path, own: frozenset[Path], seconds: float) -> None:
    """Delete the files and empty folders that nobody has written to for so many seconds, but for the server's `own`."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        with suppress(OSError):  # deleted in the meantime, or a folder that is not empty
            if path not in own and time.time() - path.lstat().st_ctime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()


def clear_uploads(folder: Path, before: float = math.inf) -> None:
    """Delete what uploads have left that was last written before that time."""
    for path in folder.glob(UPLOADED):
        with suppress(OSError):
            if path.lstat().st_ctime < before:
                path.unlink()


def expiring(folder: Path, seconds: float) -> Watch:
    """Visitors' files in the folder are deleted at that age; what is in it when the watch begins stays."""

    async def watch() -> None:
        own = frozenset(folder.rglob("*"))
        while True:
            await asyncio.sleep(seconds / CHECKS)
            await asyncio.to_thread(expire, folder, own, seconds)

    return watch


def hanging_up(connections: Callable[[], Iterable[Any]], seconds: float) -> Watch:
    """Connections (uvicorn's protocols) on which no request has come for so long are closed."""

    async def watch() -> None:
        silent: dict[Any, float] = {}
        while True:
            await asyncio.sleep(seconds / CHECKS)
            now = time.monotonic()
            silent = {one: silent.get(one, now) for one in connections() if one.cycle is None}
            for one, since in silent.items():
                if now - since >= seconds and one.transport is not None:
                    one.transport.close()

    return watch


def watched(*watches: Watch) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan of an ASGI application, during which these are at work."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(watch()) for watch in watches]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    return lifespan
