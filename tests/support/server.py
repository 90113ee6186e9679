"""The page for tests: a server in this process, and what drives it, or the reason why there is none."""

import importlib.util
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from crfrnn.networks.models import load_model
from crfrnn.web.limits import Limits
from crfrnn.web.serve import launch
from crfrnn.web.studio import Studio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def missing(browser: bool = False) -> str:
    """Why the page cannot be tested here; empty where it can."""
    for module in ("gradio", "playwright") if browser else ("gradio",):
        if importlib.util.find_spec(module) is None:
            return f"needs {module}"
    return "needs Chromium (apt-get install chromium)" if browser and CHROMIUM is None else ""


@contextmanager
def serving(limits: Limits | None = None) -> Iterator[tuple[str, Studio, Path]]:
    """(address, studio, the folder with the visitors' files) of a server that stops afterwards."""
    threads = torch.get_num_threads()
    folder = Path(tempfile.mkdtemp(prefix="crfrnn-serve-")).resolve()
    network, name = load_model("camvid")  # the faster one
    studio = Studio(network, name, limits or Limits())
    blocks, address = launch(studio, folder)
    try:
        yield address.rstrip("/"), studio, folder
    finally:
        blocks.close(verbose=False)
        shutil.rmtree(folder, ignore_errors=True)
        torch.set_num_threads(threads)


def status(address: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(address, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)
