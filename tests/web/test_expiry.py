"""Files of visitors go at their age, whoever wrote them and however the upload ended."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from crfrnn.web.expiry import expire
from tests.support.places import ROOT
from tests.support.server import missing, status


def test_what_expires(tmp_path):
    own = tmp_path / "cat.jpg"
    own.touch()
    for name in ("tmp1", "downloads-a/labels.png", "0f/1e/drawing"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    before = set(tmp_path.rglob("*"))
    expire(tmp_path, frozenset([own]), seconds=60)
    assert set(tmp_path.rglob("*")) == before
    expire(tmp_path, frozenset([own]), seconds=-1)
    assert list(tmp_path.rglob("*")) == [own]


SHORT_LIVED = """from crfrnn.web.limits import Limits
from tests.support.server import serving
limits = Limits(pixels=6000, upload_megabytes=1, minutes=0.05)
with serving(limits) as (address, _, folder):
    print(address, folder, flush=True)
    input()"""
FILE = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_nothing_of_an_upload_stays_for_ever(tmp_path):
    command, places = [sys.executable, "-c", SHORT_LIVED], {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | places, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address, path = process.stdout.readline().split()
            folder = Path(path)
            own = set(folder.rglob("*"))
            for _ in range(3):
                break_off(address)
            until(lambda: set(folder.rglob("*")) == own)
            assert upload(address) == 200
            assert set(folder.rglob("*")) > own
            until(lambda: set(folder.rglob("*")) == own)
            assert list(tmp_path.iterdir()) == [folder]
            process.communicate("\n", timeout=60)
        finally:
            process.kill()
    assert not folder.exists()


def break_off(address: str) -> None:
    """Promise 900 kB, send two thirds of them and hang up."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Content-Length", "900000")
    connection.endheaders(FILE + b"x" * 600_000)
    connection.close()


def upload(address: str) -> int:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    return status(f"{address}/gradio_api/upload", FILE + b"whole\r\n--b--\r\n", **kind)[0]


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
