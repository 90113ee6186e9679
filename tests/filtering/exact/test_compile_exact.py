"""The exact filter's GPU kernels compile for Hopper (sm_90), on the matrix units and without spilling registers.

`tests/support/hopper.py` says how, without a GPU.
"""

import pytest

from tests.support.hopper import MARKS, Case, compiled

pytestmark = MARKS

EXACT = "crfrnn.filtering.exact.triton_gpu"
LISTS = {"near": "*i32", "near_count": "*i32", "schedule": "*i32"}


def arrays(kind: str, values: str | None = None) -> dict[str, str]:
    values = values or kind
    return {**LISTS, "features": kind, "values": values, "rest": values, "gradients": kind, "out": kind}


CASES = {
    "list": Case(
        EXACT, "list_near", {**LISTS, "low": "*fp32", "high": "*fp32", "reach": "fp32"}, {"D": 5, "BLOCK": 1024}
    ),
    "float32": Case(
        EXACT,
        "sum_near",
        arrays("*fp32"),
        {"D": 5, "TILE": 64, "CHANNELS": 32, "SPLIT": True, "PRECISION": "tf32"},
    ),
    "bfloat16": Case(
        EXACT,
        "sum_near",
        arrays("*fp32", "*bf16"),
        {"D": 5, "TILE": 64, "CHANNELS": 32, "SPLIT": False, "PRECISION": "tf32"},
    ),
    "float64": Case(
        EXACT,
        "sum_near",
        arrays("*fp64"),
        {"D": 5, "TILE": 32, "CHANNELS": 32, "SPLIT": False, "PRECISION": "ieee"},
    ),
    "gradients": Case(
        EXACT,
        "sum_near_gradients",
        arrays("*fp32"),
        {"D": 5, "TILE": 64, "CHANNELS": 32, "AXES": 8, "PRECISION": "tf32x3"},
    ),
}


@pytest.fixture(scope="module")
def built() -> dict[str, dict]:
    return compiled(CASES)


@pytest.mark.parametrize("case", CASES)
def test_no_register_is_spilled(built, case):
    assert built[case]["stack"] == 0


@pytest.mark.parametrize("case", ["float32", "bfloat16", "gradients"])
def test_products_are_on_the_matrix_units(built, case):
    assert built[case]["wgmma"]


@pytest.mark.parametrize("case", ["float32", "bfloat16"])
def test_four_programs_have_room_in_a_multiprocessor(built, case):
    assert built[case]["registers"] <= 65536 // (4 * 128)
