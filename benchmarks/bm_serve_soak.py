"""`crfrnn serve` while somebody asks for far too much: what an ordinary visitor sees of it, and what it leaves behind.

`python -m benchmarks.bm_serve_soak --out benchmarks/results/serve_soak.md docs/serve.md`. The server is a process of
its own with its defaults. Whoever asks too much comes from 127.0.0.2. One ordinary visitor, from 127.0.0.1, has a
result from before and goes on looking at it; others come with a photo each, from 127.0.1.1 and so on.
"""

import argparse
import io
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from skimage import data

from benchmarks.bm_serve import resident
from benchmarks.inputs import machine
from tests.support.session import Session

MUCH, ORDINARY = "127.0.0.2", "127.0.0.1"
PHOTOS, BROKEN, SESSIONS, PLAYERS = 500, 50, 600, 8
VISITS = 7  # of the ordinary visitor, before and after
AT_ONCE = 40  # photos under way from the one address
PAUSE = 3.0  # seconds between the ordinary visitor's photos
MARKS = "<!-- soak -->", "<!-- end of soak -->"


def photo(number: int) -> bytes:
    """A JPEG of 1000 x 750 pixels that no other number has."""
    file, shift = io.BytesIO(), (number % 400, number // 400)
    Image.fromarray(np.roll(data.coffee(), shift, axis=(0, 1))).resize((1000, 750)).save(file, "jpeg")
    return file.getvalue()


def visit(session: Session, functions: dict[str, int], number: int) -> tuple[float, str]:
    """Upload a photo and wait for its labels: seconds, and the key of the result."""
    file, start = photo(number), time.perf_counter()
    key = session.do(functions["segment_1"], session.upload(file), "en", "")[0]
    return time.perf_counter() - start, key


def ordinary_visit(address: str, functions: dict[str, int], number: int) -> float:
    """The same for somebody who comes once: seconds."""
    return visit(Session(address, f"127.0.1.{number % 250 + 1}"), functions, number)[0]


def break_off(address: str) -> None:
    """Promise 900 kB, send two thirds of them and hang up."""
    where = urlsplit(address)
    with socket.create_connection((where.hostname or "", where.port or 0), source_address=(MUCH, 0)) as connection:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        head += '--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
        connection.sendall(head.encode() + bytes(600_000))


class Measured:
    """Memory of the server and bytes in its folder, now and at most, in megabytes."""

    def __init__(self, pid: int, folder: Path):
        self.pid, self.folder, self.peak, self.over = pid, folder, 0.0, False
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def memory(self) -> float:
        return resident(self.pid)

    def disk(self) -> float:
        sizes = [0]
        for path in self.folder.rglob("*"):
            try:
                sizes.append(path.lstat().st_size)
            except OSError:  # deleted in the meantime
                continue
        return sum(sizes) / 1e6

    def _look(self) -> None:
        while not self.over:
            self.peak = max(self.peak, self.disk())
            time.sleep(1)

    def end(self) -> None:
        self.over = True
        self._watch.join()


def too_much(address: str, functions: dict[str, int], share: float, outcomes: Counter[str]) -> None:
    """All at once, from one address; what came of each request is counted."""
    over = threading.Event()

    def counted(what: str, work: Callable[[], object]) -> None:
        try:
            work()
            outcomes[f"{what}: done"] += 1
        except Exception as error:  # whatever is said
            outcomes[f"{what}: {str(error) or type(error).__name__}"] += 1

    def play() -> None:
        session = Session(address, MUCH)
        _, key = visit(session, functions, 0)
        while not over.is_set():
            counted("plays", lambda: session.do(functions["play"], key, "en"))

    def one_photo(number: int) -> None:
        counted("photos", lambda: visit(Session(address, MUCH), functions, number))

    def one_session(_: int) -> None:
        session = Session(address, MUCH)
        counted("sessions", lambda: session.join(functions["translate"], "en", ""))

    players = [threading.Thread(target=counted, args=("players", play)) for _ in range(PLAYERS)]
    for player in players:
        player.start()
    with ThreadPoolExecutor(AT_ONCE) as photos, ThreadPoolExecutor(4) as others:
        photos.map(one_photo, range(1, int(PHOTOS * share) + 1))
        work = [lambda: counted("broken-off uploads", lambda: break_off(address))] * int(BROKEN * share)
        work += [lambda: one_session(0)] * int(SESSIONS * share)
        random.Random(0).shuffle(work)
        for one in work:
            others.submit(one)
    over.set()
    for player in players:
        player.join()


def soak(share: float) -> list[str]:
    """The rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "crfrnn", "serve", "--port", "0"]
        environment = os.environ | {"TMPDIR": folder}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split(" on ")[1].split()[0]
            ordinary = Session(address, ORDINARY)
            functions = ordinary.functions()
            _, first = visit(ordinary, functions, 10_000)  # the first one compiles and loads
            before = []
            for number in range(VISITS):
                before.append(ordinary_visit(address, functions, 10_001 + number))
                ordinary.do(functions["scrub"], first, 3, "en")  # raises where the result is gone
            measured = Measured(server.pid, Path(folder))
            memory, disk = [measured.memory()], [measured.disk()]
            meanwhile: list[float] = []
            refused: list[str] = []
            outcomes: Counter[str] = Counter()
            with ThreadPoolExecutor(1) as pool:
                abuse = pool.submit(too_much, address, functions, share, outcomes)
                while not abuse.done():
                    try:
                        meanwhile.append(ordinary_visit(address, functions, 20_000 + len(meanwhile)))
                    except RuntimeError as error:
                        refused.append(str(error))
                    ordinary.do(functions["scrub"], first, 3, "en")
                    print(f"{dict(outcomes)}; {meanwhile[-1:]} s", file=sys.stderr, flush=True)
                    time.sleep(PAUSE)
                abuse.result()
            time.sleep(10)
            after = [ordinary_visit(address, functions, 30_001 + number) for number in range(VISITS)]
            measured.end()
            memory += [resident(server.pid, "VmHWM"), measured.memory()]
            disk += [measured.peak, measured.disk()]
            uploads = len(list(Path(folder).glob("crfrnn-serve-*/tmp*")))
            server.terminate()
            server.wait(60)
            left = len(list(Path(folder).glob("crfrnn-serve-*")))
    return list(_rows(before, meanwhile, after, refused, outcomes, memory, disk, uploads, left))


def _rows(before, meanwhile, after, refused, outcomes: Counter[str], memory, disk, uploads: int, left: int):
    yield "| of a visitor who asks too much | |"
    yield "|---|---|"
    for outcome, count in sorted(outcomes.items()):
        yield f"| {outcome} | {count} |"
    yield ""
    yield "| of an ordinary visitor | before | meanwhile | after |"
    yield "|---|---|---|---|"
    times = [[f"{value:.1f}" for value in (statistics.median(many), max(many))] for many in (before, meanwhile, after)]
    yield f"| a photo, seconds: median | {' | '.join(median for median, _ in times)} |"
    yield f"| at most | {' | '.join(most for _, most in times)} |"
    yield f"| photos answered, and refused | {len(before)}, 0 | {len(meanwhile)}, {len(refused)} | {len(after)}, 0 |"
    yield "| the first result | there | there | there |"
    yield ""
    yield "| of the server | before | at the peak | after |"
    yield "|---|---|---|---|"
    yield f"| memory, MB | {' | '.join(f'{value:.0f}' for value in memory)} |"
    yield f"| files, MB | {' | '.join(f'{value:.0f}' for value in disk)} |"
    yield f"| left of broken-off uploads | 0 | | {uploads} |"
    yield f"| folders after SIGTERM | | | {left} |"
    ratio = statistics.median(after) / statistics.median(before)
    yield ""
    bar = "no more" if ratio <= 2 else "MORE"
    yield f"After it a photo takes {ratio:.2f} times as long as before: {bar} than twice."


def main() -> None:
    parser = argparse.ArgumentParser(description="The soak of crfrnn serve.")
    parser.add_argument("--out", type=Path, nargs="*", default=[], help=f"files with {MARKS[0]} and {MARKS[1]}")
    parser.add_argument("--share", type=float, default=1.0, help="of the requests")
    parser.add_argument("--note", nargs="*", default=[], help="sentences about the machine: what else runs there")
    options = parser.parse_args()
    counts = [int(options.share * count) for count in (PHOTOS, BROKEN, SESSIONS)]
    asked = "{} photos, {} broken-off uploads, {} sessions".format(*counts)
    head = f"`python -m benchmarks.bm_serve_soak`: {asked}, {PLAYERS} players at once."
    text = "\n".join([" ".join([head, f"{machine()}, {date.today()}.", *options.note]), "", *soak(options.share)])
    print(text, flush=True)
    for path in options.out:
        old = path.read_text() if path.exists() else f"# Soak of the page's server\n\n{MARKS[0]}\n{MARKS[1]}\n"
        pattern = f"{MARKS[0]}.*{MARKS[1]}"
        path.write_text(re.sub(pattern, lambda _: f"{MARKS[0]}\n\n{text}\n\n{MARKS[1]}", old, flags=re.DOTALL))


if __name__ == "__main__":
    main()
