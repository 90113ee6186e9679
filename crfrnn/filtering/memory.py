"""Memory of the CPU kernels: large blocks, some of which are kept for the next call.

A system hands out pages of zeros, one by one as they are touched. For a call of a few hundred milliseconds that took
6 to 14 % of the time, for memory that the call before it had just given back. So blocks return to a pool when the last
array or tensor on them is gone, up to `KEPT` bytes; larger ones than `LARGEST`, where there are few calls, do not.
"""

import threading

import numpy as np

from crfrnn.filtering.vectors import CACHE_LINE

KEPT = 256 << 20  # bytes of all blocks that wait for a call
LARGEST = 64 << 20
SMALLEST = 1 << 20  # below that the C library keeps memory well enough
ROOMIER = 1.25  # than asked for: what a block may be at most

_waiting: list[np.ndarray] = []  # the oldest first
_lock = threading.Lock()  # never waited for, so that neither a fork nor a garbage collection inside it can hang


class _Lent:
    """Owns the memory of an array, and of all that are views of it."""

    def __init__(self, block: np.ndarray):
        self.block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self):
        if _take_back is not None:  # which it is when the interpreter ends
            _take_back(self.block)


def empty(shape: tuple[int, ...], dtype: type | np.dtype = np.float32) -> np.ndarray:
    """An uninitialised array that begins at a cache line, so that no vector lies across two.

    NumPy asks the system for large pages (torch does not), but returns memory that is 16 bytes off the line.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    raw = _block(size + CACHE_LINE)
    skip = -raw.ctypes.data % CACHE_LINE
    return raw[skip : skip + size].view(dtype).reshape(shape)


def _block(size: int) -> np.ndarray:
    """At least so many bytes."""
    if not SMALLEST <= size <= LARGEST:
        return np.empty(size, np.uint8)
    block = None
    if _lock.acquire(blocking=False):
        try:
            fitting = [k for k, kept in enumerate(_waiting) if size <= kept.size <= ROOMIER * size]
            if fitting:
                block = _waiting.pop(min(fitting, key=lambda k: _waiting[k].size))
        finally:
            _lock.release()
    if block is None:
        step = 1 << (size.bit_length() - 4)  # an eighth or less: the next image's lattice has another size
        block = np.empty(-(-size // step) * step, np.uint8)
    return np.asarray(_Lent(block))


def _take_back(block: np.ndarray) -> None:
    if not _lock.acquire(blocking=False):
        return
    try:
        _waiting.append(block)
        while sum(kept.size for kept in _waiting) > KEPT:
            _waiting.pop(0)
    finally:
        _lock.release()
