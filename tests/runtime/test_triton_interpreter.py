"""Triton's kernels where there is no GPU: every test marked `triton` once more, in Triton's CPU interpreter.

The interpreter runs a kernel program by program in NumPy. It must be chosen before Triton is imported, hence a
process of its own. It proves the arithmetic and every index; it shows no races, about which the READMEs reason.
"""

import os
import subprocess
import sys

import pytest

from crfrnn.runtime import gpu
from tests.support.places import ROOT

MARKER = "triton"


@pytest.mark.slow
@pytest.mark.skipif(not gpu.triton_installed(), reason="Triton is not installed; pip install 'crfrnn[triton]'")
@pytest.mark.skipif(gpu.interpreted(), reason="already in Triton's interpreter")
def test_marked_tests_pass_in_the_interpreter():
    marked = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if f"mark.{MARKER}" in path.read_text()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", MARKER, "-p", "no:cacheprovider", *marked],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout.splitlines()[-1], done.stdout[-2000:]
