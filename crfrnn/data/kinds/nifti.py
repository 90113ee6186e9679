"""NIfTI files through nibabel: voxels as (z, y, x) or (z, y, x, C), and headers kept as they are."""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np

from crfrnn.data.files import suffix_of, writing
from crfrnn.data.kinds.grid import Grid
from crfrnn.data.kinds.reading import check_memory, library, reading

SUFFIXES, PACKAGE = (".nii", ".nii.gz"), "crfrnn[volumes]"
MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
COMPRESSION = 6  # as fslmaths and nibabel compress


def read_grid(path: Path) -> Grid:
    """Of a file, by its header alone."""
    with reading(path):
        return _grid(path, library(path, "nibabel", PACKAGE).load(path))


def read(path: Path) -> tuple[np.ndarray, Grid]:
    """Voxels (z, y, x) or (z, y, x, C), scaled as the header says, and where they are."""
    with reading(path):
        image = library(path, "nibabel", PACKAGE).load(path)
        grid = _grid(path, image)
        check_memory(math.prod(image.shape) * image.get_data_dtype().itemsize)
        values = np.asanyarray(image.dataobj)
        if values.dtype.names:  # colours, as RGB24 has them
            values = np.stack([values[name] for name in values.dtype.names], axis=-1)
        channels = [length for length in values.shape[3:] if length != 1]
        if len(channels) > 1:
            raise ValueError(f"shape {values.shape}, and a volume has one axis besides x, y and z")
        values = values.reshape(*grid.size[::-1], *channels, order="F")
        return values.transpose(2, 1, 0, *range(3, values.ndim)), grid


def write(path: Path, values: np.ndarray, grid: Grid) -> None:
    """Voxels (z, y, x) or (z, y, x, C) in their dtype, not scaled, where the grid says."""
    nibabel, header = library(path, "nibabel", PACKAGE), grid.header
    if isinstance(header, nibabel.Nifti1Header):
        header = header.copy()
        header["cal_min"], header["cal_max"], header["intent_code"] = 0, 0, 0  # of what the image shows
        kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        affine = header.get_best_affine()
    else:  # of another format
        kind, header, affine = nibabel.Nifti1Image, None, grid.affine
    image = kind(values.transpose(2, 1, 0, *range(3, values.ndim)), affine, header, dtype=values.dtype)
    content = image.to_bytes()
    with writing(path) as file:
        if suffix_of(path).endswith(".gz"):
            with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed:
                packed.write(content)
        else:
            file.write(content)


def _grid(path: Path, image: Any) -> Grid:
    header = image.header
    affine = np.array(image.affine, float)
    affine[:3] *= MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    x, y, z = (*image.shape, 1, 1)[:3]
    grid = Grid((z, y, x), affine, header)
    grid.check(path)
    return grid
