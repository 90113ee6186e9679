"""How far the gradient of the features is from the exact filter's: two ways on a lattice, and a whole layer.

    python -m diagnostics.feature_gradient [--data PATH_TO/voc2012] [--out docs/learning.md]

96 x 72 images, the bilateral kernel, normalisation "after". *One filter*: values are the marginals of plausible
predictions, or with --data of a network; the gradient of what is filtered is that of a cross-entropy, the same for
all. *The layer*: bilateral and spatial kernel, T iterations, cross-entropy against the labels; there the exact layer's
marginals are others, too. Cosine with the exact gradient of the guide, and the bandwidths' gradients over the exact
ones, theta_alpha and theta_beta. The table with the marker `<!-- gradients -->` is replaced in --out.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from crfrnn import CRFRNN, Bilateral, Spatial
from crfrnn.filtering.feature_gradient import Sums, feature_gradient
from crfrnn.filtering.permutohedral.reference import Lattice, embed, gain
from diagnostics.tables import replace_table
from tests.support.problems import HEIGHT, PHOTOS, WIDTH, photo, predictions

SETS = {"(160, 3)": Bilateral(160, 3, 5.0), "(80, 13)": Bilateral(80, 13, 10.0)}
Case = tuple[str, Tensor, Tensor, Tensor]  # name, guide (1, 3, H, W), logits (1, L, H, W), labels (1, H, W)


def photos() -> Iterator[Case]:
    for name in PHOTOS:
        yield name, photo(name), predictions(name, 6), predictions(name, 6, 1).argmax(1)


def network_outputs(folder: Path) -> Iterator[Case]:
    """Every 60th image."""
    for name in (folder / "ids.txt").read_text().split()[::60]:
        image = Image.open(folder / "images" / f"{name}.jpg").convert("RGB").resize((WIDTH, HEIGHT))
        labels = Image.open(folder / "labels" / f"{name}.png").resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
        with np.load(folder / "unaries" / f"{name}.npz") as stored:
            maps = torch.from_numpy(stored["nll16"].astype(np.float32))[None] / -16
        logits = interpolate(maps, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        guide = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        yield name, guide, logits, torch.from_numpy(np.array(labels)).long()[None]


def exact_sums(features: Tensor) -> Sums:
    """K v with all N x N entries in memory (200 MB here): as `exact`, and several times as fast for many calls."""
    points = features.t().contiguous()
    k = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square_().mul_(-0.5).exp_()
    return lambda values, transposed: values @ k


def of_the_gaussian(sums: Sums, features: Tensor, values: Tensor, grad: Tensor) -> Tensor:
    """What the package does; with the exact sums it is the exact gradient."""
    return feature_gradient(sums, features, values, grad)


def of_the_weights(sums: Sums, features: Tensor, values: Tensor, grad: Tensor) -> Tensor:
    """The other candidate: the derivative of the lattice's own barycentric weights, (d, N)."""
    del sums
    lattice, dimensions = Lattice(features), len(features)
    blurred, of_grad = lattice.splat(values.t()), lattice.splat(grad.t())
    for axis in range(dimensions + 1):
        blurred, of_grad = lattice.blur(blurred, axis), lattice.blur(of_grad, dimensions - axis)
    at_corners = blurred[lattice.vertices] * grad.t().unsqueeze(1) + of_grad[lattice.vertices] * values.t().unsqueeze(1)
    with torch.enable_grad():
        weights = embed(leaf := features.clone().requires_grad_()).weights
        loss = gain(dimensions) * (weights * at_corners.sum(dim=2)).sum()
    return torch.autograd.grad(loss, leaf)[0]


CANDIDATES = {"the Gaussian's": of_the_gaussian, "the weights'": of_the_weights}


def with_norm(sums: Sums, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values with a channel of ones, n = K 1 (1, N), and the filtered values K q / n."""
    ones = torch.cat([q, torch.ones_like(q[:1])])
    both = sums(ones, False)
    return ones, both[-1:], both[:-1] / both[-1:]


def of_one_filter(kernel: Bilateral, guide: Tensor, logits: Tensor, labels: Tensor) -> dict[str, list[Tensor]]:
    """Gradients of the guide, log theta_alpha and log theta_beta: the exact ones and those of each candidate."""
    features, q = kernel.features(guide)[0].flatten(1), logits.softmax(dim=1)[0].flatten(1)
    exact, lattice = exact_sums(features), Lattice(features).sums
    filtered = with_norm(exact, q)[2].requires_grad_()
    loss = cross_entropy(5 * filtered[None], labels.flatten(1), ignore_index=255)
    grad = torch.autograd.grad(loss, filtered)[0]
    out = {}
    for name, sums, candidate in [
        ("exact", exact, of_the_gaussian),
        *((name, lattice, candidate) for name, candidate in CANDIDATES.items()),
    ]:
        values, norm, result = with_norm(sums, q)
        of_norm = -(grad * result).sum(dim=0, keepdim=True)  # the division by n is one more channel
        gradient = candidate(sums, features, values, torch.cat([grad, of_norm]) / norm)
        moments = -(gradient * features).sum(dim=1)
        out[name] = [gradient[2:], moments[:2].sum(), moments[2:].sum()]
    return out


def of_the_layer(
    kernel: Bilateral, guide: Tensor, logits: Tensor, labels: Tensor, method: str, iterations: int
) -> list[Tensor]:
    kernels = replace(kernel, method=method), Spatial(3, 3.0)  # the separable filter is exact to 0.1 %
    layer = CRFRNN(logits.shape[1], kernels, iterations=iterations, learn_bandwidths=True)
    leaf = guide.clone().requires_grad_()
    loss = cross_entropy(layer(logits, leaf), labels, ignore_index=255)
    parameters = dict(layer.named_parameters())
    wanted = [parameters[f"log_bandwidths.0.{name}"] for name in kernel.bandwidths]
    return list(torch.autograd.grad(loss, [leaf, *wanted]))


def compared(got: list[list[Tensor]], exact: list[list[Tensor]]) -> str:
    """Cells of the table, from the gradients of all images: mean and range."""
    pairs = list(zip(got, exact, strict=True))
    cosines = [float((a[0] * b[0]).sum() / (a[0].norm() * b[0].norm())) for a, b in pairs]
    cells = [f"{np.mean(cosines):.3f} ({min(cosines):.3f} to {max(cosines):.3f})"]
    for k in (1, 2):
        ratios = [float(a[k] / b[k]) for a, b in pairs]
        total = float(sum(a[k] for a, _ in pairs) / sum(b[k] for _, b in pairs))
        cells.append(f"{total:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--iterations", type=int, nargs="*", default=[1], help="of the layer; 5 takes an hour")
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    options = parser.parse_args()
    inputs = {"photos": list(photos())}
    if options.data:
        inputs["a network's outputs"] = list(network_outputs(options.data))
    rows = ["| gradient of | set | images | cosine, guide | theta_alpha | theta_beta |", "|---|---|---|---|---|---|"]
    sets = {name: SETS[name] for name in options.sets}
    for name, kernel in sets.items():
        for what, cases in inputs.items():
            gradients = [of_one_filter(kernel, *case[1:]) for case in cases]
            for candidate in CANDIDATES:
                cells = compared([g[candidate] for g in gradients], [g["exact"] for g in gradients])
                rows.append(f"| one filter, {candidate} | {name} | {what} | {cells} |")
                print(rows[-1], flush=True)
    for iterations in options.iterations:  # slow: the exact filter's tiles, and autograd through them
        for name, kernel in sets.items():
            got, exact = (
                [of_the_layer(kernel, *case[1:], method, iterations) for case in inputs["photos"]]
                for method in ("permutohedral", "exact")
            )
            rows.append(f"| the layer, T = {iterations} | {name} | photos | {compared(got, exact)} |")
            print(rows[-1], flush=True)
    if options.out:
        replace_table(options.out, "gradients", rows)


if __name__ == "__main__":
    main()
