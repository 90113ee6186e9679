"""Clouds of the ASPRS format, .las and .laz, through laspy: everything in them is kept but the classification."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crfrnn.data.files import writing
from crfrnn.data.kinds.points import CLOUD, Points
from crfrnn.data.kinds.reading import check_memory, library, reading

CLASSES = "classification"
LEGACY, LEGACY_MOST, MOST = 5, 31, 255  # point formats to 5 have 5 bits for classes
COPC = "copc"  # who wrote the records that say where a COPC file's octree is


class _Dimensions(Mapping[str, np.ndarray]):
    """What a file knows of its points, by laspy's names, besides where they are: as numbers, scaled as it says."""

    def __init__(self, las: Any):
        self._las = las
        self._names = [name for name in las.point_format.dimension_names if name not in ("X", "Y", "Z")]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return np.asarray(self._las[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read(path: Path) -> Points:
    """Positions are float64, scaled and offset as the header says."""
    laspy = library(path, "laspy", "crfrnn[points]")
    with reading(path, CLOUD), path.open("rb") as file:
        with laspy.open(file, closefd=False) as reader:
            header = reader.header
            check_memory(header.point_count * header.point_format.size)
            las = reader.read()
        if len(las.points) != header.point_count:
            raise ValueError(f"it is cut off: {len(las.points)} of {header.point_count} points")
        return Points(path, np.asarray(las.xyz), _Dimensions(las), CLASSES, las)


def write(path: Path, points: Points, classes: np.ndarray) -> None:
    """The same points with these classes, compressed where the name says so.

    An octree over the points, as COPC has it, is left out: it would say where points were in the former file.
    """
    las = points.content
    most = LEGACY_MOST if las.point_format.id <= LEGACY else MOST
    if classes.min() < 0 or classes.max() > most:
        wrong = classes.max() if classes.min() >= 0 else classes.min()
        raise ValueError(f"{path}: point format {las.point_format.id} holds classes 0..{most}, and not {wrong}")
    las[CLASSES] = classes.astype(np.uint8)
    for records in (las.header.vlrs, las.evlrs or []):
        for record in [record for record in records if record.user_id.lower() == COPC]:
            records.remove(record)
    with writing(path) as file:
        las.write(file, do_compress=path.suffix.lower() == ".laz")
