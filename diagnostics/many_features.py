"""How poor the lattice becomes with many features: bands of a sensor, or maps of a network, and two positions.

    python -m diagnostics.many_features [--out docs/accuracy.md]

96 x 72 images, the bilateral kernel of the set (80, 13) and the spatial one, normalisation "after", T = 10. Labels:
share of pixels whose label is not the exact mean field's. Filter: relative L2 distance to the exact filter. Guides
have more and more channels: *bands*, each another mixture of a photo's colours with noise of its own, as sensors have
them, and *maps*, the photo at several scales and its differences, as networks have them. theta_beta grows with the root
of their number, so that pixels stay as far apart as they are in the photo. The table with the marker
`<!-- features -->` is replaced in --out.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.bm_accuracy import distance, exact, random_maps, span
from crfrnn import Bilateral, Spatial, mean_field
from diagnostics.tables import replace_table
from tests.support.problems import PHOTOS, photo, potts, predictions

CHANNELS = (3, 8, 12, 15, 18)
FINER = (3,)  # channels for which accuracy 2 is measured too: its vertices become too many soon
NOISE = 6.0  # of a band, in units of 0..255: some 2 %


def bands(name: str, channels: int) -> Tensor:
    """(1, channels, H, W) in 0..255."""
    generator = torch.Generator().manual_seed(channels)
    shares = torch.rand(channels, 3, generator=generator) ** 2
    shares = shares / shares.sum(dim=1, keepdim=True)
    gamma = 0.5 + torch.rand(channels, 1, 1, generator=generator)
    mixed = torch.einsum("cb,bhw->chw", shares, photo(name)[0] / 255).clamp(min=0) ** gamma
    mixed = mixed - mixed.mean(dim=(1, 2), keepdim=True)
    scale = photo(name).std(dim=(2, 3)).mean() / mixed.std(dim=(1, 2), keepdim=True)
    return (mixed * scale + NOISE * torch.randn(mixed.shape, generator=generator))[None]


def maps(name: str, channels: int) -> Tensor:
    """(1, channels, H, W), as spread out as the photo's colours."""
    planes = list(photo(name)[0].numpy())
    grey = photo(name)[0].mean(dim=0).numpy()
    for sigma in (1, 2, 4):
        planes += [gaussian_filter(grey, sigma), np.gradient(gaussian_filter(grey, sigma), axis=1)]
        planes += [np.gradient(gaussian_filter(grey, sigma), axis=0), np.sqrt(gaussian_filter(grey**2, sigma))]
        planes += [gaussian_filter(planes[0] - planes[1], sigma)]
    guide = torch.from_numpy(np.stack(planes[:channels]))
    guide = guide - guide.mean(dim=(1, 2), keepdim=True)
    return (guide / guide.std(dim=(1, 2), keepdim=True) * photo(name).std(dim=(2, 3)).mean())[None]


def measure(guide: Tensor, logits: Tensor, accuracies: tuple[int, ...]) -> list[float]:
    """The filter's distance, then for each accuracy the share of labels that differ."""
    theta = 13 * (guide.shape[1] / 3) ** 0.5
    kernels = [Bilateral(80, theta), Spatial(3)]
    truths = [exact(kernel, guide) for kernel in kernels]
    weights, compatibility = torch.tensor([[10.0], [3.0]]), potts(logits.shape[1])
    labels = mean_field(logits, truths, weights, compatibility, 10).argmax(dim=1)
    q = logits.softmax(dim=1)
    out = [distance(kernels[0].prepare(guide)(q), truths[0](q))]
    for accuracy in accuracies:
        filters = [Bilateral(80, theta, accuracy=accuracy).prepare(guide), kernels[1].prepare(guide)]
        got = mean_field(logits, filters, weights, compatibility, 10).argmax(dim=1)
        out.append(float((got != labels).float().mean()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--channels", type=int, nargs="*", default=CHANNELS)
    options = parser.parse_args()
    values: dict[str, Callable[[str], Tensor]] = {
        "predictions": lambda name: predictions(name, 6),
        "random maps": lambda name: random_maps(name)[1][:, :6],
    }
    rows = ["| features | guide | values | filter, % | labels that differ, T = 10, % | with accuracy 2, % |"]
    rows.append("|---|---|---|---|---|---|")
    for channels in options.channels:
        for kind in (bands, maps):
            for what, logits in values.items():
                accuracies = (1, 2) if channels in FINER else (1,)
                measured = [measure(kind(name, channels), logits(name), accuracies) for name in PHOTOS]
                cells = [span(list(column)) for column in zip(*measured, strict=True)]
                cells += [""] * (3 - len(cells))
                rows.append(f"| {channels + 2} | {kind.__name__} | {what} | {' | '.join(cells)} |")
                print(rows[-1], flush=True)
    if options.out:
        replace_table(options.out, "features", rows)


if __name__ == "__main__":
    main()
