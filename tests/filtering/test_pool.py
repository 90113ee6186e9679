"""`filtering/memory.py`: blocks return when nobody uses them, and only so many of them are kept."""

import gc
import os
import signal
import threading

import numpy as np
import pytest
import torch

from crfrnn.filtering import memory

SHAPE = (700, 1000)  # 2.8 MB


@pytest.fixture(autouse=True)
def pool(monkeypatch) -> list[np.ndarray]:
    """An empty one."""
    gc.collect()
    waiting: list[np.ndarray] = []
    monkeypatch.setattr(memory, "_waiting", waiting)
    return waiting


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("shape", [(0, 3), (5,), (3, 1, 7), SHAPE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_array(shape, dtype):
    array = memory.empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.size == 0 or address(array) % memory.CACHE_LINE == 0


def test_memory_returns():
    first = memory.empty(SHAPE)
    place = address(first)
    second = memory.empty(SHAPE)
    assert address(second) != place
    del first
    assert address(memory.empty(SHAPE)) == place


@pytest.mark.parametrize("view", [lambda a: a[3:5], lambda a: a.reshape(-1).view(np.int32), torch.from_numpy], ids=str)
def test_a_view_keeps_it(view, pool):
    array = memory.empty(SHAPE)
    part = view(array)
    del array
    assert not pool
    del part
    assert len(pool) == 1


def test_a_smaller_array_fits():
    array = memory.empty(SHAPE)
    place = address(array)
    del array
    other = memory.empty((300, 1000))  # less than half of it: too small for the block
    assert address(other) != place
    assert address(memory.empty((690, 1000))) == place


def test_only_so_much_is_kept(monkeypatch, pool):
    monkeypatch.setattr(memory, "KEPT", 7 << 20)
    arrays = [memory.empty(SHAPE) for _ in range(4)]
    places = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    assert sum(block.size for block in pool) <= 7 << 20
    assert [places.index(address(memory.empty(SHAPE))) >= 2 for _ in range(2)] == [True, True]  # the last ones


def test_small_and_large_ones_are_not_kept(monkeypatch, pool):
    memory.empty((100,))
    monkeypatch.setattr(memory, "LARGEST", 2 << 20)
    memory.empty(SHAPE)
    assert not pool


def test_nobody_waits(pool):
    """While another thread is in the pool, memory is taken from the system and goes back to it."""
    with memory._lock:
        array = memory.empty(SHAPE)
        array[:] = 1
        del array
    assert not pool


def test_threads(pool):
    """No two arrays that are in use share memory."""
    wrong = []

    def work(number: int) -> None:
        for size in range(300, 330):
            array = memory.empty((size, 1000))
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert sum(block.size for block in pool) <= memory.KEPT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_it_is_locked():
    with memory._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends it where it waits
            try:
                memory.empty(SHAPE)[:] = 1
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
