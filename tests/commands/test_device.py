"""--device: what it names, which verbs compute there, and one line where that cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn.cli import main
from crfrnn.commands.device import device_of
from tests.support.rasters import save

REFINE = ("refine", "cat.png", "--probabilities", "cat.npy", "--out", "out.png")
SEGMENT = ("segment", "cat.png", "--out", "out.png")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    """The current folder, with cat.png and cat.npy."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0)
    Image.fromarray(numbers.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save("cat.png")
    np.save("cat.npy", numbers.dirichlet(np.ones(3), (8, 9)).transpose(2, 0, 1).astype(np.float32))


def test_auto_is_a_gpu_where_there_is_one():
    assert device_of("cpu").type == "cpu"
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "meta", ""])
@pytest.mark.parametrize("verb", [REFINE, SEGMENT], ids=["refine", "segment"])
def test_what_cannot_be_used_is_one_line(capsys, verb, name):
    assert main([*verb, f"--device={name}"]) == 1
    error = capsys.readouterr().err
    assert f"device: {name} cannot be used here, say cpu or auto (" in error
    assert error.count("\n") == 1
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("refine", "scene.tif", *REFINE[2:], "--device=cuda"), "device: rasters are refined on CPUs, not on cuda"),
        ((*SEGMENT, "--strokes=s.png", "--device=cuda:1"), "device: strokes are learned on CPUs, not on cuda:1"),
        ((*REFINE, "--ray=local", "--device=cuda"), "with --ray say --ray-gpus"),
        ((*SEGMENT, "--ray=local", "--device=auto"), "with --ray say --ray-gpus"),
    ],
)
def test_where_it_means_nothing(capsys, command, message):
    save("scene.tif", np.zeros((3, 8, 9), np.uint8))
    assert main([*command]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_work_is_done_there(monkeypatch, capsys):
    """On a device whose tensors have no numbers, so that whoever computes elsewhere would not fail."""
    meta = torch.device("meta")
    monkeypatch.setattr("crfrnn.commands.refine.job.device_of", lambda name: meta)
    monkeypatch.setattr("crfrnn.commands.segment.files.device_of", lambda name: meta)
    assert main([*REFINE]) == 1
    assert "on the meta device" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="on meta tensors"):
        main([*SEGMENT])
