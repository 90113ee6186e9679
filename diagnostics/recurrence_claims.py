"""What the paper says of its recurrence, measured: convergence, the gain of each iteration, and the gradients.

    python -m diagnostics.recurrence_claims --data PATH_TO/voc2012 --out docs/recurrence

Section 5.1 of Zheng et al. 2015 says that the iterations converge within ten, that little is gained after five, and
that gradients neither vanish nor explode. Here: images of Pascal VOC 2012 val, a network's outputs at about 1/8 of the
image's size, Potts, each of two presets. Writes tables to stdout and charts to OUT.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crfrnn.data.drawing.chart import Line, draw_chart
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.recurrence import iterates, mean_field
from crfrnn.parameters import PRESETS
from diagnostics.voc2012 import VOID, examples

CLASSES, LAST = 21, 50
SHRINK = 2  # images at half their size: a quarter of the time
NAMES = ("crfrnn", "deeplab-v2")
SHOWN = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50)  # t in the table of iterations
LENGTHS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50)  # T in the table of gradients
PARAMETERS = ("logits", "kernel weights", "compatibility")


def crf(preset: str, guide: Tensor) -> tuple[list[GaussianFilter], Tensor, Tensor]:
    """Filters, weights for each class, and mu; bandwidths of positions shrink with the image."""
    chosen = PRESETS[preset]
    kernels = [kernel.scaled(1 / SHRINK) for kernel in chosen.kernels]
    filters = [kernel.prepare(guide, normalization=chosen.normalization) for kernel in kernels]
    weights = torch.tensor([[float(kernel.weight)] for kernel in chosen.kernels]).repeat(1, CLASSES)
    return filters, weights, 1 - torch.eye(CLASSES)


def confusion(truth: Tensor, labels: Tensor) -> np.ndarray:
    known = truth != VOID
    counts = np.bincount((CLASSES * truth[known] + labels[known]).numpy(), minlength=CLASSES**2)
    return counts.reshape(CLASSES, CLASSES)


def miou(counts: np.ndarray) -> float:
    """Of the classes that occur."""
    both, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return 100 * float(np.mean(both[union > 0] / union[union > 0]))


def follow(guide: Tensor, logits: Tensor, truth: Tensor, preset: str) -> tuple[np.ndarray, np.ndarray]:
    """One image: (t, [mean |Q(t) - Q(t-1)|, share of labels changed, share unlike t = LAST, F]), and (t, 21, 21)."""
    rows, maps, before = [], [], None
    for now in iterates(logits, *crf(preset, guide), LAST):
        maps.append(now.q.argmax(dim=1))
        moved = 0.0 if before is None else float((now.q - before).abs().mean())
        changed = 0.0 if before is None else float((maps[-1] != maps[-2]).float().mean())
        rows.append([moved, changed, 0.0, now.free_energy.item()])
        before = now.q
    for row, labels in zip(rows, maps, strict=True):
        row[2] = float((labels != maps[-1]).float().mean())
    return np.array(rows), np.array([confusion(truth, labels) for labels in maps])


def gradients(guide: Tensor, logits: Tensor, truth: Tensor, preset: str) -> np.ndarray:
    """(T, parameter) norms of the gradient of the mean cross-entropy, for each length of the recurrence."""
    filters, weights, mu = crf(preset, guide)
    inputs = [tensor.clone().requires_grad_() for tensor in (logits, weights, mu)]
    norms = []
    for length in LENGTHS:
        y = mean_field(inputs[0], filters, inputs[1], inputs[2], length)
        loss = torch.nn.functional.cross_entropy(y, truth, ignore_index=VOID)
        norms.append([float(gradient.norm()) for gradient in torch.autograd.grad(loss, inputs)])
    return np.array(norms)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def report_iterations(preset: str, data: Path, images: int) -> tuple[Line, Line]:
    found = [follow(guide, logits, truth, preset) for _, guide, logits, truth in examples(data, images, shrink=SHRINK)]
    rows, counts = np.mean([one for one, _ in found], axis=0), np.sum([one for _, one in found], axis=0)
    energies = np.array([one[:, 3] for one, _ in found])
    left = np.mean((energies - energies[:, -1:]) / (energies[:, :1] - energies[:, -1:]), axis=0)
    scores = [miou(count) for count in counts]
    print(f"\nIterations, {preset}, {len(found)} images\n")
    head = [
        "t",
        "mean change of Q, %",
        "labels changed, %",
        f"labels unlike t = {LAST}, %",
        "free energy left, %",
        "mIoU",
    ]
    cells = [[str(t), *(f"{100 * value:.3f}" for value in (*rows[t, :3], left[t])), f"{scores[t]:.2f}"] for t in SHOWN]
    print(table(head, cells), flush=True)
    t = list(range(LAST + 1))
    return Line(preset, t[1:], (100 * rows[1:, 0]).tolist()), Line(preset, t, scores)


def report_gradients(preset: str, data: Path, images: int) -> list[Line]:
    norms = np.array(
        [gradients(guide, logits, truth, preset) for _, guide, logits, truth in examples(data, images, shrink=SHRINK)]
    )
    relative = norms / norms[:, :1]
    middle = np.median(relative, axis=0)
    low, high = np.percentile(relative, [10, 90], axis=0)
    print(f"\nGradient norms relative to T = 1, {preset}, {len(norms)} images: median (10 % to 90 %)\n")
    cells = [
        [str(length), *(f"{middle[n, p]:.3f} ({low[n, p]:.3f} to {high[n, p]:.3f})" for p in range(3))]
        for n, length in enumerate(LENGTHS)
    ]
    print(table(["T", *PARAMETERS], cells), flush=True)
    return [Line(f"{preset}, {name}", LENGTHS, middle[:, p].tolist()) for p, name in enumerate(PARAMETERS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--gradient-images", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    changes, scores = zip(*(report_iterations(name, options.data, options.images) for name in NAMES), strict=True)
    norms = [line for name in NAMES for line in report_gradients(name, options.data, options.gradient_images)]
    options.out.mkdir(parents=True, exist_ok=True)
    for file, chart in {
        "change.svg": draw_chart("Convergence", "iteration t", "mean change of Q, %", changes, log_y=True),
        "miou.svg": draw_chart("What each iteration gains", "iteration t", "mIoU", scores),
        "gradients.svg": draw_chart("Gradients", "iterations T", "norm relative to T = 1", norms, log_y=True),
    }.items():
        (options.out / file).write_text(chart)


if __name__ == "__main__":
    main()
