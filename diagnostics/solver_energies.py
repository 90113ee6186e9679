"""What each solver reaches on photos: the free energy and the energy of the labelling after 1, 2, 5, 10 and 20 steps.

    python -m diagnostics.solver_energies --data PATH_TO/voc2012

Images of Pascal VOC 2012 val at half their size, a network's outputs at about 1/8 of the image's size, two presets
with symmetric normalisation. Nats for each thousand pixels above the lowest that any solver has reached on that image.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crfrnn.inference.energy import gibbs_energy
from crfrnn.inference.recurrence import iterates
from crfrnn.inference.solvers import DampedMeanField, EntropicFrankWolfe, EuclideanFrankWolfe, MeanField, Solver
from crfrnn.parameters import PRESETS
from diagnostics.voc2012 import examples

SOLVERS: dict[str, Solver] = {
    "mean field, convergent": MeanField(),
    "damped, step 0.5": DampedMeanField(0.5),
    "entropic Frank-Wolfe, lambda 1": EntropicFrankWolfe(),
    "entropic Frank-Wolfe, lambda 0.3": EntropicFrankWolfe(lambda_=0.3),
    "Euclidean Frank-Wolfe, lambda 1": EuclideanFrankWolfe(),
    "Euclidean Frank-Wolfe, lambda 1, diminishing": EuclideanFrankWolfe(step="diminishing"),
}
SHOWN = (1, 2, 5, 10, 20)
SHRINK = 2


def energies(guide: Tensor, logits: Tensor, preset: str, solver: Solver) -> np.ndarray:
    """(2, len(SHOWN)): F(Q) and E(x) of the most probable labels."""
    filters = [
        kernel.scaled(1 / SHRINK).prepare(guide, normalization="symmetric") for kernel in PRESETS[preset].kernels
    ]
    weights = torch.tensor([[float(kernel.weight)] for kernel in PRESETS[preset].kernels])
    arguments = logits, filters, weights, 1 - torch.eye(logits.shape[1])
    shown = [now for now in iterates(*arguments, SHOWN[-1], solver) if now.t in SHOWN]
    return np.array(
        [[now.free_energy.item() for now in shown], [gibbs_energy(now.q.argmax(1), *arguments).item() for now in shown]]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=6)
    options = parser.parse_args()
    for preset in ("pydensecrf", "deeplab-v2"):
        above = []
        for _, guide, logits, truth in examples(options.data, options.images, shrink=SHRINK):
            found = np.stack([energies(guide, logits, preset, solver) for solver in SOLVERS.values()])
            above.append((found - found.min(axis=(0, 2), keepdims=True)) / truth.numel() * 1000)
        means = np.mean(above, axis=0)
        for number, what in enumerate(("F(Q)", "E(x)")):
            print(f"\n{what}, {preset}, {len(above)} images\n")
            print("| solver | " + " | ".join(f"t = {t}" for t in SHOWN) + " |\n|" + "---|" * (1 + len(SHOWN)))
            for name, row in zip(SOLVERS, means[:, number], strict=True):
                print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
