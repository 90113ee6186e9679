"""Photographs: what Pillow opens, with label maps as PNGs."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from crfrnn.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES
from crfrnn.data.images import open_image, rgb_pixels, upright
from crfrnn.data.kinds.kind import Kind
from crfrnn.data.labels import LabelMap, LabelStyle, Value, read_indices, read_labels, write_labels
from crfrnn.data.soft_masks import FOREGROUND, read_soft_mask


class Photograph(Kind):
    """A picture in colours of 8 bits; cameras may have stored it lying down."""

    several = "photographs"
    suffixes = IMAGE_SUFFIXES
    label_suffixes = (".png",)
    truth_suffixes = MASK_SUFFIXES
    foreground_suffixes = (".png",)

    def __init__(self, image: Image.Image):
        self._image = image

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "Photograph":
        if len(paths) > 1:
            raise ValueError(f"{paths[0]}, {paths[1]}: a photograph has all its colours in one file; give one")
        return cls(open_image(paths[0]))

    @property
    def size(self) -> tuple[int, int]:
        return self._image.height, self._image.width

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        height, width = self.size
        return (height, width), (width, height)

    def fitting(self, size: Sequence[int]) -> "Photograph":
        height, width = size
        return Photograph(upright(self._image, (height, width)))

    @cached_property
    def _pixels(self) -> np.ndarray:
        return rgb_pixels(self._image)

    def guide(self) -> np.ndarray:
        return self._pixels

    def picture(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._pixels, indices

    @classmethod
    def read_labels(cls, path: Path, unsure: Value | None = None) -> LabelMap:
        return read_labels(path, unsure)

    @classmethod
    def read_indices(cls, path: Path) -> np.ndarray:
        return read_indices(path)

    @classmethod
    def read_foreground(cls, path: Path) -> tuple[np.ndarray, LabelStyle]:
        return read_soft_mask(path), FOREGROUND

    @classmethod
    def read_predictions(cls, path: Path, key: str | None = None) -> np.ndarray:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(
                f"{path}: no array but a picture; a soft mask goes to --foreground, a label map to --labels"
            )
        return super().read_predictions(path, key)

    def write_labels(self, path: Path, indices: np.ndarray, style: LabelStyle) -> None:
        write_labels(path, indices, style)
