"""What users refine: outputs of a real network and the calls of published code, as the cases of `bm_real`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from benchmarks.bm_voc2012 import logits_of

EVERY = 6  # of the 173 images
LIST = 32
PERSON, BACKGROUND = 15, 0
ELSEWHERE = 1e-5  # what a pixel of the mosaic gives to the labels of the other photos, all together
SURE = 0.7  # gt_prob of the weakly supervised pipelines

# sxy and compat of the spatial kernel; sxy, srgb and compat of the bilateral one
Kernels = tuple[tuple[float, float], tuple[float, float, float]]
PYDENSECRF: Kernels = ((3, 3), (80, 13, 10))
CRFRNN: Kernels = ((3, 3), (160, 3, 5))
DEEPLAB: Kernels = ((1, 3), (67, 3, 4))
PSEUDO_LABELS: Kernels = ((3, 3), (50, 5, 10))
MANGA: Kernels = ((1, 3), (23, 7, 20))
CUTLER: Kernels = ((3, 7), (50, 5, 10))
SETS = {"pydensecrf": PYDENSECRF, "crfrnn": CRFRNN, "deeplab-v2": DEEPLAB}


class Case(NamedTuple):
    """Images that are refined by one call each, or by one call together."""

    name: str
    images: list[np.ndarray]  # (H, W, 3) uint8
    probabilities: list[np.ndarray]  # (L, H, W) float32
    kernels: Kernels
    iterations: int
    drop_in: bool  # by the calls of pydensecrf, else by `refine`
    normalization: str = "symmetric"
    together: bool = False


def cases(data: Path) -> Iterator[Case]:
    """All of them, from a folder like that of `bm_voc2012`."""
    names = (data / "ids.txt").read_text().split()
    some = [read(data, name) for name in names[::EVERY]]
    coarse = [read(data, name, pool=8) for name in names[::EVERY]]
    for title, maps in (("native", some), ("pooled by 8", coarse)):
        for preset, kernels in SETS.items():
            yield Case(f"VOC {title}, {preset}", *_columns(maps), kernels, 10, drop_in=False)
            yield Case(f"VOC {title}, {preset}, drop-in", *_columns(maps), kernels, 10, drop_in=True)
    many = [read(data, name) for name in names[:LIST]]
    yield Case(f"list of {LIST}, pydensecrf", *_columns(many), PYDENSECRF, 10, drop_in=False, together=True)
    for preset, kernels in SETS.items():
        yield Case(f"147 labels, 1000 x 750, {preset}", *_columns([_mosaic(some[:7])]), kernels, 10, drop_in=False)
    person = max(some, key=lambda one: float(one[1][PERSON].mean()))
    few = [_few_of_many(_resized(one, (480, 640))) for one in (person, some[0], some[1])]
    yield Case("81 labels of which 4 occur, drop-in", *_columns(few), PSEUDO_LABELS, 10, drop_in=True)
    comic, mask = _thing(_resized(person, (1300, 900))), _thing(_resized(person, (320, 480)))
    yield Case("2 labels, 900 x 1300, manga, drop-in", *_columns([comic]), MANGA, 5, True, "none")
    yield Case("2 labels, 480 x 320, CutLER, drop-in", *_columns([_hard(mask)]), CUTLER, 10, True)
    wide = _resized(some[0], (1024, 2048))
    for preset in ("pydensecrf", "crfrnn"):
        yield Case(f"2048 x 1024, {preset}", *_columns([wide]), SETS[preset], 10, drop_in=False)


def read(data: Path, name: str, pool: int = 1) -> tuple[np.ndarray, np.ndarray]:
    image = np.array(Image.open(data / "images" / f"{name}.jpg").convert("RGB"))
    logits = logits_of(data / "unaries" / f"{name}.npz", (image.shape[0], image.shape[1]), pool)
    return image, torch.from_numpy(logits).softmax(dim=0).numpy()


def _columns(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [image for image, _ in pairs], [p for _, p in pairs]


def _resized(pair: tuple[np.ndarray, np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Both in (height, width)."""
    image, p = pair
    larger = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return larger, interpolate(torch.from_numpy(p)[None], size=size, mode="bilinear")[0].numpy()


def _mosaic(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Seven photos side by side, each with 21 labels of its own."""
    height, width = 750, 1000
    image, labels = np.empty((height, width, 3), np.uint8), sum(len(p) for _, p in pairs)
    p = np.full((labels, height, width), ELSEWHERE / labels, np.float32)
    edges = [(0, x, x + 250) for x in range(0, width, 250)] + [(375, 0, 333), (375, 333, 667), (375, 667, width)]
    for number, (pair, (top, left, right)) in enumerate(zip(pairs, edges, strict=True)):
        part, mine = _resized(pair, (375, right - left))
        here = slice(top, top + 375), slice(left, right)
        image[here] = part
        p[(slice(21 * number, 21 * (number + 1)), *here)] = mine
    return image, p / p.sum(axis=0)


def _few_of_many(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """81 labels, of which the four strongest of the photo are drawn, as sure as `unary_from_labels` makes them."""
    image, p = pair
    four = np.sort(np.argsort(p.mean(axis=(1, 2)))[-4:])
    labels = four[p[four].argmax(axis=0)]
    everywhere = np.full((81, *labels.shape), (1 - SURE) / 80, np.float32)
    np.put_along_axis(everywhere, labels[None], np.float32(SURE), axis=0)
    return image, everywhere


def _thing(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Background against everything else."""
    image, p = pair
    background = p[BACKGROUND].clip(1e-6, 1 - 1e-6)
    return image, np.stack([background, 1 - background])


def _hard(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A mask of 0 and 1 through a softmax, as CutLER does it."""
    image, p = pair
    mask = torch.from_numpy((p == p.max(axis=0)).astype(np.float32))
    return image, mask.softmax(dim=0).numpy()
