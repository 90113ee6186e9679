"""What visitors send: every kind of picture is read or refused in one sentence, before it costs memory."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from crfrnn.networks.models import MODELS, load_model
from crfrnn.parameters import PRESETS
from crfrnn.web.explore import Exploration, Settings
from crfrnn.web.limits import Limits
from crfrnn.web.reading import read_photo, read_scores, read_strokes
from crfrnn.web.wording import CLASSES, LANGUAGES, WORDS, Refusal, class_name, say

LIMITS = Limits(pixels=20_000, photo_megapixels=1, upload_megabytes=1, array_megabytes=2)
COLOURS = [(230, 25, 75), (0, 110, 230)]


def photo(height: int = 60, width: int = 80) -> Image.Image:
    return Image.fromarray(data.chelsea()[:height, :width])


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def refused(key: str, work, *arguments, **options) -> str:
    """The sentence with which it was refused."""
    with pytest.raises(Refusal) as caught:
        work(*arguments, **options)
    assert caught.value.key == key
    return str(caught.value)


KINDS = {
    "jpeg": lambda f: saved(photo(), f / "a.jpg"),
    "cmyk": lambda f: saved(photo().convert("CMYK"), f / "a.jpg"),
    "grey": lambda f: saved(photo().convert("L"), f / "a.png"),
    "palette": lambda f: saved(photo().convert("P"), f / "a.png"),
    "black and white": lambda f: saved(photo().convert("1"), f / "a.png"),
    "transparent": lambda f: saved(photo().convert("RGBA"), f / "a.png"),
    "transparent palette": lambda f: saved(photo().convert("P"), f / "a.gif", transparency=3),
    "16 bits": lambda f: saved(Image.fromarray(np.full((60, 80), 40_000, np.uint16)), f / "a.png"),
    "16 bits, tiff": lambda f: saved(Image.fromarray(np.full((60, 80), 40_000, np.uint16)), f / "a.tif"),
    "webp": lambda f: saved(photo(), f / "a.webp"),
    "bmp": lambda f: saved(photo(), f / "a.bmp"),
    "no suffix": lambda f: saved(photo(), f / "a", format="PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pictures(kind, tmp_path):
    got = read_photo(KINDS[kind](tmp_path), LIMITS)
    assert (got.pixels.shape, got.pixels.dtype, got.full_size) == ((60, 80, 3), np.uint8, (60, 80))
    assert got.notes == ()


def test_sixteen_bits_are_scaled(tmp_path):
    assert (read_photo(KINDS["16 bits"](tmp_path), LIMITS).pixels == 156).all()


def test_transparency_is_white(tmp_path):
    got = read_photo(saved(Image.new("RGBA", (20, 20), (9, 9, 9, 0)), tmp_path / "a.png"), LIMITS)
    assert (got.pixels == 255).all()


def test_animations_give_their_first_picture(tmp_path):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    got = read_photo(saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:]), LIMITS)
    assert got.notes == ("animated",)
    assert got.pixels[0, 0].tolist() == [255, 0, 0]
    got = read_photo(saved(frames[0], tmp_path / "a.tif", save_all=True, append_images=frames[1:]), LIMITS)
    assert got.notes == ("animated",)


def test_labels_and_strokes_of_several_pictures_are_refused(tmp_path, given):
    maps = [Image.new("P", (80, 60), number) for number in range(2)]
    path = saved(maps[0], tmp_path / "a.tif", save_all=True, append_images=maps[1:])
    assert "several pages" in refused("not_predictions", read_scores, path, given, LIMITS)
    path = saved(maps[0], tmp_path / "a.png", save_all=True, append_images=maps[1:])
    refused("several", read_strokes, path, (60, 80), COLOURS)


@pytest.mark.filterwarnings("ignore:image. no value is above 1023")
def test_bits_in_use_are_stretched_and_it_is_said(tmp_path):
    deep = np.full((60, 80), 400, np.uint16)
    deep[:, 40:] = 800
    for size in ((80, 60), (640, 480)):  # as it is, and reduced
        image = Image.fromarray(deep).resize(size, Image.Resampling.NEAREST)
        got = read_photo(saved(image, tmp_path / "a.png"), LIMITS)
        assert got.notes == ("deep",)
        assert (got.pixels[0, 0, 0], got.pixels[0, -1, 0]) == (100, 199)


def test_turned_by_exif(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    got = read_photo(saved(photo(), tmp_path / "a.jpg", exif=exif, quality=100), LIMITS)
    assert (got.full_size, got.size) == ((80, 60), (80, 60))
    turned = np.asarray(photo().transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(got.pixels - turned).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_large_photos_are_scaled(tmp_path, suffix):
    whole = data.chelsea()
    got = read_photo(saved(Image.fromarray(whole).resize((900, 600)), tmp_path / f"a.{suffix}"), LIMITS)
    assert (got.full_size, got.scaled) == ((600, 900), True)
    assert got.size == (115, 173)
    expected = np.asarray(Image.fromarray(whole).resize((173, 115), Image.Resampling.BOX)).astype(int)
    assert np.abs(got.pixels - expected).mean() < 4


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


BAD = {
    "bomb": (lambda: png_that_claims(60_000, 60_000), "too_large"),
    "claims more than it holds": (lambda: png_that_claims(900, 900), "unreadable"),
    "text": (lambda: b"hello", "unreadable"),
    "empty": (lambda: b"", "unreadable"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable"),
    "heavy": (lambda: b"\xff" * 1_000_001, "too_heavy"),
    "tiny": (lambda: encoded(photo(4, 4)), "too_thin"),
    "thin": (lambda: encoded(Image.new("RGB", (9000, 9))), "too_thin"),
    "truncated": (lambda: encoded(photo())[:1000], "unreadable"),
    "floats": (lambda: encoded(Image.fromarray(np.ones((20, 20), np.float32)), "TIFF"), "unreadable"),
}


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("case", BAD)
def test_bad_pictures_are_refused_in_a_sentence(case, tmp_path):
    content, key = BAD[case]
    path = tmp_path / "a.png"
    path.write_bytes(content())
    sentence = refused(key, read_photo, path, LIMITS)
    assert str(tmp_path) not in sentence
    assert sentence.endswith(".")


def test_strokes_go_to_the_nearest_brush(tmp_path):
    layer = np.zeros((60, 80, 4), np.uint8)
    layer[5:10, 5:40] = (225, 30, 80, 255)
    layer[40:44, 5:40] = (0, 110, 230, 200)
    layer[50:55, 5:40] = (0, 110, 230, 40)  # the soft edge of a brush
    layer[20:24, 5:40] = (128, 128, 128, 255)  # no brush has it
    path = saved(Image.fromarray(layer), tmp_path / "s.png")
    drawn = read_strokes(path, (60, 80), COLOURS)
    assert (np.unique(drawn).tolist(), (drawn == 0).sum(), (drawn == 1).sum()) == ([-1, 0, 1], 175, 140)
    assert read_strokes(path, (30, 40), COLOURS).shape == (30, 40)
    layer[40:44] = 0
    refused("one_class", read_strokes, saved(Image.fromarray(layer), path), (60, 80), COLOURS)
    refused("no_strokes", read_strokes, saved(Image.new("RGBA", (80, 60)), path), (60, 80), COLOURS)
    refused("no_strokes", read_strokes, None, (60, 80), COLOURS)
    path.write_bytes(png_that_claims(60_000, 60_000))
    refused("unreadable", read_strokes, path, (60, 80), COLOURS)


@pytest.mark.parametrize("kind", ["png", "gif", "rgb"])
def test_strokes_on_a_transparent_colour(tmp_path, kind):
    layer = Image.new("RGB", (80, 60), (200, 20, 70))  # nearer to a brush than anything else, but transparent
    layer.paste(COLOURS[0], (5, 5, 40, 10))
    layer.paste(COLOURS[1], (5, 40, 40, 44))
    layer = layer if kind == "rgb" else layer.quantize(4)
    path = tmp_path / ("s.gif" if kind == "gif" else "s.png")
    drawn = read_strokes(saved(layer, path, transparency=layer.getpixel((0, 0))), (60, 80), COLOURS)
    assert ((drawn == 0).sum(), (drawn == 1).sum()) == (175, 140)


def test_label_maps_with_a_transparent_colour(tmp_path, given):
    rough = np.zeros((60, 80), np.uint8)
    rough[5:20], rough[40:50] = 1, 2
    for name in ("a.png", "a.gif"):
        image = Image.fromarray(rough)
        image.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 255])
        got = read_scores(saved(image, tmp_path / name, transparency=0), given, LIMITS)
        assert got.logits.shape == (1, 2, 60, 80)


@pytest.fixture
def given(tmp_path):
    return read_photo(saved(photo(), tmp_path / "photo.png"), LIMITS)


def probabilities(*shape: int) -> np.ndarray:
    scores = np.random.default_rng(0).random(shape).astype(np.float32)
    return scores / scores.sum(0)


def test_predictions_in_all_forms(tmp_path, given):
    values = probabilities(3, 60, 80)
    np.save(tmp_path / "p.npy", values)
    np.savez_compressed(tmp_path / "p.npz", p=values)
    np.save(tmp_path / "last.npy", np.moveaxis(values, 0, -1))
    np.save(tmp_path / "logits.npy", np.log(values) + 1)
    for name in ("p.npy", "p.npz", "last.npy", "logits.npy"):
        got = read_scores(tmp_path / name, given, LIMITS)
        np.testing.assert_allclose(got.logits[0].softmax(0), values, atol=1e-5)
        assert got.notes == ()
    coarse = saved(Image.fromarray(values.argmax(0).astype(np.uint8)), tmp_path / "coarse.png")
    got = read_scores(coarse, given, LIMITS, confidence=0.8, unsure="2")
    assert got.logits.shape == (1, 2, 60, 80)
    assert got.logits.exp().amax().item() == pytest.approx(0.8)
    np.save(tmp_path / "small.npy", probabilities(3, 30, 40))
    assert read_scores(tmp_path / "small.npy", given, LIMITS).notes == ("resized",)


def test_a_foreground_alone(tmp_path, given):
    """As probabilities or as logits, of any form; the page shows two labels."""
    p = np.random.default_rng(0).random((60, 80)).astype(np.float32)
    np.save(tmp_path / "p.npy", p)
    np.save(tmp_path / "p1.npy", p[None])
    np.save(tmp_path / "logits.npy", np.log(p) - np.log1p(-p))
    np.save(tmp_path / "positive.npy", np.log1p(p / (1 - p)) + 1)
    for name in ("p.npy", "p1.npy", "logits.npy"):
        got = read_scores(tmp_path / name, given, LIMITS)
        np.testing.assert_allclose(got.logits[0].softmax(0)[1], p, atol=1e-5)
        assert len(got.style.values) == 2
    assert read_scores(tmp_path / "positive.npy", given, LIMITS).logits.softmax(1)[0, 1].min() > 0.7


def test_files_of_nnunet(tmp_path, given):
    values = probabilities(3, 1, 60, 80)
    np.savez(tmp_path / "p.npz", probabilities=values)
    np.testing.assert_allclose(read_scores(tmp_path / "p.npz", given, LIMITS).logits[0].exp(), values[:, 0], atol=1e-5)


def test_impossible_labels(tmp_path, given):
    """Minus infinity, in predictions of the photo's size and of others."""
    for height, width in ((60, 80), (30, 40)):
        logits = np.random.default_rng(0).standard_normal((3, height, width)).astype(np.float32)
        logits[1, :, : width // 2] = logits[2] = -np.inf
        np.save(tmp_path / "l.npy", logits)
        read = read_scores(tmp_path / "l.npy", given, LIMITS)
        settling = Exploration(given.pixels, read.logits).run(Settings.of(PRESETS["crfrnn"]))
        assert np.isfinite(settling.marginals).all()
        assert (settling.labels[:, :, :36] == 0).all()


def test_bad_predictions_are_refused(tmp_path, given):
    refused("no_predictions", read_scores, None, given, LIMITS)
    np.save(tmp_path / "a.npy", probabilities(3, 80, 60))
    refused("other_shape", read_scores, tmp_path / "a.npy", given, LIMITS)
    np.save(tmp_path / "b.npy", np.full((2, 60, 80), np.nan))
    np.save(tmp_path / "c.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 no zip")
    (tmp_path / "e.png").write_bytes(b"no png")
    saved(Image.new("L", (80, 60), 7), tmp_path / "f.png")  # one label
    for name in ("b.npy", "c.npy", "d.npz", "e.png", "f.png"):
        sentence = refused("not_predictions", read_scores, tmp_path / name, given, LIMITS)
        assert str(tmp_path) not in sentence


def test_arrays_that_claim_more_than_they_hold(tmp_path, given):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "<f4"})
    (tmp_path / "claims.npy").write_bytes(header.getvalue())
    refused("too_heavy", read_scores, tmp_path / "claims.npy", given, LIMITS)
    with zipfile.ZipFile(tmp_path / "claims.npz", "w") as archive:
        archive.writestr("p.npy", header.getvalue())
    refused("too_heavy", read_scores, tmp_path / "claims.npz", given, LIMITS)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.npy", bytes(5_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    refused("too_heavy", read_scores, tmp_path / "bomb.npz", given, LIMITS)


def test_every_word_is_there_in_every_language():
    for key, words in WORDS.items():
        assert len(words) == len(LANGUAGES), key
        assert all(words), key
        fields = [sorted(part.split("}")[0].split(":")[0] for part in text.split("{")[1:]) for text in words]
        assert fields[0] == fields[1], key
    assert say("zh", "too_heavy", megabytes=30, limit=20).startswith("此文件")


@pytest.mark.parametrize("name", vars(Limits()))
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f"^{name}: must be (at least 1|more than 0), got 0"):
        Limits(**{name: 0})


def deep_colours(path: Path, white: int) -> Path:
    """A PNG of 16-bit colours, which Pillow cannot write, as high as `white`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = np.linspace(0, white, 80 * 3, dtype=">u2").tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 60, 16, 2, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(60 * (b"\0" + lines))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + content)
    return path


def test_colours_of_16_bits(tmp_path):
    """Those of which 12 bits are in use are nearly black when they are read."""
    assert read_photo(deep_colours(tmp_path / "a.png", 65535), LIMITS).pixels.max() == 255
    refused("unreadable", read_photo, deep_colours(tmp_path / "b.png", 4095), LIMITS)


def test_a_soft_mask_is_a_foreground(tmp_path):
    levels = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    shot = read_photo(saved(photo(), tmp_path / "a.png"), LIMITS)
    for name, image in {"L": Image.fromarray(levels), "RGB": Image.fromarray(levels).convert("RGB")}.items():
        scores = read_scores(saved(image, tmp_path / f"{name}.png"), shot, LIMITS)
        assert scores.notes == ("soft",)
        assert scores.logits.shape == (1, 2, 60, 80)
        assert scores.style.values == (0, 255)
        np.testing.assert_allclose(scores.logits.softmax(1)[0, 1].numpy(), (levels + 0.5) / 256, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_classes_of_the_models_have_words_of_their_own(model):
    names = load_model(model)[0].class_names or []
    assert set(names) <= set(CLASSES)
    chinese = [class_name("zh", name) for name in names]
    assert len(set(chinese)) == len(names)
    assert not any(word.isascii() for word in chinese)
