"""What is shown of names that are not ours: plain text on a terminal and elsewhere."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crfrnn.cli import main
from crfrnn.commands.progress import steps_bar
from tests.support.places import ROOT

NAMES = ["a\x1b[2Jb", "a{0}b", "[bold red]", "\x07", os.fsdecode(b"\xff")]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_kinds(tmp_path: Path, monkeypatch, capsys, name, terminal):
    monkeypatch.chdir(tmp_path)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    for folder in ("photos", "maps"):
        Path(folder).mkdir()
        Image.fromarray(np.eye(12, dtype=np.uint8)).save(f"{folder}/{name}.png")
    one = ["refine", f"photos/{name}.png", "--labels", f"maps/{name}.png", "--iterations", "1"]
    assert main([*one, "--out", f"{name}.png"]) == 0
    assert main(["refine", "photos", "--labels", "maps", "--iterations", "1", "--out", f"{name}-all"]) == 0
    assert Path(f"{name}-all/{name}.png").is_file()
    assert main([*one[:3], f"maps/none-{name}.png", "--out", "x.png"]) == 1
    shown = capsys.readouterr()
    assert not {"\x1b[2J", "\x07", os.fsdecode(b"\xff")} & {part for part in NAMES if part in shown.out + shown.err}
    assert "\x1b" not in shown.out
    assert f"wrote {name}.png" in shown.out or not name.isprintable()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_is_shown_where_somebody_looks(monkeypatch, terminal):
    """On a terminal, with the names as plain text, gone at the end; nothing goes into files and pipes."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    with steps_bar("a\x1b[2Jb") as progress:
        for done in range(4):
            progress(done, 3)
    shown = screen.getvalue()
    assert bool(shown) == terminal
    assert ("3" in shown) == terminal
    assert "\x1b[2J" not in shown


CELL = """from crfrnn.commands.progress import steps_bar
with steps_bar("fitting") as progress:
    for done in range(4):
        progress(done, 3)
"""


def test_a_bar_is_shown_in_a_notebook():
    """Where nothing is a terminal; nobody is told to install widgets."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(ROOT))
    shown = "".join(output.get("text", str(output.get("data"))) for output in notebook.cells[0].outputs)
    assert "fitting" in shown
    assert "0/3" in shown
    assert "Warning" not in shown
