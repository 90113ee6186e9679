"""`crfrnn serve`: how long a visitor waits, and what a hundred requests at once do to it.

`python -m benchmarks.bm_serve --out docs/serve.md`. The server is a process of its own, its memory is read from /proc;
latencies are of the same code without a network in between (`Studio`), on 500 x 375 pixels.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import torch
from gradio_client import Client, handle_file
from PIL import Image
from skimage import data

from benchmarks.inputs import machine
from crfrnn.networks.models import load_model
from crfrnn.web.limits import Limits
from crfrnn.web.samples import BRUSHES, write_samples
from crfrnn.web.studio import Studio

SIZE = (500, 375)  # (width, height)
ROUNDS = 3
REQUESTS = 100


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median wall-clock time."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def latencies(folder: Path) -> list[tuple[str, float]]:
    """What a visitor does, and the seconds it takes."""
    torch.set_num_threads(1)  # as the server does
    network, name = load_model()
    studio = Studio(network, name, Limits(at_once=1))
    samples = write_samples(folder, studio.classes())
    photo = folder / "photo.png"
    Image.fromarray(data.coffee()).resize(SIZE).save(photo)
    strokes = folder / "strokes.png"
    layer = Image.new("RGBA", SIZE)
    for brush, box in zip(BRUSHES.values(), ((200, 60, 330, 70), (10, 10, 20, 200)), strict=False):
        layer.paste((*brush, 255), box)
    layer.save(strokes)
    key = studio.segment(str(photo), "en").key
    settings = vars(studio.workspaces.find(key).settings)
    weights, bandwidths = iter(range(1, 100)), iter(range(1, 100))
    rows = [
        ("photo: network, lattice, 10 iterations, overlays", lambda: studio.segment(str(photo), "en")),
        ("another iteration t", lambda: studio.view(key, 4, "en")),
        ("a weight moved", lambda: _change(studio, key, settings, "bilateral_weight", next(weights) / 10)),
        (
            "a bandwidth moved, 21 classes",
            lambda: _change(studio, key, settings, "theta_beta", 8 + next(bandwidths) / 4),
        ),
        ("preset crfrnn (theta_beta 3)", lambda: (_forget(studio, key), studio.start_from(key, "crfrnn", "en"))),
        ("a further stroke", lambda: studio.learn(str(photo), str(strokes), [""] * 6, "en")),
        ("rough label map refined (451 x 300)", lambda: studio.refine(str(samples.cat), str(samples.rough), "en")),
        ("files to download", lambda: studio.files(key, folder)),
    ]
    return [(what, seconds(work)) for what, work in rows]


def _change(studio: Studio, key: str, settings: dict, name: str, value: float) -> None:
    studio.change(key, settings | {name: value}, "learned", "en")


def _forget(studio: Studio, key: str) -> None:
    studio.workspaces.find(key).exploration.forget()


def resident(pid: int, field: str = "VmRSS") -> float:
    """Megabytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"{field}:\s+(\d+)", text)[0]) / 1024


def load(folder: Path) -> list[str]:
    """A hundred visitors press the button at once, each with a photo of its own; then one comes alone."""
    command = [sys.executable, "-m", "crfrnn", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split(" on ")[1].split()[0]
        with ThreadPoolExecutor(4) as pool:
            clients = list(pool.map(lambda _: Client(address, verbose=False), range(REQUESTS)))
        photos = []
        for number in range(REQUESTS):
            photo = np.roll(data.coffee(), 3 * number, axis=1)
            photos.append(folder / f"{number}.jpg")
            Image.fromarray(photo).resize((1000, 750)).save(photos[-1])
        clients[0].predict(handle_file(str(photos[0])), api_name="/segment")
        before = resident(server.pid)

        def visit(number: int) -> tuple[str, float]:
            start = time.perf_counter()
            try:
                clients[number].predict(handle_file(str(photos[number])), api_name="/segment")
                outcome = "answered"
            except Exception as error:  # whatever a visitor is told
                outcome = "sent away: " + re.split(r"[.!]| for url ", str(error))[0][:60]
            return outcome, time.perf_counter() - start

        with ThreadPoolExecutor(REQUESTS) as pool:
            visits = list(pool.map(visit, range(REQUESTS)))
        peak, after = resident(server.pid, "VmHWM"), resident(server.pid)
        again = [visit(number) for number in range(3)]
        alive = server.poll() is None and all(outcome == "answered" for outcome, _ in again)
        server.send_signal(2)
        server.wait(60)
    rows = ["| of 100 requests at once | |", "|---|---|"]
    for outcome, count in Counter(outcome for outcome, _ in visits).items():
        times = sorted(taken for other, taken in visits if other == outcome)
        rows.append(
            f"| {outcome} | {count}, after {times[len(times) // 2]:.1f} s (median), at most {times[-1]:.1f} s |"
        )
    rows.append(f"| memory before, at the peak, after | {before:.0f}, {peak:.0f}, {after:.0f} MB |")
    stopped = "yes" if alive and server.returncode == 0 else "NO"
    rows.append(f"| answers the next three visitors, then stops on Ctrl-C | {stopped} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="The latency table and the load test of crfrnn serve.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", nargs="*", default=[], help="sentences about the machine: what else runs there")
    options = parser.parse_args()
    where = " ".join([f"{machine()}, {date.today()}.", *options.note])
    parts = [f"`python -m benchmarks.bm_serve`. {where} Medians of {ROUNDS}."]
    print(parts[0], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = ["| 500 x 375 | seconds |", "|---|---|"]
        rows += [f"| {what} | {taken:.2f} |" for what, taken in latencies(Path(folder))]
        parts.append("\n".join(rows))
        print(f"\n{parts[-1]}", flush=True)
        parts.append("\n".join(load(Path(folder))))
        print(f"\n{parts[-1]}", flush=True)
    text = "\n\n".join(parts)
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0]
        options.out.write_text(f"{head}<!-- table -->\n\n{text}\n")


if __name__ == "__main__":
    main()
