#!/usr/bin/env bash
# torch 2.13.0: `torch.compiler.assume_constant_result` reads like a marker on a function, and a library that wants its
# lazy loading to be traceable puts it at the top of a module. Decorating imports the whole compiler: torch._dynamo, with
# sympy and what hangs on it, although nothing is compiled. Seen: 1.0 s of processor time and 71 MB on top of
# `import torch`. Who refines one photograph per process (a shell loop over a folder, a job array) pays that for each.
# What it does in the end is to set one attribute of the function.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat >"$folder/case.py" <<'CASE'
import resource
import sys
import time

import torch

assert "torch._dynamo" not in sys.modules, "import torch brings the compiler by itself now"
start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@torch.compiler.assume_constant_result
def load():
    return 1


seconds = time.process_time() - start
megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
print(f"torch {torch.__version__}: decorating one function took {seconds:.2f} s and {megabytes:.0f} MB")
assert "torch._dynamo" in sys.modules, "the decorator no longer imports the compiler"
assert "sympy" in sys.modules
assert seconds > 0.2, "it got cheap"
CASE
"$folder/venv/bin/python" "$folder/case.py"
