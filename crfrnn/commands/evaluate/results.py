"""Results of evaluations side by side: as text, as Markdown, as JSON, and as curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from crfrnn.commands.metrics import Scores
from crfrnn.data.labels import voc_palette

SHOWN_RADII = (2, 5, 10)  # pixels; the columns of the table, the curve has all
SIZE, LEFT, BOTTOM, TOP, TEXT = (900, 560), 70, 60, 30, 17  # pixels of the drawing
PAPER, INK, GRID = (255, 255, 255), (40, 40, 40), (222, 222, 222)


@dataclass(frozen=True)
class Result:
    """What one network came to with one kind of CRF.

    `trimaps` are the scores within r pixels of a boundary, by r; the times are seconds for each image, of the network
    and of the CRF behind it.
    """

    model: str
    crf: str
    iterations: int
    scores: Scores
    trimaps: dict[int, Scores]
    network_seconds: float
    crf_seconds: float

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain numbers; None where there was nothing to count."""
        return {
            "model": self.model,
            "crf": self.crf,
            "iterations": self.iterations,
            "mean_iou": _number(self.scores.mean_iou),
            "pixel_accuracy": _number(self.scores.pixel_accuracy),
            "iou": {name: _number(iou) for name, iou in zip(names, self.scores.iou.tolist(), strict=True)},
            "trimap_mean_iou": {radius: _number(score.mean_iou) for radius, score in self.trimaps.items()},
            "trimap_pixel_accuracy": {radius: _number(score.pixel_accuracy) for radius, score in self.trimaps.items()},
            "network_seconds": self.network_seconds,
            "crf_seconds": self.crf_seconds,
        }


def summary(results: Sequence[Result]) -> list[list[str]]:
    """A table: a row for each result, with its heading first."""
    radii = [radius for radius in SHOWN_RADII if all(radius in result.trimaps for result in results)]
    heading = ["model", "CRF", "T", "mIoU", "pixel acc.", *(f"mIoU {radius} px" for radius in radii)]
    rows = [[*heading, "network ms", "CRF ms"]]
    for result in results:
        near = [_percent(result.trimaps[radius].mean_iou) for radius in radii]
        times = [f"{1000 * seconds:.0f}" for seconds in (result.network_seconds, result.crf_seconds)]
        measured = [_percent(result.scores.mean_iou), _percent(result.scores.pixel_accuracy)]
        rows.append([result.model, result.crf, str(result.iterations or "-"), *measured, *near, *times])
    return rows


def by_class(results: Sequence[Result], names: Sequence[str]) -> list[list[str]]:
    """A table: the IoU of each class in each result."""
    rows = [["class", *(f"{result.model} {result.crf}" for result in results)]]
    for number, name in enumerate(names):
        rows.append([name, *(_percent(result.scores.iou[number].item()) for result in results)])
    return rows


def as_text(table: Sequence[Sequence[str]]) -> str:
    """Columns under each other, numbers to the right.

    >>> print(as_text([["model", "mIoU"], ["a", "7.00"]]))
    model  mIoU
    a      7.00
    """
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row as its heading."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:], ""])


def draw_boundary_curves(results: Sequence[Result]) -> Image.Image:
    """Mean IoU within r pixels of a boundary over r, a line for each result."""
    curves = [
        (f"{result.model}, CRF {result.crf}", [(r, 100 * s.mean_iou) for r, s in result.trimaps.items()])
        for result in results
    ]
    points = [point for _, curve in curves for point in curve if math.isfinite(point[1])]
    if not points:
        raise ValueError("results: no pixel is close to a boundary, so there is no curve to draw")
    right = max(r for r, _ in points)
    low, high, step = _scale_of([value for _, value in points])
    image = Image.new("RGB", SIZE, PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT)
    width, height = SIZE[0] - LEFT - TOP, SIZE[1] - BOTTOM - TOP

    def place(r: float, value: float) -> tuple[float, float]:
        return LEFT + width * r / right, TOP + height * (high - value) / (high - low)

    for value in range(low, high + 1, step):
        draw.line([place(0, value), place(right, value)], fill=GRID)
        draw.text((LEFT - 8, place(0, value)[1]), str(value), fill=INK, font=font, anchor="rm")
    for r in range(0, right + 1, 5 if right >= 10 else 1):
        draw.line([place(r, low), place(r, high)], fill=GRID)
        draw.text((place(r, low)[0], SIZE[1] - BOTTOM + 6), str(r), fill=INK, font=font, anchor="mt")
    middle = (LEFT + width / 2, SIZE[1] - 8)
    draw.text(middle, "width of the band around boundaries (pixels)", fill=INK, font=font, anchor="mb")
    draw.text((8, 4), "mean IoU (%)", fill=INK, font=font)
    colours = [tuple(colour) for colour in voc_palette(len(curves) + 1)[1:].tolist()]
    for number, ((name, curve), colour) in enumerate(zip(curves, colours, strict=True)):
        line = [place(*point) for point in curve if math.isfinite(point[1])]
        draw.line(line, fill=colour, width=3, joint="curve")
        for x, y in line:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        top = SIZE[1] - BOTTOM - 16 - (TEXT + 8) * (len(curves) - number - 0.5)
        draw.line([(SIZE[0] - 70, top), (SIZE[0] - 40, top)], fill=colour, width=3)
        draw.text((SIZE[0] - 78, top), name, fill=INK, font=font, anchor="rm")
    return image


def _scale_of(values: Sequence[float]) -> tuple[int, int, int]:
    """Ends and step of an axis in whole numbers around these values."""
    span = max(1.0, max(values) - min(values))
    step = next(step for step in (1, 2, 5, 10, 20) if span / step <= 10)
    return step * math.floor(min(values) / step), step * math.ceil((max(values) + 0.01) / step), step


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
