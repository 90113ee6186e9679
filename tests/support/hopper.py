"""Compile Triton kernels for Hopper (sm_90), which needs no GPU: Triton carries its whole compiler.

`compiled` does it in a process of its own, as kernels of a process in Triton's interpreter cannot be compiled. The
interpreter proves the arithmetic; it knows neither types nor registers.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from crfrnn.runtime import gpu

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not gpu.triton_installed(), reason="needs pip install 'crfrnn[triton]'"),
]
ALIGNED = [["tt.divisibility", 16]]


class Case(NamedTuple):
    """A kernel and the arguments to compile it for; those that have no type here are int32.

    The type of a named tuple is a dictionary of those of its fields.
    """

    module: str
    kernel: str
    types: Mapping[str, str | dict[str, str]]
    constants: dict[str, Any]
    options: Mapping[str, Any] = {}


def compiled(cases: Mapping[str, Case]) -> dict[str, dict[str, Any]]:
    """What came of each: registers, bytes of stack (spilled registers), and which instructions there are."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hopper", json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _compile(case: Case) -> dict[str, Any]:
    triton, language, compiler, backends = (
        importlib.import_module(name)
        for name in ("triton", "triton.language", "triton.compiler", "triton.backends.compiler")
    )
    function = getattr(importlib.import_module(case.module), case.kernel)
    names = function.arg_names
    signature, aligned = {}, {}
    for place, name in enumerate(names):
        kind = case.types.get(name, "i32")
        if isinstance(kind, dict):
            leaves = {(place, k): field for k, field in enumerate(kind.values())}
            signature[name] = namedtuple("Fields", kind)(*kind.values())
        else:
            leaves = {(place,): kind}
            signature[name] = kind
        aligned |= {at: ALIGNED for at, leaf in leaves.items() if leaf[0] == "*"}
    signature |= dict.fromkeys(case.constants, "constexpr")
    types_of = {"ACCUMULATE": language.float32}  # what JSON cannot say
    values = {(names.index(name),): types_of.get(name, value) for name, value in case.constants.items()}
    source = compiler.ASTSource(function, signature, values, aligned)
    built = triton.compile(source, target=backends.GPUTarget("cuda", 90, 32), options=dict(case.options))
    tool = os.path.join(triton.__path__[0], "backends", "nvidia", "bin", "cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    used = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout + usage.stderr)
    assert used is not None, usage.stdout + usage.stderr
    return {
        "registers": int(used.group(1)),
        "stack": int(used.group(2)),
        "wgmma": "wgmma" in built.asm["ptx"],
        "fused": "fma.rn.f64" in built.asm["ptx"],
        "wide": bool(re.search(r"ld\.global[.\w]*\.v4", built.asm["ptx"])),
    }


if __name__ == "__main__":
    print(json.dumps({name: _compile(Case(*fields)) for name, fields in json.loads(sys.argv[1]).items()}))
