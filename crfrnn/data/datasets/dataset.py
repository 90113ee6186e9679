"""The one interface of all data sets: photographs with a class for each pixel, read from files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from crfrnn.data.images import open_image, rgb_pixels, upright
from crfrnn.data.labels import MOST_VALUES, TRANSPARENT, read_indices, voc_palette

VOID = 255  # the class number of pixels that do not count, in every data set, whatever its files say
INVALID = -1


@dataclass(frozen=True)
class Classes:
    """What the pixel values of a data set's masks mean.

    Args:
        names: the L classes, in the order of their numbers 0..L-1.
        values: the pixel value of each class; 0..L-1 where it is left out.
        void: the pixel values that do not count. A value that is neither here nor in `values` is an error.
        palette: (r, g, b) of each class; VOC's colours where it is left out.

    >>> Classes(("cat", "dog")).values
    (0, 1)
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = ()
    void: frozenset[int] = frozenset({VOID})
    palette: tuple[tuple[int, int, int], ...] = ()
    numbers: np.ndarray = field(init=False, repr=False, compare=False)  # pixel value -> class number

    def __post_init__(self):
        count = len(self.names)
        if not 2 <= count < VOID:
            raise ValueError(f"classes: {count} of them, expected 2 to {VOID - 1}")
        if len(set(self.names)) < count:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"classes: {twice!r} stands there twice")
        object.__setattr__(self, "values", self.values or tuple(range(count)))
        object.__setattr__(self, "palette", self.palette or tuple(map(tuple, voc_palette(count).tolist())))
        if clash := self.void.intersection(self.values):
            raise ValueError(f"void: {min(clash)} is the value of class {self.names[self.values.index(min(clash))]!r}")
        numbers = np.full(MOST_VALUES, INVALID, np.int16)
        numbers[list(self.values)] = np.arange(count)
        numbers[list(self.void)] = VOID
        object.__setattr__(self, "numbers", numbers)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, values: np.ndarray, path: Path) -> np.ndarray:
        """The class numbers, uint8 with `VOID`, of a mask's values; ValueError for values that are no class."""
        inside = (values >= 0) & (values < MOST_VALUES)
        numbers = np.where(values == TRANSPARENT, VOID, self.numbers[np.where(inside, values, 0)])
        wrong = (numbers == INVALID) | ~(inside | (values == TRANSPARENT))
        if wrong.any():
            unknown = np.unique(values[wrong])
            shown = ", ".join(map(str, unknown[:8])) + ", ..." * (unknown.size > 8)
            void = ", ".join(map(str, sorted(self.void)[:8])) or "none"
            raise ValueError(
                f"{path}: holds {shown}, outside the {len(self)} classes and void ({void});"
                " name these classes, or call them void"
            )
        return numbers.astype(np.uint8)


class Pair(NamedTuple):
    """The files of one sample."""

    name: str
    image: Path
    mask: Path


class Sample(NamedTuple):
    """A photograph (3, H, W) uint8 and the class of each pixel (H, W) uint8, `VOID` where none counts."""

    name: str
    image: Tensor
    mask: Tensor


class SegmentationDataset(Dataset[Sample]):
    """Pairs of photograph and mask.

    Args:
        pairs: the files, in the order of the samples.
        classes: what the masks' values mean.
        size: (width, height) to which photographs (antialiased) and masks (nearest pixel) are scaled, without
            keeping the proportions; None leaves each as it is.
        left_out: in words, the files that have no partner, where the pairs are not all that there is.

    Masks are read as class indices, palette or grey, and never go through RGB. Transparent pixels do not count.

    ``dataset[i]`` is a `Sample`. A file that cannot be read, a mask of another size than its photograph or a value
    outside the classes is a ValueError that names the file.
    """

    def __init__(
        self, pairs: Sequence[Pair], classes: Classes, size: tuple[int, int] | None = None, left_out: str = ""
    ):
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size: expected width and height in pixels, got {size}")
        self.pairs = list(pairs)
        self.classes = classes
        self.size = size
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self.scaled(self.read(index))

    def read(self, index: int) -> Sample:
        """The sample in the size of its files."""
        pair = self.pairs[index]
        mask = self.class_numbers(pair.mask)
        image = upright(open_image(pair.image), mask.shape)
        if image.size != mask.shape[::-1]:
            raise ValueError(
                f"{pair.mask}: {mask.shape[1]} x {mask.shape[0]} pixels, but its image {pair.image} has"
                f" {image.width} x {image.height}; a mask must have its image's size"
            )
        pixels = np.array(rgb_pixels(image).transpose(2, 0, 1))
        return Sample(pair.name, torch.from_numpy(pixels), torch.from_numpy(mask))

    def class_numbers(self, path: Path) -> np.ndarray:
        """(H, W) uint8: 0..L-1 and `VOID`."""
        return self.classes.of(self.values(path), path)

    def values(self, path: Path) -> np.ndarray:
        """(H, W), the values as they are stored; `TRANSPARENT` where the file says so."""
        return read_indices(path)

    def scaled(self, sample: Sample) -> Sample:
        """The sample in the size of this data set."""
        if self.size is None or self.size == tuple(sample.mask.shape[::-1]):
            return sample
        return Sample(sample.name, *scale(sample.image, sample.mask, self.size))


def scale(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A photograph (3, H, W) uint8 and its mask (H, W) in (width, height): antialiased, and the nearest pixel.

    >>> image, mask = scale(torch.zeros(3, 8, 6, dtype=torch.uint8), torch.zeros(8, 6, dtype=torch.uint8), (3, 4))
    >>> image.shape, mask.shape
    (torch.Size([3, 4, 3]), torch.Size([4, 3]))
    """
    shape = size[::-1]
    pixels = interpolate(image[None].float(), shape, mode="bilinear", antialias=True)[0]
    nearest = interpolate(mask[None, None].float(), shape, mode="nearest-exact")[0, 0]
    return pixels.round_().clamp_(0, 255).to(torch.uint8), nearest.to(torch.uint8)


def existing_folder(path: Path, what: str) -> Path:
    """The path, or a ValueError that says which folder is missing."""
    if not path.is_dir():
        raise ValueError(f"root: {path} is no folder; {what}")
    return path


def chosen_split(split: str, splits: Mapping[str, object] | Sequence[str], owner: str) -> str:
    """The split, or a ValueError that lists those that there are."""
    if split not in splits:
        raise ValueError(f"split: {split!r} is none of {', '.join(splits)}, which {owner} has")
    return split
