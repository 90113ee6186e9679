"""Photos to begin with: from scikit-image, which is installed with the demo, and the strokes of `crfrnn demo`."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from crfrnn.commands.demo.run import STROKES, load_photo
from crfrnn.data.labels import UNSURE, LabelStyle, write_labels
from crfrnn.data.strokes import read_strokes

PHOTOS = {  # by the class that is on them
    "cat": "chelsea.png",
    "person": "astronaut.png",
    "motorbike": "motorcycle_left.png",
    "dining table": "coffee.png",
}
BRUSHES = {  # names in `WORDS`
    "red": (230, 25, 75),
    "blue": (0, 110, 230),
    "green": (60, 180, 75),
    "yellow": (255, 225, 25),
    "magenta": (240, 50, 230),
    "cyan": (66, 212, 244),
}
CAT = (("blue", "background"), ("red", "cat"), ("yellow", "eyes"), ("magenta", "nose"))  # of the strokes' four labels


@dataclass(frozen=True)
class Samples:
    """Files in the server's own folder."""

    photos: tuple[Path, ...]
    cat: Path  # the photo of the strokes
    cat_strokes: np.ndarray  # (H, W, 4) uint8, in the colours of `BRUSHES`, transparent elsewhere
    cat_names: dict[str, str]  # name of the brush -> name of the class
    rough: Path  # a label map: each pixel has the class of the nearest stroke


def write_samples(folder: Path, classes: Sequence[str]) -> Samples:
    """Write the samples: photos of these classes, or any where the model knows none of them.

    Nothing is fetched: photos that this scikit-image does not contain are left out.
    """
    cat = folder / "cat.jpg"
    photo = load_photo()
    Image.fromarray(photo).save(cat, quality=92)
    strokes, _ = read_strokes(STROKES)
    layer = np.zeros((*strokes.indices.shape, 4), np.uint8)
    for label, (brush, _) in enumerate(CAT):
        layer[strokes.indices == label] = (*BRUSHES[brush], 255)
    rough = folder / "rough-labels.png"
    style = LabelStyle.named([name for _, name in CAT], [BRUSHES[brush] for brush, _ in CAT])
    write_labels(rough, _nearest(strokes.indices), style)
    known = [name for name in PHOTOS if name in classes] or [*PHOTOS]
    return Samples(tuple(_photos(folder, known)), cat, layer, dict(CAT), rough)


def _photos(folder: Path, names: Sequence[str]) -> list[Path]:
    package = Path(importlib.import_module("skimage.data").__file__ or "").parent
    paths = []
    for name in names:
        file = PHOTOS[name]
        if (package / file).is_file():
            with Image.open(package / file) as image:
                image.convert("RGB").save(path := folder / f"{name.replace(' ', '-')}.jpg", quality=92)
            paths.append(path)
    return paths


def _nearest(indices: np.ndarray) -> np.ndarray:
    """(H, W) labels: those of the nearest drawn pixels."""
    distances = importlib.import_module("scipy.ndimage").distance_transform_edt
    y, x = distances(indices == UNSURE, return_distances=False, return_indices=True)
    return indices[y, x]
