"""How the CPU kernels are compiled.

They give up the interpreter lock, as `threads.py` runs them side by side, and are kept on the disk. Never
``parallel=True``: see `threads.py`.

What is kept on the disk is compiled anew when its own file changes, but not when a constant or an operation of another
file does: after a change in `rows.py`, `vectors.py` or `inference/fused/softmax_cpu.py` delete the ``*.nbi`` files.
"""

from numba import njit

# A kernel, called from Python, and a part of kernels, called from them alone. What makes a function callable from
# elsewhere took a seventh of the compiler's time; the type stubs do not know all options.
kernel = njit(nogil=True, cache=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]
part = njit(nogil=True, cache=True, no_cfunc_wrapper=True, no_cpython_wrapper=True)  # type: ignore[call-overload]

# Those that make no arrays, only views of the ones they are given, which the caller keeps alive. Numba counts
# references to views all the same, with an atomic operation for each, which took a quarter of the time of small tiles.
# This turns it off.
kernel_on_views = njit(nogil=True, cache=True, no_cfunc_wrapper=True, _nrt=False)  # type: ignore[call-overload]
part_on_views = njit(  # type: ignore[call-overload]
    nogil=True, cache=True, no_cfunc_wrapper=True, no_cpython_wrapper=True, _nrt=False
)
