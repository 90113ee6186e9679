"""`crfrnn refine --ray` under what happens to clusters: workers and nodes that die, many names, an object store.

`python -m benchmarks.bm_cluster faults`: three nodes of Ray on this machine; a worker is killed when a quarter of the
images is done, a node when half is. `overhead --data PATH_TO/voc2012`: `--ray local` against the plain command.
`names`: the memory of the command with so many made-up names and no work. `s3` and `gs`: photos, predictions and
results in a local server of an object store (`pip install s3fs 'moto[server]'`, `pip install gcsfs
gcp-storage-emulator`). Nothing leaves the machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
from PIL import Image

from benchmarks.inputs import machine
from crfrnn.commands.cluster.connect import connected
from crfrnn.commands.cluster.folders import logged
from crfrnn.commands.cluster.images import Image as Row
from crfrnn.commands.cluster.images import Pairs, Results
from crfrnn.commands.cluster.names import Names
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.run import Todo, run_images, workers_of
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.shards import Sharing
from crfrnn.data.kinds import Photograph
from tests.support.places import ROOT

SMALL, LABELS = (40, 50), 5
STORED = ("probabilities", "p"), ("out", "out")  # options and folders


def command(*arguments: str) -> list[str]:
    """`crfrnn refine` of photos/ with the predictions in p/."""
    return [sys.executable, "-m", "crfrnn", "refine", "photos", "--probabilities=p", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def timed(folder: Path, *arguments: str, **more: str) -> tuple[float, str]:
    """Seconds and the first line of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(
        command(*arguments), cwd=folder, env=environment(**more), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stdout}{done.stderr}")
    return time.perf_counter() - start, done.stdout.splitlines()[0]


def make_small(folder: Path, images: int) -> None:
    numbers = np.random.default_rng(0)
    for name in ("photos", "p"):
        (folder / name).mkdir()
    for number in range(images):
        pixels = numbers.integers(0, 256, (*SMALL, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{number:05d}.png")
        p = numbers.dirichlet(np.ones(LABELS), SMALL).transpose(2, 0, 1)
        np.save(folder / f"p/{number:05d}.npy", p.astype(np.float16))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def wait_for(folder: Path, images: int, process: subprocess.Popen) -> int:
    """Wait until so many results are there."""
    while (there := len(list(folder.glob("*.png")))) < images:
        if process.poll() is not None:
            raise SystemExit(f"it ended with {there} of {images}: {process.returncode}")
        time.sleep(0.05)
    return there


def actors(node: Any, name: str) -> list[psutil.Process]:
    """The processes of a node of ours that run this actor."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [child for child in raylet.children(recursive=True) if name in " ".join(child.cmdline())]


def faults(folder: Path, images: int) -> list[str]:
    from ray.cluster_utils import Cluster  # noqa: PLC0415 (an extra)

    make_small(folder, images)
    plain, _ = timed(folder, "--out=plain")
    os.environ["PYTHONPATH"] = str(ROOT)  # of the nodes' workers
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in "12"]
    arguments, out = ["--out=out", f"--ray={cluster.address}"], folder / "out"
    start = time.perf_counter()
    said = folder / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(command(*arguments), cwd=folder, env=environment(), stdout=file, stderr=file)
    lines = []
    there = wait_for(out, images // 4, process)
    # `Attempts` is where the command is attached: on a cluster of several machines that is the command's own
    others = [node for node in nodes if not actors(node, "Attempts")]
    actors(others[-1], "MapWorker")[0].kill()
    lines.append(f"- with {there} results: a worker killed (of {len(nodes) + 1})")
    there = wait_for(out, images // 2, process)
    cluster.remove_node(others[0], allow_graceful=False)
    lines.append(f"- with {there} results: a node killed (of {len(nodes) + 1})")
    process.wait()
    lines_said = [line for line in said.read_text().splitlines() if "raylet" not in line]
    seconds = time.perf_counter() - start
    equal = contents(out) == contents(folder / "plain")
    lines.append(
        f"- exit status {process.returncode}, {seconds:.0f} s (in one process {plain:.0f} s): {lines_said[-3:]}"
    )
    lines.append(f"- {len(contents(out))} results, equal byte for byte to those of one process: {equal}")
    again, line = timed(folder, *arguments)
    lines.append(f"- a second run: {again:.1f} s, {line}")
    cluster.shutdown()
    return lines


def overhead(folder: Path, images: int, data: Path) -> list[str]:
    from torch import from_numpy  # noqa: PLC0415
    from torch.nn.functional import interpolate  # noqa: PLC0415

    for name in ("photos", "p"):
        (folder / name).mkdir()
    photos = sorted((data / "images").glob("*.jpg"))
    for number in range(images):
        photo = photos[number % len(photos)]
        with Image.open(photo) as image:
            size = image.height, image.width
        with np.load(data / f"unaries/{photo.stem}.npz") as stored:
            logits = from_numpy(-stored["nll16"].astype(np.float32) / 16)[None]
        p = interpolate(logits, size, mode="bilinear", align_corners=True).softmax(1)[0]
        shutil.copy(photo, folder / f"photos/{number:04d}.jpg")
        np.save(folder / f"p/{number:04d}.npy", p.numpy().astype(np.float16))
    lines = ["", "| | seconds, the command | seconds, its own line | images a second |", "|---|---|---|---|"]
    for turn in range(2):
        for name, more in (("plain", []), ("ray", ["--ray=local"])):
            whole, line = timed(folder, f"--out={name}{turn}", *more)
            inside = float(line.split(" images in ")[1].split(" s")[0])
            lines.append(f"| {name}, turn {turn + 1} | {whole:.1f} | {inside:.1f} | {images / inside:.2f} |")
    same = contents(folder / "plain0") == contents(folder / "ray0")
    return [f"{images} photographs of VOC 2012 at their size, 21 labels; equal results: {same}", *lines]


class Nothing(Task):
    """A stub in place of the work."""

    def do(self, image: Row) -> float:
        del image
        return 0.0


class Many(Place):
    """A stub in place of a folder that is listed."""

    def _all(self) -> Iterator[str]:
        _, _, suffix, images = self.url.split("/")
        return (f"{number // 1000:04d}/{number:07d}.{suffix}" for number in range(int(images)))


def names(folder: Path, images: int) -> list[str]:
    process, peak, ended = psutil.Process(), [0, 0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            memory = process.memory_full_info()
            peak[:] = max(peak[0], memory.rss), max(peak[1], memory.uss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    photos, p = (Many(f"many://{suffix}/{images}") for suffix in ("jpg", "npy"))
    out = Place(str(folder / "out"))
    results = Results({"out": out}, Photograph)
    pairs = Pairs(Names(photos.names()).of(Photograph.suffixes), Names(p.names()).of((".npy",)), photos)
    todo = Todo.of(results.left(pairs))
    assert pairs.unused() == 0
    listed, alone = time.perf_counter() - start, process.memory_info().rss
    with connected("local") as ray, logged(results, pairs) as failed:
        task = Nothing(cast("Any", None), [photos], p, results, False)
        tally = run_images(ray, task, todo, "nothing", workers_of(ray, Sharing("local")), failed)
    ended.set()
    watcher.join()
    assert tally.done == images
    row = [f"{images:,}", f"{listed:.0f}", f"{tally.seconds:.0f}"]
    row += [f"{size / 1e6:.0f}" for size in (before, alone, *peak)]
    head = ["names", "s to list", "s to run", "MB before", "MB listed", "MB at most", "without shared memory"]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", f"| {' | '.join(row)} |"]


def s3(folder: Path, images: int) -> list[str]:
    from moto.server import ThreadedMotoServer  # type: ignore[import-not-found]  # noqa: PLC0415

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    always = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    lines = in_store(folder, images, "s3", always, keys)
    server.stop()
    return lines


def gs(folder: Path, images: int) -> list[str]:
    from gcp_storage_emulator.server import create_server  # type: ignore[import-not-found]  # noqa: PLC0415

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    port = server._api._httpd.server_port  # 0 is any that is free
    always = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    lines = in_store(folder, images, "gs", always, {"FSSPEC_GS_TOKEN": "anon"})
    server.stop()
    return lines


def in_store(folder: Path, images: int, protocol: str, always: dict[str, str], keys: dict[str, str]) -> list[str]:
    """Photos, predictions and results in a bucket, by the variables that its client reads; then without the keys."""
    make_small(folder, images)
    timed(folder, "--out=plain")
    os.environ.update(always | keys)
    import fsspec  # noqa: PLC0415

    fs = fsspec.filesystem(protocol)
    fs.mkdir("bucket")
    for name in ("photos", "p"):
        fs.put(f"{folder / name}/", f"bucket/{name}/", recursive=True)
    places = [f"{protocol}://bucket/photos", *(f"--{o}={protocol}://bucket/{n}" for o, n in STORED)]
    arguments = [sys.executable, "-m", "crfrnn", "refine", *places, "--ray=local"]

    def attempt(name: str, without: dict[str, str]) -> str:
        start, variables = time.perf_counter(), {k: v for k, v in environment().items() if k not in without}
        done = subprocess.run(arguments, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        said = (done.stdout or done.stderr).splitlines() or [""]
        return (
            f"- {name}: {time.perf_counter() - start:.1f} s, status {done.returncode}: `{said[0]}`, {len(said)} lines"
        )

    lines = [attempt("first run", {}), attempt("second run", {})]
    fs.invalidate_cache()
    fs.get("bucket/out/", str(folder / "fetched"), recursive=True)
    lines.append(f"- equal to local results: {contents(folder / 'fetched') == contents(folder / 'plain')}")
    fs.rm("bucket/out", recursive=True)
    return [*lines, attempt("without keys", keys)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faults", "overhead", "names", "s3", "gs"))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--data", type=Path, help="voc2012, for overhead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bm-cluster-") as name:
        given = (Path(name), options.images, *([options.data] if options.what == "overhead" else []))
        lines = globals()[options.what](*given)
    print(f"`python -m benchmarks.bm_cluster {options.what} --images {options.images}`. {machine()}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
