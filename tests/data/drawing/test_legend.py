"""Legends: what they list, and that they can be read below a picture of any size."""

import numpy as np
import pytest
from PIL import Image

from crfrnn.data.drawing.figure import compare_crf
from crfrnn.data.drawing.legend import Entry, entries_of, with_legend

COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)


def test_what_occurs_is_listed_the_largest_first():
    labels = np.zeros((50, 50), int)
    labels[10:] = 2
    labels[0, 0] = 1
    entries = entries_of(labels, ["sky", "car", "road"], COLOURS)
    assert [str(entry) for entry in entries] == ["road 80.0%", "sky 20.0%", "car <0.1%"]
    assert [entry.colour for entry in entries] == [(0, 0, 200), (200, 0, 0), (0, 200, 0)]


@pytest.mark.parametrize("size", [(5, 4), (60, 400), (900, 600)])
def test_the_picture_stays_and_every_class_has_its_colour_below(size: tuple[int, int]):
    picture = np.random.default_rng(0).integers(0, 100, (*size, 3), dtype=np.uint8)
    entries = [Entry(f"class number {n}", (250, 10 * n, 250), 0.1) for n in range(10)]
    whole = np.asarray(with_legend(picture, entries))
    np.testing.assert_array_equal(whole[: size[0], : size[1]], picture)
    legend = whole[size[0] :]
    colours = {tuple(colour) for colour in legend.reshape(-1, 3).tolist()}
    assert {entry.colour for entry in entries} <= colours
    lines = np.flatnonzero((legend == (250, 0, 250)).all(-1).any(1))
    assert len(lines) >= 11  # pixels: as high as letters that can be read
    assert (legend[:, -3:] == 255).all()  # nothing runs over the edge
    assert (legend[-2:] == 255).all()


def test_a_comparison_has_three_panels_and_a_legend():
    photo = np.full((30, 1500, 3), 128, np.uint8)
    labels = np.zeros((30, 1500), int)
    figure = compare_crf(photo, labels, labels, COLOURS, [Entry("sky", (200, 0, 0), 1.0)])
    assert isinstance(figure, Image.Image)
    assert figure.width == 3 * 750 + 4 * 12  # every second pixel
