"""Volumes in ITK's formats through SimpleITK, where it is installed: voxels as (z, y, x) or (z, y, x, C)."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from crfrnn.data.files import suffix_of, writing
from crfrnn.data.kinds.grid import Grid
from crfrnn.data.kinds.reading import check_memory, library, reading

READ, WRITTEN = (".mha", ".nrrd", ".mhd", ".nhdr"), (".mha", ".nrrd")  # those of two files are read alone
LEFT_BACK = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes point to the left and to the back


def read_grid(path: Path) -> Grid:
    """Of a file, by its header alone."""
    with reading(path):
        reader = _library(path).ImageFileReader()
        reader.SetFileName(_existing(path))
        reader.ReadImageInformation()
        return _grid(path, reader)


def read(path: Path) -> tuple[np.ndarray, Grid]:
    """Voxels (z, y, x) or (z, y, x, C), and where they are."""
    grid = read_grid(path)
    with reading(path):
        check_memory(math.prod(grid.size))
        image = _library(path).ReadImage(str(path))
        values = _library(path).GetArrayFromImage(image)
        return (np.moveaxis(values, 0, -1) if image.GetDimension() == 4 else values), grid


def write(path: Path, values: np.ndarray, grid: Grid) -> None:
    """Voxels (z, y, x) or (z, y, x, C) in their dtype, compressed, where the grid says."""
    image = _library(path).GetImageFromArray(np.ascontiguousarray(values), isVector=values.ndim == 4)
    place = grid.header if isinstance(grid.header, tuple) else _place(grid.affine)
    for set_it, numbers in zip((image.SetOrigin, image.SetSpacing, image.SetDirection), place, strict=True):
        set_it(numbers)
    with tempfile.TemporaryDirectory() as folder:  # SimpleITK writes to a name, whose suffix says how
        part = Path(folder) / f"volume{suffix_of(path)}"
        _library(path).WriteImage(image, str(part), useCompression=True)
        content = part.read_bytes()
    with writing(path) as file:
        file.write(content)


def _grid(path: Path, image: Any) -> Grid:
    """Of an image or a reader of three axes, or of four, the last of which are channels."""
    axes = image.GetDimension()
    if axes not in (3, 4) or (axes == 4 and image.GetNumberOfComponents() > 1):
        raise ValueError(f"{axes} axes, and a volume has one axis besides x, y and z")
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    origin, spacing = np.array(image.GetOrigin()[:3]), np.array(image.GetSpacing()[:3])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    place = origin.tolist(), spacing.tolist(), direction.ravel().tolist()
    grid = Grid(tuple(image.GetSize()[2::-1]), LEFT_BACK @ affine, place)
    grid.check(path)
    return grid


def _place(affine: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """ITK's origin, spacing and direction for an affine of another format."""
    affine = LEFT_BACK @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return affine[:3, 3].tolist(), spacing.tolist(), (affine[:3, :3] / spacing).ravel().tolist()


def _existing(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(path)
    return str(path)


def _library(path: Path) -> Any:
    return library(path, "SimpleITK", "SimpleITK")
