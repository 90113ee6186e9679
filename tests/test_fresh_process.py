"""What the first lines of a process cost, and that torch's compiler may come first."""

import subprocess
import sys

import pytest

from tests.support.places import ROOT

FORBIDDEN = ("torch._dynamo", "numba", "PIL", "rich", "jsonargparse", "huggingface_hub", "triton")
CORE = "import sys, torch, crfrnn\nfrom crfrnn import CRFRNN, Bilateral, GaussianFilter, gaussian_filter, mean_field\n"


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_the_core_imports_nothing_heavy():
    assert run(f"{CORE}print([name for name in {FORBIDDEN} if name in sys.modules])").strip() == "[]"


def test_importing_the_package_imports_nothing_at_all():
    program = "import sys, crfrnn\nprint([name for name in ('torch', 'numpy') if name in sys.modules])"
    assert run(program).strip() == "[]"


def test_refining_a_photo_loads_no_compiler():
    """Custom ops are plain functions where nothing is traced: torch's compiler is a second and 150 MB."""
    program = (
        "import sys, numpy as np, crfrnn\n"
        "image, p = np.zeros((6, 8, 3), np.uint8), np.full((2, 6, 8), 0.5, np.float32)\n"
        "crfrnn.refine(image, p)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert run(program).strip() == "False"


@pytest.mark.parametrize("first", ["torch.compile(gaussian_filter, fullgraph=True, backend='aot_eager')(v, image)",
                                   "torch.compile(CRFRNN(3), fullgraph=True, backend='aot_eager')(v, image)"],
                         ids=["gaussian_filter", "CRFRNN"])  # fmt: skip
def test_compiling_may_be_the_first_call(first):
    """Kernels are loaded while the compiler traces; forward and backward equal the plain call."""
    plain = first.replace("torch.compile(", "(").replace(", fullgraph=True, backend='aot_eager'", "")
    program = (
        f"{CORE}v, image = torch.rand(1, 3, 8, 9, requires_grad=True), 9 * torch.rand(1, 3, 8, 9)\n"
        f"torch.manual_seed(0)\ny = {first}\ny.square().sum().backward()\n"
        f"compiled, v.grad = (y, v.grad), None\ny = {plain}\ny.square().sum().backward()\n"
        "torch.testing.assert_close(compiled, (y, v.grad))\nprint('equal')"
    )
    assert run(program).strip() == "equal"
