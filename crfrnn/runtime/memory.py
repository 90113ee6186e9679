"""Memory of the CPU kernels: large blocks, some of which are kept for the next call.

A system hands out pages of zeros, one by one as they are touched. For a call of a few hundred milliseconds that took
6 to 14 % of the time, on a virtual machine with idle memory given up to its host a fifth, for memory that the call
before it had just given back. So blocks return to a pool when the last array or tensor on them is gone; larger ones
than `LARGEST_BLOCK`, where there are few calls, do not.

So that no call takes more memory because of those before it, all blocks together are never more than were once in use,
or `LITTLE`: where none that waits is fit, they make room for a new one.
"""

import os
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from crfrnn.runtime.vectors import CACHE_LINE

SMALLEST_BLOCK = 1 << 20  # bytes; below that the C library keeps memory well enough
LARGEST_BLOCK = 40 << 20
LITTLE = 256 << 20  # of all blocks together, in use or waiting: never too much
ROOMIER = 1.25  # than asked for: what a block may be at most


def machine() -> int:
    """Bytes of memory of the machine; 0 where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no such function
        return 0


def most_waiting() -> int:
    """Bytes: a sixteenth of the machine's memory, from `LITTLE` to 1 GB, or 60 results of 500 x 375 x 21."""
    return min(max(machine() // 16, LITTLE), 1 << 30)


class Pool:
    """Blocks that wait, and how much is in use. Nobody waits for its lock: no fork and no garbage collection hangs."""

    def __init__(self, kept: int):
        self.kept = kept  # bytes that wait, at the most
        self.waiting: list[np.ndarray] = []  # the oldest first
        self.lock = threading.Lock()
        self._returned: deque[np.ndarray] = deque()  # not yet among those that wait
        self._lent = self._most = 0  # bytes in use, now and at the most

    def lend(self, size: int) -> np.ndarray:
        """At least so many bytes."""
        if not SMALLEST_BLOCK <= size <= LARGEST_BLOCK or not self.lock.acquire(blocking=False):
            return np.empty(size, np.uint8)
        try:
            fitting = [k for k, block in enumerate(self.waiting) if size <= block.size <= ROOMIER * size]
            if fitting:
                block = self.waiting.pop(min(fitting, key=lambda k: self.waiting[k].size))
            else:
                step = 1 << (size.bit_length() - 4)  # an eighth or less: the next image's lattice has another size
                size = -(-size // step) * step
                self._let_go(size)
                block = np.empty(size, np.uint8)
            self._lent += block.size
            self._most = max(self._most, self._lent)
        finally:
            self.lock.release()
        self._settle()
        return np.asarray(_Lent(block, self))

    def take_back(self, block: np.ndarray) -> None:
        self._returned.append(block)
        self._settle()

    def _settle(self) -> None:
        """What has returned waits. Where another thread has the lock, that one comes here when it is done."""
        while self._returned and self.lock.acquire(blocking=False):
            try:
                while self._returned:
                    self.waiting.append(self._returned.popleft())
                    self._lent -= self.waiting[-1].size
                self._let_go(0)
            finally:
                self.lock.release()

    def _let_go(self, coming: int) -> None:
        """The oldest blocks, where too much waits, or there would be too much in all with so many bytes more."""
        waiting = sum(block.size for block in self.waiting)
        allowed = min(self.kept, max(self._most, LITTLE) - self._lent - coming)
        while self.waiting and waiting > allowed:
            waiting -= self.waiting.pop(0).size


class _Lent:
    """Owns the memory of an array, and of all that are views of it."""

    def __init__(self, block: np.ndarray, pool: Pool):
        self.block, self.pool = block, pool
        self.__array_interface__ = block.__array_interface__

    def __del__(self):
        if _pool is not None:  # which it is when the interpreter ends
            self.pool.take_back(self.block)


_pool = Pool(most_waiting())


def empty(shape: tuple[int, ...], dtype: type | np.dtype = np.float32) -> np.ndarray:
    """An uninitialised array that begins at a cache line, so that no vector lies across two.

    NumPy asks the system for large pages (torch does not), but returns memory that is 16 bytes off the line.
    """
    return _aligned(_pool.lend, shape, dtype)


def zeros(shape: tuple[int, ...], dtype: type | np.dtype = np.float32) -> np.ndarray:
    """Likewise; of a block that no pool keeps, what is never written to takes no memory."""

    def blank(size: int) -> np.ndarray:
        if size > LARGEST_BLOCK:
            return np.zeros(size, np.uint8)
        block = _pool.lend(size)
        block[:] = 0
        return block

    return _aligned(blank, shape, dtype)


def _aligned(block: Callable[[int], np.ndarray], shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray:
    dtype = np.dtype(dtype)
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    raw = block(size + CACHE_LINE)
    skip = -raw.ctypes.data % CACHE_LINE
    return raw[skip : skip + size].view(dtype).reshape(shape)
