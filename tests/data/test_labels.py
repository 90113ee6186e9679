"""Label maps: what a PNG says, what it becomes, and that it comes back as it came."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from crfrnn.data.datasets.dataset import VOID, Classes, SegmentationDataset
from crfrnn.data.images import open_image, rgb_pixels
from crfrnn.data.labels import (
    UNSURE,
    LabelMap,
    LabelStyle,
    parse_unsure,
    read_indices,
    read_labels,
    voc_palette,
    write_labels,
)

INDICES = np.array([[0, 0, 3], [3, 255, 7]], np.uint8)
COLOURS = {0: (0, 0, 0), 3: (128, 128, 0), 7: (128, 128, 128), 255: (224, 224, 192)}  # of Pascal VOC


def saved(path: Path, mode: str) -> Path:
    """INDICES as a PNG of this mode."""
    if mode == "RGB":
        image = Image.fromarray(np.array([[COLOURS[v] for v in row] for row in INDICES.tolist()], np.uint8))
    elif mode == "I;16":
        image = Image.fromarray(INDICES.astype(np.uint16))
    else:
        image = Image.fromarray(INDICES)
        if mode == "P":
            image.putpalette(voc_palette().tobytes())
    image.save(path)
    return path


def test_the_palette_is_vocs():
    table = voc_palette()
    assert {index: tuple(table[index].tolist()) for index in COLOURS} == COLOURS
    assert tuple(table[15].tolist()) == (192, 128, 128)  # person


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGB"])
def test_a_map_comes_back_as_it_came(tmp_path, mode):
    path = saved(tmp_path / "map.png", mode)
    read = read_labels(path)
    assert len(read.style.values) == 4
    write_labels(tmp_path / "again.png", read.indices, read.style)
    with Image.open(path) as first, Image.open(tmp_path / "again.png") as second:
        assert second.mode == first.mode == mode
        assert (np.asarray(first) == np.asarray(second)).all()
        assert np.array_equal(np.asarray(first.convert("RGB")), np.asarray(second.convert("RGB")))  # the palette too


@pytest.mark.parametrize(("mode", "unsure"), [("P", 255), ("L", 255), ("I;16", 255), ("RGB", (224, 224, 192))])
def test_unsure_is_no_label(tmp_path, mode, unsure):
    read = read_labels(saved(tmp_path / "map.png", mode), unsure)
    assert read.indices.tolist() == [[0, 0, 1], [1, UNSURE, 2]]
    assert len(read.style.values) == 3
    assert read.style.colours().tolist() == [list(COLOURS[v]) for v in (0, 3, 7)]


def test_unsure_as_a_colour_of_the_palette(tmp_path):
    read = read_labels(saved(tmp_path / "map.png", "P"), COLOURS[255])
    assert (read.indices == UNSURE).sum() == 1
    with pytest.raises(ValueError, match="no colour of its palette"):
        read_labels(tmp_path / "map.png", (1, 2, 3))
    with pytest.raises(ValueError, match="give an index"):
        read_labels(saved(tmp_path / "grey.png", "L"), (0, 0, 0))
    with pytest.raises(ValueError, match="colour-coded, so give a colour"):
        read_labels(saved(tmp_path / "rgb.png", "RGB"), 0)


def test_transparent_pixels_are_unsure(tmp_path):
    with Image.open(saved(tmp_path / "map.png", "RGB")) as image:
        image.putalpha(Image.fromarray(np.array([[255, 255, 255], [255, 0, 255]], np.uint8)))
        image.save(tmp_path / "alpha.png")
    read = read_labels(tmp_path / "alpha.png")
    assert read.indices.tolist() == [[0, 0, 1], [1, UNSURE, 2]]
    assert len(read.style.values) == 3


TRANSPARENT = {  # files that say the same as an alpha channel which is 0 where the map is 0
    "palette": lambda f: with_palette().save(f / "a.png", transparency=0),
    "opacities": lambda f: with_palette().save(f / "a.png", transparency=bytes([0, 255, 255, 90])),
    "gif": lambda f: with_palette().save(f / "a.gif", transparency=0, optimize=False),
    "grey": lambda f: Image.fromarray(INDICES).save(f / "a.png", transparency=0),
    "16 bits": lambda f: Image.fromarray(INDICES.astype(np.uint16)).save(f / "a.png", transparency=0),
    "RGB": lambda f: with_palette().convert("RGB").save(f / "a.png", transparency=(0, 0, 0)),
    "grey and alpha": lambda f: with_alpha(Image.fromarray(INDICES)).save(f / "a.png"),
    "RGBA": lambda f: with_alpha(with_palette().convert("RGB")).save(f / "a.png"),
    "palette and alpha": lambda f: with_alpha(with_palette()).save(f / "a.tif"),
}


def with_palette() -> Image.Image:
    image = Image.fromarray(INDICES)
    image.putpalette(voc_palette().tobytes())
    return image


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(np.where(INDICES == 0, 0, 255).astype(np.uint8)))
    return image


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparency_in_every_form(tmp_path, kind):
    TRANSPARENT[kind](tmp_path)
    read = read_labels(next(tmp_path.iterdir()))
    assert read.indices.tolist() == [[UNSURE, UNSURE, 0], [0, 2, 1]]
    assert read.style.values == (3, 7, 255) or read.style.colour_coded
    dataset = SegmentationDataset([], Classes(("a", "b"), (3, 7), frozenset({255})))
    if kind in ("RGB", "RGBA"):
        return
    assert dataset.class_numbers(next(tmp_path.iterdir())).tolist() == [[VOID, VOID, 0], [0, VOID, 1]]


def test_a_mask_of_two_values(tmp_path):
    mask = np.array([[0, 255, 255]], np.uint8)
    for image in (Image.fromarray(mask), Image.fromarray(mask).convert("1")):
        image.save(tmp_path / "mask.png")
        read = read_labels(tmp_path / "mask.png")
        assert read.indices.tolist() == [[0, 1, 1]]
        assert np.asarray(read.style.image(read.indices)).tolist() == mask.tolist()


def test_classes_of_a_tiff_whose_0_is_white(tmp_path):
    """They are the numbers in the file, as tifffile writes them and rasters read them; brightness is 255 less."""
    path, classes = tmp_path / "labels.tif", np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
    tifffile.imwrite(path, classes, photometric="miniswhite")
    assert np.array_equal(read_indices(path), classes)
    assert read_labels(path).style.values == (0, 1, 2, 3)
    assert np.array_equal(rgb_pixels(open_image(path))[..., 0], 255 - classes)


def test_what_is_no_label_map(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match=r"photo\.png: 1[56]\d\d different values, which is no label map"):
        read_labels(tmp_path / "photo.png")
    Image.fromarray(INDICES).save(tmp_path / "map.jpg")
    with pytest.raises(ValueError, match="a JPEG cannot hold labels"):
        read_labels(tmp_path / "map.jpg")
    Image.fromarray(np.full((2, 2), 9, np.uint8)).save(tmp_path / "void.png")
    with pytest.raises(ValueError, match="every pixel is unsure"):
        read_labels(tmp_path / "void.png", 9)
    (tmp_path / "broken.png").write_bytes((tmp_path / "photo.png").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"broken\.png: not a readable image"):
        read_labels(tmp_path / "broken.png")
    with pytest.raises(ValueError, match="no such file"):
        read_labels(tmp_path / "absent.png")


def test_probabilities_are_those_of_pydensecrf():
    indices = np.array([[0, 1, 2], [2, UNSURE, 0]], np.int32)
    spread = LabelMap(indices, LabelStyle((0, 1, 2))).probabilities(0.7)
    assert spread.dtype == np.float32
    np.testing.assert_allclose(spread.sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(spread[:, 0, 1], [0.15, 0.7, 0.15], rtol=1e-6)
    np.testing.assert_allclose(spread[:, 1, 1], [1 / 3] * 3, rtol=1e-6)
    theirs = pytest.importorskip("pydensecrf.utils").unary_from_labels(indices + 1, 3, gt_prob=0.7, zero_unsure=True)
    np.testing.assert_allclose(-np.log(spread).reshape(3, -1), theirs, rtol=1e-6)


def test_confidence_must_say_something():
    two = LabelMap(np.array([[0, 1]], np.int32), LabelStyle((0, 1)))
    for confidence in (0.5, 0.2, 1.0):
        with pytest.raises(ValueError, match=r"^confidence: "):
            two.probabilities(confidence)


def test_the_only_label_is_certain():
    """There is no other that could share what is left, also where the pixel is unsure."""
    indices = np.array([[0, UNSURE]], np.int32)
    assert LabelMap(indices, LabelStyle((4,))).probabilities(0.9).tolist() == [[[1, 1]]]


def test_predictions_get_vocs_colours_and_many_labels_16_bits(tmp_path):
    write_labels(tmp_path / "few.png", np.array([[0, 20]]), LabelStyle.voc(21))
    write_labels(tmp_path / "many.png", np.array([[0, 299]]), LabelStyle.voc(300))
    with Image.open(tmp_path / "few.png") as few, Image.open(tmp_path / "many.png") as many:
        assert (few.mode, many.mode) == ("P", "I;16")
        assert np.asarray(few).tolist() == [[0, 20]]
        assert np.asarray(few.convert("RGB"))[0, 1].tolist() == voc_palette()[20].tolist()
        assert np.asarray(many).tolist() == [[0, 299]]


def test_parse_unsure():
    assert [parse_unsure(text) for text in (255, " 7 ", "#ff0080", "0, 0,0", "black")] == [
        255,
        7,
        (255, 0, 128),
        (0, 0, 0),
        (0, 0, 0),
    ]
    for text in ("nothing", "1,2", "-1", "#12"):
        with pytest.raises(ValueError, match=r"^unsure: "):
            parse_unsure(text)
