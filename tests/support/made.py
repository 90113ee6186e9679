"""Small data sets that tests make themselves, in the layouts of the real ones."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from crfrnn.data.datasets.cityscapes import IMAGE, MASK
from crfrnn.data.labels import voc_palette

COLOURS = np.array([(40, 60, 200), (220, 50, 40), (60, 190, 70)], np.uint8)  # of classes 0, 1, 2


def scene(seed: int, size: tuple[int, int] = (32, 24), void: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Two rectangles on a background, each class in its colour plus noise, with a strip of void; (H, W, 3), (H, W)."""
    draw = np.random.default_rng(seed)
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    for number in (1, 2):
        top, left = draw.integers(0, height // 2), draw.integers(0, width // 2)
        mask[top : top + height // 2, left : left + width // 2] = number
    noise = draw.integers(-20, 21, (height, width, 3))
    image = np.clip(COLOURS[mask] + noise, 0, 255).astype(np.uint8)
    mask[-2:] = void
    return image, mask


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def png(path: Path, header: tuple[int, int, int, int], rows: bytes, clear: bytes = b"") -> Path:
    """A PNG of any kind: (width, height, bits, kind of colour), its rows with a filter byte each, and tRNS."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    chunks = {b"IHDR": struct.pack(">IIBBBBB", *header, 0, 0, 0), b"tRNS": clear, b"IDAT": zlib.compress(rows)}
    body = b"".join(chunk(kind, content) for kind, content in chunks.items() if content)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


def make_folders(root: Path, count: int = 6, size: tuple[int, int] = (32, 24)) -> Path:
    """images/train, images/val, masks/train, masks/val: `count` scenes each."""
    for offset, split in enumerate(("train", "val")):
        for number in range(count):
            image, mask = scene(100 * offset + number, size)
            save(image, root / "images" / split / f"{number:02}.png")
            save(mask, root / "masks" / split / f"{number:02}.png")
    return root


FOLDERS = {"classes": ["ground", "red", "green"], "images": "images/{split}", "masks": "masks/{split}"}


def make_camvid(root: Path) -> Path:
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            image, mask = scene(number, void=11)
            save(image, root / split / f"{number}.png")
            save(mask, root / f"{split}annot" / f"{number}.png")
    return root


def make_cityscapes(root: Path) -> Path:
    for city, number in (("aachen", 0), ("bonn", 1), ("bonn", 2)):
        image, mask = scene(number)
        labels = np.array([7, 26, 0], np.uint8)[np.minimum(mask, 2)]  # road, car, unlabelled
        stem = f"{city}_{number:06}_000019"
        save(image, root / "leftImg8bit" / "train" / city / f"{stem}{IMAGE}")
        save(labels, root / "gtFine" / "train" / city / f"{stem}{MASK}")
    return root


VOC_TRAIN, VOC_VAL = ("2007_01", "2007_02"), ("2007_03", "2008_04", "2008_05")
SBD_TRAIN, SBD_VAL = ("2007_01", "2008_04", "2009_06"), ("2009_07",)


def make_voc(root: Path) -> tuple[Path, Path]:
    """VOC2012 and SBD's dataset: 2007_03 and 2008_05 are VOC's alone, 2009_06 and 2009_07 SBD's alone (.mat, .png)."""
    voc, sbd = root / "VOC2012", root / "benchmark_RELEASE" / "dataset"
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(VOC_TRAIN))
    (lists / "val.txt").write_text("\n".join(VOC_VAL) + "\n")
    for name in sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL}):
        image, mask = scene(int(name[-2:]))
        save(image, voc / "JPEGImages" / f"{name}.jpg")
        if name in VOC_TRAIN + VOC_VAL:
            coloured = Image.fromarray(mask)
            coloured.putpalette(voc_palette().tobytes())
            (voc / "SegmentationClass").mkdir(exist_ok=True)
            coloured.save(voc / "SegmentationClass" / f"{name}.png")
        if name == "2009_07":
            save(np.where(mask == 255, 0, mask).astype(np.uint8), sbd / "cls" / f"{name}.png")
        elif name in SBD_TRAIN:
            (sbd / "cls").mkdir(parents=True, exist_ok=True)
            savemat(sbd / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": np.where(mask == 255, 0, mask)}})
    (sbd / "train.txt").write_text("\n".join(SBD_TRAIN))
    (sbd / "val.txt").write_text("\n".join(SBD_VAL))
    return voc, sbd
