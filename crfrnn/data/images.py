"""Photographs of every kind into (H, W, 3) uint8, the units in which theta_beta counts."""

import math
import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from crfrnn.data.files import writing

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
JPEG_QUALITY = 92


def open_image(path: Path) -> Image.Image:
    """The decoded image; whatever makes it unreadable is a ValueError that names the file."""
    try:
        with Image.open(path) as image:
            image.load()
            image.getexif()  # while the file is open
            return image
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{path}: more pixels than are safe to open; cut it into tiles") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from None


def upright(image: Image.Image, fitting: tuple[int, int]) -> Image.Image:
    """The image, turned as its EXIF data say, where that fits predictions of (height, width) better.

    Cameras store a portrait lying down, with a note that some programs follow and others do not. The predictions
    show which one made them; where they do not (a square, a half turn), the image stays as it is stored.
    """
    if image.getexif().get(ExifTags.Base.Orientation, 1) not in SIDEWAYS:
        return image
    wanted, stored = math.log(fitting[1] / fitting[0]), math.log(image.width / image.height)
    return ImageOps.exif_transpose(image) if abs(-stored - wanted) < abs(stored - wanted) else image


def as_shown(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF data say: as programs that show photographs do."""
    return ImageOps.exif_transpose(image)


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8. Grey becomes RGB, 16 bits become 8 (divided by 257), transparency is laid over white."""
    if image.mode == "F":
        raise ValueError("image: floating-point pixels have no known units; convert it to 8 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow keeps in one of several integer modes
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"image: values {deep.min()}..{deep.max()} do not fit 16 bits; convert it to 8 bits")
        image = Image.fromarray(np.rint(deep / 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    try:
        return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise ValueError(f"image: cannot be converted to RGB ({error})") from None


def format_of(path: Path) -> str:
    """Pillow's name of the format that the suffix stands for, or a ValueError."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: {path.suffix or 'no suffix'} is no image format; use .png or .jpg")
    return kind


def write_image(path: Path, pixels: np.ndarray | Image.Image) -> None:
    """Write (H, W) or (H, W, 3) uint8, or a Pillow image, in the format of the name: PNG, JPEG, WebP, TIFF, BMP."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    kind = format_of(path)
    options = {"quality": JPEG_QUALITY} if kind in ("JPEG", "WEBP") else {}
    with writing(path) as file:
        image.save(file, format=kind, **options)
