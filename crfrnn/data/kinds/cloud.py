"""Clouds of points: one dictionary from a file's suffix to what reads it, and writes it again with other classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np

from crfrnn.data.files import suffix_of
from crfrnn.data.kinds import las, npz, ply
from crfrnn.data.kinds.kind import RASTERS_ALONE, Kind
from crfrnn.data.kinds.points import Points, whole
from crfrnn.data.labels import LabelMap, LabelStyle, Value, numbered
from crfrnn.data.predictions import read_predictions

FORMATS: dict[str, ModuleType] = {".las": las, ".laz": las, ".ply": ply, ".npz": npz}
ARRAY = ".npy"  # of classes alone
APART = 1e-3  # of a cloud's extent: labels that lie farther from its points are another cloud's


@dataclass(frozen=True)
class Cloud(Kind):
    """N points, which lie on no grid: S is (N,). Labels come out as a copy of the file with other classes."""

    several = "clouds of points"
    points = "points"
    dimensions = 1
    suffixes = tuple(FORMATS)
    label_suffixes = (*suffixes, ARRAY)
    truth_suffixes = ()
    holds_labels = True
    lacks: ClassVar = {
        **RASTERS_ALONE,
        "overlay": "there is no picture of a cloud of points",
        "resize": "clouds of points have no size; give predictions for each point",
        "many_labels": "is for pictures, and a cloud of points is none",
        "standardize": "attributes of points have bandwidths of their own",
        "preset": "its bandwidths count in pixels; say --kernel, or nothing for the points' own",
    }

    content: Points
    names: Sequence[str] | None = None  # of the attributes; None for the usual ones

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "Cloud":
        if len(paths) > 1:
            raise ValueError(f"{paths[0]}, {paths[1]}: a cloud of points has all its values in one file; give one")
        return cls(_read(paths[0]))

    @classmethod
    def written_as(cls, image: Path) -> tuple[str, ...]:
        """As the file that they are a copy of; .laz may become .las and back."""
        own = suffix_of(image)
        return (own, *(suffix for suffix in FORMATS if suffix != own and FORMATS[suffix] is FORMATS[own]))

    def with_channels(self, names: Sequence[str] | None) -> "Cloud":
        return Cloud(self.content, self.content.attributes(names)[0])

    @property
    def channels(self) -> Sequence[str]:
        return self.content.attributes(self.names)[0]

    @property
    def size(self) -> tuple[int]:
        return (len(self.content.positions),)

    @property
    def extent(self) -> str:
        return f"{self.size[0]:,} points"

    def fitting(self, size: Sequence[int]) -> "Cloud":
        if tuple(size) != self.size:
            raise ValueError(f"{self.content.path} has {self.size[0]} points, but there are predictions for {size[0]}")
        return self

    @property
    def positions(self) -> np.ndarray:
        return self.content.positions

    def guide(self) -> np.ndarray:
        """The attributes (N, C)."""
        return self.content.attributes(self.names)[1]

    @classmethod
    def read_labels(cls, path: Path, unsure: Value | None = None) -> LabelMap:
        return _label_map(path, cls.read_indices(path), unsure)

    def labels(self, path: Path, unsure: Value | None = None) -> LabelMap:
        """From the cloud itself, from another one of the same points, or from an array (N,)."""
        if suffix_of(path) == ARRAY:
            return self.read_labels(path, unsure)
        other = self.content if path.samefile(self.content.path) else _read(path)
        if other.positions.shape == self.positions.shape:
            extent = np.ptp(self.positions, axis=0).max()
            if np.abs(other.positions - self.positions).max() > APART * extent:
                where = f"lie elsewhere than those of {self.content.path}, or in another order"
                raise ValueError(f"{path}: its points {where}")
        return _label_map(path, other.classes(), unsure)

    @classmethod
    def read_indices(cls, path: Path) -> np.ndarray:
        if suffix_of(path) == ARRAY:
            return whole(path, read_predictions(path, dimensions=cls.dimensions))
        return _read(path).classes()

    def write_labels(self, path: Path, indices: np.ndarray, style: LabelStyle) -> None:
        FORMATS[suffix_of(path)].write(path, self.content, np.array(style.values)[indices])


def _read(path: Path) -> Points:
    """A file's points; ValueError, with its name, where it cannot be read or has none."""
    points = FORMATS[suffix_of(path)].read(path)
    points.check()
    return points


def _label_map(path: Path, classes: np.ndarray, unsure: Value | None) -> LabelMap:
    if isinstance(unsure, tuple):
        raise ValueError(f"unsure: {path} holds numbers, so give one of them instead of a colour")
    indices, values = numbered(path, classes, np.True_ if unsure is None else classes != unsure)
    return LabelMap(indices, LabelStyle(values))
