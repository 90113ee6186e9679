"""`crfrnn segment`: photographs from files, label maps and pictures of them into files."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from crfrnn.data.figure import draw_strokes, side_by_side
from crfrnn.data.images import format_of, open_image, rgb_pixels, upright, write_image
from crfrnn.data.labels import UNSURE, LabelMap, LabelStyle, Value, parse_unsure, write_labels
from crfrnn.data.overlay import draw_overlay
from crfrnn.data.predictions import SUFFIXES, write_predictions
from crfrnn.data.strokes import read_strokes
from crfrnn.errors import UsageError
from crfrnn.segment import Segmentation, segment_strokes

PANEL = 640  # pixels of a panel's longer side in the figure of --compare


@dataclass(frozen=True)
class Targets:
    """Where the results go; None is not wanted."""

    out: Path
    overlay: Path | None
    probabilities: Path | None
    compare: Path | None

    def paths(self) -> list[Path]:
        return [p for p in (self.out, self.overlay, self.probabilities, self.compare) if p is not None]


def segment_files(
    image: str,
    *,
    out: str,
    strokes: str | None = None,
    unsure: str | int = "",
    overlay: str | None = None,
    save_probabilities: str | None = None,
    compare: str | None = None,
    iterations: int = 10,
    seed: int = 0,
) -> None:
    """Segment a photograph from a few strokes of colour on it.

    Draw over a copy of the photograph's size, one colour for each thing and one for the background, on a transparent
    or plain ground. A small network and its CRF-RNN are trained together on these strokes alone, and label the rest.

    Args:
        image: the photograph.
        out: the label map, a PNG in the colours of the strokes.
        strokes: the strokes: a PNG of the photograph's size, palette, grey or colours.
        unsure: the index (0) or colour (0,0,0 or "#000000") that means "nothing drawn"; without it, what is
            transparent or else covers most of the picture.
        overlay: also write the photograph tinted by the labels.
        save_probabilities: also write the probabilities, float16, .npz or .npy.
        compare: also write a figure: photograph, strokes, the network alone, the network with its CRF-RNN.
        iterations: mean-field iterations when the photograph is labelled.
        seed: of the initial weights; the same seed gives the same result.
    """
    if not strokes:
        raise UsageError("strokes: give --strokes STROKES.png, a few strokes of colour on a transparent ground")
    if iterations < 0:
        raise UsageError(f"iterations: must be at least 0, got {iterations}")
    try:
        void = None if unsure == "" else parse_unsure(unsure)
    except ValueError as error:
        raise UsageError(str(error)) from None
    optional = (Path(name) if name else None for name in (overlay, save_probabilities, compare))
    targets = Targets(Path(out), *optional)
    _check_targets(targets, inputs=(Path(image), Path(strokes)))
    _segment_by_strokes(Path(image), Path(strokes), void, targets, iterations, seed)


def _check_targets(targets: Targets, inputs: tuple[Path, ...]) -> None:
    """UsageError, before anything is read, where an output has the wrong kind or would destroy an input."""
    if targets.out.suffix.lower() != ".png":
        raise UsageError(f"out: label maps are written as PNG, so {targets.out} must end in .png")
    if targets.probabilities is not None and targets.probabilities.suffix.lower() not in SUFFIXES:
        raise UsageError(f"save-probabilities: {targets.probabilities} must end in .npz or .npy")
    for option, path in (("overlay", targets.overlay), ("compare", targets.compare)):
        if path is not None:
            try:
                format_of(path)
            except ValueError as error:
                raise UsageError(f"{option}: {error}") from None
    outputs = [path.resolve() for path in targets.paths()]
    for path in inputs:
        if path.resolve() in outputs:
            raise UsageError(f"out: {path} is read as an input and would be overwritten")
    if len(set(outputs)) < len(outputs):
        raise UsageError("out: two of the outputs have the same path")


def _segment_by_strokes(
    image: Path, source: Path, void: Value | None, targets: Targets, iterations: int, seed: int
) -> None:
    drawn, found = read_strokes(source, void)
    photo = rgb_pixels(upright(open_image(image), drawn.indices.shape))
    start = time.perf_counter()
    with training_progress(f"learning {image.name}") as progress:
        try:
            result = segment_strokes(
                photo,
                drawn.indices,
                void=UNSURE,
                iterations=iterations,
                seed=seed,
                probabilities=targets.probabilities is not None,
                progress=progress,
            )
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    seconds = time.perf_counter() - start
    _write(photo, drawn, result, targets)
    height, width = result.labels.shape
    given = drawn.indices != UNSURE
    names = drawn.style.names()
    print(
        f"segmented {image} ({width} x {height}) in {seconds:.1f} s from strokes of {len(names)} classes"
        f" ({', '.join(names[:12])}{', ...' * (len(names) > 12)}) on {given.mean():.1%} of the pixels; {found}"
    )
    print(f"{np.mean(result.labels[given] == drawn.indices[given]):.1%} of the stroke pixels kept their class")
    for path in targets.paths():
        print(f"wrote {path}")


@contextmanager
def training_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, as a function of (steps done, steps in all)."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _write(photo: np.ndarray, drawn: LabelMap, result: Segmentation, targets: Targets) -> None:
    """All outputs; the label map comes last: where it stands, everything does."""
    if targets.overlay is not None:
        write_image(targets.overlay, draw_overlay(photo, result.labels, drawn.style.colours()))
    if targets.probabilities is not None and result.probabilities is not None:
        write_predictions(targets.probabilities, result.probabilities)
    if targets.compare is not None:
        write_image(targets.compare, compare_figure(photo, drawn.indices, drawn.style, result))
    write_labels(targets.out, result.labels, drawn.style)


def compare_figure(photo: np.ndarray, strokes: np.ndarray, style: LabelStyle, result: Segmentation):
    """Photograph, strokes, network alone and network with CRF-RNN side by side, each at most `PANEL` pixels long."""
    step = -(-max(photo.shape) // PANEL)
    colours = style.colours()
    small = np.ascontiguousarray(photo[::step, ::step])
    panels = [
        ("photograph", small),
        ("strokes", draw_strokes(small, strokes[::step, ::step], colours)),
        ("network alone", draw_overlay(small, result.network_labels[::step, ::step], colours)),
        ("network with CRF-RNN", draw_overlay(small, result.labels[::step, ::step], colours)),
    ]
    return side_by_side(panels)
