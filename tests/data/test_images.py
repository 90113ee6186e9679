"""Photographs of every kind, and their orientation."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from crfrnn.data import images
from crfrnn.data.images import alpha_of, holds_several, open_image, rgb_pixels, upright, was_stretched, write_image
from tests.support.made import png

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def pixels_of(path: Path) -> np.ndarray:
    return rgb_pixels(open_image(path))


def test_colour_grey_and_palette(tmp_path):
    photo = Image.fromarray(PIXELS)
    photo.save(tmp_path / "rgb.png")
    photo.convert("L").save(tmp_path / "grey.png")
    photo.quantize(64).save(tmp_path / "palette.png")
    assert (pixels_of(tmp_path / "rgb.png") == PIXELS).all()
    grey = pixels_of(tmp_path / "grey.png")
    assert grey.shape == PIXELS.shape
    assert (grey[..., 0] == grey[..., 2]).all()
    assert pixels_of(tmp_path / "palette.png").shape == PIXELS.shape


def test_sixteen_bits_become_eight(tmp_path):
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        assert (pixels_of(tmp_path / f"deep.{suffix}")[..., 1] == PIXELS[..., 0]).all()
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="floating-point pixels"):
        pixels_of(tmp_path / "float.tif")


@pytest.mark.parametrize(("highest", "white"), [(200, 255), (900, 1023), (4095, 4095), (9000, 16383)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_bits_in_use_are_stretched_and_it_is_said(tmp_path, highest, white, suffix):
    deep = np.linspace(0, highest, 54).astype(np.uint16).reshape(6, 9)
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    with pytest.warns(UserWarning, match=f"^image: no value is above {white}, "):
        pixels = pixels_of(tmp_path / f"deep.{suffix}")
    assert (pixels[..., 0] == np.rint(deep * 255.0 / white)).all()
    assert was_stretched(open_image(tmp_path / f"deep.{suffix}"))


def test_a_tiff_may_say_that_it_has_12_bits(tmp_path, recwarn):
    deep = np.array([[0, 5, 800, 400]], np.uint16)
    packed = bytes([0x00, 0x00, 0x05, 0x32, 0x01, 0x90])  # two values in three bytes
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "twelve.tif").write_bytes(b"II*\0" + struct.pack("<I", 14) + packed + directory)
    assert (pixels_of(tmp_path / "twelve.tif")[..., 0] == np.rint(deep * 255.0 / 4095)).all()
    assert not recwarn.list


def deep_colours(pixels: np.ndarray, path: Path, clear: tuple[int, ...] = ()) -> Path:
    """A PNG of (H, W, 3) uint16, which Pillow does not write; `clear` is its transparent colour."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(path, (width, height, 16, 2), rows, struct.pack(f">{len(clear)}H", *clear))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_colours_whose_upper_bits_are_empty_are_refused(tmp_path, bits):
    deep = PIXELS.astype(np.uint16) * 257
    assert (pixels_of(deep_colours(deep, tmp_path / "deep.png")) == PIXELS).all()
    with pytest.raises(ValueError, match=r"dark\.png: .*16-bit colours, but none above .* stretch them to 0\.\.65535"):
        open_image(deep_colours(deep >> (16 - bits), tmp_path / "dark.png"))


def test_several_pages_are_refused(tmp_path):
    first, *rest = (Image.fromarray(np.roll(PIXELS, step, 0)) for step in range(3))
    for suffix in ("tif", "gif", "png", "webp"):
        first.save(tmp_path / f"many.{suffix}", save_all=True, append_images=rest)
        with pytest.raises(ValueError, match=rf"many\.{suffix}: holds several pages or frames; save the one"):
            open_image(tmp_path / f"many.{suffix}")


def test_what_belongs_to_one_picture_is_no_second_page(tmp_path):
    photo, smaller = Image.fromarray(PIXELS), Image.fromarray(PIXELS).resize((3, 2))
    smaller.encoderinfo = {"tiffinfo": {254: 1}}  # an overview, as geographers keep them
    photo.save(tmp_path / "overviews.tif", save_all=True, append_images=[smaller, smaller])
    assert (pixels_of(tmp_path / "overviews.tif") == PIXELS).all()
    photo.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[smaller])
    with Image.open(tmp_path / "phone.jpg") as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("MPO", 2)
    assert pixels_of(tmp_path / "phone.jpg").shape == PIXELS.shape


def two_values(path: Path, mode: str) -> Path:
    """PIXELS' size, the left four columns black and transparent, the others white."""
    white = np.zeros((6, 9), bool)
    white[:, 4:] = True
    image = Image.fromarray(white)
    if mode == "2 bits":
        packed = np.packbits(np.pad(np.repeat(white, 2, axis=1), ((0, 0), (0, 6))), axis=1)
        return png(path, (9, 6, 2, 0), b"".join(b"\0" + row.tobytes() for row in packed), struct.pack(">H", 0))
    if mode == "16-bit colours":
        return deep_colours(np.repeat(white[..., None], 3, axis=2) * np.uint16(65535), path, (0, 0, 0))
    image = Image.fromarray(white * np.uint16(65535)) if mode == "I;16" else image.convert(mode)
    image.save(path, transparency=image.getpixel((0, 0)))
    return path


@pytest.mark.parametrize("mode", ["1", "L", "2 bits", "P", "I;16", "RGB", "16-bit colours"])
def test_a_transparent_colour(tmp_path, mode):
    image = open_image(two_values(tmp_path / "a.png", mode))
    alpha = alpha_of(image)
    assert alpha is not None
    assert (alpha == np.where(np.arange(9) < 4, 0, 255)).all()
    assert (rgb_pixels(image) == 255).all()  # over white


def test_transparency_lies_over_white(tmp_path):
    photo = Image.fromarray(PIXELS)
    photo.putalpha(0)
    photo.save(tmp_path / "clear.png")
    assert (pixels_of(tmp_path / "clear.png") == 255).all()
    photo.putalpha(255)
    photo.save(tmp_path / "opaque.png")
    assert (pixels_of(tmp_path / "opaque.png") == PIXELS).all()


def test_cmyk(tmp_path):
    Image.new("CMYK", (9, 6), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    red = pixels_of(tmp_path / "red.jpg")
    assert red.shape == (6, 9, 3)
    assert np.abs(red.astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("orientation", [6, 8])
def test_exif_is_followed_where_the_predictions_say_so(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "lying.png", exif=exif)
    image = open_image(tmp_path / "lying.png")
    turned = np.rot90(PIXELS, {6: -1, 8: 1}[orientation])
    assert (rgb_pixels(upright(image, (9, 6))) == turned).all()
    assert (rgb_pixels(upright(image, (6, 9))) == PIXELS).all()
    assert (rgb_pixels(upright(image, (90, 61))) == turned).all()  # predictions of another scale
    assert (rgb_pixels(upright(image, (64, 64))) == PIXELS).all()  # a square does not tell


def test_half_turns_stay_as_they_are_stored(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(PIXELS).save(tmp_path / "down.png", exif=exif)
    assert (rgb_pixels(upright(open_image(tmp_path / "down.png"), (6, 9))) == PIXELS).all()


def test_unreadable_images_are_named(tmp_path):
    Image.fromarray(PIXELS).resize((200, 200)).save(tmp_path / "photo.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("half.jpg", "text.jpg"):
        with pytest.raises(ValueError, match=f"{name}: not a readable image"):
            open_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"absent\.jpg: there is no such file"):
        open_image(tmp_path / "absent.jpg")


def test_write_image_by_suffix(tmp_path):
    for name, kind in (("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")):
        write_image(tmp_path / name, PIXELS)
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
    with pytest.raises(ValueError, match="is no image format"):
        write_image(tmp_path / "a.txt", PIXELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.JPG", "a.png", "a.webp"]


def test_pictures_in_more_pieces_than_any_program_writes(tmp_path, monkeypatch):
    """Each piece is decoded by itself: scans of a progressive JPEG, strips of a TIFF."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scans.jpg", progressive=True)
    Image.fromarray(pixels).save(tmp_path / "strips.tif", tiffinfo={278: 4})
    for name in ("scans.jpg", "strips.tif"):
        assert open_image(tmp_path / name).size == (64, 64)
    monkeypatch.setattr(images, "MOST_SCANS", 3)
    monkeypatch.setattr(images, "MOST_TILES", 3)
    for name in ("scans.jpg", "strips.tif"):
        with pytest.raises(ValueError, match=rf"{name}: not a readable image \(\d+ pieces, and at most 3 are decoded"):
            open_image(tmp_path / name)


def test_pages_beyond_the_first_few_are_not_looked_at(tmp_path, monkeypatch):
    """However many small copies a file holds: then it counts as several pictures."""
    monkeypatch.setattr(images, "MOST_PAGES", 4)
    page = Image.new("L", (8, 8))
    for copies, several in ((2, False), (9, True)):
        pages = [page.copy() for _ in range(copies)]
        for one in pages:
            one.encoderinfo = {"tiffinfo": {254: 1}}
        page.save(tmp_path / "a.tif", save_all=True, append_images=pages)
        with Image.open(tmp_path / "a.tif") as image:
            assert holds_several(image) == several
