"""How far the fast filters are from the exact sum, and what that does to the labels.

    python -m benchmarks.bm_accuracy [--data PATH_TO/voc2012] [--out docs/accuracy.md]

96 x 72 images, normalisation "after", every accuracy of the lattice. Filters: relative L2 distance to the exact filter.
Labels: share of pixels whose label after T = 10 differs from the exact mean field's. Three kinds of values are
filtered, as the error depends on them: a network's outputs (with --data; see bm_voc2012.py), predictions made from the
photos' own colours, and smooth random maps that have nothing to do with the photo, the worst case.

What an accuracy costs: CPU time of a whole call on one thread, 500 x 375, 21 labels, T = 10, against pydensecrf's, in
turn in one process. CPU time, and not the clock's, so that a busy machine does not change the comparison much.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks import inputs as timing
from crfrnn import Bilateral, GaussianFilter, Spatial, mean_field
from crfrnn.filtering.kernels import Kernel, with_accuracy
from crfrnn.filtering.operator import Operator
from crfrnn.filtering.permutohedral.lattice_cpu import LatticeOperator
from crfrnn.filtering.permutohedral.stencil import STENCILS
from tests.support import problems

WIDTH, HEIGHT = 96, 72
PHOTOS = ("chelsea", "astronaut", "coffee", "rocket")
SETS: dict[str, tuple[Kernel, ...]] = {
    "(160, 3)": (Bilateral(160, 3, 5.0), Spatial(3, 3.0)),
    "(80, 13)": (Bilateral(80, 13, 10.0), Spatial(3, 3.0)),
}


def network_outputs(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Every 20th image: guide (1, 3, H, W) and logits (1, 21, H, W)."""
    out = []
    for name in (folder / "ids.txt").read_text().split()[::20]:
        image = Image.open(folder / "images" / f"{name}.jpg").convert("RGB").resize((WIDTH, HEIGHT))
        with np.load(folder / "unaries" / f"{name}.npz") as stored:
            maps = torch.from_numpy(stored["nll16"].astype(np.float32))[None] / -16
        logits = interpolate(maps, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        out.append((torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float(), logits))
    return out


def random_maps(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = 4 * torch.randn(1, 21, 9, 12, generator=generator)
    return problems.photo(name), interpolate(coarse, size=(HEIGHT, WIDTH), mode="bilinear")


class Matrix(Operator):
    """The exact kernel as the N x N matrix that it is, summed once for all accuracies and iterations."""

    def __init__(self, kernel: Bilateral | Spatial, guide: Tensor):
        f = kernel.features(guide).flatten(2)[0]
        self.k = torch.exp(-0.5 * torch.cdist(f.t(), f.t(), compute_mode="donot_use_mm_for_euclid_dist").square())

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        del transposed
        return values @ self.k

    def diagonal(self) -> Tensor:
        return self.k.diagonal().view(1, 1, -1)


def exact(kernel: Kernel, guide: Tensor) -> GaussianFilter:
    """The same kernel, summed exactly, normalisation "after"."""
    assert isinstance(kernel, Bilateral | Spatial)
    operator = Matrix(kernel, guide)
    norm = operator.k.sum(dim=1).view(1, 1, -1)
    return GaussianFilter(operator, tuple(guide.shape[2:]), torch.float32, after=1 / norm)


def distance(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@dataclass
class Measured:
    """Of one image: relative L2 distances of the filters, and for each accuracy the share of labels that differ."""

    bilateral: list[float]
    spatial: float
    labels: list[float]


def measure(kernels: tuple[Kernel, ...], guide: Tensor, logits: Tensor) -> Measured:
    q = torch.softmax(logits, dim=1)
    truths = [exact(kernel, guide) for kernel in kernels]
    weights, potts = torch.tensor([[kernel.weight] for kernel in kernels]), problems.potts(logits.shape[1])
    expected, labels = truths[0](q), mean_field(logits, truths, weights, potts, 10).argmax(dim=1)
    bilateral, differing = [], []
    for accuracy in STENCILS:
        filters = [kernel.prepare(guide) for kernel in with_accuracy(kernels, accuracy)]
        bilateral.append(distance(filters[0](q), expected))
        got = mean_field(logits, filters, weights, potts, 10).argmax(dim=1)
        differing.append(float((got != labels).float().mean()))
    return Measured(bilateral, distance(kernels[1].prepare(guide)(q), truths[1](q)), differing)


def cost(rounds: int = 5) -> list[str]:
    """A table of the time of a whole call for each accuracy, beside pydensecrf's."""
    image, p = timing.photo(500, 375), timing.probabilities(500, 375)
    rows = [
        "| set | accuracy | one thread | all threads | pydensecrf | vertices for each pixel |",
        "|---|---|---|---|---|---|",
    ]
    for choice in timing.SETS.values():
        calls: dict[str, Callable[[], object]] = {}
        for accuracy in STENCILS:
            call = partial(timing.ours, image, p, with_accuracy(choice["kernels"], accuracy), 10)
            calls[f"one {accuracy}"], calls[f"all {accuracy}"] = timing.with_threads(1, call), call
        if timing.peer:
            calls["peer"] = partial(timing.pydensecrf, image, p, choice["kernels"], 10)
        medians = timing.alternate(calls, rounds)
        guide = torch.from_numpy(image).permute(2, 0, 1)[None]
        for accuracy in STENCILS:
            operator = with_accuracy(choice["kernels"][:1], accuracy)[0].prepare(guide).operator
            assert isinstance(operator, LatticeOperator)
            vertices = int(operator.lattices.rows[0, -1]) / image[..., 0].size
            times = [medians.get(name) for name in (f"one {accuracy}", f"all {accuracy}", "peer")]
            cells = ["" if seconds is None else f"{seconds:.2f} s" for seconds in times]
            name = choice["name"].split(";")[0] + ")"
            rows.append(f"| {name} | {accuracy} | {' | '.join(cells)} | {vertices:.2f} |")
            print(rows[-1], flush=True)
    return [*rows, "", timing.machine()]


def span(values: list[float]) -> str:
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    costs = cost()
    inputs = {
        "predictions from the photo's colours": [(problems.photo(p), problems.predictions(p)) for p in PHOTOS],
        "smooth random maps": [random_maps(p) for p in PHOTOS],
    }
    if options.data:
        inputs = {"a network's outputs": network_outputs(options.data), **inputs}
    rows = ["| set | values | accuracy | bilateral, % | labels that differ, T = 10, % |", "|---|---|---|---|---|"]
    spatial = []
    for name, kernels in SETS.items():
        for what, cases in inputs.items():
            results = [measure(kernels, *case) for case in cases]
            spatial += [result.spatial for result in results]
            for k, accuracy in enumerate(STENCILS):
                bilateral, labels = ([getattr(r, key)[k] for r in results] for key in ("bilateral", "labels"))
                rows.append(f"| {name} | {what} | {accuracy} | {span(bilateral)} | {span(labels)} |")
                print(rows[-1], flush=True)
    rows += ["", f"The separable filter of these images: at most {100 * max(spatial):.2f} %."]
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(head + "<!-- table -->\n\n" + "\n".join([*costs, "", *rows]) + "\n")


if __name__ == "__main__":
    main()
