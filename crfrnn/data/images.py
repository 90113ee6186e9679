"""Photographs of every kind into (H, W, 3) uint8, the units in which theta_beta counts."""

import math
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin

from crfrnn.data.depth import bits_in_use, white_of
from crfrnn.data.files import writing

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
FAST = 2  # of zlib's 9
JPEG_QUALITY = 92
ONE_PICTURE = ("MPO", "PSD")  # formats whose further pictures belong to the first: a phone's depth map, layers
REDUCED_OR_MASK = 1 | 4  # bits of TIFF's NewSubfileType: a page is a smaller copy of another one, or its mask
MOST_PAGES = 10  # of these that are looked at
SCAN, MOST_SCANS = b"\xff\xda", 100  # of a progressive JPEG, which has some ten
MOST_TILES = 100_000  # and strips, of a TIFF
STORED = "stored as"  # in an image's info: the raw mode of its pixels in the file, which Pillow holds otherwise
STATED_WHITE = {"I;12": 4095}  # by a TIFF that says it has 12 bits
FEW_BITS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey values of 2 and 4 bits by
INVERTED = "L;I"  # grey of a TIFF whose 0 is white, which Pillow turns round


def open_image(path: Path) -> Image.Image:
    """The decoded image; whatever makes it unreadable is a ValueError that names the file.

    So is a file of several pages, or an animation: which of its pictures is meant, nobody said.
    """
    try:
        with Image.open(path) as image:
            several = holds_several(image)
            decode(image)
            image.getexif()  # while the file is open
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{path}: more pixels than are safe to open; cut it into tiles, or refine it into a .tif"
        ) from None
    except Exception as error:  # what a broken file makes of Pillow's many decoders, nobody can list
        raise ValueError(f"{path}: not a readable image ({' '.join(str(error).split())})") from None
    if several:
        raise ValueError(f"{path}: holds several pages or frames; save the one that is meant as a file of its own")
    return image


def holds_several(image: ImageFile.ImageFile) -> bool:
    """Whether an open file has pages or frames besides the first one; smaller copies of it and masks are none."""
    if image.format in ONE_PICTURE or not getattr(image, "is_animated", False):
        return False
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return True
    try:
        for page in range(1, MOST_PAGES):
            image.seek(page)
            kind = image.tag_v2.get(ExifTags.Base.NewSubfileType, 0)
            if not (isinstance(kind, int) and kind & REDUCED_OR_MASK):
                return True
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def note_storage(image: ImageFile.ImageFile) -> None:
    """Note in `info` how an open file stores its pixels, which nobody knows any more when they are loaded."""
    if image.tile:
        stored = image.tile[0][3]  # the arguments of its decoder
        image.info[STORED] = str(stored[0] if isinstance(stored, tuple) else stored)


def decode(image: ImageFile.ImageFile) -> None:
    """Load the pixels of an open file, and note in `info` how it stores them.

    Raises ValueError where Pillow loses them (of 16-bit colours it keeps the upper 8 bits, so of 12 bits nearly none),
    and where they would take far longer than their number does.
    """
    note_storage(image)
    _check_work(image)
    image.load()
    if _stored_deep(image) and not image.mode.startswith("I"):
        highest = np.reshape(image.getextrema(), (-1, 2))[:3, 1].max()  # of the first three channels
        if highest < 1 << 6:  # 14 bits and fewer
            raise ValueError(
                f"16-bit colours, but none above {highest * 256 + 255:.0f}, and only the upper 8 bits can be read;"
                " stretch them to 0..65535, or save 8 bits"
            )


def _check_work(image: ImageFile.ImageFile) -> None:
    """ValueError for a file in more pieces than any program writes: each is decoded by itself."""
    pieces, most = len(image.tile), MOST_TILES
    if image.format in ("JPEG", "MPO") and image.fp is not None:  # every scan passes over the whole picture
        here = image.fp.tell()
        image.fp.seek(0)
        pieces, most = image.fp.read().count(SCAN), MOST_SCANS
        image.fp.seek(here)
    if pieces > most:
        raise ValueError(f"{pieces:,} pieces, and at most {most:,} are decoded; save it anew")


def _stored_deep(image: Image.Image) -> bool:
    return ";16" in image.info.get(STORED, "")


def as_stored(image: Image.Image) -> np.ndarray:
    """The pixels, (H, W) or (H, W, C), as numbers that the file holds and not as brightness: a TIFF may say that 0 is
    white, and its classes are the same."""
    pixels = np.asarray(image)
    return 255 - pixels if image.info.get(STORED) == INVERTED else pixels


def alpha_of(image: Image.Image) -> np.ndarray | None:
    """(H, W) uint8, how opaque each pixel is; None where the file says nothing of it.

    That is an alpha channel, the opacity of a palette's colours, or the one colour that a PNG or GIF calls transparent.
    """
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return np.asarray(image.getchannel(image.getbands()[-1]))
    named = "transparency" in image.info
    if image.mode == "P" and (named or (image.palette is not None and image.palette.mode.endswith("A"))):
        return np.asarray(image.convert("RGBA").getchannel("A"))
    if not named:
        return None
    clear = np.asarray(image.info["transparency"])  # in the units of the file
    if image.mode == "RGB":
        return _opaque((np.asarray(image) != (clear >> 8 if _stored_deep(image) else clear)).any(axis=2))
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    return _opaque(pixels != clear * FEW_BITS.get(image.info.get(STORED, ""), 1))


def _opaque(where: np.ndarray) -> np.ndarray:
    return np.where(where, 255, 0).astype(np.uint8)


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
    """(H, W, 3) uint8. Grey becomes RGB, 16 bits become 8, transparency is laid over white.

    Of grey pictures of 16 bits the range of the bits in use becomes 0..255 (`white_of`, which warns of a guess).
    """
    if image.mode == "F":
        raise ValueError("image: floating-point pixels have no known units; convert it to 8 bits")
    alpha = alpha_of(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow keeps in one of several integer modes
        image = Image.fromarray(_eight_bits(image))
    elif image.mode != "P" and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # `alpha` has it
    try:
        if alpha is None:
            return np.asarray(image.convert("RGB"))
        shown = image.convert("RGBA")
    except ValueError as error:
        raise ValueError(f"image: cannot be converted to RGB ({error})") from None
    shown.putalpha(Image.fromarray(alpha))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(shown)
    return np.asarray(white.convert("RGB"))


def _eight_bits(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of a picture of 16 bits."""
    deep = np.asarray(image).astype(np.int64)
    lowest, highest = int(deep.min()), int(deep.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"image: values {lowest}..{highest} do not fit 16 bits; convert it to 8 bits")
    white = STATED_WHITE.get(image.info.get(STORED, "")) or white_of(highest)
    return np.rint(deep * (255 / white)).astype(np.uint8)


def was_stretched(image: Image.Image) -> bool:
    """Whether `rgb_pixels` guesses how many of a picture's 16 bits are in use, and stretches them."""
    guessed = image.mode.startswith("I") and image.info.get(STORED) not in STATED_WHITE
    return guessed and bits_in_use(int(np.max(np.asarray(image)))) < 16


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
    if kind == "PNG" and image.mode == "RGBA":
        options["compress_level"] = (
            FAST  # a photograph: 12 megapixels take a quarter of the time, and a tenth more room
        )
    with writing(path) as file:
        image.save(file, format=kind, **options)
