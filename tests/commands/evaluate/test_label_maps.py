"""`crfrnn evaluate --ground-truth`: overlap and surfaces of label maps."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crfrnn.cli import main
from tests.support import command
from tests.support.volumes import AFFINE, SPACING, case, nibabel, save

pytest.importorskip("monai", reason="pip install 'crfrnn[volumes]'")
SIZE = (20, 24, 28)
run = partial(command.run, "evaluate")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """truth/ with two boxes, moved/ with the first of them one voxel along z."""
    nibabel()
    monkeypatch.chdir(tmp_path)
    for name in ("truth", "moved"):
        Path(name).mkdir()
    for number in range(2):
        truth = np.zeros(SIZE, np.int16)
        truth[5:15, 6:18, 8:20] = 2
        save(f"truth/{number}.nii.gz", truth)
        save(f"moved/{number}.nii.gz", np.roll(truth, 1 - number, axis=0))
    return tmp_path


def scores(*arguments: str) -> list[dict]:
    assert run(*arguments, "--ground-truth", "truth", "--out", "e") == 0
    return json.loads(Path("e/scores.json").read_text())


def test_a_box_that_moved(capsys):
    """By hand: 10 planes of which 9 are right, then 10 of 10; the surfaces are at most one plane apart."""
    (moved,) = scores("moved")
    assert moved["images"] == 2
    assert moved["dice"]["2"] == pytest.approx((0.9 + 1) / 2)
    assert moved["iou"]["2"] == pytest.approx(19 / 21)
    assert moved["hausdorff"]["2"] == pytest.approx(SPACING[0] / 2, rel=1e-5)  # of one image 2.5, of the other 0
    assert 0 < moved["mean_distance"]["2"] < SPACING[0] / 2
    assert (moved["dice"]["1"], moved["hausdorff"]["0"]) == (None, None)
    out = capsys.readouterr().out
    assert "HD95 mm" in out
    assert f"{100 * 0.95:.2f}" in out


def border(mask: np.ndarray) -> np.ndarray:
    """(N, 3), the voxels of a mask with a face outside of it."""
    around = np.pad(mask, 1)
    inside = np.logical_and.reduce([np.roll(around, step, axis) for axis in range(3) for step in (-1, 1)])
    return np.argwhere(around & ~inside) - 1


def test_distances_beside_loops():
    """Two balls around one point: from every voxel on one surface to the nearest on the other."""
    z, y, x = np.indices((19, 19, 19)) - 9
    balls = [(z**2 + y**2 + x**2 <= radius**2).astype(np.uint8) for radius in (8, 6)]
    for name, ball in zip(("truth", "moved"), balls, strict=True):
        for number in range(2):
            save(f"{name}/{number}.nii.gz", ball)
    one, other = (border(ball > 0) * SPACING for ball in balls)
    apart = np.sqrt(((one[:, None] - other[None]) ** 2).sum(-1))
    nearest = apart.min(1), apart.min(0)
    (moved,) = scores("moved")
    assert moved["mean_distance"]["1"] == pytest.approx(np.concatenate(nearest).mean(), rel=1e-5)
    assert moved["hausdorff"]["1"] == pytest.approx(max(np.percentile(far, 95) for far in nearest), rel=1e-5)


def test_before_and_after_a_crf(capsys):
    one = case()
    for name in ("images", "p"):
        Path(name).mkdir()
    for number in range(2):
        save(f"images/{number}.nii.gz", one.image)
        np.savez(f"p/{number}.npz", probabilities=one.probabilities)
        save(f"truth/{number}.nii.gz", one.truth)
    assert main(("refine", "images", "--probabilities=p", "--out=refined", "--standardize")) == 0
    before, after = scores("p", "refined")
    assert before["dice"]["1"] == pytest.approx(
        2 * (one.probabilities[1] > 0.5)[one.truth == 1].sum() / ((one.probabilities[1] > 0.5).sum() + one.truth.sum())
    )
    assert after["dice"]["1"] > before["dice"]["1"] + 0.1
    assert after["mean_distance"]["1"] < before["mean_distance"]["1"]


def test_void_and_missing():
    truth = np.zeros(SIZE, np.uint8)
    truth[:5], truth[5:10] = 1, 255
    save("truth/0.nii.gz", truth)
    save("moved/0.nii.gz", np.where(truth == 255, 2, truth))
    (moved,) = scores("moved")
    assert (moved["dice"]["1"], moved["missing"]["1"], moved["missing"]["2"]) == (1, 0, 0)
    save("moved/0.nii.gz", np.zeros(SIZE, np.uint8))
    (moved,) = scores("moved")
    assert (moved["dice"]["1"], moved["missing"]["1"], moved["hausdorff"]["1"]) == (0, 1, None)


def test_one_file_and_photographs():
    assert run("moved/0.nii.gz", "--ground-truth=truth/0.nii.gz") == 0
    Image.fromarray(np.eye(9, dtype=np.uint8)).save("a.png")
    assert run("a.png", "--ground-truth=a.png", "--out=e") == 0
    assert json.loads(Path("e/scores.json").read_text())[0]["hausdorff"]["1"] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Path("moved/1.nii.gz").unlink(), "moved: has nothing for 1 of the truths, such as truth/1.nii.gz"),
        (
            lambda: save("moved/1.nii.gz", np.full(SIZE, 7.0)),
            "moved/1.nii.gz: holds class 7, the truths have 3 classes",
        ),
        (lambda: save("moved/1.nii.gz", np.ones(SIZE), 2 * AFFINE), "moved/1.nii.gz: another affine"),
        (
            lambda: save("truth/1.nii.gz", np.full(SIZE, -2.0)),
            "truth/1.nii.gz: holds -2, and class numbers are 0 to 254",
        ),
        (lambda: save("moved/9.nii.gz", np.ones(SIZE)), "moved/9.nii.gz: no image 9.* in truth"),
    ],
)
def test_refusals(make, message, capsys):
    make()
    assert run("moved", "--ground-truth=truth") == 1
    assert message in capsys.readouterr().err
    assert run("moved") == 2
    assert run("moved", "--ground-truth=truth", "--data=c.yaml") == 2
