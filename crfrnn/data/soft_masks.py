"""Soft masks: grey images that say how probable the foreground is."""

from pathlib import Path

import numpy as np

from crfrnn.data.images import open_image
from crfrnn.data.labels import LabelStyle

FOREGROUND = LabelStyle((0, 255))  # how a refined one is written: black and white
MOST_LABELS = 32  # a grey map with more levels is rather a soft mask
DARK = 1 << 15  # labels of 16 bits are numbers in order, and do not come up to here; shades do


def looks_soft(style: LabelStyle) -> bool:
    """Whether what was read as a map of labels has many shades of grey, be they levels, colours or a palette's.

    >>> looks_soft(LabelStyle(tuple(range(100)))), looks_soft(LabelStyle.voc(100))
    (True, False)
    """
    if len(style.values) <= MOST_LABELS or style.dtype:  # a volume of labels, which are atlases
        return False
    if style.deep:
        return max(style.values) >= DARK  # type: ignore[operator]  (numbers)
    colours = style.colours() if style.colour_coded or style.palette else np.zeros((1, 3))
    return bool((colours == colours[:, :1]).all())


def read_soft_mask(path: Path) -> np.ndarray:
    """The probabilities of a foreground, (H, W) float32, from a grey image: from black, 0, to white, 1.

    A level v of 8 bits becomes (v + 1/2) / 256, the middle of what was rounded to it, and with 16 bits likewise: black
    and white are no certainties. ValueError for what is not grey, and for a mask of two levels of which none is light.
    """
    image = open_image(path)
    mode = image.mode
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(image.mode[:-1])
    if image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    pixels = np.asarray(image)
    if image.mode == "RGB" and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    elif image.mode != "L" and not image.mode.startswith("I"):
        raise ValueError(f"{path}: mode {mode}, but a soft mask is grey; a map of labels goes to --labels")
    levels = 256 if pixels.dtype == np.uint8 else 65536
    if pixels.min() < 0 or pixels.max() >= levels:
        raise ValueError(f"{path}: values {pixels.min()}..{pixels.max()} do not fit 16 bits")
    few = np.unique(pixels)
    if len(few) == 2 and few[-1] < levels // 2:
        raise ValueError(
            f"{path}: holds {few[0]} and {few[-1]} alone, and white is {levels - 1}; a mask of labels goes to --labels"
        )
    return (pixels.astype(np.float32) + 0.5) / levels
