"""What a network left behind: arrays of one image in .npy and .npz files, and which axis is what."""

import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from crfrnn.data.files import writing

SUFFIXES = (".npy", ".npz")
AXES = {1: ("points",), 2: ("height", "width"), 3: ("z", "y", "x")}  # of an image with so many
MOST_ARRAYS = 1000  # in one file
MAGIC = (b"\x93NUMPY", b"PK")


@dataclass(frozen=True)
class Form:
    """How an array holds the predictions for one image: which axes are what. All others have length 1.

    So (L, H, W) and (H, W, L), of a batch of one (1, L, H, W), nnU-Net's (L, 1, H, W); of a binary network, whose
    foreground stands alone, (H, W), (1, H, W), (H, W, 1). Of a volume the same with (D, H, W) in place of (H, W), of
    points with (N,).

    Args:
        axes: how many there are.
        rows: the first axis of the image, whose others are the next: its rows, or the planes of a volume.
        labels: the axis of the labels; None where the foreground stands alone.
        dimensions: of the image.
    """

    axes: int
    rows: int
    labels: int | None
    dimensions: int = 2

    @classmethod
    def of(cls, shape: Sequence[int], sizes: Sequence[Sequence[int]], dimensions: int = 2) -> "Form":
        """That of an array of this shape, by the sizes, (height, width) or (z, y, x), that the image may have.

        The image's are the last axes that fit a size, and the last that there can be where none do; of points, of
        which there are more than labels, the first axis that fits, and else the longest. ValueError where these cannot
        be predictions for one image.

        >>> Form.of((300, 400, 21), [(300, 400)]).labels, Form.of((21, 1, 300, 400), []).labels
        (2, 0)
        >>> Form.of((1, 300, 400), [(300, 400)])
        Form(axes=3, rows=1, labels=None, dimensions=2)
        """
        forms = []
        for rows in reversed(range(len(shape) - dimensions + 1)):
            image = range(rows, rows + dimensions)
            several = [axis for axis, length in enumerate(shape) if axis not in image and length != 1]
            if len(several) <= 1:
                forms.append(cls(len(shape), rows, several[0] if several else None, dimensions))
        if not forms:
            axes = ", ".join(AXES[dimensions])
            layout = f"(labels, {axes})" if dimensions > 1 else f"({axes}, labels)"
            raise ValueError(f"shape {tuple(shape)}, expected {layout}, or ({axes}) of a foreground alone")
        if dimensions == 1:
            forms.sort(key=lambda form: (form.size(shape), -form.rows), reverse=True)
        wanted = [tuple(size) for size in sizes]
        return next((form for form in forms if form.size(shape) in wanted), forms[0])

    @classmethod
    def usual(cls, dimensions: int) -> "Form":
        """(L, *S), and (N, L) of points."""
        axes = 1 + dimensions
        return cls(axes, 1, 0, dimensions) if dimensions > 1 else cls(axes, 0, 1, dimensions)

    def size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(height, width), or (z, y, x) of a volume, of an array of this shape."""
        return tuple(shape[self.rows : self.rows + self.dimensions])

    def planes(self, values: Any) -> Any:
        """The array, of NumPy or torch, as (L, *S), or as (1, *S) of a foreground; without a copy."""
        labels = 1 if self.labels is None else values.shape[self.labels]
        return _permuted(values, self._order()).reshape(labels, *self.size(values.shape))

    def restored(self, planes: Any) -> Any:
        """An array like `planes` in the form in which it came."""
        order = self._order()
        lengths = [planes.shape[0] if axis == self.labels else 1 for axis in order[: -self.dimensions]]
        return _permuted(planes.reshape(*lengths, *planes.shape[1:]), [order.index(axis) for axis in range(self.axes)])

    def _order(self) -> list[int]:
        """The axes, those of the image last."""
        image = list(range(self.rows, self.rows + self.dimensions))
        return [axis for axis in range(self.axes) if axis not in image] + image


def _permuted(values: Any, order: Sequence[int]) -> Any:
    return values.permute(*order) if isinstance(values, torch.Tensor) else values.transpose(*order)


def read_predictions(path: Path, key: str | None = None, dimensions: int = 2) -> np.ndarray:
    """The array of a .npy file, or the array `key` of a .npz file; without `key` the .npz must hold just one.

    They must be for one image of so many dimensions; one are points. Nothing is unpickled. Raises ValueError with the
    file's name where the file or the key cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not file.read(6).startswith(MAGIC):
                raise ValueError("it begins like neither .npy nor .npz")
        if (largest := max(unpacked_sizes(path), default=0)) > machine_memory():
            raise ValueError(f"an array of {largest / 1e9:,.0f} GB, more than the memory of this machine")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return predicted(path, loaded, dimensions)
        with loaded:
            return predicted(path, loaded[_choose(path, loaded.files, key)], dimensions)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except Exception as error:  # what a broken file makes of the readers of NumPy and of zip files, nobody can list
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: not a readable array ({' '.join(str(error).split())})") from None


def unpacked_sizes(path: Path) -> list[int]:
    """Bytes that each array in a file takes or, where that is more, claims to take: a few bytes can claim anything."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return [_claimed(file)]
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS:
                raise ValueError(f"{len(members)} files in one, and {MOST_ARRAYS} are looked at")
            sizes = []
            for member in members:
                with archive.open(member) as array:
                    sizes.append(max(member.file_size, _claimed(array)))
            return sizes


def _claimed(file: IO[bytes]) -> int:
    """Bytes of the array whose .npy header comes next; 0 where none does."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError):
        return 0
    return math.prod(map(int, shape)) * dtype.itemsize


def machine_memory() -> float:
    """Bytes; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    wanted = "--key must say which of them" if key is None else f"there is no {key!r}"
    raise ValueError(f"{path}: holds {', '.join(names) or 'nothing'}; {wanted}")


def predicted(path: Path, array: np.ndarray, dimensions: int) -> np.ndarray:
    """What a file holds, as floats; ValueError where it cannot be predictions for one image."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: holds {array.dtype}, expected numbers")
    if array.size == 0:
        raise ValueError(f"{path}: shape {array.shape}, there is nothing in it")
    try:
        Form.of(array.shape, [], dimensions)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    kept = array.dtype.newbyteorder("=") if array.dtype.kind == "f" and array.dtype.itemsize <= 8 else np.float32
    return array.astype(kept, copy=False)


def resized(values: np.ndarray, size: tuple[int, ...], files: tuple[Path, Path], allowed: bool) -> np.ndarray:
    """(L, *S) -> (L, *size), bi- or trilinearly, with pixels as areas (align_corners=False).

    `files` are those of the predictions and of the image, for the ValueError where it is not allowed.
    """
    given = values.shape[1:]
    if not allowed:
        shape, wanted = (" x ".join(map(str, reversed(one))) for one in (given, size))
        what = "pixels" if len(size) == 2 else "voxels"
        raise ValueError(f"{files[0]}: {shape}, but {files[1]} has {wanted} {what}; --resize scales them")
    planes = torch.from_numpy(np.ascontiguousarray(values, np.float32)).unsqueeze(0)
    planes = planes.clamp(min=torch.finfo(torch.float32).min)  # of impossible labels, whose logit times 0 would be NaN
    return scaled_planes(planes, size)[0].numpy()


def scaled_planes(planes: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(1, C, *S) float32 -> (1, C, *size), smoothed before it gets smaller; of volumes, which torch does not smooth
    so, by the means of what falls into a voxel."""
    smaller, size = any(old > new for old, new in zip(planes.shape[2:], size, strict=True)), tuple(size)
    if len(size) == 2:
        return torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=smaller)
    return torch.nn.functional.interpolate(planes, size=size, mode="area" if smaller else "trilinear")


def write_predictions(path: Path, probabilities: np.ndarray) -> None:
    """Write (L, H, W), or another form, as float16: .npy as it is, .npz compressed under the key ``probabilities``."""
    half = probabilities.astype(np.float16)
    with writing(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, half)
        else:
            np.savez_compressed(file, probabilities=half)
