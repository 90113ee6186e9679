"""`crfrnn demo`: a photograph and a few strokes in, a whole segmentation out."""

import importlib
import shlex
import time
from pathlib import Path

import numpy as np

from crfrnn.data.files import writing
from crfrnn.data.images import write_image
from crfrnn.data.labels import UNSURE, read_labels, write_labels
from crfrnn.data.overlay import draw_overlay
from crfrnn.data.figure import draw_strokes, side_by_side
from crfrnn.presets import parse_kernel
from crfrnn.refine import refine

STROKES = Path(__file__).with_name("strokes.png")  # 9 labels painted on the photo by hand; index 0 is no label
CREDIT = "Eileen Collins, photograph by NASA, in the public domain"
KERNELS = ("bilateral:30,10,10", "spatial:3,6")
NORMALIZATION = "symmetric"
CONFIDENCE = 0.9
WARM_UP = 16  # pixels of a first call, which loads the kernels


def run_demo(out: str = "crfrnn-demo") -> None:
    """Segment a photograph from a few strokes, and draw the result beside them.

    Needs no input: the photograph comes with scikit-image, the strokes with this package.

    Args:
        out: the folder for the pictures.
    """
    photo = load_photo()
    strokes = read_labels(STROKES, unsure=0)
    probabilities = strokes.probabilities(CONFIDENCE)
    kernels = [parse_kernel(text) for text in KERNELS]

    def timed(size: int) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        crop = photo[:size, :size], probabilities[:, :size, :size]
        return refine(*crop, kernels=kernels, normalization=NORMALIZATION), time.perf_counter() - start

    _, loading = timed(WARM_UP)
    marginals, seconds = timed(max(photo.shape))
    labels, colours = marginals.argmax(axis=0), strokes.style.colours()
    overlay = draw_overlay(photo, labels, colours)
    drawn = draw_strokes(photo, strokes.indices, colours)
    figure = side_by_side([("photograph", photo), ("rough input: a few strokes", drawn), ("refined", overlay)])

    folder = Path(out)
    write_image(folder / "photo.png", photo)
    with writing(folder / "strokes.png") as file:
        file.write(STROKES.read_bytes())
    write_labels(folder / "labels.png", labels, strokes.style)
    write_image(folder / "overlay.png", overlay)
    write_image(folder / "comparison.png", figure)

    given = np.mean(strokes.indices != UNSURE)
    height, width = labels.shape
    print(f"photo: {CREDIT}, {width} x {height} pixels, from scikit-image")
    print(f"input: strokes for {len(colours)} labels on {given:.0%} of the pixels, right with p = {CONFIDENCE}")
    print(f"refined in {seconds:.2f} s; before that, {loading:.1f} s to load the kernels")
    print(f"wrote {folder / 'comparison.png'} (the picture to look at), labels.png and overlay.png beside it")
    print(f"the same by hand: {shlex.join(by_hand(folder))}")


def load_photo() -> np.ndarray:
    """The portrait of an astronaut, (512, 512, 3) uint8; a ValueError with the remedy without scikit-image."""
    try:
        return importlib.import_module("skimage.data").astronaut()
    except ImportError:
        raise ValueError('the photo comes with scikit-image: pip install "crfrnn[demo]"') from None


def by_hand(folder: Path) -> list[str]:
    """The command that does the demo's work on the files that it left."""
    command = ["crfrnn", "refine", str(folder / "photo.png"), "--labels", str(folder / "strokes.png"), "--unsure", "0"]
    command += ["--confidence", str(CONFIDENCE), "--normalization", NORMALIZATION]
    for kernel in KERNELS:
        command += ["--kernel", kernel]
    return [*command, "--out", "refined.png"]
