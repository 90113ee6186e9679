"""What the commands must know of an image, of whatever kind its file is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from crfrnn.data.files import suffix_of
from crfrnn.data.labels import LabelMap, LabelStyle, Value
from crfrnn.data.predictions import SUFFIXES, Form, read_predictions, write_predictions

CLOUDS_ALONE: dict[str, str] = dict.fromkeys(("attributes", "classes"), "is for clouds of points")
RASTERS_ALONE: dict[str, str] = dict.fromkeys(("bands", "metres", "memory"), "is for rasters")


class Kind(ABC):
    """One image, from one file or, where its channels lie apart, from several. S is its size: (height, width) of a
    photograph, (z, y, x) of a volume, (N,) of a cloud of points.

    What cannot be read or written is a ValueError that names the file; the class attributes say what is read at all.
    """

    several: ClassVar[str]  # what people call them
    points: ClassVar[str] = "pixels"  # what they call those of an image
    dimensions: ClassVar[int] = 2
    suffixes: ClassVar[tuple[str, ...]]  # of its files
    label_suffixes: ClassVar[tuple[str, ...]]  # of label maps
    truth_suffixes: ClassVar[tuple[str, ...]]  # of label maps that are given as the truth
    prediction_suffixes: ClassVar[tuple[str, ...]] = SUFFIXES  # of probabilities and logits that are read
    probability_suffixes: ClassVar[tuple[str, ...]] = SUFFIXES  # and of those that are written
    foreground_suffixes: ClassVar[tuple[str, ...]] = ()  # of soft masks
    holds_labels: ClassVar[bool] = False  # whether its file may hold labels besides
    windowed: ClassVar[bool] = False  # whether it may be too large to be read at once
    lacks: ClassVar[Mapping[str, str]] = CLOUDS_ALONE | RASTERS_ALONE  # options that say nothing of it, and why

    spacing: tuple[float, ...] | None = None  # between neighbours along each axis, in the unit in which positions count
    positions: np.ndarray | None = None  # (N, D) of points that lie on no grid

    @classmethod
    @abstractmethod
    def open(cls, paths: Sequence[Path]) -> "Kind": ...

    @classmethod
    def written_as(cls, image: Path) -> tuple[str, ...]:
        """The suffixes that its refined label map may have, the usual one first."""
        own = suffix_of(image)
        first = own if own in cls.label_suffixes else cls.label_suffixes[0]
        return tuple(dict.fromkeys((first, *cls.label_suffixes)))

    def with_channels(self, names: Sequence[str] | None) -> "Kind":
        """It, with the channels of these names alone; None for the usual ones. Where they have none, all."""
        del names
        return self

    @property
    def channels(self) -> Sequence[str] | None:
        """The names of what the guide holds, where it has names."""
        return None

    @property
    @abstractmethod
    def size(self) -> tuple[int, ...]: ...

    @property
    def extent(self) -> str:
        """The size as people say it: width x height."""
        return " x ".join(map(str, reversed(self.size)))

    @property
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """Those that predictions for it may have, its own first."""
        return (self.size,)

    def fitting(self, size: Sequence[int]) -> "Kind":
        """It, turned where predictions of this size say that it is to be; ValueError where they must be turned."""
        del size
        return self

    @abstractmethod
    def guide(self) -> np.ndarray:
        """(*S, C) or (*S), as `crfrnn.refine` takes it; of points C may be 0."""

    def picture(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is shown of it and of labels (*S): (H, W, 3) uint8 and (H, W)."""
        del indices
        raise ValueError(f"of {self.several} there is no picture")

    @classmethod
    @abstractmethod
    def read_labels(cls, path: Path, unsure: Value | None = None) -> LabelMap: ...

    def labels(self, path: Path, unsure: Value | None = None) -> LabelMap:
        """Those that a file has for it."""
        return self.read_labels(path, unsure)

    @classmethod
    def label_style(cls, path: Path, unsure: Value | None = None) -> LabelStyle:
        """Which labels a file has."""
        return cls.read_labels(path, unsure).style

    @classmethod
    @abstractmethod
    def read_indices(cls, path: Path) -> np.ndarray:
        """(*S), the numbers of a label map as they are stored: class numbers, and what means that none counts."""

    @classmethod
    def read_foreground(cls, path: Path) -> tuple[np.ndarray, LabelStyle]:
        """A soft mask as probabilities (*S), and how a refined one is written."""
        raise ValueError(f"{path}: of {cls.several} there are no soft masks; a foreground goes to --probabilities")

    @classmethod
    def read_predictions(cls, path: Path, key: str | None = None) -> np.ndarray:
        """Probabilities or logits, in any `Form`."""
        return read_predictions(path, key, cls.dimensions)

    def check_place(self, path: Path) -> None:
        """ValueError where the labels or predictions in a file are, as it says, of another place than the image."""
        del path  # most files say nothing of it

    @abstractmethod
    def write_labels(self, path: Path, indices: np.ndarray, style: LabelStyle) -> None: ...

    def write_predictions(self, path: Path, planes: np.ndarray, form: Form) -> None:
        """Planes (L, *S) in the form in which they came."""
        write_predictions(path, form.restored(planes))
