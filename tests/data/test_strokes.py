"""Strokes as paint programs save them: what is drawn, and what means that nothing is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from crfrnn.data.labels import UNSURE, parse_unsure
from crfrnn.data.strokes import read_strokes


def drawing(ground: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """A red and a blue stroke on a ground."""
    image = Image.new(mode, (20, 12), ground)
    opaque = (255,) if mode == "RGBA" else ()
    image.paste((255, 0, 0, *opaque), (2, 2, 8, 5))
    image.paste((0, 0, 255, *opaque), (11, 7, 18, 10))
    return image


@pytest.mark.parametrize(
    ("ground", "mode", "said"),
    [
        ((255, 255, 255), "RGB", "#ffffff"),
        ((0, 0, 0), "RGB", "#000000"),
        ((0, 0, 0, 0), "RGBA", "transparent"),
        ((255, 255, 255), "P", "nothing drawn"),
        ((9, 9, 9), "RGB, tRNS", "transparent"),
        ((9, 9, 9), "P, tRNS", "transparent"),
        ((9, 9, 9), "P, GIF", "transparent"),
    ],
)
def test_the_ground_is_found(tmp_path: Path, ground, mode, said):
    image = drawing(ground, "RGBA" if mode == "RGBA" else "RGB")
    image = image.quantize(4) if mode[0] == "P" else image
    path = tmp_path / ("s.gif" if "GIF" in mode else "s.png")
    if "," in mode:
        image.save(path, transparency=image.getpixel((0, 0)))
    else:
        image.save(path)
    strokes, found = read_strokes(path)
    assert said in found
    assert len(strokes.style.values) == 2
    assert (strokes.indices == UNSURE).sum() == 20 * 12 - 18 - 21
    assert len(np.unique(strokes.indices[2:5, 2:8])) == 1
    assert (strokes.style.colours()[strokes.indices[3, 3]] == (255, 0, 0)).all()


def test_unsure_says_it_where_the_strokes_cover_more(tmp_path: Path):
    image = drawing((9, 9, 9))
    image.paste((0, 255, 0), (0, 0, 20, 6))
    image.save(tmp_path / "s.png")
    with pytest.raises(ValueError, match=r"--unsure must say .*#090909") as caught:
        read_strokes(tmp_path / "s.png")
    assert "\n" not in str(caught.value)
    strokes, _ = read_strokes(tmp_path / "s.png", parse_unsure("#090909"))
    assert len(strokes.style.values) == 2


def test_soft_edges_are_no_classes(tmp_path: Path):
    large = Image.new("RGB", (800, 480), "white")
    ImageDraw.Draw(large).line((50, 60, 600, 300), fill=(255, 0, 0), width=40)
    ImageDraw.Draw(large).line((60, 200, 400, 450), fill=(0, 0, 255), width=40)
    large.reduce(4).save(tmp_path / "s.png")
    strokes, _ = read_strokes(tmp_path / "s.png")
    colours = {tuple(colour) for colour in strokes.style.colours().tolist()}
    assert colours == {(255, 0, 0), (0, 0, 255)}


def test_an_empty_drawing(tmp_path: Path):
    Image.new("RGB", (9, 9), "white").save(tmp_path / "s.png")
    with pytest.raises(ValueError, match="nothing is drawn on it"):
        read_strokes(tmp_path / "s.png")
