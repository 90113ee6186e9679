"""What users refine: outputs of a real network and the calls of published code, as the cases of `bm_real`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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

Photo = tuple[np.ndarray, np.ndarray]  # (H, W, 3) uint8 and probabilities (L, H, W)
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


def cases(data: Path, every: int = EVERY) -> dict[str, Callable[[], Case]]:
    """All of them by name, made when they are called, from a folder like that of `bm_voc2012`.

    Each `every`-th photo where these are refined one by one; the other cases are always the same.
    """
    names = (data / "ids.txt").read_text().split()
    found: dict[str, Callable[[], Case]] = {}

    def add(name: str, maps: Callable[[], list[Photo]], kernels: Kernels, iterations: int = 10, **rest: Any) -> None:
        found[name] = lambda: Case(name, *_columns(maps()), kernels, iterations, **rest)

    def some(every: int = EVERY, pool: int = 1) -> list[Photo]:
        return [read(data, name, pool) for name in names[::every]]

    def person(height: int, width: int) -> Photo:
        return _resized(max(some(), key=lambda one: float(one[1][PERSON].mean())), (height, width))

    for title, pool in (("native", 1), ("pooled by 8", 8)):
        for preset, kernels in SETS.items():
            add(f"VOC {title}, {preset}", partial(some, every, pool), kernels, drop_in=False)
            add(f"VOC {title}, {preset}, drop-in", partial(some, every, pool), kernels, drop_in=True)
    many = [partial(read, data, name) for name in names[:LIST]]
    add(f"list of {LIST}, pydensecrf", lambda: [one() for one in many], PYDENSECRF, drop_in=False, together=True)
    for preset, kernels in SETS.items():
        add(f"147 labels, 1000 x 750, {preset}", lambda: [_mosaic(some()[:7])], kernels, drop_in=False)
    add(
        "81 labels of which 4 occur, drop-in",
        lambda: [_few_of_many(one) for one in (person(480, 640), *(_resized(p, (480, 640)) for p in some()[:2]))],
        PSEUDO_LABELS,
        drop_in=True,
    )
    comic, mask = lambda: [_thing(person(1300, 900))], lambda: [_hard(_thing(person(320, 480)))]
    add("2 labels, 900 x 1300, manga, drop-in", comic, MANGA, 5, drop_in=True, normalization="none")
    add("2 labels, 480 x 320, CutLER, drop-in", mask, CUTLER, drop_in=True)
    for preset in ("pydensecrf", "crfrnn"):
        add(f"2048 x 1024, {preset}", lambda: [_resized(some()[0], (1024, 2048))], SETS[preset], drop_in=False)
    return found


def read(data: Path, name: str, pool: int = 1) -> Photo:
    image = np.array(Image.open(data / "images" / f"{name}.jpg").convert("RGB"))
    logits = logits_of(data / "unaries" / f"{name}.npz", (image.shape[0], image.shape[1]), pool)
    return image, torch.from_numpy(logits).softmax(dim=0).numpy()


def _columns(pairs: list[Photo]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [image for image, _ in pairs], [p for _, p in pairs]


def _resized(pair: tuple[np.ndarray, np.ndarray], size: tuple[int, int]) -> Photo:
    """Both in (height, width)."""
    image, p = pair
    larger = np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return larger, interpolate(torch.from_numpy(p)[None], size=size, mode="bilinear")[0].numpy()


def _mosaic(pairs: list[Photo]) -> Photo:
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


def _few_of_many(pair: Photo) -> Photo:
    """81 labels, of which the four strongest of the photo are drawn, as sure as `unary_from_labels` makes them."""
    image, p = pair
    four = np.sort(np.argsort(p.mean(axis=(1, 2)))[-4:])
    labels = four[p[four].argmax(axis=0)]
    everywhere = np.full((81, *labels.shape), (1 - SURE) / 80, np.float32)
    np.put_along_axis(everywhere, labels[None], np.float32(SURE), axis=0)
    return image, everywhere


def _thing(pair: Photo) -> Photo:
    """Background against everything else."""
    image, p = pair
    background = p[BACKGROUND].clip(1e-6, 1 - 1e-6)
    return image, np.stack([background, 1 - background])


def _hard(pair: Photo) -> Photo:
    """A mask of 0 and 1 through a softmax, as CutLER does it."""
    image, p = pair
    mask = torch.from_numpy((p == p.max(axis=0)).astype(np.float32))
    return image, mask.softmax(dim=0).numpy()
