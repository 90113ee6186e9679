"""`crfrnn serve`: a page on which anybody can try the package, on this machine or for others."""

import ctypes
import importlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from crfrnn.commands.segment.licence import say_licence
from crfrnn.commands.segment.stroke_features import MODEL as FEATURES
from crfrnn.networks.models import MODELS, load_model
from crfrnn.web.expiry import CHECKS, expiring, hanging_up, watched
from crfrnn.web.gate import SILENCE, Gate
from crfrnn.web.limits import MEGA
from crfrnn.web.options import ServeOptions
from crfrnn.web.studio import Studio

SESSIONS = 100  # of Gradio's, 0.1 MB each, which hold nothing: a visitor's key is in the browser, see `components`
M_MMAP_THRESHOLD, LARGE = -3, 4 * 2**20  # of glibc's malloc.h; bytes from which an array goes back to the system
ENDS = ("SIGTERM", "SIGHUP")  # signals that stop the server as Ctrl-C does


def serve(options: ServeOptions) -> None:
    """Serve the page until Ctrl-C, or one of the signals that end a process."""
    network, name = load_model(options.model)
    ours = [name] if options.model is None or options.model in MODELS else []
    for model in dict.fromkeys([*ours, FEATURES]):  # of photos, and of strokes
        say_licence(model)
    studio = Studio(network, name, options.limits)
    folder = Path(tempfile.mkdtemp(prefix="crfrnn-serve-")).resolve()
    try:
        _stop_on_signals()
        blocks, address = launch(studio, folder, host=options.host, port=options.port, share=options.share)
        with suppress(KeyboardInterrupt):  # from the first word on
            print(f"serving {name} on {address} (Ctrl-C stops it)", flush=True)
            if options.share:
                print(f"and for everybody on {blocks.share_url}", flush=True)
            blocks.block_thread()
        blocks.close(verbose=False)
        print("stopped; the visitors' files are deleted")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stop_on_signals() -> None:
    """As Ctrl-C: the visitors' files are deleted."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")

    if threading.current_thread() is threading.main_thread():  # only there can signals be handled
        for name in ENDS:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stop)


def launch(studio: Studio, folder: Path, *, host: str = "127.0.0.1", port: int = 0, share: bool = False) -> Any:
    """Start the server in threads of its own: (the `gr.Blocks`, its address). `folder` takes the visitors' files.

    Raises ValueError where Gradio is missing or the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(
        10**12
    )  # events, after each of which it counts the last 10,000
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    _give_memory_back()
    torch.set_num_threads(1)  # requests are the threads; more of them would wait for each other
    page, layout, middleware = (
        _load(name) for name in ("crfrnn.web.page", "crfrnn.web.layout", "starlette.middleware")
    )
    blocks = page.build_page(studio, folder)
    age = 60 * studio.limits.minutes * (1 + 1 / CHECKS)  # Gradio deletes first what it knows, and forgets it then

    def connections() -> list[Any]:
        server = getattr(blocks, "server", None)  # there is one as soon as it is launched
        return [] if server is None else list(server.server_state.connections)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port or _free_port(host),
                share=share,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=["api"],
                max_file_size=studio.limits.upload_megabytes * MEGA,
                state_session_capacity=SESSIONS,
                theme=layout.THEME,
                css=layout.CSS,
                app_kwargs={
                    "lifespan": watched(expiring(folder, age), hanging_up(connections, SILENCE)),
                    "middleware": [middleware.Middleware(Gate, folder=folder, limits=studio.limits)],
                    "docs_url": None,
                    "redoc_url": None,
                },
            )
    except OSError as error:
        raise ValueError(f"port: {port} cannot be used on {host} ({error}); try --port 0") from None
    return blocks, address


def _give_memory_back() -> None:
    """glibc otherwise learns from the first large array to keep what is freed, for each thread anew: 0.9 GB of 2.4."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _load(name: str) -> Any:
    """A module that needs Gradio, which takes seconds to import and is wanted by this verb alone."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("crfrnn"):
            raise
        raise ValueError(f"the page needs {error.name}: pip install 'crfrnn[demo]'") from None
