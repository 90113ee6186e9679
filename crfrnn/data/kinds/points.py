"""Points as a file has them, and which of their values are used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLOUD = "cloud of points"  # what people call them
# names, in small letters, under which programs write classes and colours
LABELS = ("label", "labels", "class", "classification", "semantic", "segment", "scalar_label", "scalar_classification")
COLOURS = (("red", "green", "blue"), ("colors",), ("color",), ("rgb",))
INTENSITIES = ("intensity", "scalar_intensity", "reflectance")


@dataclass(frozen=True)
class Points:
    """N points. `content` is the whole file in a form of its format, from which it is written again.

    Args:
        path: of the file.
        positions: (N, 3), or (N, 2), float64 where the file says so.
        values: further ones by their names, (N,) or (N, C); read when they are asked for.
        label_name: which of them holds classes; None where none does.
    """

    path: Path
    positions: np.ndarray
    values: Mapping[str, np.ndarray]
    label_name: str | None
    content: Any

    def check(self) -> None:
        """ValueError where there is nothing, or a point is nowhere."""
        if not len(self.positions):
            raise ValueError(f"{self.path}: there are no points in it")
        broken = int((~np.isfinite(self.positions).all(axis=1)).sum())
        if broken:
            raise ValueError(f"{self.path}: {broken} of {len(self.positions)} points are nowhere (NaN or infinity)")

    def attributes(self, names: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
        """The names of some values, and these as columns (N, C); of None colours or else the intensity, if they vary.

        ValueError where there are none of that name.
        """
        if names is None:
            names = self._usual()
        columns = [np.empty((len(self.positions), 0))]
        for name in names:
            if name not in self.values:
                raise ValueError(f"attributes: {self.path} has no {name!r}; it has {', '.join(self.values) or 'none'}")
            column = np.asarray(self.values[name], np.float64)
            columns.append(column.reshape(len(column), -1))
        return list(names), np.concatenate(columns, axis=1)

    def _usual(self) -> tuple[str, ...]:
        known = {name.lower(): name for name in self.values}
        for wanted in (*COLOURS, *((name,) for name in INTENSITIES)):
            if all(name in known for name in wanted):
                names = tuple(known[name] for name in wanted)
                if any(np.ptp(self.values[name], axis=0).any() for name in names):
                    return names
        return ()

    def classes(self) -> np.ndarray:
        """Those that it brings, (N,); ValueError where there are none."""
        if self.label_name is None:
            raise ValueError(f"{self.path}: holds no labels; it has {', '.join(self.values) or 'positions alone'}")
        return whole(self.path, np.asarray(self.values[self.label_name]))


def whole(path: Path, classes: np.ndarray) -> np.ndarray:
    """Classes (N,) as int64; ValueError where these are none."""
    if classes.ndim != 1 or not np.isfinite(classes).all() or (classes != np.round(classes)).any():
        raise ValueError(f"{path}: labels must be one whole number for each point")
    return classes.astype(np.int64)


def label_name(names: Sequence[str]) -> str | None:
    """The one under which classes are.

    >>> label_name(["x", "y", "z", "scalar_Classification"])
    'scalar_Classification'
    """
    return next((name for wanted in LABELS for name in names if name.lower() == wanted), None)


def fitting_dtype(classes: np.ndarray, present: np.dtype | None) -> np.dtype:
    """That of the classes that were there, if it can hold these, or else the smallest one that can."""
    candidates = map(np.dtype, ("u1", "i1", "u2", "i2", "u4", "i4", "i8"))
    return next(dtype for dtype in (present, *candidates) if dtype and np.array_equal(classes.astype(dtype), classes))
