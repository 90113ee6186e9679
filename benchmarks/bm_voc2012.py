"""What each preset does to a present network's predictions: mIoU on images of Pascal VOC 2012 val.

    python -m benchmarks.bm_voc2012 --data PATH_TO/voc2012 [--out docs/voc2012.md]

PATH_TO/voc2012 holds ``images/ID.jpg``, ``labels/ID.png`` (palette, 255 is void) and ``unaries/ID.npz`` with
``nll16``, uint8 (21, h, w): minus the logarithm of the network's softmax, times 16. The maps are used as they are and
average-pooled by 4 and by 8, as a coarser network would give them, then upsampled to the image.
"""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from crfrnn import refine
from crfrnn.parameters import PRESETS

CLASSES, VOID = 21, 255
POOLS = {"native": 1, "pooled by 4": 4, "pooled by 8": 8}
ROWS = ["network alone", *PRESETS]


def logits_of(path: Path, size: tuple[int, int], pool: int) -> np.ndarray:
    """(21, H, W) float32."""
    with np.load(path) as stored:
        maps = torch.from_numpy(stored["nll16"].astype(np.float32))[None] / -16
    if pool > 1:
        maps = avg_pool2d(maps, pool)
    return interpolate(maps, size=size, mode="bilinear", align_corners=True)[0].numpy()


def confusion(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(21, 21) counts: row = truth, column = label."""
    known = truth != VOID
    return np.bincount(CLASSES * truth[known].astype(np.int64) + labels[known], minlength=CLASSES**2).reshape(
        CLASSES, -1
    )


def miou(counts: np.ndarray) -> float:
    both = np.diag(counts)
    return float(np.mean(both / (counts.sum(0) + counts.sum(1) - both)))


def one_image(folder: Path, name: str, iterations: int) -> np.ndarray:
    """(pools, rows, 21, 21) confusion counts of one image."""
    torch.set_num_threads(1)
    image = np.array(Image.open(folder / "images" / f"{name}.jpg").convert("RGB"))
    truth = np.array(Image.open(folder / "labels" / f"{name}.png"))
    out = np.zeros((len(POOLS), len(ROWS), CLASSES, CLASSES), np.int64)
    for i, pool in enumerate(POOLS.values()):
        logits = logits_of(folder / "unaries" / f"{name}.npz", truth.shape, pool)
        out[i, 0] = confusion(truth, logits.argmax(axis=0))
        for j, preset in enumerate(PRESETS):
            marginals = refine(image, logits=logits, preset=preset, iterations=iterations)
            out[i, 1 + j] = confusion(truth, marginals.argmax(axis=0))
    return out


def over_images(folder: Path, names: list[str], iterations: int) -> Iterator[np.ndarray]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(one_image, [folder] * len(names), names, [iterations] * len(names))


def table(total: np.ndarray) -> list[str]:
    lines = ["| | " + " | ".join(POOLS) + " |", "|---|" + "---|" * len(POOLS)]
    for j, row in enumerate(ROWS):
        cells = []
        for i in range(len(POOLS)):
            value, alone = 100 * miou(total[i, j]), 100 * miou(total[i, 0])
            cells.append(f"{value:.2f}" + (f" ({value - alone:+.2f})" if j else ""))
        lines.append(f"| {row if j == 0 else f'`{row}`'} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = (options.data / "ids.txt").read_text().split()
    start = time.time()
    total = np.zeros((len(POOLS), len(ROWS), CLASSES, CLASSES), np.int64)
    for number, counts in enumerate(over_images(options.data, names, options.iterations), 1):
        total += counts
        if number % 20 == 0:
            print(f"{number} of {len(names)} images, {time.time() - start:.0f} s", flush=True)
    rows = table(total)
    print("\n".join(rows))
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(head + "<!-- table -->\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
