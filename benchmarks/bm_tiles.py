"""What share of the pairs of tiles does the exact filter have to sum on real photos?

    python -m benchmarks.bm_tiles [--out benchmarks/results/tiles.md]

A property of the photos and the bandwidths, not of a machine: it predicts what leaving out far tiles gains.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import gpu_inputs
from crfrnn import Bilateral
from crfrnn.filtering.exact.tiles import TOLERANCE, Tiles, reach, tile

WIDTH, HEIGHT = 500, 375
SETS = ((160, 3), (80, 13), (67, 3))
SIZES = (32, 64, 128)
CUTS = (1e-4, 1e-5, 1e-6, 1e-7)  # the largest kernel that is left out
ROWS = 64  # row tiles that are compared at a time


def shares(tiles: Tiles, reaches: list[float]) -> Tensor:
    """For each squared reach, the share of pairs of tiles whose boxes come as near."""
    low, high = tiles.low[0], tiles.high[0]
    near = torch.zeros(len(reaches), dtype=torch.int64)
    limits = torch.tensor(reaches).view(-1, 1, 1)
    for start in range(0, tiles.count, ROWS):
        rows = slice(start, start + ROWS)
        below, above = low[:, rows, None] - high[:, None], low[:, None] - high[:, rows, None]
        gaps = torch.maximum(below, above).clamp_min(0).square().sum(dim=0)
        near += (gaps <= limits).sum(dim=(1, 2))
    return near / tiles.count**2


def table() -> list[str]:
    """Markdown: a row for each set and tile size, means over the photos; then each photo at the default."""
    reaches = [reach(1, cut) for cut in CUTS] + [reach(WIDTH * HEIGHT, TOLERANCE[torch.float32])]
    heading = ["set", "tile", *(f"{cut:.0e}" for cut in CUTS), "default", *gpu_inputs.PHOTOS]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    photos = gpu_inputs.photos(len(gpu_inputs.PHOTOS), HEIGHT, WIDTH)
    for alpha, beta in SETS:
        for size in SIZES:
            each = torch.stack(
                [
                    shares(tile(f.unsqueeze(0), size), reaches)
                    for f in Bilateral(alpha, beta).features(photos).flatten(2)
                ]
            )
            cells = [f"{100 * share:.1f}" for share in (*each.mean(dim=0).tolist(), *each[:, -1].tolist())]
            lines.append(f"| ({alpha}, {beta}) | {size} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the report to this Markdown file")
    options = parser.parse_args()
    report = [
        "# Pairs of tiles that are near",
        "",
        f"`python -m benchmarks.bm_tiles`: {WIDTH} x {HEIGHT}, {gpu_inputs.source()}.",
        "Per cent of all pairs of tiles whose kernel may be above a cut, mean of the photos; then at the default,",
        "1e-6 / N, which bounds the whole error by 1e-6: mean, and photo by photo. Sets are (theta_alpha, theta_beta).",
        "",
        *table(),
        "",
    ]
    print("\n".join(report))
    if options.out:
        options.out.write_text("\n".join(report))


if __name__ == "__main__":
    main()
