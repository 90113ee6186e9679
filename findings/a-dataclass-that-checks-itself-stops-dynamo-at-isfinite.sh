#!/usr/bin/env bash
# torch 2.13.0: a frozen dataclass with a float checks it in __post_init__ with math.isfinite, as parameters of a kernel
# (bandwidth, weight) do. `dataclasses.replace` of it inside a function under torch.compile(fullgraph=True) works with
# static shapes. With dynamic=True the float is a symbol, `math.isfinite` is traced as a torch op that returns a bool, and
# the whole function is refused: "torch.* op returned non-Tensor". `0 < x < math.inf` in its place is traced either way.
# It matters where a layer copies its description with learned bandwidths in forward: compiled for one size of image it
# works, compiled with dynamic=True for images of many sizes it is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat >"$folder/case.py" <<'CASE'
import math
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Kernel:
    theta: object
    weight: float = 5.0

    def __post_init__(self):
        assert math.isfinite(self.weight)


@dataclass(frozen=True)
class Compared(Kernel):
    def __post_init__(self):
        assert -math.inf < self.weight < math.inf


def weighted(x, kernel):
    return x * replace(kernel, theta=x.sum()).weight


def outcome(kernel, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(weighted, fullgraph=True, dynamic=dynamic, backend="eager")
    try:
        return "works" if torch.equal(compiled(torch.ones(3), kernel), torch.full((3,), 5.0)) else "differs"
    except torch._dynamo.exc.Unsupported as error:
        return str(error).splitlines()[0]


seen = {(kind.__name__, dynamic): outcome(kind(1.0), dynamic) for kind in (Kernel, Compared) for dynamic in (False, True)}
for case, result in seen.items():
    print(*case, "->", result)
assert seen["Kernel", False] == "works"
assert seen["Kernel", True] == "torch.* op returned non-Tensor"
assert seen["Compared", False] == seen["Compared", True] == "works"
CASE
"$folder/venv/bin/python" "$folder/case.py"
