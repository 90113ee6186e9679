"""Which learning rate each part of a CRF-RNN wants behind a mean cross-entropy.

    python -m diagnostics.learning_rates PATH_TO/voc2012 [--out docs/learning.md]

A layer with pydensecrf's bandwidths (80, 13; 3), far too wide here, and weights 3 and 3, behind the outputs of a
network, pooled by 8, on 64 x 48 pixels of photos of VOC 2012; T = 5, batches of 4. Each part of its parameters learns
alone, the others stay, for a few updates of Adam and of SGD (momentum 0.9) at rates a factor of ten apart; then all
parts together, with one rate and with the defaults of `CRFRNN.parameter_groups`. What is shown is the mean
cross-entropy on as many other photos. The tables at `<!-- scales -->` and `<!-- rates -->` are replaced in --out.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from crfrnn import CRFRNN, Bilateral, Spatial
from diagnostics.tables import replace_table

SIZE = (48, 64)
PARTS = ("kernel_weights", "compatibility", "log_bandwidths")
RATES = {"Adam": (1e-3, 1e-2, 1e-1), "SGD": (1e-1, 1e0, 1e1)}
BATCH = 4
Batch = tuple[Tensor, Tensor, Tensor]  # logits (B, 21, H, W), images (B, 3, H, W), labels (B, H, W)


def load(folder: Path, names: list[str]) -> Batch:
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = [], [], []
    for name in names:
        image = Image.open(folder / "images" / f"{name}.jpg").convert("RGB").resize((SIZE[1], SIZE[0]))
        labels = Image.open(folder / "labels" / f"{name}.png").resize((SIZE[1], SIZE[0]), Image.Resampling.NEAREST)
        with np.load(folder / "unaries" / f"{name}.npz") as stored:
            maps = torch.from_numpy(stored["nll16"].astype(np.float32))[None] / -16
        parts[0].append(interpolate(avg_pool2d(maps, 8), size=SIZE, mode="bilinear"))
        parts[1].append(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())
        parts[2].append(torch.from_numpy(np.array(labels)).long()[None])
    logits, images, labels = (torch.cat(part) for part in parts)
    return logits, images, labels


def layer() -> CRFRNN:
    return CRFRNN(21, kernels=(Bilateral(80, 13, 3.0), Spatial(3, 3.0)), learn_bandwidths=True)


def loss_of(crf: CRFRNN, batch: Batch) -> Tensor:
    return cross_entropy(crf(batch[0], batch[1]), batch[2], ignore_index=255)


def held_out(crf: CRFRNN, batch: Batch) -> float:
    with torch.no_grad():
        return float(loss_of(crf, batch))


def train(crf: CRFRNN, groups: list[dict], optimiser: str, updates: int, data: Batch) -> None:
    learned = [parameter for group in groups for parameter in group["params"]]
    for parameter in crf.parameters():
        parameter.requires_grad_(any(parameter is p for p in learned))
    step = torch.optim.Adam(groups) if optimiser == "Adam" else torch.optim.SGD(groups, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    for _ in range(updates):
        chosen = torch.randperm(len(data[0]), generator=order)[:BATCH]
        loss = loss_of(crf, (data[0][chosen], data[1][chosen], data[2][chosen]))
        step.zero_grad()
        loss.backward()
        step.step()


def part_of(crf: CRFRNN, part: str) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in crf.named_parameters() if name.startswith(part)]


def scales(data: Batch) -> list[str]:
    """What a step has to move, and what pulls at it: root mean squares of values and of gradients."""
    crf, logits = layer(), data[0][:BATCH].clone().requires_grad_()
    bias = torch.zeros(21, 1, 1, requires_grad=True)  # of the network's last convolution
    loss_of(crf, (logits + bias, data[1][:BATCH], data[2][:BATCH])).backward()
    rows = ["| parameter | its values | its gradients |", "|---|---|---|"]
    rms: Callable[[Tensor], float] = lambda t: float(t.detach().square().mean().sqrt())  # noqa: E731
    for name, parameter in [("a bias of the network's last layer", bias), *crf.named_parameters()]:
        assert parameter.grad is not None
        rows.append(f"| {name} | {rms(parameter):.2g} | {rms(parameter.grad):.1e} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args()
    names = (options.data / "ids.txt").read_text().split()
    data, others = (load(options.data, names[start :: len(names) // options.images]) for start in (0, 3))
    of_scales = scales(data)
    print("\n".join(of_scales), flush=True)
    before = held_out(layer(), others)
    unary = float(cross_entropy(others[0], others[2], ignore_index=255))
    rows = [f"| what learns | optimiser | rate: loss (network {unary:.4f}, CRF before {before:.4f}) |", "|---|---|---|"]
    for optimiser, rates in RATES.items():
        for part in (*PARTS, "all, one rate", "all, parameter_groups"):
            cells = []
            for rate in rates:
                crf = layer()
                if part == "all, parameter_groups":
                    groups = crf.parameter_groups(rate)
                elif part == "all, one rate":
                    groups = [{"params": list(crf.parameters()), "lr": rate}]
                else:
                    groups = [{"params": part_of(crf, part), "lr": rate}]
                try:
                    train(crf, groups, optimiser, options.updates, data)
                    cells.append(f"{rate:g}: {held_out(crf, others):.4f}")
                except ValueError:  # a bandwidth has left the range of numbers
                    cells.append(f"{rate:g}: diverged")
            rows.append(f"| {part} | {optimiser} | {', '.join(cells)} |")
            print(rows[-1], flush=True)
    if options.out:
        replace_table(options.out, "scales", of_scales)
        replace_table(options.out, "rates", rows)


if __name__ == "__main__":
    main()
