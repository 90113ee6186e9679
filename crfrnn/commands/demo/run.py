"""`crfrnn demo`: a photograph and a few strokes in, a whole segmentation out."""

import importlib
import shlex
import time
from pathlib import Path

import numpy as np

from crfrnn.commands.demo.options import DemoOptions
from crfrnn.commands.progress import steps_bar
from crfrnn.commands.segment.licence import say_licence
from crfrnn.commands.segment.segment import segment_strokes
from crfrnn.commands.segment.stroke_features import MODEL
from crfrnn.data.drawing.figure import compare_segmentation
from crfrnn.data.drawing.overlay import draw_overlay
from crfrnn.data.files import writing
from crfrnn.data.images import write_image
from crfrnn.data.labels import UNSURE, write_labels
from crfrnn.data.strokes import read_strokes

STROKES = Path(__file__).with_name("strokes.png")  # 4 classes on the photo; drawn by benchmarks/stroke_photos.py
CREDIT = "Chelsea the cat, by Stefan van der Walt, CC0"


def run_demo(options: DemoOptions) -> None:
    """What the options ask for; a ValueError without scikit-image."""
    photo = load_photo()
    say_licence(MODEL)
    strokes, _ = read_strokes(STROKES)
    start = time.perf_counter()
    with steps_bar("learning from the strokes") as progress:
        result = segment_strokes(photo, strokes.indices, void=UNSURE, progress=progress)
    seconds = time.perf_counter() - start
    colours = strokes.style.colours()

    folder = Path(options.out)
    write_image(folder / "photo.png", photo)
    with writing(folder / "strokes.png") as file:
        file.write(STROKES.read_bytes())
    write_labels(folder / "labels.png", result.labels, strokes.style)
    write_image(folder / "overlay.png", draw_overlay(photo, result.labels, colours))
    figure = compare_segmentation(photo, strokes.indices, result.network_labels, result.labels, colours)
    write_image(folder / "comparison.png", figure)

    drawn = np.mean(strokes.indices != UNSURE)
    height, width = result.labels.shape
    print(f"photo: {CREDIT}, {width} x {height} pixels, from scikit-image")
    print(f"input: strokes for {len(colours)} classes on {drawn:.0%} of the pixels")
    print(f"what resembles them and a CRF-RNN labelled the rest in {seconds:.1f} s")
    print(f"wrote {folder / 'comparison.png'} (the picture to look at), labels.png and overlay.png beside it")
    print(f"the same by hand: {shlex.join(by_hand(folder))}")


def load_photo() -> np.ndarray:
    """The portrait of a cat, (300, 451, 3) uint8; a ValueError with the remedy without scikit-image."""
    try:
        return importlib.import_module("skimage.data").chelsea()
    except ImportError:
        raise ValueError('the photo comes with scikit-image: pip install "crfrnn[demo]"') from None


def by_hand(folder: Path) -> list[str]:
    """The command that does the demo's work on the files that it left."""
    command = ["crfrnn", "segment", str(folder / "photo.png"), "--strokes", str(folder / "strokes.png")]
    return [*command, "--out", "segmented.png"]
