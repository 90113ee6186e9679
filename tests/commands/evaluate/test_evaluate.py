"""Evaluation on data that the tests make: the numbers, the table, the curve, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageColor

from crfrnn.cli import main
from crfrnn.commands.evaluate import evaluate as evaluate_module
from crfrnn.commands.evaluate.evaluate import measure
from crfrnn.commands.evaluate.results import Result, as_markdown, as_text, draw_boundary_curves
from crfrnn.commands.metrics import Evaluation, Scores
from crfrnn.data.datasets import Folders
from crfrnn.data.drawing.chart import COLOURS, SCALE, WHOLE
from crfrnn.layer import CRFRNN
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.unary import UNARIES
from crfrnn.parameters import parse_kernel
from tests.support import made
from tests.support.tiny import Tiny

KERNELS = [parse_kernel(text) for text in ("bilateral:8,40,3", "spatial:2,2")]


def network(classes: int = 3, crf: bool = True) -> SegmentationNetwork:
    torch.manual_seed(0)
    layer = CRFRNN(classes, kernels=KERNELS, eval_iterations=4) if crf else None
    return SegmentationNetwork(Tiny(classes), layer).eval()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(UNARIES, "tiny", Tiny)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with data, their configuration, and two networks: plain/ and joint/."""
    monkeypatch.chdir(tmp_path)
    made.make_folders(tmp_path / "data", count=3)
    options = {"name": "folders", "root": "data", "test": "val", "options": made.FOLDERS, "workers": 0}
    Path("c.yaml").write_text(yaml.safe_dump({"data": options, "out": "unused"}))
    network(crf=False).save_pretrained("plain")
    network().save_pretrained("joint")
    return tmp_path


def by_hand(crf: CRFRNN | None, iterations: int | None = None) -> Scores:
    """`crf` on the untrained network's logits for the validation split, counted at once."""
    dataset = Folders("data", "val", **made.FOLDERS)
    model, evaluation = network(), Evaluation(3, radii=())
    with torch.no_grad():
        for sample in (dataset[index] for index in range(3)):
            logits = model.unary_logits(model.normalize(sample.image[None]))
            refined = logits if crf is None else crf(logits, sample.image[None], iterations)
            evaluation.add(refined[0].argmax(0), sample.mask)
    return evaluation.scores()


def test_measure(folder):
    dataset, model = Folders("data", "val", **made.FOLDERS), network()
    separate = CRFRNN(3, kernels=KERNELS[:1], kernel_weights="scalar").eval()
    results = measure(model, {"none": None, "separate": separate, "trained": model.crf}, dataset, "m")
    assert model.crf is not None
    for result, crf in zip(results, (None, separate, model.crf), strict=True):
        expected = by_hand(crf)
        assert result.scores.mean_iou == expected.mean_iou
        assert result.scores.iou.tolist() == pytest.approx(expected.iou.tolist(), nan_ok=True)
    assert [result.iterations for result in results] == [0, 10, 4]
    assert [result.crf_seconds > 0 for result in results] == [False, True, True]
    assert results[0].scores.pixel_accuracy != results[2].scores.pixel_accuracy
    assert max(results[0].trimaps) == 20
    once = measure(model, {"trained": model.crf}, dataset, "m", iterations=1)[0]
    assert once.scores.mean_iou == by_hand(model.crf, 1).mean_iou


def test_a_table_of_several(folder, capsys):
    arguments = ["plain", "joint", "--data", "c.yaml", "--crf", "none,separate,trained", "--kernel", "spatial:3,2"]
    assert main(["evaluate", *arguments, "--out", "results"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "plain: has no" not in out  # it has a row without one
    rows = [line.split()[:2] for line in out.splitlines() if line.startswith(("plain", "joint"))]
    kinds = [["plain", "none"], ["plain", "separate"], ["joint", "none"], ["joint", "separate"], ["joint", "trained"]]
    assert rows == kinds
    written = json.loads(Path("results/scores.json").read_text())
    assert [[row["model"], row["crf"]] for row in written] == kinds
    assert written[0]["mean_iou"] == pytest.approx(by_hand(None).mean_iou)
    assert list(written[0]["iou"]) == made.FOLDERS["classes"]
    assert f"{100 * written[4]['mean_iou']:.2f}" in out
    table = Path("results/table.md").read_text()
    assert table.count("\n| joint | ") == 3
    with Image.open("results/boundary.png") as image:
        assert len(image.getcolors(1 << 20) or ()) > 5


def test_a_separate_crf_counts_in_pixels_of_the_scaled_photographs(folder, capsys):
    section = {"name": "folders", "root": "data", "test": "val", "options": made.FOLDERS, "size": [16, 12]}
    Path("small.yaml").write_text(yaml.safe_dump({"data": section}))
    for data, notes in (("small.yaml", 1), ("c.yaml", 0)):
        assert main(["evaluate", "plain", "--data", data, "--crf", "none,separate", "--kernel", "spatial:3,2"]) == 0
        said = (
            "note: crf: kernels count in pixels of 16 x 12 (data.size): spatial:3,2 are spatial:6,2 in photographs of"
        )
        assert capsys.readouterr().out.count(said) == notes


def test_what_is_left_out(folder, capsys):
    assert main(["evaluate", "--data=c.yaml", "--crf", "trained", "plain", "joint", "--split", "train"]) == 0
    out = capsys.readouterr().out
    assert "plain: has no trained CRF, left out" in out
    assert "3 images of folders, train" in out
    assert main(["evaluate", "plain", "--data", "c.yaml", "--crf", "trained"]) == 1
    assert "crf: none of the models has a trained CRF" in capsys.readouterr().err


def test_the_pairs_that_there_are(folder, capsys):
    Path("data/masks/val/01.png").unlink()
    assert main(["evaluate", "joint", "--data", "c.yaml"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "note: 2 images are measured; left out: 1 of the images (no mask in data/masks/val)"
    assert "2 images of folders, val, on cpu" in lines
    for path in Path("data/masks/val").iterdir():
        path.unlink()
    assert main(["evaluate", "joint", "--data", "c.yaml"]) == 1
    assert "data: the split 'val' of data is empty; left out: 3 of the images" in capsys.readouterr().err


def test_doubts_are_said_first(folder, capsys, monkeypatch):
    """Masks stored as 0 and 255, of which only the ground counts."""
    for path in Path("data/masks/val").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == mask[0, 0], 0, 255).astype(np.uint8)).save(path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_module, "measure", interrupt)
    assert main(["evaluate", "joint", "--data", "c.yaml"]) == 130
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("note: 2 of 3 classes never occur in the truth (")
    assert "is void" in second
    assert "store them as 0 and 1" in second


USAGE = {
    "no model": ["--data", "c.yaml"],
    "no data": ["plain"],
    "crf": ["plain", "--data", "c.yaml", "--crf", "mine"],
    "iterations": ["plain", "--data", "c.yaml", "--iterations", "-1"],
    "preset": ["plain", "--data", "c.yaml", "--crf", "separate", "--preset", "best"],
    "preset of no separate": ["plain", "--data", "c.yaml", "--preset", "pydensecrf"],
    "normalization": ["plain", "--data", "c.yaml", "--crf", "separate", "--normalization", "no"],
}
FAILING = {
    "no such model": ["no/such/model", "--data", "c.yaml"],
    "no such data": ["plain", "--data", "absent.yaml"],
    "no such split": ["plain", "--data", "c.yaml", "--split", "best"],
    "no such root": ["plain", "--data", "c.yaml", "--root", "absent"],
    "no such device": ["plain", "--data", "c.yaml", "--device", "abacus"],
    "other classes": ["four", "--data", "c.yaml"],
    "bad image": ["plain", "--data", "c.yaml", "--split", "train"],
}


@pytest.mark.parametrize("case", [*USAGE, *FAILING])
def test_refusals_are_one_line(folder, capsys, case):
    if case == "other classes":
        network(classes=4).save_pretrained("four")
    Path("data/images/train/01.png").write_bytes(b"\x89PNG")
    try:
        status = main(["evaluate", *(USAGE | FAILING)[case], "--out", "results"])
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert status == (2 if case in USAGE else 1)
    assert err.startswith("crfrnn")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert out == ""
    assert not Path("results").exists()
    if case == "other classes":
        assert "four has 4 classes, but the data have 3" in err


def result(values: list[float], name: str = "a") -> Result:
    def score(value: float) -> Scores:
        return Scores(torch.tensor([value]), value, value)

    trimaps = {radius: score(value) for radius, value in enumerate(values, 1)}
    return Result(name, "none", 0, score(values[-1]), trimaps, 0.1, 0.0)


def test_curves():
    better, worse = result([0.5, 0.6, 0.7], "better"), result([0.3, float("nan"), 0.4], "worse")
    pixels = np.asarray(draw_boundary_curves([better, worse]))[:, : SCALE * WHOLE.width]  # without the legend
    first, second = (np.argwhere((pixels == ImageColor.getrgb(colour)).all(-1)) for colour in COLOURS[:2])
    assert len(first) > 500
    assert first[:, 0].mean() < second[:, 0].mean()  # a better curve is higher
    with pytest.raises(ValueError, match="no pixel is close to a boundary"):
        draw_boundary_curves([result([float("nan")])])


def test_tables():
    rows = [["class", "a"], ["sky | sea", "7.50"]]
    assert as_text(rows) == "class         a\nsky | sea  7.50"
    assert as_markdown(rows) == "| class | a |\n|---|---|\n| sky \\| sea | 7.50 |\n"
    assert result([float("nan")]).as_json(["a"])["mean_iou"] is None
