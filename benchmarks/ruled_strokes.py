"""Strokes drawn by rule from label maps of Pascal VOC 2012 and CamVid, and how well labels made of them fit.

The rule. Each class that covers at least `SMALLEST` of the photo gets one to three strokes, the number by lot; so does
the background. Its region is eroded by `EDGE` pixels (a narrower region by half of its greatest inner distance), what
remains is thinned to a skeleton, and a stroke is a piece of that, 5 pixels wide: those pixels that are nearest, along
the skeleton, to one drawn by lot. The strokes of all classes cover `SHARE` of the photo, dealt out by the square root
of the classes' areas; where a skeleton is shorter than its share, the rest is not drawn. The same seed draws the same
strokes.

What is reported is measured on 60 of VOC's 173 photos, drawn by lot once, and on 20 of CamVid's test photos; what is
chosen is chosen on VOC's others and on 20 of CamVid's validation photos.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize

from crfrnn.commands.metrics import boundary_rings
from crfrnn.commands.segment import stroke_features
from crfrnn.networks.models import MODELS

NOTHING = -1  # in strokes: nothing drawn
VOID = 255  # in truth: unknown
SMALLEST = 0.002  # of the photo: smaller classes get no stroke, and their pixels are unknown
EDGE = 4  # pixels
SHARE = 0.015  # of the photo
HALF_WIDTH = 2  # pixels: a stroke is 5 wide
NEAR = 5  # pixels from a boundary: the second score
REPORTED = {"voc": 60, "camvid": 20}  # photos
CAMVID_VOID = 11


@dataclass(frozen=True)
class Task:
    name: str
    photo: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray  # (H, W) int32, `VOID` where unknown
    strokes: np.ndarray  # (H, W) int32, `NOTHING` where there are none

    @property
    def classes(self) -> np.ndarray:
        return np.unique(self.strokes[self.strokes != NOTHING])


def tasks(data: str, folder: Path, *, report: bool, most: int | None = None) -> Iterator[Task]:
    """Of "voc" or "camvid", in `folder`: those that are reported, or those to choose on; with two classes or more."""
    done = 0
    for seed, photo, labels in (_voc if data == "voc" else _camvid)(folder, report):
        truth = np.array(Image.open(labels)).astype(np.int32)
        truth = without_small(np.where(truth == CAMVID_VOID, VOID, truth) if data == "camvid" else truth)
        if len(np.unique(truth[truth != VOID])) < 2:
            continue
        yield Task(photo.stem, np.array(Image.open(photo).convert("RGB")), truth, ruled_strokes(truth, seed))
        done += 1
        if done == most:
            return


def _voc(folder: Path, report: bool) -> Iterator[tuple[int, Path, Path]]:
    """A seed, a photo and its label map each."""
    names = (folder / "ids.txt").read_text().split()
    lot = np.random.default_rng(0).permutation(len(names))
    for seed in sorted(lot[: REPORTED["voc"]] if report else lot[REPORTED["voc"] :]):
        yield int(seed), folder / "images" / f"{names[seed]}.jpg", folder / "labels" / f"{names[seed]}.png"


def _camvid(folder: Path, report: bool) -> Iterator[tuple[int, Path, Path]]:
    split = "test" if report else "val"
    photos = sorted((folder / split).iterdir())
    for number in np.linspace(0, len(photos) - 1, REPORTED["camvid"]).round().astype(int):
        yield int(number), photos[number], folder / f"{split}annot" / f"{photos[number].stem}.png"


def without_small(truth: np.ndarray) -> np.ndarray:
    """The truth (H, W) with classes below `SMALLEST` of the photo unknown."""
    numbers, counts = np.unique(truth, return_counts=True)
    return np.where(np.isin(truth, numbers[counts < SMALLEST * truth.size]), VOID, truth).astype(np.int32)


def ruled_strokes(truth: np.ndarray, seed: int, share: float = SHARE) -> np.ndarray:
    """(H, W) labels -> (H, W) int32: the class of a stroke, `NOTHING` elsewhere. The rule is above."""
    lot = np.random.default_rng(seed)
    strokes = np.full(truth.shape, NOTHING, np.int32)
    classes = np.unique(truth[truth != VOID])
    roots = {c: math.sqrt((truth == c).sum()) for c in classes}
    for c in classes:
        region = truth == c
        line = _skeleton(region)
        count = int(lot.integers(1, 4))
        pixels = share * truth.size * roots[c] / sum(roots.values()) / (2 * HALF_WIDTH + 1)
        for start in lot.permutation(np.argwhere(line))[:count]:
            piece = _nearest(line, tuple(start), max(1, round(pixels / count)))
            strokes[ndimage.binary_dilation(piece, np.ones((3, 3)), iterations=HALF_WIDTH) & region] = c
    return strokes


def _skeleton(region: np.ndarray) -> np.ndarray:
    """(H, W) bool, never empty."""
    inside = np.asarray(ndimage.distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
    line = skeletonize(inside > min(EDGE, inside.max() / 2))
    return line if line.any() else inside == inside.max()


def _nearest(line: np.ndarray, start: tuple[int, ...], count: int) -> np.ndarray:
    """The `count` pixels of a line (H, W) that are nearest to one of them, along it."""
    piece = np.zeros_like(line)
    piece[start] = True
    while piece.sum() < count:
        longer = ndimage.binary_dilation(piece, np.ones((3, 3))) & line
        if longer.sum() == piece.sum():
            break
        piece = longer
    return piece


def score(labels: np.ndarray, truth: np.ndarray, strokes: np.ndarray) -> tuple[float, float]:
    """Mean IoU over the classes of the truth, and that within `NEAR` pixels of a boundary, in per cent.

    Where the truth is known and nothing is drawn.
    """
    asked = (truth != VOID) & (strokes == NOTHING)
    near = boundary_rings(torch.from_numpy(truth), NEAR).numpy() <= NEAR
    return mean_iou(labels[asked], truth[asked]), mean_iou(labels[asked & near], truth[asked & near])


def mean_iou(found: np.ndarray, right: np.ndarray) -> float:
    both, either = (lambda c: (found == c) & (right == c)), (lambda c: (found == c) | (right == c))
    return 100 * float(np.mean([both(c).sum() / either(c).sum() for c in np.unique(right)]))


def use(model: Path | None) -> None:
    """The features of a model in a folder, instead of the one in the package."""
    if model is not None:
        MODELS[stroke_features.MODEL] = model


def interval(values: Iterable[float], seed: int = 0) -> tuple[float, float]:
    """Of the mean: 2.5 and 97.5 per cent of 10,000 samples of the images, with replacement."""
    array = np.array(list(values))
    samples = np.random.default_rng(seed).integers(0, len(array), (10_000, len(array)))
    low, high = np.percentile(array[samples].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
