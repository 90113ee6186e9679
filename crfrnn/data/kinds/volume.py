"""Volumes: grids of voxels that know where they are, in NIfTI and in ITK's formats."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from crfrnn.data.files import suffix_of
from crfrnn.data.kinds import itk, nifti
from crfrnn.data.kinds.grid import Grid
from crfrnn.data.kinds.kind import Kind
from crfrnn.data.labels import LabelMap, LabelStyle, Value, numbered
from crfrnn.data.predictions import SUFFIXES, Form, predicted

FORMATS: dict[str, ModuleType] = dict.fromkeys(nifti.SUFFIXES, nifti) | dict.fromkeys(itk.READ, itk)
SHOWN = (0.5, 99.5)  # percentiles of an image that become black and white


class Volume(Kind):
    """One or several modalities on one grid. Spacing is in millimetres, S is (z, y, x): nnU-Net's and ITK's order."""

    several = "volumes"
    points = "voxels"
    dimensions = 3
    suffixes = tuple(FORMATS)
    label_suffixes = (".nii.gz", ".nii", *itk.WRITTEN)
    truth_suffixes = suffixes
    prediction_suffixes = (*SUFFIXES, *FORMATS)
    probability_suffixes = (*SUFFIXES, *label_suffixes)

    def __init__(self, path: Path, values: np.ndarray, grid: Grid):
        self._path, self._values, self._grid = path, values, grid
        self.spacing: tuple[float, ...] = grid.spacing

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "Volume":
        """From a file with one or more channels, or from several files of the same grid."""
        first, *further = paths
        values, grid = _read(first)
        if further:
            channels = [values.reshape(*grid.size, -1)]
            for path in further:
                other, lies = _read(path)
                if wrong := grid.misfit(lies):
                    raise ValueError(f"{path}: {wrong}; bring it onto the voxels of {first}")
                channels.append(other.reshape(*grid.size, -1))
            values = np.concatenate(channels, axis=-1)
        return cls(first, values, grid)

    @property
    def size(self) -> tuple[int, ...]:
        return self._grid.size

    def fitting(self, size: Sequence[int]) -> "Volume":
        size = tuple(size)
        if size != self.size and size == self.size[::-1]:
            raise ValueError(f"{self._path}: (z, y, x) is {self.size}, the predictions have {size}; transpose them")
        return self

    def guide(self) -> np.ndarray:
        return self._values

    def picture(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slice across z with the most voxels of other labels than the commonest, x to the right and y up."""
        others = indices != np.bincount(indices.ravel()).argmax()
        z = int(others.sum(axis=(1, 2)).argmax())
        grey = self._values[z, ::-1].reshape(*self.size[1:], -1)[..., 0].astype(np.float32)
        black, white = np.percentile(grey, SHOWN)
        shown = np.clip((grey - black) * (255 / max(white - black, 1e-6)), 0, 255).astype(np.uint8)
        return np.repeat(shown[..., None], 3, axis=-1), indices[z, ::-1]

    @classmethod
    def read_labels(cls, path: Path, unsure: Value | None = None) -> LabelMap:
        """A whole number for each voxel, in any dtype; that is the one in which they are written again."""
        if isinstance(unsure, tuple):
            raise ValueError(f"unsure: {path} holds numbers, so give one of them instead of a colour")
        whole, dtype = _read_whole(path)
        indices, labels = numbered(path, whole, np.True_ if unsure is None else whole != unsure)
        return LabelMap(indices, LabelStyle(labels, dtype=dtype))

    @classmethod
    def read_indices(cls, path: Path) -> np.ndarray:
        return _read_whole(path)[0]

    @classmethod
    def read_predictions(cls, path: Path, key: str | None = None) -> np.ndarray:
        """(L, z, y, x), or (z, y, x) of a foreground, from a volume with channels; or any `Form` from arrays."""
        if suffix_of(path) not in FORMATS:
            return super().read_predictions(path, key)
        values, _ = _read(path)
        return predicted(path, np.moveaxis(values, 3, 0) if values.ndim > 3 else values, cls.dimensions)

    def check_place(self, path: Path) -> None:
        """ValueError where a volume is on another grid; arrays do not say where they are."""
        if suffix_of(path) in FORMATS and (wrong := self._grid.misfit(FORMATS[suffix_of(path)].read_grid(path))):
            raise ValueError(f"{path}: {wrong}; bring it onto the voxels of {self._path}")

    def write_labels(self, path: Path, indices: np.ndarray, style: LabelStyle) -> None:
        """In the dtype of the labels that came in; of predictions uint8, or uint16 above 256 labels."""
        table = np.array(style.values, style.dtype or ("uint16" if style.deep else "uint8"))
        self._write(path, table[indices])

    def write_predictions(self, path: Path, planes: np.ndarray, form: Form) -> None:
        """As float32 in a volume with channels, or float16 in an array."""
        if suffix_of(path) not in FORMATS:
            super().write_predictions(path, planes, form)
        else:
            values = np.moveaxis(planes, 0, -1) if form.labels is not None else planes[0]
            self._write(path, values.astype(np.float32))

    def _write(self, path: Path, values: np.ndarray) -> None:
        FORMATS[suffix_of(path)].write(path, values, self._grid)


def _read_whole(path: Path) -> tuple[np.ndarray, str]:
    """A whole number for each voxel (z, y, x), and the dtype in which they were."""
    values, _ = _read(path)
    if values.ndim != 3:
        raise ValueError(f"{path}: {values.shape[-1]} channels; a label volume has one number for each voxel")
    with np.errstate(invalid="ignore"):  # NaN, which is not whole either
        whole = values.astype(np.int32) if values.dtype.kind == "f" else values
    if whole is not values and (whole != values).any():
        raise ValueError(
            f"{path}: numbers that are not whole, so no labels; probabilities go to --probabilities, and labels that"
            " a header's scaling has rounded must be saved again as whole numbers"
        )
    return whole, values.dtype.name


def _read(path: Path) -> tuple[np.ndarray, Grid]:
    """Numbers (z, y, x) or (z, y, x, C), one channel without an axis."""
    values, grid = FORMATS[suffix_of(path)].read(path)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{path}: holds {values.dtype}, expected numbers")
    return values, grid
