"""How the CPU kernels are compiled.

They give up the interpreter lock, as `threads.py` runs them side by side, and are kept on the disk. Never
``parallel=True``: see `threads.py`.

What is kept on the disk is compiled anew when its own file changes, but not when a constant or an operation of another
file does: after a change in `rows.py`, `vectors.py` or `mean_field/softmax_cpu.py` delete the ``*.nbi`` files.
"""

from numba import njit

kernel = njit(nogil=True, cache=True)

# One that makes no arrays, only views of those it is given, which the caller keeps alive. Numba counts references to
# views all the same, with an atomic operation for each, which took a quarter of the time of small tiles. This turns it
# off; the type stubs do not know the option.
kernel_on_views = njit(nogil=True, cache=True, _nrt=False)  # type: ignore[call-overload]
