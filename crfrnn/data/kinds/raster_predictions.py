"""Predictions for a raster, read window by window: bands of another one, or an array that stays on the disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crfrnn.data.files import suffix_of
from crfrnn.data.kinds import gdal
from crfrnn.data.predictions import SUFFIXES, Form, read_predictions


@dataclass(frozen=True)
class RasterPredictions:
    """Probabilities or logits: bands of a raster, or an array that stays on the disk."""

    path: Path
    form: Form
    labels: int
    array: np.ndarray | None = None  # in that form, read whole; None: what is needed is read from the disk
    bands: bool = False
    masked: bool = False  # whether there may be none somewhere

    @classmethod
    def open(cls, path: Path, key: str | None, size: tuple[int, int]) -> "RasterPredictions":
        if suffix_of(path) not in SUFFIXES:
            frame = gdal.frame(path)
            count = len(frame.dtypes) - len(frame.alpha)
            return cls(path, Form(3, 1, 0 if count > 1 else None), count, bands=True, masked=frame.masked)
        mapped = suffix_of(path) == ".npy"
        values = _mapped(path) if mapped else read_predictions(path, key)
        form = Form.of(values.shape, [size])
        planes = form.planes(values)
        if planes.shape[1:] != size:
            shape, wanted = (" x ".join(map(str, reversed(one))) for one in (planes.shape[1:], size))
            raise ValueError(f"{path}: {shape}, but the raster has {wanted} pixels")
        return cls(path, form, len(planes), None if mapped else values)

    def read(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray | None]:
        """A window (L, h, w) float32, and where a raster does not say that it has none (h, w)."""
        if self.bands:
            return gdal.read_scaled(self.path, rows, columns)
        values = _mapped(self.path) if self.array is None else self.array  # no page stays that was read before
        return self.form.planes(values)[:, rows, columns].astype(np.float32), None


def _mapped(path: Path) -> np.ndarray:
    """An array (.npy) on the disk; ValueError where it is none of numbers."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable array ({' '.join(str(error).split())})") from None
    if values.dtype.kind not in "fiub" or values.size == 0:
        raise ValueError(f"{path}: holds {values.dtype} of shape {values.shape}, expected numbers")
    return values
