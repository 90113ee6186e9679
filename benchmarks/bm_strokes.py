"""A few strokes on a photo: the network alone, with a separate CRF behind it, and both trained end to end.

`python -m benchmarks.bm_strokes --examples PATH_TO/examples --out docs/strokes.md`. The three photos of the original
DenseCRF example come with annotations, whose black is unsure; strokes are made of them by `strokes_from`. The photos of
scikit-image have strokes and outlines of our own (`stroke_photos`). Scored are pixels with a known label and no stroke.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize

from benchmarks.inputs import machine
from benchmarks.stroke_photos import DRAWINGS, VOID, photo_of, strokes_of, truth_of
from crfrnn.commands.segment.segment import network_logits, prepare_strokes
from crfrnn.commands.segment.stroke_training import (
    JOINT_STEPS,
    NETWORK_STEPS,
    PixelNetwork,
    stroke_crf,
    train_end_to_end,
    train_network,
)
from crfrnn.networks.photo_size import bands

VARIANTS = ("network alone", "separate CRF", "end to end")
SHARE = 0.01  # of the pixels that the strokes made of annotations cover
CELL = 28  # pixels: strokes are pieces of the skeleton, as long as such a cell
EDGE = 4  # pixels: strokes keep so far from the edge of their region

Task = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # name, photo, truth, strokes


def strokes_from(truth: np.ndarray, seed: int) -> np.ndarray:
    """(H, W) labels -> strokes 5 pixels wide: pieces of each region's skeleton, drawn by lot.

    They cover `SHARE` of the pixels, dealt out by the square root of the classes' areas.
    """
    lot = np.random.default_rng(seed)
    strokes = np.full(truth.shape, VOID)
    classes = np.unique(truth[truth != VOID])
    roots = {c: math.sqrt((truth == c).sum()) for c in classes}
    for c in classes:
        region = truth == c
        inside = np.asarray(ndimage.distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
        line = skeletonize(region) & (inside > EDGE)
        ys, xs = np.nonzero(line if line.any() else inside == inside.max())
        cells = (ys // CELL) * truth.shape[1] + xs // CELL
        drawn = np.zeros(truth.shape, bool)
        for cell in lot.permutation(np.unique(cells)):
            piece = np.zeros(truth.shape, bool)
            piece[ys[cells == cell], xs[cells == cell]] = True
            drawn |= ndimage.binary_dilation(piece, iterations=2) & region
            if drawn.sum() >= SHARE * truth.size * roots[c] / sum(roots.values()):
                break
        strokes[drawn] = c
    return strokes


def examples(folder: Path, seed: int) -> Iterator[Task]:
    """The photos and annotations of the DenseCRF example; other strokes for each seed."""
    for number in (1, 2, 3):
        colours = np.array(Image.open(folder / f"anno{number}.png").convert("RGB")).astype(int) @ (1 << 16, 1 << 8, 1)
        truth = np.full(colours.shape, VOID)
        for label, colour in enumerate(np.unique(colours[colours != 0])):
            truth[colours == colour] = label
        photo = np.array(Image.open(folder / f"im{number}.png").convert("RGB"))
        yield f"DenseCRF example {number}", photo, truth, strokes_from(truth, seed)


def own_photos() -> Iterator[Task]:
    for name in DRAWINGS:
        yield name, photo_of(name), truth_of(name), strokes_of(name)


def variants(photo: np.ndarray, strokes: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The labels (H, W) of each variant. Every network gets as many updates in all."""
    classes = tuple(int(c) for c in np.unique(strokes[strokes != VOID]))
    torch.manual_seed(seed)
    given = prepare_strokes(photo, strokes, classes)

    def new_network() -> PixelNetwork:
        torch.manual_seed(seed)
        return PixelNetwork(given.features.shape[1], len(classes))

    alone, joint = new_network(), new_network()
    train_network(alone, given, NETWORK_STEPS + JOINT_STEPS)
    trained, untrained = stroke_crf(len(classes), given.size), stroke_crf(len(classes), given.size)
    train_network(joint, given)
    train_end_to_end(joint, trained, given)
    plan = zip(VARIANTS, (alone, alone, joint), (None, untrained, trained), strict=True)
    labels = {}
    with torch.no_grad():
        for name, network, crf in plan:
            q = [part for _, part in bands(network_logits(network, given), crf, photo, 10)]
            labels[name] = np.array(classes)[np.concatenate(q, axis=1).argmax(axis=0)]
    return labels


def score(labels: np.ndarray, truth: np.ndarray, strokes: np.ndarray) -> tuple[float, float]:
    """Mean IoU over the classes of the truth, and pixel accuracy, in per cent."""
    asked = (truth != VOID) & (strokes == VOID)
    found, right = labels[asked], truth[asked]
    classes = np.unique(right)
    iou = [((found == c) & (right == c)).sum() / ((found == c) | (right == c)).sum() for c in classes]
    return 100 * float(np.mean(iou)), 100 * float(np.mean(found == right))


def table(scores: dict[str, dict[str, list[tuple[float, float]]]]) -> list[str]:
    """One row for each photo, medians over the seeds, and the mean of the rows."""
    lines = ["| photo | " + " | ".join(VARIANTS) + " |", "|---|" + "---|" * len(VARIANTS)]
    medians = {photo: [np.median(rows[name], axis=0) for name in VARIANTS] for photo, rows in scores.items()}
    for photo, cells in medians.items():
        lines.append(f"| {photo} | " + " | ".join(f"{iou:.1f} / {right:.1f}" for iou, right in cells) + " |")
    mean = np.mean(list(medians.values()), axis=0)
    lines.append("| **mean** | " + " | ".join(f"**{iou:.1f} / {right:.1f}**" for iou, right in mean) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=Path, help="the folder with im1.png, anno1.png and so on; else left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scores: dict[str, dict[str, list[tuple[float, float]]]] = {}
    start = time.time()
    for seed in range(options.seeds):
        tasks = [*(examples(options.examples, seed) if options.examples else ()), *own_photos()]
        for name, photo, truth, strokes in tasks:
            rows = scores.setdefault(name, {variant: [] for variant in VARIANTS})
            for variant, labels in variants(photo, strokes, seed).items():
                rows[variant].append(score(labels, truth, strokes))
            latest = ", ".join(f"{variant} {rows[variant][-1][0]:.1f}" for variant in VARIANTS)
            print(f"seed {seed}, {name}: {latest} ({time.time() - start:.0f} s)", flush=True)
    rows = table(scores)
    print("\n".join(rows))
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(
            f"{head}<!-- table -->\n\nMedians over {options.seeds} seeds. {machine()}.\n\n" + "\n".join(rows) + "\n"
        )


if __name__ == "__main__":
    main()
