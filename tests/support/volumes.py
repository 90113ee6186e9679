"""Small volumes with known truths, in memory and as files of nibabel."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

SIZE = (10, 18, 22)  # (z, y, x)
SPACING = (2.5, 0.8, 0.8)
# voxel (x, y, z) to millimetres: x is stored from right to left, and the scan is tilted about x
COS, SIN = np.cos(0.3), np.sin(0.3)
AFFINE = np.array([[-0.8, 0, 0, 30.5], [0, 0.8 * COS, -2.5 * SIN, -12], [0, 0.8 * SIN, 2.5 * COS, 7.25], [0, 0, 0, 1]])


class Case(NamedTuple):
    image: np.ndarray  # (z, y, x) int16, as a CT has them
    probabilities: np.ndarray  # (2, z, y, x) float32
    truth: np.ndarray  # (z, y, x) uint8


def case(seed: int = 0) -> Case:
    """A ball that is round in millimetres, and noisy predictions of it."""
    rng = np.random.default_rng(seed)
    z, y, x = (s * (np.arange(n) - n / 2) for n, s in zip(SIZE, SPACING, strict=True))
    truth = (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < 6**2).astype(np.uint8)
    image = np.rint(np.where(truth, 300, -200) + 40 * rng.standard_normal(SIZE)).astype(np.int16)
    foreground = np.clip(np.where(truth, 0.7, 0.3) + 0.25 * rng.standard_normal(SIZE), 0.02, 0.98).astype(np.float32)
    return Case(image, np.stack([1 - foreground, foreground]), truth)


def nibabel() -> Any:
    return pytest.importorskip("nibabel", reason="pip install 'crfrnn[volumes]'")


def save(path: str | Path, values: np.ndarray, affine: np.ndarray = AFFINE, codes: tuple[int, int] = (1, 2)) -> None:
    """Values (z, y, x) or (C, z, y, x) as NIfTI, with the codes of qform and sform."""
    image = nibabel().Nifti1Image(values.T, affine)
    image.header.set_qform(affine, codes[0])
    image.header.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm")
    nibabel().save(image, path)


def load(path: str | Path) -> np.ndarray:
    """(z, y, x), or (C, z, y, x), as the file has them."""
    return np.asanyarray(nibabel().load(path).dataobj).T
