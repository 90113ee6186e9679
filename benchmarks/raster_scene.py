"""A scene by rule, of any size, window by window: fields, woods, water, roads, towns and bare ground in 4 bands.

What stands at a pixel follows from where it is, so that no more than a strip of it is ever in memory. Counts are 12
bits in 16, as Sentinel-2 has them. Predictions are those of a coarse network: right in the large, smooth over 8 pixels,
wrong in lumps and by noise.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import rasterio  # type: ignore[import-not-found]
from rasterio.transform import from_origin  # type: ignore[import-not-found]

CLASSES = 6  # fields, woods, water, roads, towns, bare ground
MEANS = np.array(  # of each class in blue, green, red, infrared
    [
        [700, 900, 800, 2600],
        [350, 500, 350, 2100],
        [500, 450, 300, 150],
        [1100, 1150, 1200, 1500],
        [1400, 1500, 1600, 2000],
        [1500, 1800, 2200, 2600],
    ],
    np.float32,
)
NOISE = np.array([60, 180, 25, 90, 350, 120], np.float32)  # woods and towns are textured, water is smooth
CELL, COARSE, LUMP = 96, 8, 48  # pixels
STRIP = 512  # rows
TRUTH, IMAGE, PROBABILITIES = "truth.tif", "scene.tif", "probabilities.tif"


def random(seed: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each place, always the same there: SplitMix64 of its coordinates."""
    z = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64) + y.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    z = z + x.astype(np.uint64) * np.uint64(0x94D049BB133111EB)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53


def truth(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(h, w) uint8: the nearest of the centres of cells (a Voronoi diagram), a river, and roads along a grid."""
    y, x = rows[:, None].astype(np.float64), columns[None].astype(np.float64)
    y, x = y + 6 * np.sin(x / 17) + 0 * x, x + 6 * np.sin(y / 23)
    nearest = np.full(y.shape, np.inf)
    labels = np.zeros(y.shape, np.uint8)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cy, cx = np.floor(y / CELL) + dy, np.floor(x / CELL) + dx
            square = (y - CELL * (cy + random(1, cy + 9, cx + 9))) ** 2 + (
                x - CELL * (cx + random(2, cy + 9, cx + 9))
            ) ** 2
            kinds = np.array([0, 0, 0, 1, 1, 4, 5])[(7 * random(3, cy + 9, cx + 9)).astype(int)]
            labels = np.where(square < nearest, kinds, labels).astype(np.uint8)
            nearest = np.minimum(square, nearest)
    river = np.abs((x - 700 - 220 * np.sin(y / 310)) % 2600) < 40 + 15 * np.sin(y / 97)
    road = (np.abs(y % 610 - 305) < 2.5) | (np.abs(x % 790 - 395) < 2.5)
    return np.where(road, 3, np.where(river, 2, labels)).astype(np.uint8)


def counts(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(4, h, w) uint16, below 4096."""
    rng = np.random.default_rng(int(rows[0]))
    texture = rng.standard_normal((4, *labels.shape), np.float32) * 0.35 + rng.standard_normal(labels.shape, np.float32)
    bands = np.moveaxis(MEANS[labels], -1, 0) * (1 + 0.08 * np.sin(columns / 900.0)[None, None]).astype(np.float32)
    return np.clip(bands + texture * NOISE[labels], 1, 4095).astype(np.uint16)


def probabilities(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(6, h, w) uint8, 255 for 1, that sum to it nearly."""
    lumps = rows[:, None] // LUMP, columns[None] // LUMP
    wrong = random(4, *lumps) < 0.1
    believed = np.where(wrong, (CLASSES * random(5, *lumps)).astype(np.uint8), labels)
    middle = [np.minimum(np.arange(COARSE // 2, n + COARSE // 2, COARSE), n - 1) for n in labels.shape]
    coarse = believed[np.ix_(*middle)]
    odds = np.eye(CLASSES, dtype=np.float32)[coarse]  # what a network sees at an eighth of the size
    smooth = odds.copy()
    for axis in (0, 1):
        smooth = 0.5 * smooth + 0.25 * (np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis))
    large = np.repeat(np.repeat(smooth, COARSE, 0), COARSE, 1)[: len(rows), : len(columns)]
    rng = np.random.default_rng(int(rows[0]) + 1)
    scores = np.moveaxis(3.5 * large, -1, 0) + 0.7 * rng.standard_normal((CLASSES, *labels.shape), np.float32)
    p = np.exp(scores - scores.max(axis=0))
    return np.rint(255 * p / p.sum(axis=0)).astype(np.uint8)


def make(folder: Path, side: int) -> None:
    """The three files of a square scene; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / name).exists() for name in (TRUTH, IMAGE, PROBABILITIES)):
        return
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1}
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_500_000, 10, 10)}
    shape = {"driver": "GTiff", "height": side, "width": side, "BIGTIFF": "IF_SAFER", **blocks, **place}
    columns = np.arange(side)
    with (
        rasterio.Env(GDAL_CACHEMAX=256),
        rasterio.open(folder / TRUTH, "w", count=1, dtype="uint8", **shape) as labels_file,
        rasterio.open(folder / IMAGE, "w", count=4, dtype="uint16", **shape) as image_file,
        rasterio.open(folder / PROBABILITIES, "w", count=CLASSES, dtype="uint8", **shape) as p_file,
    ):
        p_file.scales = (1 / 255,) * CLASSES
        for start in range(0, side, STRIP):
            rows = np.arange(start, min(start + STRIP, side))
            window = ((rows[0], rows[-1] + 1), (0, side))
            labels = truth(rows, columns)
            labels_file.write(labels, 1, window=window)
            image_file.write(counts(labels, rows, columns), window=window)
            p_file.write(probabilities(labels, rows, columns), window=window)


def mosaic(folder: Path, of: Path, times: int) -> None:
    """The same files, each so many copies of those in a folder side by side and one above the other, as virtual ones
    (GDAL's VRT): what is as large as one likes takes no room on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TRUTH, IMAGE, PROBABILITIES):
        with rasterio.open(of / name) as file:
            side, bands, dtype = file.width, file.count, {"uint8": "Byte", "uint16": "UInt16"}[file.dtypes[0]]
            place = ", ".join(map(str, file.transform.to_gdal()))
            head = f"<SRS>{file.crs.to_string()}</SRS><GeoTransform>{place}</GeoTransform>"
            scale = f"<Scale>{file.scales[0]}</Scale>"
        lines = [f'<VRTDataset rasterXSize="{times * side}" rasterYSize="{times * side}">{head}']
        for band in range(1, bands + 1):
            lines.append(f'<VRTRasterBand dataType="{dtype}" band="{band}" blockXSize="256" blockYSize="256">{scale}')
            for y, x in product(range(0, times * side, side), repeat=2):
                size = f'xSize="{side}" ySize="{side}"'
                source = f"<SourceFilename>{of / name}</SourceFilename><SourceBand>{band}</SourceBand>"
                where = f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{x}" yOff="{y}" {size}/>'
                lines.append(f"<SimpleSource>{source}{where}</SimpleSource>")
            lines.append("</VRTRasterBand>")
        (folder / name).with_suffix(".vrt").write_text("\n".join([*lines, "</VRTDataset>"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("side", type=int)
    options = parser.parse_args()
    make(options.folder, options.side)
