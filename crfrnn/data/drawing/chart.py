"""Line charts as SVG: axes, ticks, a legend, and nothing to install for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400  # pixels, which a viewer scales
LEFT, RIGHT, TOP, BOTTOM = 84, 20, 44, 56  # margins around the axes
LEGEND = 200  # more width, right of the axes, where there are several lines
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's
PAPER, INK, GRID = "#ffffff", "#222222", "#dddddd"
TICKS = 6  # about so many


@dataclass(frozen=True)
class Line:
    """A named line through points (x, y); y of NaN is left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def draw_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line], log_y: bool = False) -> str:
    """An SVG document. With `log_y` values must be positive; others are left out.

    >>> svg = draw_chart("Energy", "iteration", "E", [Line("mean field", [0, 1, 2], [3.0, 1.5, 1.0])])
    >>> svg.startswith("<svg"), svg.count("<polyline")
    (True, 1)
    """
    kept = [[(x, y) for x, y in zip(line.x, line.y, strict=True) if _drawable(y, log_y)] for line in lines]
    points = [point for line in kept for point in line]
    if not points:
        raise ValueError("lines: nothing to draw, no line has a finite value")
    scale = math.log10 if log_y else float
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points))
    heights = [scale(y) for _, y in points]
    y_ticks = _decades(min(heights), max(heights)) if log_y else _ticks(min(heights), max(heights))

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    width = WIDTH + LEGEND * (len(lines) > 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{HEIGHT}" fill="{PAPER}"/>',
        _text(WIDTH / 2, 22, title, size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label),
        _text(18, (TOP + HEIGHT - BOTTOM) / 2, y_label, turned=True),
    ]
    for tick in x_ticks:
        parts += [_rule(across(tick), TOP, across(tick), HEIGHT - BOTTOM)]
        parts += [_text(across(tick), HEIGHT - BOTTOM + 20, _number(tick))]
    for tick in y_ticks:
        parts += [_rule(LEFT, up(tick), WIDTH - RIGHT, up(tick))]
        parts += [_text(LEFT - 8, up(tick) + 4, _number(10**tick if log_y else tick), anchor="end")]
    for number, (line, through) in enumerate(zip(lines, kept, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(scale(y)):.1f}" for x, y in through)
        parts += [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
        parts += [
            f'<circle cx="{xy.split(",")[0]}" cy="{xy.split(",")[1]}" r="2.5" fill="{colour}"/>' for xy in path.split()
        ]
        if len(lines) > 1:
            y = TOP + 16 + 18 * number
            parts += [f'<rect x="{WIDTH}" y="{y - 6}" width="18" height="3" fill="{colour}"/>']
            parts += [_text(WIDTH + 24, y, line.name, anchor="start")]
    return "\n".join([*parts, "</svg>\n"])


def _drawable(y: float, log_y: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log_y)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose low..high, by steps of 1, 2 or 5 times a power of ten.

    >>> _ticks(0, 50), _ticks(3, 3)
    ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [2.0, 3.0, 4.0])
    """
    if not high > low:
        size = 10.0 ** math.floor(math.log10(abs(low))) if low else 1.0
        return [low - size, float(low), low + size]
    rough = (high - low) / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    last = max(last, first + 1)
    return [float(power) for power in range(first, last + 1, max(1, round((last - first) / TICKS)))]


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 13, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}'
    return f'<text {place} font-size="{size}" fill="{INK}">{escape(text)}</text>'
