"""`crfrnn evaluate --predictions`: anybody's predictions against the truth."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn.commands.metrics import Evaluation
from tests.support import command

IMAGES, SIZE, CLASSES = 5, (30, 40), 3
run = partial(command.run, "evaluate")


@pytest.fixture(autouse=True)
def truths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """truth/, p/ with probabilities of which a fifth is wrong, and r/ with label maps that are right but for a row."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("truth", "p", "r"):
        Path(folder).mkdir()
    truths = []
    for number in range(IMAGES):
        truth = np.zeros(SIZE, np.uint8)
        truth[8:20, 5 + number : 25], truth[22:, 30:], truth[:2] = 1, 2, 255
        truths.append(truth)
        Image.fromarray(truth).save(f"truth/{number}.png")
        called = np.where(rng.random(SIZE) < 0.2, rng.integers(0, CLASSES, SIZE), np.where(truth == 255, 0, truth))
        np.savez(f"p/{number}.npz", (np.eye(CLASSES)[called] + 0.1).transpose(2, 0, 1).astype(np.float32))
        refined = np.where(truth == 255, 1, truth)
        refined[10] = 2
        Image.fromarray(refined).save(f"r/{number}.png")
    return truths


def called(folder: str, number: int) -> np.ndarray:
    if folder == "p":
        return np.load(f"p/{number}.npz")["arr_0"].argmax(0)
    return np.asarray(Image.open(f"r/{number}.png"))


def test_scores_and_gain(truths: list[np.ndarray], capsys: pytest.CaptureFixture[str]):
    """Beside the evaluation of networks, which counts rings of confusion matrices."""
    assert run("--predictions", "p", "--truth", "truth", "--refined", "r", "--out", "scores") == 0
    out = capsys.readouterr().out
    found = json.loads(Path("scores/scores.json").read_text())
    expected = {}
    for name, folder in (("predictions", "p"), ("refined", "r")):
        evaluation = Evaluation(CLASSES, radii=(2, 5))
        for number, truth in enumerate(truths):
            evaluation.add(torch.from_numpy(called(folder, number).astype(np.int64)), torch.from_numpy(truth).long())
        every = {"mIoU": evaluation.scores(), **{f"mIoU {r} px": s for r, s in evaluation.trimaps().items()}}
        expected[name] = {measure: score.mean_iou for measure, score in every.items()}
        assert found[name].pop("iou") == pytest.approx(evaluation.scores().iou.tolist(), rel=1e-12)
        assert found[name] == pytest.approx(expected[name], rel=1e-12)
        assert f"{100 * expected[name]['mIoU']:.2f}" in out
    for measure, gained in found["gain"].items():
        assert gained["value"] == pytest.approx(expected["refined"][measure] - expected["predictions"][measure])
        assert gained["low"] <= gained["value"] <= gained["high"]
    assert found["images"] == IMAGES
    assert "| gain |" in Path("scores/table.md").read_text()


def test_one_file_and_a_class_that_no_truth_has(truths: list[np.ndarray], capsys: pytest.CaptureFixture[str]):
    """By hand: calling it is wrong, and its own IoU does not count."""
    prediction = np.where(truths[0] == 2, 7, truths[0])
    Image.fromarray(prediction).save("one.png")
    assert run("--predictions", "one.png", "--truth", "truth/0.png") == 0
    out = capsys.readouterr().out
    assert out.startswith("1 image\n")
    assert "66.67" in out  # 1, 1 and 0
    assert "gain" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--predictions", "p"], "truth: --predictions and --truth belong together"),
        (["--predictions", "p", "--truth", "truth", "net"], "model: needs no model: give --predictions alone"),
        (["p", "--ground-truth", "truth", "--refined", "r"], "refined: belongs to --predictions"),
        ([], "data: give one of --data for networks, --predictions, and --ground-truth"),
        (["--data", "c.yaml"], "model: give networks, or folders of labels"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(f"crfrnn evaluate: {said}")


def test_a_truth_without_prediction_and_another_size(capsys: pytest.CaptureFixture[str]):
    Path("p/3.npz").unlink()
    assert run("--predictions", "p", "--truth", "truth") == 1
    assert "p: has nothing for 1 of the truths, such as truth/3.png" in capsys.readouterr().err
    Image.fromarray(np.zeros((30, 41), np.uint8)).save("r/2.png")
    assert run("--predictions", "r", "--truth", "truth") == 1
    assert "r/2.png: (30, 41), but truth/2.png has (30, 40)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--predictions", "absent", "--truth", "truth"], "absent: there is no such file or folder"),
        (["--predictions", "p/0.npz", "--truth", "truth"], "p/0.npz: is one file, and truth is a folder; give the"),
        (["--predictions", "p", "--truth", "truth/0.png"], "p: is a folder, and truth/0.png is one truth; give the"),
        (["--predictions", "logits.npy", "--truth", "truth/0.png"], "logits.npy: one plane is the probability of the"),
    ],
)
def test_paths_and_planes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    np.save("logits.npy", np.linspace(-3, 5, 1200, dtype=np.float32).reshape(SIZE))
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"crfrnn evaluate: {said}")
    assert error.count("\n") == 1


def test_one_plane(truths: list[np.ndarray], capsys: pytest.CaptureFixture[str]):
    """The probability of class 1, cut at a half."""
    np.save("one.npy", np.where(truths[0] == 1, 0.6, 0.4).astype(np.float32))
    assert run("--predictions", "one.npy", "--truth", "truth/0.png", "--refined", "truth/0.png") == 0
    out = capsys.readouterr().out
    by_class = dict(line.split()[:2] for line in out.partition("class ")[2].splitlines()[1:4])
    assert (by_class["1"], by_class["2"]) == ("100.00", "0.00")
    assert "which says nothing for one image" in out
