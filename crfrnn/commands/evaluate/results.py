"""Results of evaluations side by side: as text, as Markdown, as JSON, and as curves."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from crfrnn.commands.metrics import Scores
from crfrnn.data.drawing.chart import Line, paint_chart
from crfrnn.data.files import writing
from crfrnn.inference.settled import Iterations

SHOWN_RADII = (2, 5, 10)  # pixels; the columns of the table, the curve has all


@dataclass(frozen=True)
class Result:
    """What one network came to with one kind of CRF.

    `trimaps` are the scores within r pixels of a boundary, by r; the times are seconds for each image, of the network
    and of the CRF behind it.
    """

    model: str
    crf: str
    iterations: Iterations
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
            "mean_iou": number(self.scores.mean_iou),
            "pixel_accuracy": number(self.scores.pixel_accuracy),
            "iou": {name: number(iou) for name, iou in zip(names, self.scores.iou.tolist(), strict=True)},
            "trimap_mean_iou": {radius: number(score.mean_iou) for radius, score in self.trimaps.items()},
            "trimap_pixel_accuracy": {radius: number(score.pixel_accuracy) for radius, score in self.trimaps.items()},
            "network_seconds": self.network_seconds,
            "crf_seconds": self.crf_seconds,
        }


def summary(results: Sequence[Result]) -> list[list[str]]:
    """A table: a row for each result, with its heading first."""
    radii = [radius for radius in SHOWN_RADII if all(radius in result.trimaps for result in results)]
    heading = ["model", "CRF", "T", "mIoU", "pixel acc.", *(f"mIoU {radius} px" for radius in radii)]
    rows = [[*heading, "network ms", "CRF ms"]]
    for result in results:
        near = [percent(result.trimaps[radius].mean_iou) for radius in radii]
        times = [f"{1000 * seconds:.0f}" for seconds in (result.network_seconds, result.crf_seconds)]
        measured = [percent(result.scores.mean_iou), percent(result.scores.pixel_accuracy)]
        rows.append([result.model, result.crf, str(result.iterations or "-"), *measured, *near, *times])
    return rows


def by_class(results: Sequence[Result], names: Sequence[str]) -> list[list[str]]:
    """A table: the IoU of each class in each result."""
    rows = [["class", *(f"{result.model} {result.crf}" for result in results)]]
    for label, name in enumerate(names):
        rows.append([name, *(percent(result.scores.iou[label].item()) for result in results)])
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
    lines = [
        Line(
            f"{result.model}, CRF {result.crf}", [*result.trimaps], [100 * s.mean_iou for s in result.trimaps.values()]
        )
        for result in results
    ]
    if not any(math.isfinite(value) for line in lines for value in line.y):
        raise ValueError("results: no pixel is close to a boundary, so there is no curve to draw")
    return paint_chart(
        "Mean IoU near boundaries", "width of the band around boundaries (pixels)", "mean IoU (%)", lines
    )


def write_scores(folder: Path, scores: Any, tables: Sequence[Sequence[Sequence[str]]]) -> list[Path]:
    """scores.json and table.md."""
    texts = {"scores.json": json.dumps(scores, indent=2), "table.md": "\n".join(map(as_markdown, tables))}
    for name, text in texts.items():
        with writing(folder / name) as file:
            file.write(text.encode())
    return [folder / name for name in texts]


def percent(value: Any) -> str:
    """Of a number or a tensor with one.

    >>> percent(0.5), percent(math.nan)
    ('50.00', '-')
    """
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if math.isnan(value) else value
