"""`crfrnn segment`: photographs from files, label maps and pictures of them into files."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crfrnn.data.figure import compare_segmentation
from crfrnn.data.images import format_of, open_image, rgb_pixels, upright, write_image
from crfrnn.data.labels import UNSURE, LabelMap, Value, parse_unsure, write_labels
from crfrnn.data.overlay import draw_overlay
from crfrnn.data.predictions import SUFFIXES, write_predictions
from crfrnn.data.progress import steps_bar
from crfrnn.data.strokes import read_strokes
from crfrnn.errors import UsageError
from crfrnn.segment import Segmentation, segment_strokes


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
    with steps_bar(f"learning {image.name}") as progress:
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


def _write(photo: np.ndarray, drawn: LabelMap, result: Segmentation, targets: Targets) -> None:
    """All outputs; the label map comes last: where it stands, everything does."""
    if targets.overlay is not None:
        write_image(targets.overlay, draw_overlay(photo, result.labels, drawn.style.colours()))
    if targets.probabilities is not None and result.probabilities is not None:
        write_predictions(targets.probabilities, result.probabilities)
    if targets.compare is not None:
        both = (result.network_labels, result.labels)
        write_image(targets.compare, compare_segmentation(photo, drawn.indices, *both, drawn.style.colours()))
    write_labels(targets.out, result.labels, drawn.style)
