"""Rasters: scenes of satellites and aeroplanes, of any number of bands, which know where they are on the map."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, product
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import TiffImagePlugin

from crfrnn.data.files import IMAGE_SUFFIXES, suffix_of, writing
from crfrnn.data.kinds import gdal
from crfrnn.data.kinds.kind import CLOUDS_ALONE, Kind
from crfrnn.data.kinds.raster_labels import RasterLabels, label_nodata, single, whole_numbers
from crfrnn.data.labels import MOST_LABELS, UNSURE, LabelMap, LabelStyle, Value
from crfrnn.data.predictions import SUFFIXES, Form

TIFF = (".tif", ".tiff")
# tags of TIFF: numbers of bits and of bands, what numbers mean; pixel scale, tie points, transform, keys, nodata
BITS, BANDS, FORMAT, PLACES = 258, 277, 339, (33550, 33922, 34264, 34735, 42113)
FLOAT = 3
SAMPLES = 16, 64  # so many windows along each axis, of so many pixels, are looked at for the range of the bands
VOID = 255  # of the truth, where it has nodata


class Raster(Kind):
    """Bands on one grid, from one file or several. What is large is read window by window; S is (height, width)."""

    several = "rasters"
    suffixes = (*TIFF, ".vrt", ".jp2")
    label_suffixes = TIFF
    truth_suffixes = TIFF
    prediction_suffixes = (*SUFFIXES, *TIFF, ".vrt")
    probability_suffixes = (*TIFF, ".npy")
    windowed = True
    lacks: ClassVar = {
        **CLOUDS_ALONE,
        "overlay": "there is no picture of a raster; its labels have a colour table",
        "resize": "predictions for a raster must be on its grid; gdalwarp brings them there",
        "trace": "rasters are worked on window by window, and energies are of whole images",
        "many_labels": "is for pictures, and rasters hold no soft masks",
    }

    def __init__(self, frames: Sequence[gdal.Frame], bands: Sequence[int] | None = None):
        """`bands` count from 1 on, over all files; None are all but those that say how opaque pixels are."""
        self.frames = tuple(frames)
        known = [(n, band) for n, one in enumerate(self.frames) for band in range(1, len(one.dtypes) + 1)]
        if bands is None:
            bands = [number for number, (n, band) in enumerate(known, 1) if band not in self.frames[n].alpha]
        self.bands = tuple(bands)
        if not self.bands:
            raise ValueError(f"{self.frame.path}: has no bands besides its alpha channel")
        for band in self.bands:
            if not 1 <= band <= len(known):
                raise ValueError(f"bands: {self.frame.path} has bands 1 to {len(known)}, and no {band}")
        chosen = [known[band - 1] for band in self.bands]
        order = sorted(range(len(chosen)), key=lambda number: chosen[number][0])  # file by file
        self._order = np.argsort(order)
        self._reads = [
            (self.frames[n].path, [chosen[number][1] for number in numbers])
            for n, numbers in groupby(order, key=lambda number: chosen[number][0])
        ]

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether a TIFF is a raster, by its header: it says where it is, has nodata, or is no picture of 1, 3 or 4
        channels of 8 or 16 bits."""
        if suffix_of(path) not in TIFF:
            return False
        try:
            with path.open("rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = file.read(8)
                start += file.read(8) if start[2:3] == b"\x2b" else b""  # BigTIFF
                tags = TiffImagePlugin.ImageFileDirectory_v2(start)
                file.seek(tags.next)
                tags.load(file)
        except Exception:  # no TIFF, or a broken one, which whoever reads it will say
            return False
        if any(tag in tags for tag in PLACES):
            return True
        formats, bits = (np.atleast_1d(tags.get(tag, default)) for tag, default in ((FORMAT, 1), (BITS, 1)))
        return tags.get(BANDS, 1) not in (1, 3, 4) or FLOAT in formats or max(bits) > 16

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "Raster":
        """From a file with one or more bands, or from several files of the same grid."""
        frames = [gdal.frame(path) for path in paths]
        for one in frames[1:]:
            if wrong := frames[0].misfit(one):
                raise ValueError(f"{one.path}: {wrong}; bring it onto the grid of {paths[0]}")
        return cls(frames)

    def with_channels(self, names: Sequence[str] | None) -> "Raster":
        return self if names is None else type(self)(self.frames, [int(name) for name in names])

    @property
    def channels(self) -> Sequence[str]:
        return [str(band) for band in self.bands]

    @property
    def frame(self) -> gdal.Frame:
        """Of the first file, in whose place and layout labels are written."""
        return self.frames[0]

    @property
    def size(self) -> tuple[int, int]:
        return self.frame.size

    def read(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """A window of its bands (C, h, w) float32, in counts, and where they count (h, w) bool."""
        parts, masks = zip(*(gdal.read(*one, rows, columns) for one in self._reads), strict=True)
        values = np.concatenate([part.astype(np.float32, copy=False) for part in parts])
        return values[self._order], np.logical_and.reduce(masks)

    def guide(self) -> np.ndarray:
        """(H, W, C), all of it."""
        return np.moveaxis(self.read(*map(slice, (0, 0), self.size))[0], 0, -1)

    def sample(self) -> np.ndarray:
        """(C, N) of pixels that count, from all over it, and all of them where it is small."""
        number, side = SAMPLES
        if self.size[0] * self.size[1] <= (number * side) ** 2:
            windows = [tuple(map(slice, (0, 0), self.size))]
        else:
            axes = [np.linspace(0, max(0, n - side), number).astype(int) for n in self.size]
            windows = [
                tuple(slice(start, min(start + side, n)) for start, n in zip(starts, self.size, strict=True))
                for starts in product(*axes)
            ]
        parts = [values[:, valid] for values, valid in (self.read(*window) for window in windows)]
        return np.concatenate(parts, axis=1)

    @property
    def masked(self) -> bool:
        """Whether it may have pixels that do not count."""
        return any(one.masked for one in self.frames)

    @classmethod
    def read_labels(cls, path: Path, unsure: Value | None = None) -> LabelMap:
        """All of it; nodata are unsure."""
        labels = RasterLabels.open(path, unsure)
        indices, valid = labels.indices(*map(slice, (0, 0), labels.frame.size))
        return LabelMap(np.where(valid, indices, UNSURE).astype(np.int32), labels.style)

    @classmethod
    def label_style(cls, path: Path, unsure: Value | None = None) -> LabelStyle:
        return RasterLabels.open(path, unsure).style

    @classmethod
    def read_indices(cls, path: Path) -> np.ndarray:
        frame = single(path)
        values, valid = gdal.read(path, [1], *map(slice, (0, 0), frame.size))
        return np.where(valid, whole_numbers(path, values[0], valid), VOID)

    @classmethod
    def read_predictions(cls, path: Path, key: str | None = None) -> np.ndarray:
        if suffix_of(path) in SUFFIXES:
            return super().read_predictions(path, key)
        return gdal.read_scaled(path, *map(slice, (0, 0), gdal.frame(path).size))[0]

    def check_place(self, path: Path) -> None:
        """ValueError where a raster is on another grid; arrays do not say where they are."""
        if suffix_of(path) not in SUFFIXES and (wrong := self.frame.misfit(gdal.frame(path))):
            raise ValueError(f"{path}: {wrong}; bring it onto the grid of {self.frame.path}")

    def write_labels(self, path: Path, indices: np.ndarray, style: LabelStyle) -> None:
        with self.writing_labels(path, style) as write:
            write(0, indices, np.ones_like(indices, bool))

    @contextmanager
    def writing_labels(
        self, path: Path, style: LabelStyle, nodata: float | None = None, masked: bool = False
    ) -> Iterator[Callable[[int, np.ndarray, np.ndarray], None]]:
        """What takes the rows of a label map, in their order: the first one's number, labels (h, W), and where there
        are any, (h, W). With `masked` there may be pixels without; `nodata` is what labels that came in had there."""
        dtype, hole = label_nodata(style, (nodata, self.frame.nodata))
        values = np.array(style.values, dtype)
        colours = style.colours().tolist() if style.palette and values.max() < MOST_LABELS else []
        table = {int(value): (red, green, blue) for value, (red, green, blue) in zip(values, colours, strict=False)}
        with gdal.creating(path, self.frame, 1, dtype, hole if masked else None, table) as file:

            def write(row: int, indices: np.ndarray, valid: np.ndarray) -> None:
                window = ((row, row + len(indices)), (0, self.size[1]))
                file.write(np.where(valid, values[indices], values.dtype.type(hole)), 1, window=window)

            yield write

    @contextmanager
    def writing_planes(
        self, path: Path, form: Form, labels: int, masked: bool = False
    ) -> Iterator[Callable[[slice, slice, np.ndarray], None]]:
        """What takes windows of planes (L, h, w), NaN where there are none: a raster of float32, or an array of float16
        in the form that came in."""
        if suffix_of(path) in TIFF:
            with gdal.creating(path, self.frame, labels, "float32", math.nan if masked else None) as file:
                yield lambda rows, columns, planes: file.write(
                    planes.astype(np.float32), window=((rows.start, rows.stop), (columns.start, columns.stop))
                )
            return
        with writing(path) as part:
            shape = form.restored(np.broadcast_to(np.float16(0), (labels, *self.size))).shape
            np.lib.format.open_memmap(part.name, "w+", np.float16, shape)

            def write(rows: slice, columns: slice, planes: np.ndarray) -> None:
                form.planes(np.load(part.name, mmap_mode="r+"))[:, rows, columns] = planes

            yield write


class LargePhotograph(Raster):
    """A photograph with more pixels than Pillow holds to be safe: read window by window, its labels a PNG all the
    same."""

    several = "large photographs"
    suffixes = IMAGE_SUFFIXES
    label_suffixes = (".png", *TIFF)
    prediction_suffixes = SUFFIXES

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "LargePhotograph":
        image = cls([gdal.frame(path) for path in paths])
        if image.frame.palette is not None:
            raise ValueError(f"{paths[0]}: its colours are a palette's, and it is too large to look them up; save RGB")
        return image
