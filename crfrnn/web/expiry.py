"""The files of visitors expire: what has reached its age goes, whoever wrote it.

Gradio deletes the files that it has handed out or taken in whole. Uploads that are broken off, and what handlers write
for themselves, it does not know; here the folder is looked through itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

CHECKS = 4  # in the time for which a file is kept


def expire(folder: Path, own: frozenset[Path], seconds: float) -> None:
    """Delete the files and empty folders that nobody has written to for so many seconds, but for the server's `own`."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        with suppress(OSError):  # deleted in the meantime, or a folder that is not empty
            if path not in own and time.time() - path.lstat().st_ctime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()


def expiring(folder: Path, seconds: float) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan of an ASGI application: while it runs, visitors' files in the folder are deleted at that age.

    What is in the folder when it begins stays.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        own = frozenset(folder.rglob("*"))

        async def watch() -> None:
            while True:
                await asyncio.sleep(seconds / CHECKS)
                await asyncio.to_thread(expire, folder, own, seconds)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            task.cancel()

    return lifespan
