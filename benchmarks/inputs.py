"""Inputs and contenders of the benchmarks: a real photo, plausible probabilities, pydensecrf's call and ours."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image

try:
    import pydensecrf.densecrf as peer  # type: ignore[import-not-found]
except ImportError:
    peer = None

from crfrnn import Bilateral, Spatial, refine
from crfrnn.filtering.kernels import Kernel

LABELS = 21
SETS: dict[str, dict] = {
    "a": {"name": "(160, 3; 3), weights 5 and 3", "kernels": (Bilateral(160, 3, 5.0), Spatial(3, 3.0))},
    "b": {"name": "(80, 13; 3), weights 10 and 3", "kernels": (Bilateral(80, 13, 10.0), Spatial(3, 3.0))},
}


def photo(width: int, height: int) -> np.ndarray:
    """scikit-image's astronaut, (height, width, 3) uint8."""
    return np.array(Image.fromarray(skimage.data.astronaut()).resize((width, height), Image.Resampling.BICUBIC))


def probabilities(width: int, height: int, labels: int = LABELS, seed: int = 0) -> np.ndarray:
    """A coarse network's output: random logits at 1/16 of the size, upsampled. All labels occur. (L, H, W) float32."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(1, labels, -(-height // 16), -(-width // 16), generator=generator)
    logits = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return torch.softmax(logits, dim=1)[0].numpy()


def ours(image: np.ndarray, p: np.ndarray, kernels: tuple[Kernel, ...], iterations: int) -> np.ndarray:
    return refine(image, p, kernels=kernels, normalization="symmetric", iterations=iterations)


def pydensecrf(image: np.ndarray, p: np.ndarray, kernels: tuple[Kernel, ...], iterations: int, module: Any = peer):
    """The same call with pydensecrf (or `module`, our drop-in); symmetric normalisation, its default."""
    labels, height, width = p.shape
    crf = module.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(p, 1e-10)).reshape(labels, -1)))
    for kernel in kernels:
        if isinstance(kernel, Spatial):
            crf.addPairwiseGaussian(sxy=kernel.theta_gamma, compat=kernel.weight)
        elif isinstance(kernel, Bilateral):
            crf.addPairwiseBilateral(sxy=kernel.theta_alpha, srgb=kernel.theta_beta, rgbim=image, compat=kernel.weight)
    return np.array(crf.inference(iterations)).reshape(p.shape)


def alternate(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender, run in turn, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def with_threads(count: int, call: Callable[[], object]) -> Callable[[], object]:
    """`call` with torch's thread count set to `count`."""

    def run() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return call()
        finally:
            torch.set_num_threads(before)

    return run


def machine() -> str:
    """What a figure was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        megahertz = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("cpu MHz")]
        model = f"{names[0]} at {float(megahertz[0]):.0f} MHz" if names and megahertz else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
