"""What all tests share: the markers, Hypothesis' profile, poisoned memory, and the number of threads put back."""

import os
from collections.abc import Callable, Iterator

import hypothesis
import numpy as np
import pytest
import torch

from crfrnn.runtime import layout

MARKERS = {
    "unjitted": "small enough to run again with NUMBA_DISABLE_JIT=1, see tests/runtime/test_without_jit.py",
    "triton": "runs Triton kernels: on a GPU, else in the interpreter, see tests/runtime/test_triton_interpreter.py",
    "slow": "takes long; the quick run leaves it out, -m 'not slow'",
}

WORKER = "PYTEST_XDIST_WORKER" in os.environ  # of pytest-xdist, or a process that one of them started

hypothesis.settings.register_profile("crfrnn", deadline=None, max_examples=25, derandomize=True, database=None)
hypothesis.settings.load_profile("crfrnn")


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if WORKER:  # the workers are the parallelism; what is about threads asks for them
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several workers begin with the files that take long, so that they end together."""
    if WORKER:
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """`torch.set_num_threads`, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and memory that is asked for uninitialised comes filled with NaN (whole numbers: with 1).

    Kernels must have run once before, for the same types: Numba cannot compile a poisoned `numpy.empty`.
    """

    def poisoned(allocate: Callable) -> Callable:
        def allocation(*args, **kwargs):
            memory = allocate(*args, **kwargs)
            if isinstance(memory, torch.Tensor):
                return memory.fill_(float("nan") if memory.is_floating_point() else 1)
            memory.fill(np.nan if memory.dtype.kind == "f" else 1)
            return memory

        return allocation

    def start() -> None:
        for owner in (torch, np):
            for name in ("empty", "empty_like"):
                monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
        for name in ("new_empty",):
            monkeypatch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)))

    return start


@pytest.fixture(params=["one strip", "many strips"])
def strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice, the second time with images of a few pixels divided as those of many are."""
    if request.param == "many strips":
        monkeypatch.setattr(layout, "STRIP", 9)
        monkeypatch.setattr(layout, "POINT_LINE", 4)
