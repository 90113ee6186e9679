"""One refinement of a volume in a process of its own, by this package or by SimpleCRF, on one thread.

    python -m benchmarks.volume_process crfrnn|simplecrf DEPTH HEIGHT WIDTH ITERATIONS

Prints JSON: CPU seconds, peak gigabytes, and the share of the voxels that are right. SimpleCRF needs an interpreter
with a NumPy below 2, so nothing of this package is imported for it.
"""

import json
import resource
import sys
import time

import numpy as np

BILATERAL, SPATIAL = (5.0, 5.0, 3.0), (5.0, 2.0)  # (voxels, intensity, weight), (voxels, weight): SimpleCRF's example


def volume(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An ellipsoid in noise, (z, y, x) uint8; noisy probabilities of it (2, z, y, x) float32; and the truth."""
    rng = np.random.default_rng(0)
    squares = [((np.arange(n) - n / 2) / (0.3 * n)) ** 2 for n in size]
    truth = squares[0][:, None, None] + squares[1][:, None] + squares[2] < 1
    image = np.where(truth, 150, 60) + 10 * rng.standard_normal(size, np.float32)
    foreground = np.where(truth, 0.6, 0.4) + 0.2 * rng.standard_normal(size, np.float32)
    foreground = np.clip(foreground, 0.05, 0.95).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8), np.stack([1 - foreground, foreground]), truth


def simplecrf(image: np.ndarray, probabilities: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
    """Labels (z, y, x), all that it gives, and CPU seconds.

    It takes the first axis for the one whose neighbours lie next to each other in memory, so the arrays are given with
    their axes renamed: as (D, H, W), which it asks for, volumes whose first and last sizes differ are scrambled.
    """
    import denseCRF3D  # type: ignore[import-not-found]

    settings = {f"{kind}{axis}Std": SPATIAL[0] for kind in ("Pos", "Bilateral") for axis in "RCZ"}
    settings |= {"PosW": SPATIAL[1], "BilateralW": BILATERAL[2], "BilateralModsStds": (BILATERAL[1],)}
    settings |= {"ModalityNum": 1, "MaxIterations": float(iterations)}
    last = np.ascontiguousarray(np.moveaxis(probabilities, 0, -1)).reshape(*image.shape[::-1], -1)
    start = time.process_time()
    labels = denseCRF3D.densecrf3d(image.reshape(*image.shape[::-1], 1), last, settings)
    return labels.reshape(image.shape), time.process_time() - start


def crfrnn(image: np.ndarray, probabilities: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
    """Labels (z, y, x), and CPU seconds."""
    import torch

    from crfrnn import Bilateral, Spatial, refine

    torch.set_num_threads(1)  # SimpleCRF has one
    kernels = [Bilateral(*BILATERAL), Spatial(*SPATIAL)]
    options = {"kernels": kernels, "normalization": "symmetric", "spacing": (1, 1, 1)}
    refine(image[:8], probabilities[:, :8].copy(), **options)  # loads what was compiled
    start = time.process_time()
    marginals = refine(image, probabilities, iterations=iterations, **options)
    return marginals.argmax(0), time.process_time() - start


if __name__ == "__main__":
    who, *numbers = sys.argv[1:]
    *size, iterations = map(int, numbers)
    image, probabilities, truth = volume(tuple(size))
    labels, seconds = {"crfrnn": crfrnn, "simplecrf": simplecrf}[who](image, probabilities, iterations)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": seconds, "peak": peak, "right": float((labels == truth).mean())}))
