"""Strokes and outlines drawn for scikit-image's photos, in pixels (x, y).

The demo's strokes are written by `python -m benchmarks.stroke_photos chelsea crfrnn/commands/demo/strokes.png`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFilter

VOID = -1
MARGIN = 9  # pixels around an outline, drawn by eye, that are not scored
WIDTH = 5  # of a stroke

Points = list[tuple[int, int]]
PALETTE = [(0, 0, 0), (52, 120, 220), (245, 150, 30), (120, 220, 60), (235, 60, 130), (160, 90, 230)]


@dataclass(frozen=True)
class Drawing:
    """For each class, from 1: its strokes; and outlines, painted in order: (class, polygon or box of an ellipse)."""

    strokes: dict[int, list[Points]]
    polygons: list[tuple[int, Points]]  # two points are the corners of an ellipse's box; class VOID: cannot be told


DRAWINGS = {
    "chelsea": Drawing(  # 1 what is behind the cat, 2 the cat, 3 its eyes, 4 its nose
        strokes={
            1: [
                [(10, 8), (20, 50), (10, 105)],
                [(415, 20), (435, 70)],
                [(378, 88), (410, 120), (440, 145)],
                [(372, 165), (400, 185), (432, 165), (432, 225)],
                [(352, 212), (375, 232), (420, 280)],
                [(355, 285), (375, 270)],
            ],
            2: [
                [(55, 40), (70, 12), (150, 30), (250, 20), (330, 35), (375, 12)],
                [(45, 75), (110, 60), (190, 70)],
                [(110, 150), (60, 125), (18, 160), (12, 240)],
                [(240, 60), (245, 130), (262, 190), (262, 215)],
                [(130, 180), (200, 195), (215, 250), (150, 262), (60, 235), (60, 288)],
                [(310, 178), (335, 172), (352, 145), (352, 115), (335, 100)],
                [(130, 130), (148, 150), (190, 158), (212, 160)],
                [(308, 195), (300, 245)],
                [(330, 70), (345, 90)],
                [(235, 280), (290, 272)],
                [(357, 55), (365, 35)],
            ],
            3: [
                [(146, 105), (158, 130), (185, 132), (194, 108), (172, 112), (165, 93)],
                [(304, 135), (317, 155), (332, 125), (315, 120), (313, 140)],
            ],
            4: [[(250, 236), (282, 234), (262, 252)]],
        },
        polygons=[
            (1, [(0, 0), (451, 0), (451, 300), (0, 300)]),
            (
                2,
                [
                    *((44, 0), (34, 30), (30, 80), (28, 108), (0, 132), (0, 300), (315, 300), (315, 240), (325, 215)),
                    *((347, 190), (358, 155), (362, 125), (360, 100), (352, 74), (370, 60), (384, 27), (397, 0)),
                ],
            ),
            (VOID, [(300, 300), (312, 262), (360, 240), (388, 262), (380, 300)]),
            (3, [(137, 85), (205, 146)]),
            (3, [(295, 110), (342, 163)]),
            (4, [(240, 229), (265, 226), (290, 231), (287, 240), (270, 256), (257, 263), (250, 250)]),
        ],
    ),
    "coffee": Drawing(  # 1 table and floor, 2 saucer, 3 cup, 4 coffee, 5 spoon
        strokes={
            1: [
                [(15, 70), (20, 20), (100, 12)],
                [(40, 120), (140, 45), (240, 8)],
                [(40, 180), (55, 300), (140, 380)],
                [(440, 60), (560, 40), (580, 200)],
                [(500, 250), (470, 350), (560, 370)],
            ],
            2: [
                [(105, 240), (120, 150), (158, 105)],
                [(110, 280), (170, 340), (290, 370), (400, 340), (450, 260), (430, 160)],
                [(170, 250), (190, 320), (290, 320)],
            ],
            3: [
                [(184, 110), (215, 50), (290, 27), (370, 50), (397, 100), (380, 160), (300, 200), (220, 175)],
                [(250, 60), (330, 75), (375, 110)],
                [(190, 175), (250, 220), (360, 200)],
                [(270, 262), (305, 262)],
                [(235, 240), (210, 285)],
            ],
            4: [[(228, 122), (290, 106), (348, 130)], [(222, 152), (290, 175), (340, 165)]],
            5: [[(343, 275), (370, 305), (392, 265)], [(412, 78), (408, 105)]],
        },
        polygons=[
            (1, [(0, 0), (600, 0), (600, 400), (0, 400)]),
            (2, [(77, 66), (479, 388)]),
            (3, [(174, 110), (406, 110), (398, 160), (372, 220), (335, 268), (300, 284), (258, 280), (208, 225)]),
            (3, [(230, 225), (262, 240), (250, 262), (225, 305), (200, 300), (198, 270)]),
            (5, [(405, 68), (424, 70), (415, 110), (390, 200), (382, 225), (372, 225), (400, 140)]),
            (5, [(327, 235), (406, 325)]),
            (3, [(173, 18), (408, 208)]),
            (4, [(203, 96), (369, 193)]),
        ],
    ),
}


def photo_of(name: str) -> np.ndarray:
    """(H, W, 3) uint8, from the installed scikit-image."""
    return getattr(skimage.data, name)()


def _rounded(points: Points) -> list[tuple[float, float]]:
    """The polyline with its corners cut three times (Chaikin 1974): a stroke as a hand draws it."""
    line = np.array(points, float)
    for _ in range(3):
        first, second = 0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]
        cut = np.stack([first, second], axis=1).reshape(-1, 2)
        line = np.vstack([line[:1], cut[1:-1], line[-1:]])
    return [(float(x), float(y)) for x, y in line]


def strokes_of(name: str) -> np.ndarray:
    """(H, W) int32: the class of each stroke pixel, `VOID` elsewhere."""
    height, width = photo_of(name).shape[:2]
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for number, lines in DRAWINGS[name].strokes.items():
        for points in lines:
            rounded = _rounded(points)
            draw.line(rounded, fill=number, width=WIDTH, joint="curve")
            for x, y in (rounded[0], rounded[-1]):
                draw.ellipse((x - WIDTH / 2, y - WIDTH / 2, x + WIDTH / 2, y + WIDTH / 2), fill=number)
    drawn = np.asarray(canvas, np.int32)
    return np.where(drawn == 0, VOID, drawn)


def truth_of(name: str) -> np.ndarray:
    """(H, W) int32: the class by outlines drawn by eye, `VOID` within `MARGIN` / 2 of an outline."""
    height, width = photo_of(name).shape[:2]
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    for number, points in DRAWINGS[name].polygons:
        fill = 255 if number == VOID else number
        if len(points) == 2:
            draw.ellipse((*points[0], *points[1]), fill=fill)
        else:
            draw.polygon(points, fill=fill)
    low, high = (np.asarray(canvas.filter(f(MARGIN)), np.int32) for f in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    return np.where((low == high) & (high != 255), high, VOID)


def save_strokes(name: str, path: Path) -> None:
    """As a palette PNG; index 0 is nothing drawn."""
    drawn = strokes_of(name)
    image = Image.fromarray(np.where(drawn == VOID, 0, drawn).astype(np.uint8))
    image.putpalette([value for colour in PALETTE for value in colour])
    image.save(path, optimize=True)


if __name__ == "__main__":
    save_strokes(sys.argv[1], Path(sys.argv[2]))
