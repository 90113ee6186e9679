"""Pictures side by side, each with a caption."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from crfrnn.data.drawing.font import font_for
from crfrnn.data.drawing.legend import Entry, with_legend
from crfrnn.data.drawing.overlay import draw_overlay

MARGIN, CAPTION, TEXT = 12, 34, 20  # pixels
PANEL = 1000  # pixels of a panel's longer side, at most
PAPER, INK = (255, 255, 255), (30, 30, 30)


def draw_strokes(photo: np.ndarray, indices: np.ndarray, colours: np.ndarray, unsure: int = -1) -> np.ndarray:
    """The photo (H, W, 3), paled, with the labels (H, W) painted over it where there are any."""
    paled = (photo * 0.75 + 255 * 0.25).astype(np.uint8)
    return np.where((indices == unsure)[..., None], paled, colours[np.maximum(indices, 0)])


def side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Panels (caption, (H, W, 3) uint8) of one height in a row, each under its caption."""
    font = font_for((caption for caption, _ in panels), TEXT)
    widths = [max(pixels.shape[1], math.ceil(font.getlength(caption))) for caption, pixels in panels]
    height = panels[0][1].shape[0]
    figure = Image.new("RGB", (sum(widths) + MARGIN * (len(panels) + 1), height + CAPTION + MARGIN), PAPER)
    draw = ImageDraw.Draw(figure)
    left = MARGIN
    for (caption, pixels), width in zip(panels, widths, strict=True):
        draw.text((left + width / 2, CAPTION / 2), caption, fill=INK, font=font, anchor="mm")
        figure.paste(Image.fromarray(pixels), (left + (width - pixels.shape[1]) // 2, CAPTION))
        left += width + MARGIN
    return figure


def compare_segmentation(
    photo: np.ndarray, strokes: np.ndarray, alone: np.ndarray, refined: np.ndarray, colours: np.ndarray
) -> Image.Image:
    """Photo (H, W, 3) and strokes; below, the labels (H, W) by resemblance to the strokes, and with the CRF-RNN.

    A large photo is shown at every second pixel, every third, and so on, until it fits `PANEL`.
    """
    photo, strokes, alone, refined = _panels(photo, strokes, alone, refined)
    above = side_by_side([("photograph", photo), ("strokes", draw_strokes(photo, strokes, colours))])
    below = side_by_side(
        [
            ("what resembles the strokes", draw_overlay(photo, alone, colours)),
            ("with a CRF-RNN", draw_overlay(photo, refined, colours)),
        ]
    )
    figure = Image.new("RGB", (above.width, above.height + below.height), PAPER)
    figure.paste(above, (0, 0))
    figure.paste(below, (0, above.height))
    return figure


def compare_crf(
    photo: np.ndarray, network: np.ndarray, joint: np.ndarray, colours: np.ndarray, entries: Sequence[Entry]
) -> Image.Image:
    """Photo (H, W, 3), the labels (H, W) of the network alone and with its CRF-RNN, and the legend (see above)."""
    photo, network, joint = _panels(photo, network, joint)
    panels = [
        ("photograph", photo),
        ("network alone", draw_overlay(photo, network, colours)),
        ("network with CRF-RNN", draw_overlay(photo, joint, colours)),
    ]
    return with_legend(side_by_side(panels), entries)


def compare_labels(before: np.ndarray, after: np.ndarray, colours: np.ndarray, entries: Sequence[Entry]) -> Image.Image:
    """Labels (H, W) without and with the CRF, by their colours alone, and the legend (see above)."""
    before, after = _panels(before, after)
    return with_legend(side_by_side([("without the CRF", colours[before]), ("with the CRF", colours[after])]), entries)


def _panels(*pictures: np.ndarray) -> list[np.ndarray]:
    """Pictures (H, W, ...) of one size at every n-th pixel, so that they fit `PANEL`."""
    step = -(-max(pictures[0].shape[:2]) // PANEL)
    return [np.ascontiguousarray(picture[::step, ::step]) for picture in pictures]
