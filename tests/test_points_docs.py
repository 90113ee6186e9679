"""The commands and the code of docs/points.md run, in its order, on the files that it makes."""

import re
import shlex

import numpy as np

from crfrnn.cli import main
from tests.support.places import ROOT

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_everything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for language, text in BLOCK.findall((ROOT / "docs" / "points.md").read_text()):
        if language == "python":
            exec(text, names)
        else:
            for line in text.splitlines():
                program, *words = shlex.split(line)
                assert (program, main(words)) == ("crfrnn", 0), line
    out = capsys.readouterr().out
    before, after = map(float, out.splitlines()[-1].split())
    assert 1 - after < (1 - before) / 2
    said = re.findall(r"attributes: intensity; .*weight 8", out)[0]
    assert said in (ROOT / "docs" / "points.md").read_text()
    with np.load("mine.npz") as mine, np.load("street.npz") as street:
        assert {*np.unique(mine["labels"])} == {2, 6, 17}
        assert np.array_equal(mine["positions"], street["positions"])
