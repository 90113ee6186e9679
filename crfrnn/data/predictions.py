"""What a network left behind: arrays (L, H, W) in .npy and .npz files."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from crfrnn.data.files import writing

SUFFIXES = (".npy", ".npz")
MAGIC = (b"\x93NUMPY", b"PK")


def read_predictions(path: Path, key: str | None = None) -> np.ndarray:
    """The array of a .npy file, or the array `key` of a .npz file; without `key` the .npz must hold just one.

    Nothing is unpickled. Raises ValueError with the file's name where the file or the key cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not file.read(6).startswith(MAGIC):
                raise ValueError("it begins like neither .npy nor .npz")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _numbers(path, loaded)
        with loaded:
            return _numbers(path, loaded[_choose(path, loaded.files, key)])
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a readable array ({error})") from None
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: not a readable array ({error})") from None


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    wanted = "--key must say which of them" if key is None else f"there is no {key!r}"
    raise ValueError(f"{path}: holds {', '.join(names) or 'nothing'}; {wanted}")


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: holds {array.dtype}, expected numbers")
    if array.ndim == 4 and array.shape[0] == 1:  # a batch of one image
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"{path}: shape {array.shape}, expected (labels, height, width)")
    kept = array.dtype.newbyteorder("=") if array.dtype.kind == "f" and array.dtype.itemsize <= 8 else np.float32
    return array.astype(kept, copy=False)


def labels_come_last(shape: Sequence[int], sizes: Sequence[tuple[int, ...]]) -> bool:
    """Whether an array is (H, W, L) and not (L, H, W): only that fits one of the image's sizes (height, width).

    >>> labels_come_last((300, 400, 21), [(300, 400)]), labels_come_last((21, 300, 400), [(300, 400)])
    (True, False)
    """
    return tuple(shape[1:]) not in sizes and tuple(shape[:2]) in sizes


def labels_first(values: np.ndarray, sizes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """(L, H, W) from (H, W, L) too."""
    return np.moveaxis(values, -1, 0) if labels_come_last(values.shape, sizes) else values


def resized(values: np.ndarray, size: tuple[int, int], files: tuple[Path, Path], allowed: bool) -> np.ndarray:
    """(L, h, w) -> (L, *size), bilinearly, with pixels as areas (align_corners=False).

    `files` are those of the predictions and of the image, for the ValueError where it is not allowed.
    """
    (h, w), (height, width) = values.shape[1:], size
    if not allowed:
        raise ValueError(f"{files[0]}: {w} x {h}, but {files[1]} has {width} x {height} pixels; --resize scales them")
    planes = torch.from_numpy(np.ascontiguousarray(values, np.float32)).unsqueeze(0)
    planes = planes.clamp(min=torch.finfo(torch.float32).min)  # of impossible labels, whose logit times 0 would be NaN
    smaller = h > height or w > width
    scaled = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=smaller)
    return scaled[0].numpy()


def write_predictions(path: Path, probabilities: np.ndarray) -> None:
    """Write (L, H, W) as float16: .npy as it is, .npz compressed under the key ``probabilities``."""
    half = probabilities.astype(np.float16)
    with writing(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, half)
        else:
            np.savez_compressed(file, probabilities=half)
