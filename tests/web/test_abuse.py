"""Visitors who mean no good, or whose connection is bad: with harmless requests and short limits."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from crfrnn.web import gate, serve
from crfrnn.web.expiry import clear_uploads, hanging_up
from crfrnn.web.gate import Gate, Refused, alias
from crfrnn.web.limits import Limits
from crfrnn.web.workspaces import Drawings, Workspaces
from tests.support.server import missing, serving, status
from tests.web.test_expiry import break_off, until, upload

with_gradio = pytest.mark.skipif(bool(missing()), reason=missing() or "-")
JSON = {"content-type": "application/json"}
FOLDER = Path("/tmp/crfrnn-serve-ab12")
GATE = Gate(lambda *_: None, FOLDER, Limits())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple]:
    if missing():
        pytest.skip(missing())
    short = pytest.MonkeyPatch()
    short.setattr(serve, "SILENCE", 1.0)
    short.setattr(gate, "SILENCE", 1.0)
    with serving(Limits(pixels=6000, upload_megabytes=1)) as running:
        yield running
    short.undo()


class TestFiles:
    def test_names_of_files_are_those_of_the_server_and_texts_stay_as_they_are(self):
        shown = alias(FOLDER)
        sent = {"data": [{"path": f"{shown}/a/cat.jpg", "url": f"{shown}/x"}, f"a class called {shown}", 3, None]}
        expected = {"data": [{"path": f"{FOLDER}/a/cat.jpg", "url": f"{shown}/x"}, f"a class called {shown}", 3, None]}
        assert GATE._translated(sent) == expected

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "https://example.com/a.png", str(FOLDER), f"{FOLDER}/../a", f"{FOLDER}x/a", "a", "../a"]
    )
    def test_only_what_lies_in_the_folder_is_a_visitors_file(self, path):
        for value in ({"path": path}, {"a": [[{"path": path, "meta": {}}]]}):
            with pytest.raises(Refused):
                GATE._translated(value)

    def test_the_server_asks_no_other_host(self, server, monkeypatch):
        address, _, _ = server
        asked, usual = [], socket.getaddrinfo

        def recorded(host, *rest, **more):
            asked.append(host)
            return usual(host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", recorded)
        for path in ("https://crfrnn.invalid/a.png", "http://crfrnn.invalid/a.png", "/etc/passwd"):
            assert status(f"{address}/gradio_api/file={path}")[0] == 403
            for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
                body = json.dumps({"data": [{"path": path, **meta}]}).encode()
                assert status(f"{address}/gradio_api/call/segment", body, **JSON)[0] == 403
                body = json.dumps({"data": [{"path": path, **meta}], "fn_index": 3, "session_hash": "a"}).encode()
                assert status(f"{address}/gradio_api/queue/join", body, **JSON)[0] == 403
        assert set(asked) <= {urlsplit(address).hostname}

    def test_nobody_passes_by_the_queue(self, server):
        address = server[0]
        functions = json.loads(status(f"{address}/config")[1])["dependencies"]
        queued = [number for number, function in enumerate(functions) if function["queue"] is not False]
        assert len(queued) > 10
        for number in queued:
            body = json.dumps({"data": [], "fn_index": number, "session_hash": "a"}).encode()
            code, answer, _ = status(f"{address}/gradio_api/run/predict", body, **JSON)
            assert (code, b"join the queue" in answer) == (404, True)

    def test_bodies_that_are_no_json(self, server):
        for body in (b"{", b"\xff", 100_000 * b"["):
            assert status(f"{server[0]}/gradio_api/queue/join", body, **JSON)[0] == 400


class TestUploads:
    def test_what_was_broken_off_is_deleted_at_once(self, server):
        address, _, folder = server
        for _ in range(5):
            break_off(address)
        until(lambda: not list(folder.glob("tmp*")), seconds=20)
        assert upload(address) == 200

    @pytest.mark.parametrize("broken_off", [True, False], ids=["broken off", "whole"])
    def test_only_what_is_broken_off_is_no_error_of_the_servers(self, tmp_path, broken_off):
        async def app(scope, receive, send):
            while (await receive())["type"] != "http.disconnect" and broken_off:
                pass
            raise OSError("what an application makes of it")

        sent = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return sent.pop(0)

        async def send(_):
            pass

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": [], "client": None}
        call = Gate(app, tmp_path, Limits())(scope, receive, send)
        if broken_off:
            asyncio.run(call)
        else:
            with pytest.raises(OSError, match="makes of it"):
                asyncio.run(call)

    def test_what_is_being_written_stays(self, tmp_path):
        for name in ("tmp1", "tmp2", "cat.jpg"):
            (tmp_path / name).touch()
        clear_uploads(tmp_path, before=(tmp_path / "tmp1").stat().st_ctime - 60)  # of an upload that began before
        assert len(list(tmp_path.iterdir())) == 3
        clear_uploads(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["cat.jpg"]

    def test_the_clock_of_the_file_system_ticks(self, tmp_path, monkeypatch):
        """A file is a little older than the upload that writes it, and stays all the same when another one ends."""
        monkeypatch.setattr(gate, "time", SimpleNamespace(time=lambda: time.time() + 0.25 * gate.TICK))

        async def uploads() -> bool:
            begun, other = asyncio.Event(), asyncio.Event()

            async def app(scope, receive, send):
                if scope["query_string"] == b"slow":
                    (tmp_path / "tmp1").touch()
                    begun.set()
                    await other.wait()

            async def nothing(*_):
                return {"type": "http.request", "body": b""}

            scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": []}
            through: Any = Gate(app, tmp_path, Limits())
            slow = asyncio.create_task(through({**scope, "query_string": b"slow"}, nothing, nothing))
            await begun.wait()
            await through({**scope, "query_string": b"quick"}, nothing, nothing)
            await asyncio.sleep(4 * gate.TICK)
            stays = (tmp_path / "tmp1").exists()
            other.set()
            await slow
            await asyncio.sleep(4 * gate.TICK)
            return stays

        assert asyncio.run(uploads())
        assert not (tmp_path / "tmp1").exists()  # its own upload has ended without it


class TestSilence:
    def test_connections_that_say_nothing_are_closed(self, server):
        address = urlsplit(server[0])
        for beginning in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX: "):
            with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
                connection.sendall(beginning)
                assert connection.recv(1) == b""

    def test_requests_that_stop_in_the_middle_are_closed(self, server):
        for place in ("queue/join", "upload"):
            connection = http.client.HTTPConnection(urlsplit(server[0]).netloc, timeout=30)
            connection.putrequest("POST", f"/gradio_api/{place}")
            connection.putheader("Content-Type", "multipart/form-data; boundary=b")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"--b")
            assert connection.getresponse().status == 408
            connection.close()

    def test_others_stay(self):
        closed = []
        ours = [
            SimpleNamespace(cycle=cycle, transport=SimpleNamespace(close=lambda name=name: closed.append(name)))
            for name, cycle in (("silent", None), ("at work", object()))
        ]
        hashable = [type("Protocol", (), vars(one))() for one in ours]

        async def run() -> None:
            watch = asyncio.create_task(hanging_up(lambda: hashable, 0.05)())
            while not closed:
                await asyncio.sleep(0.01)
            watch.cancel()

        asyncio.run(run())
        assert set(closed) == {"silent"}


class TestMemory:
    def test_drawings_are_bounded_and_the_oldest_go_first(self):
        drawings = Drawings(most=100_000)
        for number in "abcd":
            drawings.put(number, "layer", bytes(30_000))
        assert drawings.nbytes <= 100_000
        assert [bool(drawings.take(number)) for number in "abcd"] == [False, True, True, True]
        assert drawings.nbytes == 0
        drawings.put("e", "layer", bytes(1_000_000))
        assert drawings.take("e") == {}

    def test_they_count_among_the_pictures(self):
        workspaces = Workspaces(megabytes=1)
        workspaces.beside = lambda: 700
        assert workspaces.nbytes == 700

    @with_gradio
    def test_what_is_there_is_played_in_no_place_of_those_that_compute(self, server):
        from crfrnn.web.page import build_page

        _, studio, folder = server
        blocks = build_page(studio, folder)
        places = {fn.name: fn.concurrency_id for fn in blocks.fns.values()}
        assert places["play"] == "play"
        assert places["segment"] == places["learn"] == "crf"

    @with_gradio
    def test_a_visitors_key_is_in_the_browser(self, server):
        """Gradio remembers so many sessions, and anybody can make some up."""
        from crfrnn.web.page import build_page

        page = build_page(server[1], server[2])
        assert not any(type(block).__name__ == "State" for block in page.blocks.values())
