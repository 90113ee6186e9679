"""What the colours of a picture mean: its classes with their names and shares, below it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from crfrnn.data.drawing.font import font_for

PAPER, INK, FRAME = (255, 255, 255), (30, 30, 30), (160, 160, 160)
SMALLEST_TEXT, TEXT_SHARE = 13, 1 / 36  # pixels; of the square root of the number of pixels


@dataclass(frozen=True)
class Entry:
    """A class that occurs in a picture."""

    name: str
    colour: tuple[int, int, int]
    share: float  # of the pixels

    def __str__(self) -> str:
        return f"{self.name} {'<0.1%' if self.share < 0.001 else f'{self.share:.1%}'}"


def entries_of(indices: np.ndarray, names: Sequence[str], colours: np.ndarray) -> list[Entry]:
    """The classes that occur among the labels (H, W), the largest first.

    >>> labels = np.array([[2, 2, 2, 0]])
    >>> [str(entry) for entry in entries_of(labels, ["sky", "road", "car"], np.zeros((3, 3), np.uint8))]
    ['car 75.0%', 'sky 25.0%']
    """
    numbers, counts = np.unique(indices, return_counts=True)
    entries = []
    for place in np.argsort(-counts, kind="stable"):
        number = int(numbers[place])
        red, green, blue = colours[number].tolist()
        entries.append(Entry(names[number], (red, green, blue), int(counts[place]) / indices.size))
    return entries


def with_legend(picture: np.ndarray | Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """The picture, (H, W, 3) uint8 or a Pillow image, unchanged, and below it a line or more of coloured fields.

    The letters grow with the picture, and are never too small to read: the result is wider than a tiny picture.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    text = max(SMALLEST_TEXT, round(math.sqrt(image.width * image.height) * TEXT_SHARE))
    font = font_for(map(str, entries), text)
    gap, line = text, round(1.6 * text)
    widths = [round(text * 1.5 + font.getlength(str(entry))) for entry in entries]
    width = max([image.width, *(needed + 2 * gap for needed in widths)])
    rows: list[list[int]] = [[]]
    used = gap
    for number, needed in enumerate(widths):
        if rows[-1] and used + needed + gap > width:
            rows.append([])
            used = gap
        rows[-1].append(number)
        used += needed + gap
    whole = Image.new("RGB", (width, image.height + len(rows) * line + gap // 2), PAPER)
    whole.paste(image, (0, 0))
    draw = ImageDraw.Draw(whole)
    for row, numbers in enumerate(rows):
        left, middle = gap, image.height + round((row + 0.5) * line) + gap // 4
        for number in numbers:
            box = (left, middle - text // 2, left + text, middle + text // 2)
            draw.rectangle(box, fill=entries[number].colour, outline=FRAME, width=max(1, text // 16))
            draw.text((left + text * 1.5, middle), str(entries[number]), fill=INK, font=font, anchor="lm")
            left += widths[number] + gap
    return whole
