"""The exact filter's GPU kernels compile for Hopper (sm_90), on the matrix units and without spilling registers.

Triton carries its whole compiler, so this needs no GPU; the interpreter, which proves the arithmetic, needs no types
and no registers. A process of its own compiles, for kernels of a process in the interpreter cannot be compiled.
"""

import json
import os
import subprocess
import sys

import pytest

from crfrnn.filtering import dispatch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dispatch.triton_installed(), reason="needs pip install 'crfrnn[triton]'"),
]

PROGRAM = """
import json, os, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from crfrnn.filtering.exact import triton_gpu

tool = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
built = {}
for case, (kernel, types, constants) in json.loads(sys.argv[1]).items():
    function = getattr(triton_gpu, kernel)
    names = function.arg_names
    signature = {name: types.get(name, "i32") if name not in constants else "constexpr" for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if signature[name][0] == "*"}
    values = {(names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(ASTSource(function, signature, values, aligned), target=GPUTarget("cuda", 90, 32))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    registers, stack = re.search(r"REG:(\\d+) STACK:(\\d+)", usage.stdout + usage.stderr).groups()
    wgmma = "wgmma" in compiled.asm["ptx"]
    built[case] = {"wgmma": wgmma, "registers": int(registers), "stack": int(stack)}
print(json.dumps(built))
"""
LISTS = {"near": "*i32", "near_count": "*i32", "schedule": "*i32"}


def arrays(kind: str, values: str | None = None) -> dict[str, str]:
    values = values or kind
    return {**LISTS, "features": kind, "values": values, "rest": values, "gradients": kind, "out": kind}


CASES = {
    "list": ("list_near", {**LISTS, "low": "*fp32", "high": "*fp32", "reach": "fp32"}, {"D": 5, "BLOCK": 1024}),
    "float32": (
        "sum_near",
        arrays("*fp32"),
        {"D": 5, "TILE": 64, "CHANNELS": 32, "SPLIT": True, "PRECISION": "tf32"},
    ),
    "bfloat16": (
        "sum_near",
        arrays("*fp32", "*bf16"),
        {"D": 5, "TILE": 64, "CHANNELS": 32, "SPLIT": False, "PRECISION": "tf32"},
    ),
    "float64": (
        "sum_near",
        arrays("*fp64"),
        {"D": 5, "TILE": 32, "CHANNELS": 32, "SPLIT": False, "PRECISION": "ieee"},
    ),
    "gradients": (
        "sum_near_gradients",
        arrays("*fp32"),
        {"D": 5, "TILE": 64, "CHANNELS": 32, "AXES": 8, "PRECISION": "tf32x3"},
    ),
}


@pytest.fixture(scope="module")
def built() -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CASES)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_no_register_is_spilled(built, case):
    assert built[case]["stack"] == 0


@pytest.mark.parametrize("case", ["float32", "bfloat16", "gradients"])
def test_products_are_on_the_matrix_units(built, case):
    assert built[case]["wgmma"]


@pytest.mark.parametrize("case", ["float32", "bfloat16"])
def test_four_programs_have_room_in_a_multiprocessor(built, case):
    assert built[case]["registers"] <= 65536 // (4 * 128)
