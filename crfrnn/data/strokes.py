"""Strokes of a paint program: a PNG in which each colour is a class, and one of them means "nothing drawn"."""

from pathlib import Path

import numpy as np

from crfrnn.data.images import open_image, rgb_pixels
from crfrnn.data.labels import UNSURE, LabelMap, LabelStyle, Value, read_labels

BACKGROUND_SHARE = 0.5  # of the pixels that a colour must cover to be taken for "nothing drawn"
SOFT_EDGE_SHARE = 0.05  # of the drawn pixels that a colour without any solid 2 x 2 block must reach to be a class


def read_strokes(path: Path, unsure: Value | None = None) -> tuple[LabelMap, str]:
    """Read strokes, and say in words what was taken for "nothing drawn".

    That is, in this order: the value `unsure`; what is transparent, where anything is; the value that covers more
    than half of the pixels. Colours at the soft edges of a brush, few pixels and nowhere two wide, are nothing.

    Raises ValueError, with the file's name, where none of this decides or nothing is drawn.
    """
    drawn = read_labels(path, unsure)
    if unsure is not None:
        void_rule = f"{unsure} means nothing drawn"
    elif (drawn.indices == UNSURE).any():
        void_rule = "transparent means nothing drawn"
    else:
        drawn, name = _without_background(path, drawn)
        void_rule = f"{name} means nothing drawn, as it covers most of the picture"
    return _without_soft_edges(drawn), void_rule


def read_painted(path: Path, photo: np.ndarray) -> tuple[LabelMap, str] | None:
    """Strokes that were painted on the photo (H, W, 3) itself and saved with it: what differs from the photo.

    None where it is another picture: of another size, or unlike the photo on more than half of its pixels.
    """
    pixels = rgb_pixels(open_image(path))
    if pixels.shape != photo.shape:
        return None
    drawn = (pixels != photo).any(axis=2)
    if not 0 < drawn.mean() <= BACKGROUND_SHARE:
        return None
    colours, numbers, counts = np.unique(pixels[drawn], axis=0, return_inverse=True, return_counts=True)
    full = np.flatnonzero(counts >= SOFT_EDGE_SHARE * counts.sum())  # all others are the soft edges of a brush
    table = np.full(len(colours), UNSURE, np.int32)
    table[full] = np.arange(len(full))
    indices = np.full(drawn.shape, UNSURE, np.int32)
    indices[drawn] = table[numbers.ravel()]
    values = tuple((int(r), int(g), int(b)) for r, g, b in colours[full])
    return LabelMap(indices, LabelStyle(values)), "what is as in the photograph means nothing drawn"


def _without_background(path: Path, drawn: LabelMap) -> tuple[LabelMap, str]:
    names = drawn.style.names()
    counts = np.bincount(drawn.indices.ravel(), minlength=len(names))
    most = int(counts.argmax())
    if counts[most] <= BACKGROUND_SHARE * drawn.indices.size:
        raise ValueError(
            f"{path}: no colour covers more than half of it, so --unsure must say which one means that nothing is"
            f" drawn; there are {', '.join(names[:8])}{', ...' * (len(names) > 8)}"
        )
    if len(names) == 1:
        raise ValueError(f"{path}: nothing is drawn on it, every pixel is {names[0]}")
    return _keep(drawn, np.arange(len(names)) != most), names[most]


def _without_soft_edges(drawn: LabelMap) -> LabelMap:
    indices = drawn.indices
    solid = indices[:-1, :-1]
    solid = solid[(solid == indices[1:, :-1]) & (solid == indices[:-1, 1:]) & (solid == indices[1:, 1:])]
    labels = len(drawn.style.values)
    blocks = np.bincount(solid[solid != UNSURE], minlength=labels)
    counts = np.bincount(indices[indices != UNSURE], minlength=labels)
    return _keep(drawn, (blocks > 0) | (counts >= SOFT_EDGE_SHARE * counts.sum()))


def _keep(drawn: LabelMap, kept: np.ndarray) -> LabelMap:
    """Only the labels where `kept` (L,) is True, numbered anew."""
    if kept.all():
        return drawn
    numbers = np.where(kept, np.cumsum(kept) - 1, UNSURE).astype(np.int32)
    indices = np.where(drawn.indices == UNSURE, np.int32(UNSURE), numbers[np.maximum(drawn.indices, 0)])
    values = tuple(value for value, keep in zip(drawn.style.values, kept, strict=True) if keep)
    return LabelMap(indices, LabelStyle(values, drawn.style.palette, drawn.style.deep))
