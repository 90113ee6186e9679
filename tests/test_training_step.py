"""What a training step costs: memory, and one lattice for each image."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crfrnn import CRFRNN, Bilateral, Spatial, mean_field
from crfrnn.filtering.permutohedral import vertices_cpu
from tests.support.places import ROOT
from tests.support.problems import photo, potts, random_values

ALLOWED = 450 * 10**6

# A fresh process: kernels loaded and threads started at a tiny size, then the peak of one step above what was there.
# VmHWM and not getrusage: the latter's peak includes the process that this one was forked from.
TRAINING_STEP = """
import torch
from crfrnn import CRFRNN

def resident(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def step(height, width):
    logits = torch.randn(1, 21, height, width, requires_grad=True)
    ramp = torch.linspace(0, 255, height * width).view(1, 1, height, width)
    image = (ramp + 20 * torch.randn(1, 3, height, width)).clamp(0, 255)
    target = torch.randint(21, (1, height, width))
    layer = CRFRNN(21)
    before = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
    torch.nn.functional.cross_entropy(layer(logits, image), target).backward()
    assert logits.grad.isfinite().all() and layer.kernel_weights.grad.isfinite().all()
    return resident("VmHWM") - before

torch.manual_seed(0)
step(8, 9)
print(step(375, 500))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to forget a peak")
def test_training_step():
    """T = 5, L = 21, 500 x 375, (160, 3) on a noisy image: more vertices than a photo has. At most 450 MB."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINING_STEP], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    used = int(done.stdout)
    assert 10 * 10**6 < used <= ALLOWED, f"{used / 1e6:.0f} MB above the process before the call"


@pytest.fixture
def built(monkeypatch) -> list[int]:
    """The number of points of every lattice that is built on the CPU while a test runs."""
    points: list[int] = []
    original = vertices_cpu.number_vertices

    def counting(features, *rest):
        points.append(features.shape[1])
        return original(features, *rest)

    monkeypatch.setattr(vertices_cpu, "number_vertices", counting)
    return points


class TestOneLatticeForEachImage:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_forward_and_backward(self, built, batch, dtype):
        logits = random_values(batch, 3, 7, 8, dtype=dtype).requires_grad_()
        layer = CRFRNN(3, kernels=(Bilateral(5, 30), Spatial(2)), iterations=5)
        layer(logits, photo("coffee", 7, 8).expand(batch, 3, 7, 8)).sum().backward()
        assert built == [56] * batch

    def test_two_bilateral_kernels(self, built):
        layer = CRFRNN(3, kernels=(Bilateral(5, 30), Bilateral(9, 10)), iterations=5)
        layer(random_values(1, 3, 7, 8).requires_grad_(), photo("coffee", 7, 8)).sum().backward()
        assert built == [56] * 2

    def test_evaluation(self, built):
        layer = CRFRNN(3, kernels=(Bilateral(5, 30), Spatial(2))).eval()
        with torch.no_grad():
            layer(random_values(1, 3, 7, 8), photo("coffee", 7, 8))
        assert built == [56]

    def test_prepared_filters_are_reused(self, built):
        """The functional form: prepare once, infer as often as wanted."""
        filters = [Bilateral(5, 30).prepare(photo("coffee", 7, 8))]
        for seed in range(3):
            mean_field(random_values(1, 3, 7, 8, seed=seed), filters, torch.ones(1, 1), potts(3), 4)
        assert built == [56]
