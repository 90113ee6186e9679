"""To a cluster of Ray, or to one of this machine that lives as long as the command; refusals are one line."""

import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crfrnn.commands.cluster.places import SECONDS, Place
from crfrnn.commands.errors import UsageError
from crfrnn.commands.shards import ADDRESS, LOGS
from crfrnn.runtime.loading import load
from crfrnn.runtime.threads import cores


def load_ray() -> Any:
    """The module; UsageError where it is not installed."""
    try:
        load("ray.data", "Dataset")
    except ModuleNotFoundError as error:
        raise UsageError(f"ray: needs Ray ({error}); pip install 'crfrnn[ray]'") from None
    return sys.modules["ray"]


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to `local` (a new one on this machine), `auto` (the one that runs here) or HOST:PORT.

    Where the process is connected already, that cluster is used, and left as it is.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    if address != "local":
        _check_answers(address)
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of what is said here; a worker's log tells all the same
    ended = signal.getsignal(signal.SIGTERM)
    try:
        if address == "local":
            os.environ.setdefault("RAY_worker_niceness", "0")  # as the command itself, and not Ray's 15
            options |= {"include_dashboard": False, "num_cpus": cores()}
        with _unprinted():
            ray.init(address=address, **options)
    except (Exception, SystemExit) as error:
        raise ValueError(_refused(address, str(error))) from None
    try:
        yield ray
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():  # Ray leaves a handler of its own behind
            signal.signal(signal.SIGTERM, ended)


@contextmanager
def _unprinted() -> Iterator[None]:
    """Without what the libraries of a process print to stderr by themselves; exceptions say what goes wrong."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _refused(address: str, text: str) -> str:
    """One line for what Ray says in several."""
    versions = re.findall(r"(Ray|Python): *([\w.]+)", text)
    if "ersion mismatch" in text and len(versions) >= 4:
        there, here = versions[:2], versions[2:4]
        words = [", ".join(f"{name} {version}" for name, version in side) for side in (there, here)]
        return f"ray: the cluster at {address} has {words[0]}, and here is {words[1]}; install the same ones"
    return f"ray: cannot connect to {address} ({' '.join(text.split())})"


def _check_answers(address: str) -> None:
    """ValueError where no cluster answers, within `SECONDS`.

    A process of its own asks: the client of Ray ends the process that waits for an address in vain.
    """
    refusal = (
        f"ray: no cluster answers at {address} within {SECONDS} s; is its head running, and is the port the right one?"
    )
    until = time.monotonic() + SECONDS
    if match := re.fullmatch(ADDRESS, address):
        try:
            socket.create_connection((match[1], int(match[2])), timeout=SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ValueError(f"{refusal} ({error})") from None
        if address.startswith("ray://"):
            return
    where = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
    try:
        left = until - time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(refusal) from None
    if "Could not find any running Ray instance" in done.stderr:
        raise ValueError("ray: no cluster runs here that auto could find; start one, or say its address, or local")
    if done.returncode and "ersion" not in done.stderr:
        raise ValueError(refusal)


def check_seen(ray: Any, read: Sequence[Place], written: Sequence[Place]) -> None:
    """ValueError where a machine of the cluster does not see a local folder that is read or written."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    name = f"{secrets.token_hex(4)}.seen"
    markers = [place.local / LOGS / name for place in written if place.local is not None]
    paths = [str(place.local) for place in read if place.local is not None] + [str(marker) for marker in markers]
    if len(nodes) < 2 or not paths:
        return
    for marker in markers:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    try:
        for node, answer in _answers(ray, nodes, unseen, paths):
            check_look(node, answer)
    finally:
        for marker in markers:
            marker.unlink(missing_ok=True)
            with suppress(OSError):  # it has logs of shards in it
                marker.parent.rmdir()


def check_gpus(ray: Any, gpus: float) -> None:
    """ValueError where workers that ask for so many GPUs would find none."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus]
    for node, sees in _answers(ray, nodes, _sees_gpu, num_gpus=gpus):
        if not sees:
            raise ValueError(
                f"ray-gpus: Ray counts GPUs on {node}, and torch there can use none; is it a torch for CUDA?"
            )


def _sees_gpu() -> bool:
    return load("torch.cuda", "is_available")()


def _answers(
    ray: Any, nodes: Sequence[Any], ask: Callable[..., Any], *arguments: Any, num_gpus: float = 0
) -> Iterator[tuple[str, Any]]:
    """What a function returns on each machine, all of which are asked at once, by their addresses."""
    strategy = load("ray.util.scheduling_strategies", "NodeAffinitySchedulingStrategy")
    task = ray.remote(num_cpus=0, num_gpus=num_gpus, max_retries=2)(ask)
    asked = [
        task.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(*arguments) for node in nodes
    ]
    return zip((node["NodeManagerAddress"] for node in nodes), map(ray.get, asked), strict=True)


def unseen(paths: Sequence[str]) -> list[str]:
    """Those that are not there, on the machine that is asked."""
    return [path for path in paths if not Path(path).exists()]


def check_look(node: str, paths: Sequence[str]) -> None:
    """ValueError where a machine does not see these."""
    if paths:
        folder = re.sub(rf"/{re.escape(LOGS)}/.*", "", paths[0])
        raise ValueError(
            f"ray: {folder} is not seen by {node}; give a folder on a file system that all machines share, or an URL"
        )
