"""Soft masks: grey images that say how probable the foreground is."""

from pathlib import Path

import numpy as np

from crfrnn.data.images import open_image


def read_soft_mask(path: Path) -> np.ndarray:
    """The probabilities of a foreground, (H, W) float32, from a grey image: from black, 0, to white, 1.

    A level v of 8 bits becomes (v + 1/2) / 256, the middle of what was rounded to it, and with 16 bits likewise: black
    and white are no certainties. ValueError for what is not grey.
    """
    image = open_image(path)
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(image.mode[:-1])
    if image.mode == "1":
        image = image.convert("L")
    pixels = np.asarray(image)
    if image.mode == "RGB" and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    elif image.mode != "L" and not image.mode.startswith("I"):
        raise ValueError(f"{path}: mode {image.mode}, but a soft mask is grey; a map of labels goes to --labels")
    levels = 256 if pixels.dtype == np.uint8 else 65536
    if pixels.min() < 0 or pixels.max() >= levels:
        raise ValueError(f"{path}: values {pixels.min()}..{pixels.max()} do not fit 16 bits")
    return (pixels.astype(np.float32) + 0.5) / levels
