"""How the CPU kernels are compiled.

They give up the interpreter lock, as `threads.py` runs them side by side, and are kept on the disk by
`kernel_cache.py`. Never ``parallel=True``: see `threads.py`.
"""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.dispatcher import Dispatcher

from crfrnn.runtime.kernel_cache import KernelCache


def _compiled(**options: bool) -> Callable[[Callable], Any]:
    """What makes a function callable from C took a seventh of the compiler's time, and nobody calls ours from there."""

    def decorate(function: Callable) -> Any:
        compiled: Any = njit(nogil=True, no_cfunc_wrapper=True, **options)(function)  # type: ignore[call-overload]
        if isinstance(compiled, Dispatcher):  # with the JIT off it is the function itself
            compiled._cache = KernelCache(function)  # pyright: ignore[reportAttributeAccessIssue] (the stubs are short)
        return compiled

    return decorate


# A kernel, called from Python, and a part of kernels, called from them alone.
kernel = _compiled()
part = _compiled(no_cpython_wrapper=True)

# Those that make no arrays, only views of the ones they are given, which the caller keeps alive. Numba counts
# references to views all the same, with an atomic operation for each, which took a quarter of the time of small tiles.
# This turns it off.
kernel_on_views = _compiled(_nrt=False)
part_on_views = _compiled(no_cpython_wrapper=True, _nrt=False)
