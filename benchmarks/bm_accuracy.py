"""How far the fast filters are from the exact sum, and what that does to the labels.

    python -m benchmarks.bm_accuracy [--data PATH_TO/voc2012] [--out docs/accuracy.md]

96 x 72 images, normalisation "after". Filters: relative L2 distance to the exact filter. Labels: share of pixels
whose label after T = 10 differs from the exact mean field's. Three kinds of values are filtered, as the error depends
on them: a network's outputs (with --data; see bm_voc2012.py), predictions made from the photos' own colours, and smooth
random maps that have nothing to do with the photo, the worst case.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from crfrnn import Bilateral, Spatial, mean_field
from crfrnn.filtering.kernels import Kernel
from tests import problems

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


def exact(kernel: Kernel) -> Kernel:
    """The same kernel, summed exactly."""
    assert isinstance(kernel, Bilateral | Spatial)
    return type(kernel)(**{**vars(kernel), "method": "exact"})


def distance(kernel: Kernel, guide: Tensor, q: Tensor) -> float:
    truth = exact(kernel).prepare(guide)(q)
    return float((kernel.prepare(guide)(q) - truth).norm() / truth.norm())


def differing(kernels: tuple[Kernel, ...], guide: Tensor, logits: Tensor) -> float:
    labels = []
    for chosen in (kernels, tuple(exact(kernel) for kernel in kernels)):
        weights = torch.tensor([[kernel.weight] for kernel in kernels])
        filters = [kernel.prepare(guide) for kernel in chosen]
        labels.append(mean_field(logits, filters, weights, problems.potts(logits.shape[1]), 10).argmax(dim=1))
    return float((labels[0] != labels[1]).float().mean())


def span(values: list[float]) -> str:
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    inputs = {
        "predictions from the photo's colours": [(problems.photo(p), problems.predictions(p)) for p in PHOTOS],
        "smooth random maps": [random_maps(p) for p in PHOTOS],
    }
    if options.data:
        inputs = {"a network's outputs": network_outputs(options.data), **inputs}
    rows = [
        "| set | values | bilateral, lattice, % | spatial, separable, % | labels that differ, T = 10, % |",
        "|---|---|---|---|---|",
    ]
    for name, kernels in SETS.items():
        for what, cases in inputs.items():
            q = [(guide, torch.softmax(logits, dim=1)) for guide, logits in cases]
            bilateral = span([distance(kernels[0], *case) for case in q])
            spatial = span([distance(kernels[1], *case) for case in q]) if name == "(160, 3)" else ""
            labels = span([differing(kernels, *case) for case in cases])
            rows.append(f"| {name} | {what} | {bilateral} | {spatial} | {labels} |")
            print(rows[-1], flush=True)
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(head + "<!-- table -->\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
