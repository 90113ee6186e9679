"""The commands and the code of docs/rasters.md run, in its order, on the files that it makes."""

import re
import shlex

import numpy as np
import pytest

from crfrnn.cli import main
from tests.support.places import ROOT
from tests.support.rasters import load, rasterio

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
rasterio()


def test_everything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, names = (ROOT / "docs" / "rasters.md").read_text(), {}
    right = []
    for language, code in BLOCK.findall(text):
        if language == "python":
            exec(code, names)
        for line in code.splitlines() * (language == "sh"):
            program, *words = shlex.split(line)
            assert (program, main(words)) == ("crfrnn", 0), line
            labels, truth = load("labels.tif"), np.load("truth.npy")
            right.append((labels == truth)[labels != 255].mean())
    given = (np.load("p.npy").argmax(0) == truth).mean()
    assert min(right) > given + 0.1
    said = capsys.readouterr().out
    told = re.search(r"^bands 1, 2, 3, 4 standardized.*\nmasked: .*$", said, re.MULTILINE)
    assert told
    assert told.group() in text
    assert names["labels"].shape == truth.shape
    assert (names["labels"] == truth)[names["mask"]].mean() == pytest.approx(right[0], abs=0.002)
