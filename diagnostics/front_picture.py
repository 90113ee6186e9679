"""The picture that the README begins with: `python -m diagnostics.front_picture` writes docs/front.png.

The photograph is scikit-image's cup (Rachel Michetti, CC0), and all strokes are the lines below.
"""

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from crfrnn.commands.segment.segment import segment_strokes
from crfrnn.data.drawing.cutout import cut_out
from crfrnn.data.drawing.figure import draw_strokes, side_by_side
from crfrnn.data.drawing.overlay import draw_overlay
from tests.support.places import ROOT

WIDTH = 5  # of a stroke, pixels
TILE = 12  # of the ground that shows through what is transparent
COLOURS = np.array([(0, 110, 230), (230, 25, 75), (60, 180, 75), (255, 225, 25)], np.uint8)
STROKES = {  # of each class, (x, y) from corner to corner
    0: [  # the table
        [(25, 60), (50, 120), (45, 200), (60, 300), (110, 380)],
        [(90, 50), (150, 25), (210, 6)],
        [(74, 250), (90, 315), (150, 365), (190, 390)],
        [(385, 8), (470, 30), (535, 110), (565, 210), (530, 320), (470, 385)],
    ],
    1: [  # the cup
        [(188, 60), (192, 130), (215, 200), (270, 245), (330, 230), (375, 175), (398, 95)],
        [(230, 35), (300, 22), (370, 40)],
        [(235, 115), (300, 140), (355, 110)],
        [(215, 265), (222, 305)],
    ],
    2: [  # its saucer
        [(95, 190), (100, 255), (150, 325), (250, 372), (350, 365), (430, 320), (470, 240), (468, 190)],
        [(115, 175), (160, 115)],
        [(285, 340), (300, 285)],
    ],
    3: [  # the spoon
        [(335, 285), (350, 265), (375, 275), (385, 310), (360, 330), (340, 310), (360, 295)],
        [(372, 225), (400, 160), (418, 105)],
    ],
}


def draw() -> Image.Image:
    """Photograph and strokes, the labels without a CRF, the labels with it, and the cut-out."""
    photo = data.coffee()  # (400, 600, 3)
    sheet = Image.new("L", (photo.shape[1], photo.shape[0]), 255)
    pen = ImageDraw.Draw(sheet)
    for label, lines in STROKES.items():
        for line in lines:
            pen.line(line, fill=label, width=WIDTH, joint="curve")
    strokes = np.asarray(sheet).astype(np.int64)
    strokes[strokes == 255] = -1
    found = segment_strokes(photo, strokes, chosen=(1, 2, 3))
    assert found.chosen is not None
    panels = [
        ("a few strokes", draw_strokes(photo, strokes, COLOURS)),
        ("what resembles them", draw_overlay(photo, found.network_labels, COLOURS)),
        ("with a CRF-RNN", draw_overlay(photo, found.labels, COLOURS)),
        ("a cut-out", on_tiles(np.asarray(cut_out(photo, found.chosen)))),
    ]
    return side_by_side([(caption, np.ascontiguousarray(panel)) for caption, panel in panels])


def on_tiles(picture: np.ndarray) -> np.ndarray:
    """(H, W, 4) over the squares of grey that stand for nothing."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] // TILE
    ground = np.where((x + y) % 2, 255, 225)[..., None]
    opaque = picture[..., 3:] / 255
    return np.rint(picture[..., :3] * opaque + ground * (1 - opaque)).astype(np.uint8)


if __name__ == "__main__":
    picture = draw()
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS).save(
        ROOT / "docs/front.png", optimize=True
    )
