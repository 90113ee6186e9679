"""What stands between the network and Gradio: few doors, bounded requests, no path of the server, no other host."""

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None

from crfrnn.web.expiry import clear_uploads
from crfrnn.web.limits import MEGA, Limits
from crfrnn.web.shares import Places, visitor
from crfrnn.web.storage import Storage

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
API, FILE = "/gradio_api/", "/gradio_api/file="
PAGES = ("", "/config", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css")
ENDPOINTS = (  # of Gradio's those that the page and its clients use; a URL as a file would be fetched by the server
    "info",
    "startup-events",
    "theme.css",
    "app_id",
    "queue/join",
    "queue/data",
    "upload",
    "upload_progress",
    "component_server",
    "reset",
    "cancel",
    "run/predict",  # of what waits in no queue: a sample is chosen
)
OPEN = {*PAGES, *(API + name for name in ENDPOINTS)}
OPEN_BELOW = ("/assets/", "/static/", "/svelte/", API + "call/", API + "heartbeat/", FILE)
UPLOADS = (API + "upload", API + "component_server")
FOREIGN = re.compile(rb"<(?:link|script|meta)\b[^>]*https?://[^>]*>(?:\s*</script>)?")
UPLOAD = 3  # parts of the largest size that one upload may have
JSON_MOST = 2 * MEGA  # bytes of a request that carries no file
TICK = 0.05  # seconds by which a file's time may be behind the clock: file systems have clocks that tick
SILENCE = 60.0  # seconds that the next part of a request may take
CONNECTIONS = 1024  # under way at a time, where the system says nothing of open files


class Refused(Exception):
    """A request that is answered here: the status and a reason."""


class Gate:
    """ASGI middleware.

    Only the doors of `OPEN` lead to Gradio. The browser is told to load nothing from elsewhere, and what the page's
    template would load is cut out of it. A file that a request names lies in the folder with the visitors' files, under
    a name that only its owner knows: a hash of its content, or a random one. The folder is called by another name of
    the same length in everything that goes out, and by its own where a file is named in what comes in.

    What an upload that was broken off has left is deleted as soon as no upload is under way that could be writing it.
    Requests and uploads under way have `Places`, and the files are a `Storage`: one visitor does not take it all.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], folder: Path, limits: Limits):
        self.app, self.folder, self.limits = app, folder, limits
        self.real = str(folder).encode()
        self.shown = alias(folder).encode()
        self.storage = Storage(folder, limits.disk_megabytes)
        self._requests = Places(_connections() // 2)
        self._uploading = Places(limits.disk_megabytes // (UPLOAD * limits.upload_megabytes))
        self._uploads: list[float] = []  # when those that are under way began
        self._tidying: set[asyncio.Task] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        who = visitor(scope.get("client"))
        try:
            with self._requests.one(who, Refused(429, "too many requests at a time")):
                await self._pass(dict(scope), receive, self._outgoing(send, who))
        except Refused as refused:
            await _refuse(send, *refused.args)
        except RuntimeError as error:
            if type(error.__cause__).__name__ != "HTTPException":  # Starlette's, where an answer had begun:
                raise  # a session that nobody knows, of which the log need not be full

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.rstrip("/") not in OPEN and not path.startswith(OPEN_BELOW):
            raise Refused(404, "not found")
        if path.startswith(FILE):
            scope["path"] = FILE + self._named(path.removeprefix(FILE))
            scope["raw_path"] = scope.get("raw_path", b"").replace(self.shown, self.real)
        if scope["method"] == "POST" and self.storage.due:
            await asyncio.to_thread(self.storage.tidy)
        if path.rstrip("/") in UPLOADS:
            with self._uploading.one(visitor(scope.get("client")), Refused(429, "too many uploads at a time")):
                await self._upload(scope, receive, send)
            return
        if scope["method"] == "POST":
            receive = self._again(await self._body(scope, receive), receive)
        await self.app(scope, receive, send)

    async def _upload(self, scope: Message, receive: Receive, send: Send) -> None:
        most = UPLOAD * self.limits.upload_megabytes * MEGA
        if _length(scope) > most:
            raise Refused(413, "too large")
        counted, complete, broken_off = 0, False, False

        async def counting() -> Message:
            nonlocal counted, complete, broken_off
            if complete:
                return await receive()
            message = await _next(receive)
            counted += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            message = message if counted <= most else {"type": "http.disconnect"}
            broken_off = message["type"] == "http.disconnect"
            return message

        began = time.time()
        self._uploads.append(began)
        try:
            await self.app(scope, counting, send)
        except Exception:
            if not broken_off:  # of those the log need not be full
                raise
        finally:
            self._uploads.remove(began)
            self.storage.brought(counted)
            tidying = asyncio.create_task(self._clear())
            self._tidying.add(tidying)  # which nobody waits for
            tidying.add_done_callback(self._tidying.discard)

    async def _clear(self) -> None:
        """Delete what uploads have left that are not under way; what begins while the thread waits stays, too."""
        await asyncio.sleep(2 * TICK)  # so that what this one has left is old enough
        before = min(self._uploads, default=time.time()) - TICK
        await asyncio.to_thread(clear_uploads, self.folder, before)

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        """That of a request without files, in which the files that it names are where they are for the server."""
        if _length(scope) > JSON_MOST:
            raise Refused(413, "too large")
        parts, more = [], True
        while more:
            message = await _next(receive)
            if message["type"] == "http.disconnect":
                raise Refused(400, "broken off")
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
            if sum(map(len, parts)) > JSON_MOST:
                raise Refused(413, "too large")
        body = b"".join(parts)
        try:
            return json.dumps(self._translated(json.loads(body))).encode() if body else body
        except (ValueError, RecursionError):
            raise Refused(400, "not readable as JSON") from None

    def _again(self, body: bytes, receive: Receive) -> Receive:
        """A body that was read, and then whatever comes."""
        left = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return left.pop() if left else await receive()

        return again

    def _translated(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._translated(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: self._named(item) if key == "path" and isinstance(item, str) and item else self._translated(item)
            for key, item in value.items()
        }

    def _named(self, path: str) -> str:
        """Where a file is that a visitor names; Refused for whatever is not in the folder."""
        shown, real = self.shown.decode(), str(self.folder)
        path = real + path.removeprefix(shown) if path.startswith(shown) else path
        if not os.path.normpath(path).startswith(real + os.sep):
            raise Refused(403, "no file that was sent")
        return path

    def _outgoing(self, send: Send, who: str) -> Send:
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
                body = message.get("body", b"")
                if self.real in body:
                    self.storage.told(body, who)
                    body = body.replace(self.real, self.shown)
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


async def _next(receive: Receive) -> Message:
    """The next part of a request; Refused where it does not come."""
    try:
        return await asyncio.wait_for(receive(), SILENCE)
    except asyncio.TimeoutError:
        raise Refused(408, "nothing came for a while") from None


def _length(scope: Message) -> int:
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    return int(stated) if stated.isdigit() else 0


def _connections() -> int:
    """How many files and connections this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource else 0
    return soft if soft > 0 else CONNECTIONS


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
