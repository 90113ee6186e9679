"""The demo: it needs no input, its pictures are there, and the command that it prints does the same."""

import importlib
import shlex

import numpy as np
import pytest
from PIL import Image

from crfrnn.cli import main
from crfrnn.commands.demo.run import STROKES, load_photo
from crfrnn.data.drawing.figure import side_by_side
from crfrnn.data.labels import UNSURE, read_labels


def test_the_demo_and_the_same_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err.count("note: the model voc is for research and other non-commercial use") == 1
    folder = tmp_path / "crfrnn-demo"
    names = ["comparison.png", "labels.png", "overlay.png", "photo.png", "strokes.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert "crfrnn-demo/comparison.png" in out
    assert "CC0" in out
    strokes = read_labels(STROKES, unsure=0)
    found = read_labels(folder / "labels.png")
    drawn = strokes.indices != UNSURE
    assert found.style.values == strokes.style.values
    assert drawn.mean() < 0.1
    assert (found.indices == strokes.indices)[drawn].mean() > 0.95
    command = next(line for line in out.splitlines() if line.startswith("the same by hand: ")).partition(": ")[2]
    assert main(shlex.split(command)[1:]) == 0
    assert (tmp_path / "segmented.png").read_bytes() == (folder / "labels.png").read_bytes()


def test_the_strokes_fit_the_photo():
    strokes = read_labels(STROKES, unsure=0)
    assert strokes.indices.shape == load_photo().shape[:2]
    assert len(strokes.style.values) == 4
    assert STROKES.stat().st_size < 20_000


def test_without_scikit_image_the_remedy_is_one_line(tmp_path, monkeypatch, capsys):
    real = importlib.import_module

    def absent(name, *rest):
        if name.startswith("skimage"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == ('crfrnn demo: the photo comes with scikit-image: pip install "crfrnn[demo]"\n')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 3])
def test_panels_stand_side_by_side(count):
    panel = np.full((50, 80, 3), 90, np.uint8)
    figure = side_by_side([("caption", panel)] * count)
    assert figure.height == 50 + 34 + 12
    assert figure.width == 12 + count * (80 + 12)
    assert (np.asarray(figure)[34:84, 12:92] == 90).all()
    assert isinstance(figure, Image.Image)


def test_captions_wider_than_their_panels_do_not_meet():
    caption = "network with CRF-RNN"
    figure = np.asarray(side_by_side([(caption, np.full((50, 80, 3), 90, np.uint8))] * 3))
    single = np.asarray(side_by_side([(caption, np.full((50, 80, 3), 90, np.uint8))]))
    assert single.shape[1] > 80 + 24
    np.testing.assert_array_equal(figure[:, : single.shape[1]], single)
