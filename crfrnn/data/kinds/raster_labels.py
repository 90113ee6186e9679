"""Label maps as rasters: a whole number for each pixel, or nodata."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crfrnn.data.kinds import gdal
from crfrnn.data.labels import MOST_LABELS, UNSURE, LabelStyle, Value, numbered

READ = 1 << 22  # pixels at a time, where all are looked through
NODATA = 2**53  # at the most: files keep it as a float64


@dataclass(frozen=True)
class RasterLabels:
    """A label map: a whole number for each pixel."""

    frame: gdal.Frame
    style: LabelStyle
    unsure: int | None

    @classmethod
    def open(cls, path: Path, unsure: Value | None) -> "RasterLabels":
        """It is looked through once, for which labels there are."""
        if isinstance(unsure, tuple):
            raise ValueError(f"unsure: {path} holds numbers, so give one of them instead of a colour")
        frame, found = single(path), np.empty(0, np.int64)
        for rows, columns in _strips(frame):
            values, valid = gdal.read(path, [1], rows, columns)
            some = np.unique(values[0][valid])
            found = np.union1d(found, whole_numbers(path, some, np.ones_like(some, bool)))
            if found.size > MOST_LABELS + 1:
                break
        _, labels = numbered(path, found, np.True_ if unsure is None else found != unsure)
        dtype = frame.dtypes[0] if np.dtype(frame.dtypes[0]).kind in "ui" else None
        numbers = tuple(map(int, labels))
        style = LabelStyle(numbers, frame.palette, deep=max(numbers) > 255, dtype=dtype)
        return cls(frame, style, unsure)

    def indices(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """A window as numbers of labels (h, w), `UNSURE` where it says so; and where it has none, nodata."""
        values, valid = gdal.read(self.frame.path, [1], rows, columns)
        whole = whole_numbers(self.frame.path, values[0], valid)
        indices = np.searchsorted(self.style.values, whole)
        indices[whole == self.unsure] = UNSURE
        return indices.clip(max=len(self.style.values) - 1), valid


def label_nodata(style: LabelStyle, wishes: Sequence[float | None]) -> tuple[str, int]:
    """A dtype that holds all labels and a value that is none of them: the first wish that fits, or the last there is.

    >>> label_nodata(LabelStyle((0, 1, 2)), (None, -9999.0)), label_nodata(LabelStyle((0, 1)), (None, 7.0))
    (('uint8', 255), ('uint8', 7))
    """
    usual = "uint16" if style.deep else "uint8"
    for dtype in (style.dtype or usual, "uint16", "int32"):
        low, high = max(np.iinfo(dtype).min, -NODATA), min(np.iinfo(dtype).max, NODATA)
        spare = range(high, high - len(style.values) - 1, -1)  # one of which is no label
        for value in (*(int(wish) for wish in wishes if wish is not None and float(wish).is_integer()), *spare):
            if low <= value <= high and value not in style.values:
                return dtype, value
    raise AssertionError("there are fewer labels than numbers")


def _strips(frame: gdal.Frame) -> Iterator[tuple[slice, slice]]:
    """The whole of a raster in windows of whole rows, whole blocks of some megabytes."""
    height, width = frame.size
    step = max(1, READ // width) // 256 * 256 or 256
    for start in range(0, height, step):
        yield slice(start, min(start + step, height)), slice(0, width)


def single(path: Path) -> gdal.Frame:
    """Of a file of labels."""
    frame = gdal.frame(path)
    if len(frame.dtypes) != 1:
        raise ValueError(f"{path}: {len(frame.dtypes)} bands; a label raster has one, with a number for each pixel")
    return frame


def whole_numbers(path: Path, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Whole numbers int64, 0 where there is none."""
    whole = np.where(valid, values, 0).astype(np.int64)
    if values.dtype.kind == "f" and (whole != values)[valid].any():
        raise ValueError(f"{path}: numbers that are not whole, so no labels; probabilities go to --probabilities")
    return whole
