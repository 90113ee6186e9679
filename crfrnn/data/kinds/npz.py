"""Clouds as NumPy archives: an array of positions (N, 3), and one of N rows for each further value."""

from pathlib import Path

import numpy as np

from crfrnn.data.files import writing
from crfrnn.data.kinds.points import CLOUD, Points, fitting_dtype, label_name
from crfrnn.data.kinds.reading import check_memory, reading
from crfrnn.data.predictions import unpacked_sizes

POSITIONS = ("positions", "points", "xyz", "coord", "coords")


def read(path: Path) -> Points:
    """Arrays of another length are kept, and are no values of points. Nothing is unpickled."""
    with reading(path, CLOUD):
        if not path.exists():
            raise FileNotFoundError(path)
        check_memory(sum(unpacked_sizes(path)))
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        name = next((name for name in POSITIONS if name in arrays), None)
        if name is None:
            raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}, and none of {', '.join(POSITIONS)}")
        positions = arrays[name]
        if positions.dtype.kind not in "fiu" or positions.ndim != 2 or positions.shape[1] not in (2, 3):
            raise ValueError(f"{name}: {positions.dtype} of shape {positions.shape}, expected numbers (points, 3)")
        values = {
            key: array
            for key, array in arrays.items()
            if key != name and array.dtype.kind in "fiub" and array.ndim in (1, 2) and len(array) == len(positions)
        }
        return Points(path, positions, values, label_name(list(values)), arrays)


def write(path: Path, points: Points, classes: np.ndarray) -> None:
    """All arrays as they were, and the classes in place of the former, or as ``labels``."""
    name = points.label_name or "labels"
    present = points.content[name].dtype if points.label_name else None
    arrays = points.content | {name: classes.astype(fitting_dtype(classes, present))}
    with writing(path) as file:
        np.savez_compressed(file, **arrays)
