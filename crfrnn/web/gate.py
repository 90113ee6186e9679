"""What stands between the network and Gradio: bounded requests, no path of the server, no foreign hosts."""

import json
import math
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from crfrnn.web.limits import MEGA, Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

POLICY = (
    b"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    b" style-src 'self' 'unsafe-inline'; frame-ancestors *"
)
HEADERS = [
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
CLOSED = (
    "/monitoring",
    "/gradio_api/monitoring",
    "/gradio_api/proxy",
    "/proxy",
    "/gradio_api/runs",
    "/gradio_api/process_recording",  # of the screen: the page offers none, and Gradio leaves its files in /tmp
)
FOREIGN = re.compile(rb"<(?:link|script|meta)\b[^>]*https?://[^>]*>(?:\s*</script>)?")
JSON_MOST = 2 * MEGA  # bytes of a request that carries no file
SETTLE = 5  # seconds for which the size of the folder is believed


class Gate:
    """ASGI middleware.

    The browser is told to load nothing from elsewhere, and what the page's template would load is cut out of it.
    The folder with the visitors' files is called by another name of the same length in everything that goes out, and
    by its own in everything that comes in, so that no length of a message changes.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], folder: Path, limits: Limits):
        self.app, self.folder, self.limits = app, folder, limits
        self.real = str(folder).encode()
        self.shown = alias(folder).encode()
        self._weighed, self._weight = -math.inf, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path.rstrip("/").startswith(CLOSED):
            await _refuse(send, 404, "not found")
            return
        uploads = path.endswith(("/upload", "/component_server", "/component_server/"))
        most = 3 * self.limits.upload_megabytes * MEGA if uploads else JSON_MOST
        if _length(scope) > most:
            await _refuse(send, 413, "too large")
            return
        if uploads and self.weight() > self.limits.disk_megabytes * MEGA:
            await _refuse(send, 507, "too many files of other visitors: try again later")
            return
        scope = dict(scope)
        scope["path"] = path.replace(self.shown.decode(), self.real.decode())
        scope["raw_path"] = scope.get("raw_path", b"").replace(self.shown, self.real)
        await self.app(scope, self._incoming(receive, most, uploads), self._outgoing(send))

    def weight(self) -> int:
        """Bytes of all visitors' files, looked at every few seconds."""
        if time.monotonic() - self._weighed > SETTLE:
            self._weighed = time.monotonic()
            self._weight = sum(_size(file) for file in self.folder.rglob("*"))
        return self._weight

    def _incoming(self, receive: Receive, most: int, uploads: bool) -> Receive:
        counted = 0
        parts: list[bytes] = []

        async def counting() -> Message:
            nonlocal counted
            message = await receive()
            body = message.get("body", b"")
            counted += len(body)
            if counted > most:
                return {"type": "http.disconnect"}
            if uploads or not body:
                return message
            parts.append(body)  # a name may lie across two parts of a body
            while message.get("more_body", False):
                message = await receive()
                parts.append(message.get("body", b""))
                counted += len(parts[-1])
                if counted > most or message["type"] == "http.disconnect":
                    return {"type": "http.disconnect"}
            whole = b"".join(parts).replace(self.shown, self.real)
            return {"type": "http.request", "body": whole, "more_body": False}

        return counting

    def _outgoing(self, send: Send) -> Send:
        text = html = False

        async def cleaning(message: Message) -> None:
            nonlocal text, html
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                kind = headers.get(b"content-type", b"")
                text = kind.startswith((b"text/", b"application/json"))
                html = kind.startswith(b"text/html")
                kept = [(k, v) for k, v in message["headers"] if not (html and k == b"content-length")]
                message = {**message, "headers": [*kept, *HEADERS]}
            elif text and message["type"] == "http.response.body":
                body = message.get("body", b"").replace(self.real, self.shown)
                if html:
                    body = FOREIGN.sub(b"", body)
                message = {**message, "body": body}
            await send(message)

        return cleaning


def alias(folder: Path) -> str:
    """What the outside sees instead of the folder's path: of the same length, and of no use to anybody.

    >>> alias(Path("/tmp/crfrnn-serve-ab12"))
    '/files________________'
    """
    return "/files".ljust(len(str(folder)), "_")


def _length(scope: Message) -> int:
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    return int(stated) if stated.isdigit() else 0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # deleted in the meantime
        return 0


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
