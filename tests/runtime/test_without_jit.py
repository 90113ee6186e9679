"""The compiled kernels once more as plain Python: for coverage, for tracebacks, and to see an index go wrong.

Compiled, an index that is out of bounds reads something; in Python it raises. The tests that are small enough for
that are marked `unjitted`, and run again in a process of their own.
"""

import os
import subprocess
import sys

import pytest

from tests.support.places import ROOT

FUSED = ("tests/inference/fused/test_recurrence_cpu.py", "tests/inference/fused/test_fused_marginals.py")


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="already without the JIT")
def test_marked_tests_pass_without_the_jit():
    selection = ["-m", "unjitted", "-p", "no:cacheprovider", "tests/filtering", *FUSED]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *selection],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
