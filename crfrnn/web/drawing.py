"""What the page shows of a result: the photo under its labels, a legend, and the curve of the change."""

from collections.abc import Sequence
from html import escape

import numpy as np

from crfrnn.data.drawing.chart import SMALL, Line, draw_chart
from crfrnn.data.drawing.legend import Entry, entries_of
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.web.workspaces import Workspace

SHOWN = 12  # classes in a legend


def overlays(workspace: Workspace, t: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) twice: the photo under the labels without the CRF, and under those after iteration t."""
    photo, colours = workspace.exploration.photo, workspace.style.colours()
    after = workspace.before if workspace.settling is None else workspace.settling.labels[t]
    return draw_overlay(photo, workspace.before, colours), draw_overlay(photo, after, colours)


def entries(workspace: Workspace, t: int) -> list[Entry]:
    labels = workspace.before if workspace.settling is None else workspace.settling.labels[t]
    return entries_of(labels, workspace.style.names(), workspace.style.colours())


def legend(entries: Sequence[Entry]) -> str:
    """HTML: a field of colour, the name and the share of each class, the largest first.

    >>> legend([Entry("<sky>", (1, 2, 3), 0.5)])
    '<ul class="legend"><li><i style="background:rgb(1,2,3)"></i>&lt;sky&gt; 50.0%</li></ul>'
    """
    items = [
        f'<li><i style="background:rgb({",".join(map(str, entry.colour))})"></i>{escape(str(entry))}</li>'
        for entry in entries[:SHOWN]
    ]
    rest = [f"<li>+ {len(entries) - SHOWN}</li>"] if len(entries) > SHOWN else []
    return f'<ul class="legend">{"".join(items + rest)}</ul>'


def curve(change: np.ndarray, t: int, title: str) -> str:
    """HTML with an SVG: the change of Q in each iteration, in per cent, the t-th one marked."""
    if not len(change):
        return ""
    line = Line(title, range(1, len(change) + 1), (100 * change).tolist(), marked=t)
    now = f"t = {t}: {change[t - 1]:.2%}" if t > 0 else "t = 0"
    return (
        f'<figure class="curve"><figcaption>{escape(title)} <b>{now}</b></figcaption>'
        f"{draw_chart('', '', '', [line], frame=SMALL)}</figure>"
    )
