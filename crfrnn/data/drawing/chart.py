"""Line charts as SVG or as a picture: axes, ticks, a legend, and nothing to install for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw

from crfrnn.data.drawing.font import font_for

LEGEND = 200  # more width, right of the axes, where there are several lines
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's
COLOURS += ("#882255", "#999933", "#332288", "#888888", "#661100")  # and some of Tol's
PAPER, INK, GRID = "#ffffff", "#222222", "#dddddd"
SCALE = 2  # pixels of a picture for each of a frame's


@dataclass(frozen=True)
class Frame:
    """How large a chart is, in pixels, which a viewer scales: with its margins around the axes."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    ticks: tuple[int, int]  # about so many along x and y


WHOLE = Frame(640, 400, left=84, right=20, top=44, bottom=56, ticks=(6, 6))
SMALL = Frame(320, 104, left=40, right=10, top=8, bottom=26, ticks=(6, 3))  # beside a text, which says what it is


@dataclass(frozen=True)
class Line:
    """A named line through points (x, y); y of NaN is left out. One x may be `marked` by a larger point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marked: float | None = None


def draw_chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], log_y: bool = False, frame: Frame = WHOLE
) -> str:
    """An SVG document. With `log_y` values must be positive; others are left out. Each point says its numbers.

    >>> svg = draw_chart("Energy", "iteration", "E", [Line("mean field", [0, 1, 2], [3.0, 1.5, 1.0])])
    >>> svg.startswith("<svg"), svg.count("<polyline")
    (True, 1)
    """
    pen = _SvgPen(_width(lines, frame), frame.height)
    _draw(pen, title, x_label, y_label, lines, log_y, frame)
    return "\n".join([*pen.parts, "</svg>\n"])


def paint_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line], log_y: bool = False) -> Image.Image:
    """The same as a picture, `SCALE` times as large.

    >>> paint_chart("Energy", "iteration", "E", [Line("mean field", [0, 1, 2], [3.0, 1.5, 1.0])]).size
    (1280, 800)
    """
    pen = _ImagePen(_width(lines, WHOLE), WHOLE.height)
    _draw(pen, title, x_label, y_label, lines, log_y, WHOLE)
    return pen.image


def _width(lines: Sequence[Line], frame: Frame) -> int:
    names = max(LEGEND, 30 + 7 * max(len(line.name) for line in lines)) if len(lines) > 1 else 0
    return frame.width + names


def _draw(
    pen: "_SvgPen | _ImagePen",
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    log_y: bool,
    frame: Frame,
) -> None:
    kept = [[(x, y) for x, y in zip(line.x, line.y, strict=True) if _drawable(y, log_y)] for line in lines]
    points = [point for line in kept for point in line]
    if not points:
        raise ValueError("lines: nothing to draw, no line has a finite value")
    scale = math.log10 if log_y else float
    along = [x for x, _ in points]
    counted = all(float(x).is_integer() for x in along)  # such as iterations, of which there is no half
    x_ticks = _ticks(min(along), max(along), frame.ticks[0], least=1.0 if counted else 0.0)
    heights = [scale(y) for _, y in points]
    y_ticks = (_decades if log_y else _ticks)(min(heights), max(heights), frame.ticks[1])
    right, low = frame.width - frame.right, frame.height - frame.bottom

    def across(x: float) -> float:
        return frame.left + (right - frame.left) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

    def up(y: float) -> float:
        return low - (low - frame.top) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    if title:
        pen.text(frame.width / 2, frame.top / 2, title, size=15)
    if x_label:
        pen.text((frame.left + right) / 2, frame.height - 14, x_label)
    if y_label:
        pen.text(18, (frame.top + low) / 2, y_label, turned=True)
    for tick in x_ticks:
        pen.rule(across(tick), frame.top, across(tick), low)
        pen.text(across(tick), low + 20, _number(tick))
    for tick in y_ticks:
        pen.rule(frame.left, up(tick), right, up(tick))
        pen.text(frame.left - 8, up(tick) + 4, _number(10**tick if log_y else tick), anchor="end")
    for number, (line, through) in enumerate(zip(lines, kept, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        pen.curve([(across(x), up(scale(y))) for x, y in through], colour)
        for x, y in through:
            pen.dot(across(x), up(scale(y)), colour, x == line.marked, f"{_number(x)}: {_number(y)}")
        if len(lines) > 1:
            y = frame.top + 16 + 18 * number
            pen.swatch(frame.width, y - 6, colour)
            pen.text(frame.width + 24, y, line.name, anchor="start")


class _SvgPen:
    def __init__(self, width: int, height: int):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        ]

    def rule(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.parts += [f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}"/>']

    def text(self, x: float, y: float, text: str, anchor: str = "middle", size: int = 13, turned: bool = False) -> None:
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}'
        self.parts += [f'<text {place} font-size="{size}" fill="{INK}">{escape(text)}</text>']

    def curve(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts += [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']

    def dot(self, x: float, y: float, colour: str, marked: bool, said: str) -> None:
        look = 'r="5" class="marked"' if marked else 'r="2.5"'
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" {look} fill="{colour}"><title>{said}</title></circle>']

    def swatch(self, x: float, y: float, colour: str) -> None:
        self.parts += [f'<rect x="{x}" y="{y}" width="18" height="3" fill="{colour}"/>']


class _ImagePen:
    def __init__(self, width: int, height: int):
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self.ink = ImageDraw.Draw(self.image)

    def rule(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.ink.line([x1 * SCALE, y1 * SCALE, x2 * SCALE, y2 * SCALE], fill=GRID)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", size: int = 13, turned: bool = False) -> None:
        text = text.replace("−", "-")  # which Pillow's font lacks
        font, place = font_for([text], size * SCALE), (round(x * SCALE), round(y * SCALE))
        if not turned:
            self.ink.text(place, text, fill=INK, font=font, anchor={"start": "ls", "middle": "ms", "end": "rs"}[anchor])
            return
        length, height = math.ceil(font.getlength(text)) + 2, 2 * size * SCALE
        label = Image.new("RGB", (length, height), PAPER)
        ImageDraw.Draw(label).text((length / 2, height * 0.7), text, fill=INK, font=font, anchor="ms")
        self.image.paste(label.rotate(90, expand=True), (place[0] - round(height * 0.7), place[1] - length // 2))

    def curve(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        path = [(x * SCALE, y * SCALE) for x, y in points]
        self.ink.line(path, fill=colour, width=2 * SCALE, joint="curve")

    def dot(self, x: float, y: float, colour: str, marked: bool, said: str) -> None:
        del said
        x, y, radius = x * SCALE, y * SCALE, (5 if marked else 2.5) * SCALE
        self.ink.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def swatch(self, x: float, y: float, colour: str) -> None:
        self.ink.rectangle([x * SCALE, y * SCALE, (x + 18) * SCALE, (y + 3) * SCALE], fill=colour)


def _drawable(y: float, log_y: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log_y)


def _ticks(low: float, high: float, about: int = 6, least: float = 0.0) -> list[float]:
    """About so many round numbers that enclose low..high; `least` or more apart, by 1, 2 or 5 times a power of ten.

    >>> _ticks(0, 50), _ticks(3, 3), _ticks(0, 0)
    ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [2.0, 3.0, 4.0], [0.0, 1.0])
    """
    if not high > low:
        if not low:
            return [0.0, 1.0]  # what is 0 throughout is a share or a count, as a rule, and never below
        size = 10.0 ** math.floor(math.log10(abs(low)))
        return [low - size, float(low), low + size]
    rough = max((high - low) / (about - 1), least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def _decades(low: float, high: float, about: int) -> list[float]:
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    last = max(last, first + 1)
    return [float(power) for power in range(first, last + 1, max(1, round((last - first) / about)))]


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")
