"""A small scene on a map with a known truth, in memory and as files of rasterio."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

SIZE = (52, 70)  # (height, width)
MEANS = np.array([[700, 900, 2600], [400, 350, 300], [1400, 2100, 1900]])  # of each class in three bands, 12 bits
STEP = 10  # metres


class Case(NamedTuple):
    bands: np.ndarray  # (3, H, W) uint16
    probabilities: np.ndarray  # (3, H, W) float32
    truth: np.ndarray  # (H, W) uint8


def case(seed: int = 0) -> Case:
    """A field, a lake and a town, and noisy predictions of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    truth = np.where((y - 26) ** 2 + (x - 22) ** 2 < 14**2, 1, np.where(x > 48, 2, 0)).astype(np.uint8)
    bands = MEANS.T[:, truth] + 60 * rng.standard_normal((3, *SIZE))
    scores = 1.2 * np.eye(3)[truth].transpose(2, 0, 1) + 0.8 * rng.standard_normal((3, *SIZE))
    p = np.exp(scores) / np.exp(scores).sum(axis=0)
    return Case(np.rint(bands).clip(1, 4095).astype(np.uint16), p.astype(np.float32), truth)


def rasterio() -> Any:
    return pytest.importorskip("rasterio", reason="pip install 'crfrnn[rasters]'")


def utm() -> dict[str, Any]:
    """A place of the scene: pixels of 10 m in UTM zone 32."""
    transform = pytest.importorskip("rasterio.transform").from_origin(500_000, 5_500_000, STEP, STEP)
    return {"crs": "EPSG:32632", "transform": transform}


def save(path: str | Path, values: np.ndarray, place: dict[str, Any] | None = None, **profile: Any) -> None:
    """Values (H, W) or (C, H, W) as a GeoTIFF; without a place in UTM."""
    values = values[None] if values.ndim == 2 else values
    shape = dict(zip(("count", "height", "width"), values.shape, strict=True))
    place = utm() if place is None else place
    with rasterio().open(path, "w", driver="GTiff", dtype=values.dtype, **shape, **place, **profile) as file:
        file.write(values)


def load(path: str | Path) -> np.ndarray:
    """(H, W), or (C, H, W) of several bands, as the file has them."""
    with rasterio().open(path) as file:
        values = file.read()
    return values[0] if len(values) == 1 else values
