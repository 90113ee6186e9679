"""Rasters through rasterio: what a file says of itself, and its pixels window by window."""

import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from crfrnn.data.files import suffix_of, writing
from crfrnn.data.kinds.reading import library, reading

CLOSE = 0.1  # pixels: headers round their numbers
CACHE = 64 << 20  # bytes that GDAL keeps of files; its own choice is a twentieth of the machine
LOSSLESS = ("lzw", "deflate", "zstd", "packbits", "lzma", "lerc", "lerc_deflate", "lerc_zstd")
LAYOUT = ("tiled", "blockxsize", "blockysize", "compress")
UPRIGHT = "1"  # of EXIF's orientations
BLOCK = 16  # what the sides of blocks are multiples of
USUAL = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}  # of what comes from other formats


@dataclass(frozen=True)
class Frame:
    """Size (height, width), where the pixels are, and how a file holds them."""

    path: Path
    size: tuple[int, int]
    dtypes: tuple[str, ...]  # of each band
    alpha: tuple[int, ...]  # numbers of bands that say how opaque pixels are, from 1 on
    crs: Any  # None where it has none
    transform: Any  # (column, row) to coordinates
    nodata: float | None
    masked: bool  # whether it may have pixels that do not count
    layout: dict[str, Any] = field(repr=False)  # blocks and compression
    tags: dict[str, str] = field(repr=False)
    palette: bytes | None = field(repr=False)  # 256 RGB colours of its only band

    @property
    def placed(self) -> bool:
        """Whether it says where it is."""
        return self.crs is not None or not self.transform.is_identity

    def misfit(self, other: "Frame") -> str:
        """In words, how another grid is not this one; nothing where it is, or does not say where it is."""
        if other.size != self.size:
            return f"{other.size[1]} x {other.size[0]} pixels instead of {self.size[1]} x {self.size[0]}"
        if not (self.placed and other.placed):
            return ""
        if self.crs is not None and other.crs is not None and self.crs != other.crs:
            return f"another coordinate system, {other.crs.to_string()} instead of {self.crs.to_string()}"
        height, width = self.size
        corners = np.array([(column, row, 1) for column in (0, width) for row in (0, height)], float).T
        there = np.linalg.solve(_matrix(self.transform), _matrix(other.transform) @ corners)
        apart = float(np.abs(there - corners).max())
        return f"another transform, up to {apart:.3g} pixels away" if apart > CLOSE else ""

    def steps(self) -> tuple[float, float]:
        """Metres from one pixel to the next, (y, x); ValueError where there are none."""
        if self.crs is None or self.transform.is_identity:
            raise ValueError(f"metres: {self.path} does not say where it is; leave them out, and count in pixels")
        if not self.crs.is_projected:
            name = self.crs.to_string()
            raise ValueError(
                f"metres: {self.path} is in degrees ({name}), which have no one length; project it (gdalwarp -t_srs)"
            )
        (a, b, _, d, e, *_), unit = self.transform, self.crs.linear_units_factor[1]
        return math.hypot(b, e) * unit, math.hypot(a, d) * unit


def frame(path: Path) -> Frame:
    """What a file says of itself; ValueError where it has no bands, or bands without real numbers."""
    with _opened(path) as file:
        if not file.count:
            raise ValueError(f"{path}: has no bands{'; it holds several rasters, name one' * bool(file.subdatasets)}")
        if wrong := [dtype for dtype in file.dtypes if np.dtype(_numpy(dtype)).kind not in "uif"]:
            raise ValueError(f"{path}: holds {wrong[0]}, expected real numbers")
        if file.transform.is_degenerate:
            raise ValueError(f"{path}: its transform has all pixels on one line; mend it (gdal_edit -a_ullr)")
        if file.tags().get("EXIF_Orientation", UPRIGHT) != UPRIGHT:
            raise ValueError(f"{path}: its EXIF data say to turn it, which is not done here; save it upright")
        alpha = tuple(n for n, of in enumerate(file.colorinterp, 1) if of.name == "alpha")
        flags = {flag.name for band in file.mask_flag_enums for flag in band}
        layout = {name: file.profile[name] for name in LAYOUT if name in file.profile}
        return Frame(
            path=path,
            size=(file.height, file.width),
            dtypes=tuple(file.dtypes),
            alpha=alpha,
            crs=file.crs,
            transform=file.transform,
            nodata=file.nodata,
            masked=flags != {"all_valid"} or any(dtype.startswith("float") for dtype in file.dtypes),
            layout=_lossless(layout) if file.driver == "GTiff" else USUAL,
            tags={name: text for name, text in file.tags().items() if name == "AREA_OR_POINT"},
            palette=_palette(file) if file.count == 1 else None,
        )


def read(path: Path, bands: Sequence[int], rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """A window of some bands (C, h, w), and where all of them count (h, w): neither nodata nor masked nor NaN."""
    window = ((rows.start, rows.stop), (columns.start, columns.stop))
    with _opened(path) as file:
        values = file.read(list(bands), window=window)
        valid = file.read_masks(list(bands), window=window).all(axis=0)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    return values, valid


def read_scaled(path: Path, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """All bands but alpha, (L, h, w) float32, times their scales and plus their offsets; and where they count: neither
    nodata nor masked."""
    window = ((rows.start, rows.stop), (columns.start, columns.stop))
    with _opened(path) as file:
        bands = [n for n, of in enumerate(file.colorinterp, 1) if of.name != "alpha"]
        values = file.read(bands, window=window).astype(np.float32, copy=False)
        valid = file.read_masks(bands, window=window).all(axis=0)
        for number, band in enumerate(bands):
            scale, offset = file.scales[band - 1], file.offsets[band - 1]
            if (scale, offset) != (1, 0):
                values[number] = values[number] * np.float32(scale) + np.float32(offset)
    return values, valid


@contextmanager
def creating(
    path: Path,
    like: Frame,
    bands: int,
    dtype: str,
    nodata: float | None,
    colours: dict[int, tuple[int, int, int]] | None = None,
) -> Iterator[Any]:
    """A new file on the grid and in the layout of another one; it appears when the block ends well.

    A PNG, of labels alone, is first a TIFF elsewhere: PNGs can't be written in windows.
    """
    with ExitStack() as files:
        part, rasterio = files.enter_context(writing(path)), files.enter_context(_cache(path))
        made = part.name
        if suffix_of(path) == ".png":
            made = files.enter_context(tempfile.NamedTemporaryFile(suffix=".tif")).name
        place = {"crs": like.crs, "transform": like.transform} if like.placed else {}
        shape = {"height": like.size[0], "width": like.size[1], "count": bands, "dtype": dtype, "nodata": nodata}
        options = {"driver": "GTiff", "BIGTIFF": "IF_SAFER", "interleave": "band", **like.layout, **place, **shape}
        with rasterio.open(made, "w", **options) as file:
            file.update_tags(**like.tags)
            if colours:
                file.write_colormap(1, {value: (*colour, 255) for value, colour in colours.items()})
            yield file
        if made != part.name:
            with rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_PAM_ENABLED=False):  # PAM writes XML beside it
                library(path, "rasterio.shutil", "crfrnn[rasters]").copy(made, part.name, driver="PNG")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with reading(path, "raster"):
        if not path.exists():
            raise FileNotFoundError(path)
        with _cache(path) as rasterio, rasterio.open(path) as file:
            yield file


@contextmanager
def _cache(path: Path) -> Iterator[Any]:
    """The library, which keeps little of what it has read and written."""
    rasterio = library(path, "rasterio", "crfrnn[rasters]")
    _hush(library(path, "rasterio.errors", "crfrnn[rasters]").NotGeoreferencedWarning)
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        yield rasterio


@cache
def _hush(warning: type[Warning]) -> None:
    """A raster that does not say where it is is no fault here. Once, as filters belong to all threads."""
    warnings.filterwarnings("ignore", category=warning)


def _lossless(layout: dict[str, Any]) -> dict[str, Any]:
    """Labels are not to be blurred."""
    kept = str(layout.get("compress", "deflate")).lower() in LOSSLESS
    layout = layout if kept else layout | {"compress": "deflate"}
    if not layout.get("tiled"):  # strips are as wide as the file
        layout = {name: value for name, value in layout.items() if name != "blockxsize"}
    return layout


def _matrix(transform: Any) -> np.ndarray:
    """(3, 3), from (column, row, 1) to coordinates."""
    return np.array([*[*transform][:6], 0, 0, 1], float).reshape(3, 3)


def _palette(file: Any) -> bytes | None:
    try:
        table = file.colormap(1)
    except ValueError:
        return None
    return b"".join(bytes(table.get(value, (0, 0, 0))[:3]) for value in range(256))


def _numpy(dtype: str) -> str:
    return "complex64" if dtype.startswith("complex") else dtype
