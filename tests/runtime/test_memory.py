"""`runtime/memory.py`: blocks return when nobody uses them, and only so many of them are kept."""

import os
import signal
import threading

import numpy as np
import pytest
import torch

from crfrnn.runtime import memory
from tests.support.each import each

SHAPE = (700, 1000)  # 2.8 MB
MB = 1 << 20


@pytest.fixture(autouse=True)
def pool(monkeypatch) -> memory.Pool:
    """An empty one."""
    pool = memory.Pool(kept=100 * MB)
    monkeypatch.setattr(memory, "_pool", pool)
    return pool


def waiting(pool: memory.Pool) -> int:
    return sum(block.size for block in pool.waiting)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@each("shape", [(0, 3), (5,), (3, 1, 7), SHAPE])
@each("dtype", [np.float32, np.float64, np.int64, np.uint8])
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


VIEWS = {"part": lambda a: a[3:5], "other type": lambda a: a.reshape(-1).view(np.int32), "tensor": torch.from_numpy}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_keeps_it(view, pool):
    array = memory.empty(SHAPE)
    part = view(array)
    del array
    assert not pool.waiting
    del part
    assert len(pool.waiting) == 1


def test_a_smaller_array_fits():
    array = memory.empty(SHAPE)
    place = address(array)
    del array
    other = memory.empty((300, 1000))  # less than half of it: too small for the block
    assert address(other) != place
    assert address(memory.empty((690, 1000))) == place


def test_only_so_much_is_kept(pool):
    pool.kept = 7 * MB
    arrays = [memory.empty(SHAPE) for _ in range(4)]
    places = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    assert waiting(pool) <= 7 * MB
    assert [places.index(address(memory.empty(SHAPE))) >= 2 for _ in range(2)] == [True, True]  # the last ones


@each("largest", [64 * MB, 2 * MB])
def test_zeros(monkeypatch, largest):
    """Also in a block that was written to before, and in one that no pool keeps."""
    monkeypatch.setattr(memory, "LARGEST_BLOCK", largest)
    memory.empty(SHAPE)[:] = 1
    blank = memory.zeros(SHAPE)
    assert not blank.any()
    assert blank.ctypes.data % 64 == 0


def test_small_and_large_ones_are_not_kept(monkeypatch, pool):
    memory.empty((100,))
    monkeypatch.setattr(memory, "LARGEST_BLOCK", 2 * MB)
    memory.empty(SHAPE)
    assert not pool.waiting


def test_no_more_than_was_once_in_use(monkeypatch, pool):
    """A larger block than those that wait comes instead of them, not beside them."""
    monkeypatch.setattr(memory, "LITTLE", MB)
    arrays = [memory.empty((MB,), dtype) for dtype in (np.float32, np.float32, np.float64)]
    most = sum(array.nbytes for array in arrays) + 3 * MB  # blocks are a little larger
    arrays.clear()
    assert len(pool.waiting) == 3
    large = memory.empty((3 * MB,), np.float32)
    assert len(pool.waiting) == 1
    assert large.nbytes + waiting(pool) <= most
    del large
    assert waiting(pool) <= most


def test_a_little_is_kept_from_the_beginning(pool):
    memory.empty(SHAPE)
    memory.empty((3000, 1000))  # does not fit into what waits
    assert len(pool.waiting) == 2


def test_nobody_waits(pool):
    """While another thread is in the pool, memory is taken from the system, and what returns waits outside."""
    array = memory.empty(SHAPE)
    place = address(array)
    with pool.lock:
        memory.empty(SHAPE)[:] = 1
        del array
        assert not pool.waiting
    memory.empty((3000, 1000))
    assert address(memory.empty(SHAPE)) == place


@pytest.mark.parametrize("machine", [2 << 30, 8 << 30, 256 << 30])
def test_share_of_the_machine(monkeypatch, machine):
    monkeypatch.setattr(
        os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": machine // 4096}.__getitem__, raising=False
    )
    assert memory.most_waiting() == {2: 256 * MB, 8: 512 * MB, 256: 1024 * MB}[machine >> 30]


def test_machine_of_unknown_memory(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert memory.most_waiting() == memory.LITTLE


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
    assert waiting(pool) <= pool.kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_it_is_locked(pool):
    with pool.lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends it where it waits
            try:
                memory.empty(SHAPE)[:] = 1
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
