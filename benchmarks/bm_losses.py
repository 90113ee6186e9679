"""What a step of a dense-CRF loss costs: forward and backward, 8 pictures of 512 x 512 at half scale, 21 labels.

    python -m benchmarks.bm_losses [--original FOLDER] [--threads 1] [--rounds 5] [--out benchmarks/results/losses.md]

FOLDER holds a compiled `bilateralfilter`; the published loss is then timed around it, and must come to the same numbers
first. Photos are scikit-image's astronaut, shifted; probabilities a coarse network's (`inputs`). Contenders run in
turn in one process, each twice, of which the second is timed.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks import inputs
from crfrnn import Bilateral, gaussian_filter
from crfrnn.losses import DenseCRFLoss, DenseEnergyLoss, GatedCRFLoss

BATCH, SIZE, LABELS = 8, 512, 21
SIGMA_RGB, SIGMA_XY, WEIGHT = 15.0, 100.0, 2e-9
ORIGINAL = "published, around the compiled original"


class Published(torch.autograd.Function):
    """What the published loss does around the compiled filter, without region and gate: on the CPU, by NumPy."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, s: Tensor, compiled: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        n, k, h, w = s.shape
        flat, out = s.numpy().ravel(), np.zeros(s.numel(), np.float32)
        compiled.bilateralfilter_batch(images.numpy().ravel(), flat, out, n, k, h, w, SIGMA_RGB, SIGMA_XY / 2)
        ctx.filtered = torch.from_numpy(out).view_as(s)
        return torch.tensor(-float(np.dot(flat, out)) / n)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, -2 * grad * ctx.filtered / len(ctx.filtered), None


def contenders(compiled: Any) -> tuple[dict[str, Callable[[], Tensor]], dict[str, Callable[[], object]]]:
    """Losses, and what they are made of, by name."""
    photo = inputs.photo(SIZE, SIZE)
    images = torch.stack([torch.from_numpy(np.roll(photo, 31 * k, 1).transpose(2, 0, 1).copy()) for k in range(BATCH)])
    images = images.float()
    s = torch.stack([torch.from_numpy(inputs.probabilities(SIZE, SIZE, LABELS, k)) for k in range(BATCH)])
    s.requires_grad_()
    labels = torch.full((BATCH, SIZE, SIZE), 255)
    labels[:, ::16] = 0

    def step(loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            (gradient,) = torch.autograd.grad(loss(s), s)
            return gradient

        return run

    def published(values: Tensor) -> Tensor:
        half = interpolate(values, scale_factor=0.5, mode="bilinear", align_corners=False)
        return WEIGHT * Published.apply(interpolate(images, scale_factor=0.5), half, compiled)

    dense, after, energy = (
        DenseCRFLoss(Bilateral(SIGMA_XY, SIGMA_RGB, weight=1), 1e-4),
        DenseCRFLoss(Bilateral(SIGMA_XY, SIGMA_RGB, weight=1), 0.1, normalization="after"),
        DenseEnergyLoss(WEIGHT, SIGMA_RGB, SIGMA_XY, 0.5),
    )
    losses = {
        "DenseCRFLoss": step(lambda p: dense(p, images)),
        "DenseCRFLoss, gated": step(lambda p: dense(p, images, labels=labels)),
        "DenseCRFLoss, normalised": step(lambda p: after(p, images)),
        "DenseEnergyLoss": step(lambda p: energy(images, p)),
        "DenseEnergyLoss, gated": step(lambda p: energy(images, p, seg_label=labels)),
    }
    if compiled is not None:
        losses[ORIGINAL] = step(published)
    half, guide = interpolate(s.detach(), scale_factor=0.5, mode="bilinear"), interpolate(images, scale_factor=0.5)
    features, gated = Bilateral(SIGMA_XY / 2, SIGMA_RGB).features(guide), GatedCRFLoss()
    parts: dict[str, Callable[[], object]] = {
        "two calls of gaussian_filter": lambda: [
            gaussian_filter(half, features, normalization="none") for _ in range(2)
        ],
        "interpolation alone, to half size and back": step(
            lambda p: interpolate(p, scale_factor=0.5, mode="bilinear").sum()
        ),
        "GatedCRFLoss, radius 5, of probabilities at half scale": lambda: torch.autograd.grad(
            gated(halves := half.clone().requires_grad_(), guide), halves
        ),
    }
    return losses, parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--original", type=Path, help="a folder with a compiled bilateralfilter")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.original:
        sys.path.insert(0, str(options.original))
    torch.set_num_threads(options.threads)
    compiled = importlib.import_module("bilateralfilter") if options.original else None
    losses, parts = contenders(compiled)
    if compiled is not None:
        theirs, ours = losses[ORIGINAL](), losses["DenseEnergyLoss"]()
        difference = ((ours - theirs).norm() / theirs.norm()).item()
        assert difference < 1e-5, f"the gradients differ by {difference:.1e}"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in {**losses, **parts}}
    for _ in range(options.rounds):
        for name, call in {**losses, **parts}.items():
            call()  # finds memory and caches as those before have left them, training as it leaves them itself
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in times.items()
    }
    lines = [
        "# Losses",
        "",
        "`python -m benchmarks.bm_losses`: forward and backward, 8 pictures of 512 x 512 at half scale, 21 labels.",
        f"Machine: {inputs.machine()}. {options.threads} thread{'s' * (options.threads > 1)}; medians of"
        f" {options.rounds} alternating rounds. On a busy machine the CPU's seconds say more.",
        "",
        "| | seconds | of the CPU |" + " CPU, share of the original |" * (compiled is not None),
        "|---|---|---|" + "---|" * (compiled is not None),
    ]
    for name, (wall, cpu) in medians.items():
        share = f" {cpu / medians[ORIGINAL][1]:.2f} |" if compiled is not None else ""
        lines.append(f"| {name} | {wall:.2f} | {cpu:.2f} |{share}")
    report = "\n".join([*lines, ""])
    print(report)
    if options.out:
        options.out.write_text(report)


if __name__ == "__main__":
    main()
