"""The trace of a refinement: what each iteration did, as a file of numbers and as a curve."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crfrnn.commands.refine.whole import Moment
from crfrnn.data.drawing.chart import Line, draw_chart
from crfrnn.data.files import writing


class Trace:
    """Collects rows as the ``trace`` of `refine` for predictions (L, H, W): energies, and how far they moved.

    >>> from crfrnn import refine
    >>> image, trace = np.zeros((12, 16, 3), np.uint8), Trace()
    >>> marginals = refine(image, np.full((2, 12, 16), 0.5, np.float32), iterations=2, trace=trace)
    >>> [row["iteration"] for row in trace.rows], sorted(trace.rows[0])
    ([0, 1, 2], ['change', 'energy', 'free_energy', 'iteration', 'labels_changed', 'objective'])
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._before: np.ndarray | None = None

    def __call__(self, moment: Moment) -> None:
        """Add a row. `change` is the mean of |Q(t) - Q(t - 1)|, `labels_changed` a share of the pixels; 0 at first."""
        now = torch.as_tensor(moment.marginals).cpu().numpy()
        before = now if self._before is None else self._before
        self.rows.append(
            {
                "iteration": moment.t,
                "energy": _rounded(moment.energy),
                "free_energy": _rounded(moment.free_energy),
                "objective": _rounded(moment.objective),
                "change": _rounded(np.abs(now - before).mean()),
                "labels_changed": _rounded((now.argmax(axis=0) != before.argmax(axis=0)).mean()),
            }
        )
        self._before = now

    def text(self, suffix: str) -> str:
        """The rows as JSON (.json) or CSV (.csv)."""
        if suffix.lower() == ".json":
            return json.dumps(self.rows, indent=2) + "\n"
        file = io.StringIO()
        writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def curve(self, title: str) -> str:
        """SVG: the free energy, and the solver's objective where that is another one, against t."""
        t = [row["iteration"] for row in self.rows]
        lines = [Line("free energy E(Q) − H(Q)", t, [row["free_energy"] for row in self.rows])]
        if any(row["objective"] != row["free_energy"] for row in self.rows):
            lines.append(Line("the solver's objective", t, [row["objective"] for row in self.rows]))
        return draw_chart(title, "iteration t", "energy", lines)

    def write(self, path: Path, title: str) -> None:
        """Numbers to `path`, .csv or .json, and the curve beside it."""
        with writing(curve_of(path)) as file:
            file.write(self.curve(title).encode())
        with writing(path) as file:
            file.write(self.text(path.suffix).encode())


def curve_of(path: Path) -> Path:
    """Where the curve of a trace goes: the same name, .svg."""
    return path.with_suffix(".svg")


def _rounded(value: Any) -> float:
    """What float32 marginals are good for."""
    return float(f"{float(value):.8g}")
