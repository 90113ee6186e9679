"""The Triton kernels compile for Hopper (sm_90): whole sectors, matrix units, no spilled registers, no fused rounding.

Triton carries its whole compiler, so this needs no GPU; the interpreter, which proves the arithmetic, knows neither
types nor registers. A process of its own compiles, for kernels of a process in the interpreter cannot be compiled.
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
import importlib, json, os, re, subprocess, sys, tempfile
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

tool = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
built = {}
for case, (module, kernel, types, constants, options) in json.loads(sys.argv[1]).items():
    function = getattr(importlib.import_module(module), kernel)
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if signature[name][0] == "*"}
    types_of = {"ACCUMULATE": tl.float32}  # what JSON cannot say
    values = {(names.index(name),): types_of.get(name, value) for name, value in constants.items()}
    source = ASTSource(function, signature, values, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    built[case] = {
        "stack": int(re.search(r"STACK:(\\d+)", usage.stdout + usage.stderr).group(1)),
        "wgmma": "wgmma" in compiled.asm["ptx"],
        "fused": "fma.rn.f64" in compiled.asm["ptx"],
        "wide": bool(re.search(r"ld\\.global[.\\w]*\\.v4", compiled.asm["ptx"])),
    }
print(json.dumps(built))
"""

LATTICE = "crfrnn.filtering.permutohedral.triton_gpu"
PIXELS = "crfrnn.mean_field.triton_gpu"
MESSAGES = {
    **dict.fromkeys(("corner_weights", "table", "taps", "coarse", "shares", "mixing", "saved"), "*fp32"),
    **dict.fromkeys(("vertices", "columns"), "*i32"),
}
ROWS = {
    **dict.fromkeys(("values", "weights", "table", "out"), "*fp32"),
    **dict.fromkeys(("points", "starts", "count_at", "following", "previous"), "*i32"),
}
TILE = {"C": 24, "ROWS": 32, "WIDTH": 32}
BUILD = {
    **dict.fromkeys(("features", "weights"), "*fp32"),
    **dict.fromkeys(("strides", "keys", "row_keys"), "*i64"),
    **dict.fromkeys(("owners", "ghosts", "following", "previous", "count_at"), "*i32"),
    "scale": "*fp64",
}
SIZES = {"D": 5, "WORDS": 1, "BLOCK": 128}
PASS = {"CORNERS": 6, "GRID": True, "PRECISION": "tf32x3"}
FORWARD = {**PASS, "SHARED": True, "SAVE": False, "SOFTMAX": True, "PLANES": False}
BACKWARD = {**PASS, "SHARED": False, "SAVE": True, "CHAINED": False}
L21 = {"POINTS": 64, "C": 24, "ALL": 32, "BLOCK": 32}
L150 = {"POINTS": 32, "C": 152, "ALL": 256, "BLOCK": 32}
CASES = {
    "embed": (LATTICE, "embed", BUILD, SIZES, {"enable_fp_fusion": False}),
    "link": (LATTICE, "link", BUILD, SIZES, {}),
    "splat": (LATTICE, "splat", ROWS, {**TILE, "AHEAD": 4}, {}),
    "blur": (LATTICE, "blur", ROWS, TILE, {}),
    "apply_band": (
        "crfrnn.filtering.separable.triton_gpu",
        "apply_band",
        {"values": "*fp32", "columns": "*i32", "weights": "*fp32", "out": "*fp32"},
        {"C": 24, "ACCUMULATE": "fp32", "ROWS": 8, "WIDTH": 128},
        {},
    ),
    "update": (PIXELS, "update", {**MESSAGES, "unary": "*fp32", "out": "*fp32"}, {**L21, **FORWARD}, {}),
    "update, bfloat16": (PIXELS, "update", {**MESSAGES, "unary": "*bf16", "out": "*bf16"}, {**L21, **FORWARD}, {}),
    "update, 150 labels": (
        PIXELS,
        "update",
        {**MESSAGES, "unary": "*fp32", "out": "*fp32"},
        {**L150, **FORWARD},
        {"num_warps": 8},
    ),
    "update_gradient": (
        PIXELS,
        "update_gradient",
        {**MESSAGES, **dict.fromkeys(("q", "partial", "total", "out"), "*fp32")},
        {**L21, **BACKWARD},
        {},
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


@pytest.mark.parametrize("case", [case for case in CASES if case != "embed"])
def test_no_register_is_spilled(built, case):
    assert built[case]["stack"] == 0


@pytest.mark.parametrize("case", ["update", "update, bfloat16", "update_gradient"])
def test_products_are_on_the_matrix_units(built, case):
    assert built[case]["wgmma"]


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("embed", "link")])
def test_rows_are_read_sixteen_bytes_at_a_time(built, case):
    assert built[case]["wide"]


def test_the_embedding_rounds_every_product(built):
    """A point on a face of a simplex must fall on the same side as in the reference."""
    assert not built["embed"]["fused"]
