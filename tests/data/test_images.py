"""Photographs of every kind, and their orientation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from crfrnn.data.images import open_image, rgb_pixels, upright, write_image

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
