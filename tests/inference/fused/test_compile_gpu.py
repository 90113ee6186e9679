"""The Triton kernels compile for Hopper (sm_90): whole sectors, matrix units, no spilled registers, no fused rounding.

`tests/support/hopper.py` says how, without a GPU.
"""

import pytest

from tests.support.hopper import MARKS, Case, compiled

pytestmark = MARKS
LATTICE = "crfrnn.filtering.permutohedral.triton_gpu"
PIXELS = "crfrnn.inference.fused.triton_gpu"
MESSAGES = {
    "messages": {
        **dict.fromkeys(("corner_weights", "table", "taps", "coarse", "shares", "mixing", "saved"), "*fp32"),
        **dict.fromkeys(("vertices", "columns"), "*i32"),
        **dict.fromkeys(("count", "nodes", "width"), "i32"),
    }
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
    "embed": Case(LATTICE, "embed", BUILD, SIZES, {"enable_fp_fusion": False}),
    "link": Case(LATTICE, "link", BUILD, SIZES),
    "splat": Case(LATTICE, "splat", ROWS, {**TILE, "AHEAD": 4}),
    "blur": Case(LATTICE, "blur", ROWS, TILE),
    "apply_band": Case(
        "crfrnn.filtering.separable.triton_gpu",
        "apply_band",
        {"values": "*fp32", "columns": "*i32", "weights": "*fp32", "out": "*fp32"},
        {"C": 24, "ACCUMULATE": "fp32", "ROWS": 8, "WIDTH": 128},
    ),
    "update": Case(PIXELS, "update", {**MESSAGES, "unary": "*fp32", "out": "*fp32"}, {**L21, **FORWARD}),
    "update, bfloat16": Case(PIXELS, "update", {**MESSAGES, "unary": "*bf16", "out": "*bf16"}, {**L21, **FORWARD}),
    "update, 150 labels": Case(
        PIXELS,
        "update",
        {**MESSAGES, "unary": "*fp32", "out": "*fp32"},
        {**L150, **FORWARD},
        {"num_warps": 8},
    ),
    "update_gradient": Case(
        PIXELS,
        "update_gradient",
        {**MESSAGES, **dict.fromkeys(("q", "partial", "total", "out"), "*fp32")},
        {**L21, **BACKWARD},
    ),
}


@pytest.fixture(scope="module")
def built() -> dict[str, dict]:
    return compiled(CASES)


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
