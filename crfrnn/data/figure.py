"""Pictures side by side, each with a caption."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crfrnn.data.overlay import draw_overlay

MARGIN, CAPTION, TEXT = 12, 34, 20  # pixels
PANEL = 1000  # pixels of a panel's longer side, at most
PAPER, INK = (255, 255, 255), (30, 30, 30)


def draw_strokes(photo: np.ndarray, indices: np.ndarray, colours: np.ndarray, unsure: int = -1) -> np.ndarray:
    """The photo (H, W, 3), paled, with the labels (H, W) painted over it where there are any."""
    paled = (photo * 0.75 + 255 * 0.25).astype(np.uint8)
    return np.where((indices == unsure)[..., None], paled, colours[np.maximum(indices, 0)])


def side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Panels (caption, (H, W, 3) uint8) of one height in a row, each under its caption."""
    height = panels[0][1].shape[0]
    width = sum(pixels.shape[1] for _, pixels in panels) + MARGIN * (len(panels) + 1)
    figure = Image.new("RGB", (width, height + CAPTION + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(figure), ImageFont.load_default(TEXT)
    left = MARGIN
    for caption, pixels in panels:
        middle = (left + pixels.shape[1] / 2, CAPTION / 2)
        draw.text(middle, caption, fill=INK, font=font, anchor="mm")
        figure.paste(Image.fromarray(pixels), (left, CAPTION))
        left += pixels.shape[1] + MARGIN
    return figure


def compare_segmentation(
    photo: np.ndarray, strokes: np.ndarray, network: np.ndarray, joint: np.ndarray, colours: np.ndarray
) -> Image.Image:
    """Photo (H, W, 3) and strokes; below, the labels (H, W) of the network alone and with its CRF-RNN.

    A large photo is shown at every second pixel, every third, and so on, until it fits `PANEL`.
    """
    step = -(-max(photo.shape) // PANEL)
    photo, strokes, network, joint = (np.ascontiguousarray(a[::step, ::step]) for a in (photo, strokes, network, joint))
    above = side_by_side([("photograph", photo), ("strokes", draw_strokes(photo, strokes, colours))])
    below = side_by_side(
        [
            ("network alone", draw_overlay(photo, network, colours)),
            ("network with CRF-RNN", draw_overlay(photo, joint, colours)),
        ]
    )
    figure = Image.new("RGB", (above.width, above.height + below.height), PAPER)
    figure.paste(above, (0, 0))
    figure.paste(below, (0, above.height))
    return figure
