"""Training from end to end on data that the tests make: it learns, stops in good order, and goes on exactly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from crfrnn.cli import main
from crfrnn.commands.evaluate.evaluate import measure
from crfrnn.commands.train.options import CRFConfig, HardwareConfig, NetworkConfig, StageConfig, TrainOptions
from crfrnn.commands.train.train import train
from crfrnn.data.config import Augmentation, DataConfig
from crfrnn.data.datasets import Folders
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.unary import UNARIES
from tests.support import made
from tests.support.tiny import Tiny

pytest.importorskip("lightning", reason="training needs the extra train")
from crfrnn.commands.train.stage import fit, keeper
from tests.support.places import ROOT

KERNELS = ["bilateral:8,30,3", "spatial:2,1"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch, torch_threads):
    torch_threads(1)
    monkeypatch.setitem(UNARIES, "tiny", Tiny)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return made.make_folders(tmp_path_factory.mktemp("scenes"), count=6)


def recipe(root: Path, **changes) -> TrainOptions:
    """Two stages of three epochs of three batches."""
    stage = {"epochs": 3, "batch_size": 2, "learning_rate": 0.02}
    options = {
        "data": DataConfig("folders", str(root), options=made.FOLDERS, workers=0, augmentation=Augmentation(flip=0.5)),
        "network": NetworkConfig("tiny"),
        "stages": [
            StageConfig("network", **stage),
            StageConfig("end-to-end", crf="trained", learning_rates={"crf.": 0.1}, **stage),
        ],
        "crf": CRFConfig(kernels=KERNELS, iterations=2, eval_iterations=3),
        "hardware": HardwareConfig(accelerator="cpu", save_minutes=60),
    }
    return TrainOptions(**options | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_run(first: Path, second: Path) -> None:
    """The same weights to the last bit, and the same log but for the seconds."""
    expected, got = weights(first), weights(second)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    for stage in ("network", "end-to-end"):
        logs = [(folder / stage / "log.csv").read_text().splitlines() for folder in (first, second)]
        assert [line.rsplit(",", 1)[0] for line in logs[0]] == [line.rsplit(",", 1)[0] for line in logs[1]]
        assert len(logs[0]) == 4


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory) -> Path:
    """The run that others are compared with; made before `tiny` comes, so with its own single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(UNARIES, "tiny", Tiny)
            folder = tmp_path_factory.mktemp("run") / "whole"
            train(recipe(root, out=str(folder)))
    finally:
        torch.set_num_threads(threads)
    return folder


def test_it_learns(root, tmp_path):
    stage = {"batch_size": 3, "weight_decay": 0.0, "schedule": "cosine"}
    stages = [
        StageConfig("network", epochs=15, learning_rate=0.2, **stage),
        StageConfig("end-to-end", epochs=4, crf="trained", learning_rate=0.02, learning_rates={"crf.": 0.05}, **stage),
    ]
    data = DataConfig("folders", str(root), val="train", options=made.FOLDERS, workers=0)
    with pytest.raises(ValueError, match=r"^data: root: .*absent"):  # nothing is written where the data are wrong
        train(recipe(root / "absent", stages=stages, out=str(tmp_path / "run")))
    train(recipe(root, stages=stages, data=data, out=str(tmp_path / "run")))
    rows = [line.split(",") for line in (tmp_path / "run/network/log.csv").read_text().splitlines()]
    at = rows[0].index("loss")
    assert float(rows[-1][at]) < 0.2 * float(rows[1][at])
    done = json.loads((tmp_path / "run/end-to-end/done.json").read_text())
    assert done["mean_iou"] > 0.9
    network = SegmentationNetwork.from_pretrained(tmp_path / "run/model")
    image, mask = made.scene(0)
    assert (network.predict(image) == mask)[:-2].mean() > 0.95
    assert network.class_names == made.FOLDERS["classes"]
    assert network.crf is not None
    assert not torch.equal(network.crf.compatibility, 1 - torch.eye(3))  # it was trained


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 9, 10, 13])
def test_ctrl_c_anywhere_and_the_same_command_goes_on(root, uninterrupted, tmp_path, monkeypatch, capsys, stop_after):
    count = 0
    former = keeper.Keeper.on_train_batch_end

    def counting(self, *arguments, **options):
        nonlocal count
        count += 1
        former(self, *arguments, **options)
        if count == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(keeper.Keeper, "on_train_batch_end", counting)
    handler = signal.getsignal(signal.SIGINT)
    stage, after = divmod(stop_after, 9)
    name = ("network", "end-to-end")[stage]
    where = (
        f"in stage {name}, epoch {after // 3 + 1} of 3, after {after % 3} of 3 batches" if after else "at the end of"
    )
    with pytest.raises(KeyboardInterrupt, match=f"^interrupted {where}.*; the same command goes on from there"):
        train(recipe(root, out=str(tmp_path / "run")))
    assert signal.getsignal(signal.SIGINT) is handler
    assert "once more stops at once" in capsys.readouterr().err
    train(recipe(root, out=str(tmp_path / "run")))
    assert_same_run(uninterrupted, tmp_path / "run")
    assert count == 18  # no batch was trained on twice, none was left out


@pytest.mark.parametrize("batch", [1, 2])
def test_a_cluster_s_sigterm(root, uninterrupted, tmp_path, monkeypatch, batch):
    former = fit.SegmentationTask.training_step
    count = 0

    def ended(self, *arguments):
        nonlocal count
        count += 1
        if count == 3 + batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return former(self, *arguments)

    monkeypatch.setattr(fit.SegmentationTask, "training_step", ended)
    with pytest.raises(KeyboardInterrupt, match="goes on from the last saved state"):
        train(recipe(root, out=str(tmp_path / "run")))
    train(recipe(root, out=str(tmp_path / "run")))
    assert_same_run(uninterrupted, tmp_path / "run")
    assert count == 18


def test_a_second_ctrl_c_stops_at_once(root, uninterrupted, tmp_path, monkeypatch):
    former = fit.SegmentationTask.training_step

    def twice(self, batch, batch_idx):
        if self.position.epoch == 1 and self.position.batch == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return former(self, batch, batch_idx)

    monkeypatch.setattr(fit.SegmentationTask, "training_step", twice)
    with pytest.raises(KeyboardInterrupt, match="goes on from the last saved state"):
        train(recipe(root, out=str(tmp_path / "run")))
    monkeypatch.undo()
    monkeypatch.setitem(UNARIES, "tiny", Tiny)
    train(recipe(root, out=str(tmp_path / "run")))
    assert_same_run(uninterrupted, tmp_path / "run")


def test_a_file_that_goes_bad_in_the_middle(root, uninterrupted, tmp_path, monkeypatch):
    data = shutil.copytree(root, tmp_path / "data")
    image = data / "images/train/02.png"
    whole = image.read_bytes()
    former = keeper.Keeper.on_train_epoch_end

    def spoil(self, trainer, pl_module):
        former(self, trainer, pl_module)
        if pl_module.position.epoch == 1 and image.read_bytes() == whole:
            image.write_bytes(whole[:50])

    monkeypatch.setattr(keeper.Keeper, "on_train_epoch_end", spoil)
    with pytest.raises(
        ValueError, match=r"02\.png: not a readable image .*; mend or remove it, and the same"
    ) as caught:
        train(recipe(data, out=str(tmp_path / "run")))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(keeper.Keeper, "on_train_epoch_end", former)
    image.write_bytes(whole)
    train(recipe(data, out=str(tmp_path / "run")))
    assert_same_run(uninterrupted, tmp_path / "run")


def test_a_validation_file_that_goes_bad(root, tmp_path, monkeypatch):
    data = shutil.copytree(root, tmp_path / "data")
    monkeypatch.setattr(
        keeper.Keeper, "on_train_start", lambda *_: (data / "images/val/04.png").write_bytes(b"\x89PNG")
    )
    with pytest.raises(ValueError, match=r"val.04\.png: not a readable image"):
        train(recipe(data, out=str(tmp_path / "run")))


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_validate_on_every_image_once(tmp_path):
    """Five images on two processes: the mIoU that they log together is the one that one process measures."""
    root = made.make_folders(tmp_path / "data", count=5)
    config = tmp_path / "recipe.yaml"
    data = {"name": "folders", "root": str(root), "options": made.FOLDERS, "test": "val", "workers": 0}
    stages = [{"name": "only", "epochs": 2, "batch_size": 2, "learning_rate": 0.05}]
    hardware = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    config.write_text(
        yaml.safe_dump({"data": data, "network": {"unary": "tiny"}, "stages": stages, "hardware": hardware})
    )
    command = [sys.executable, "-m", "tests.support.train_process", str(config), str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=200)
    rows = [line.split(",") for line in (tmp_path / "run/only/log.csv").read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == ["2", "4"]  # updates: five images, four a batch on both together
    network = SegmentationNetwork.from_pretrained(tmp_path / "run/model")
    (measured,) = measure(network, {"none": None}, Folders(root, "val", **made.FOLDERS), "both")
    assert measured.scores.mean_iou == pytest.approx(max(float(row[4]) for row in rows), rel=1e-5)


@pytest.mark.slow
def test_kill_9_and_the_same_command_comes_to_the_same_result(root, uninterrupted, tmp_path):
    """In a process of its own, which is killed as soon as it has saved a state in the middle of an epoch."""
    config = tmp_path / "recipe.yaml"
    flip, crf = {"flip": 0.5}, {"kernels": KERNELS, "iterations": 2, "eval_iterations": 3}
    stage = {"epochs": 3, "batch_size": 2, "learning_rate": 0.02}
    stages = [
        {"name": "network", **stage},
        {"name": "end-to-end", "crf": "trained", "learning_rates": {"crf.": 0.1}, **stage},
    ]
    data = {"name": "folders", "root": str(root), "options": made.FOLDERS, "workers": 0, "augmentation": flip}
    hardware = {"accelerator": "cpu", "save_minutes": 0}
    parts = {"data": data, "network": {"unary": "tiny"}, "stages": stages, "crf": crf, "hardware": hardware}
    config.write_text(yaml.safe_dump(parts))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tests.support.train_process", str(config), str(run)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    state = run / "network" / "last.ckpt"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if state.exists():
            process.kill()
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    assert not (run / "end-to-end" / "log.csv").exists()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert_same_run(uninterrupted, run)


def test_done_is_done(root, uninterrupted, tmp_path, capsys):
    run = shutil.copytree(uninterrupted, tmp_path / "run")
    stamp = (run / "end-to-end" / "last.ckpt").stat().st_mtime_ns
    train(recipe(root, out=str(run)))
    assert (run / "end-to-end" / "last.ckpt").stat().st_mtime_ns == stamp
    assert "end-to-end: validation mIoU" in capsys.readouterr().out
    (run / "end-to-end" / "done.json").unlink()  # killed after the last epoch, before the stage was closed
    train(recipe(root, out=str(run)))
    assert json.loads((run / "end-to-end" / "done.json").read_text())["epochs"] == 3
    assert_same_run(uninterrupted, run)


def test_another_recipe_in_the_same_folder(root, uninterrupted, tmp_path):
    run = shutil.copytree(uninterrupted, tmp_path / "run")
    with pytest.raises(ValueError, match=r"^out: .* another recipe \(seed 0 there, 7 here\); give another --out"):
        train(recipe(root, out=str(run), seed=7))
    train(recipe(root, out=str(run), seed=7, overwrite=True))
    assert not torch.equal(weights(run)["unary.layers.0.weight"], weights(uninterrupted)["unary.layers.0.weight"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"^out: .* holds other files"):
        train(recipe(root, out=str(tmp_path / "other"), overwrite=True))
    (run / "network" / "done.json").unlink()
    (run / "network" / "last.ckpt").write_bytes(b"PK cut short")
    with pytest.raises(ValueError, match=r"last\.ckpt: not a readable checkpoint"):
        train(recipe(root, out=str(run), seed=7))


def test_a_run_that_never_began_is_in_nobody_s_way(root, tmp_path):
    data = shutil.copytree(root, tmp_path / "data")
    (data / "masks/val/01.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"01\.png"):
        train(recipe(data, out=str(tmp_path / "run")))
    train(recipe(root, stages=stages_of(), out=str(tmp_path / "run"), seed=3))
    assert (tmp_path / "run" / "model" / "config.json").exists()


def stages_of(**changes) -> list[StageConfig]:
    return [StageConfig("only", **{"epochs": 2, "batch_size": 2, "learning_rate": 0.02} | changes)]


def test_patience_ends_a_stage_and_the_best_epoch_stays(root, tmp_path):
    run = tmp_path / "run"
    train(recipe(root, stages=stages_of(epochs=30, learning_rate=1e-12, patience=2), out=str(run)))
    done = json.loads((run / "only" / "done.json").read_text())
    assert done["epochs"] < 30
    rows = (run / "only" / "log.csv").read_text().splitlines()[1:]
    scores = [float(row.split(",")[4]) for row in rows]
    assert len(rows) == done["epochs"] == scores.index(max(scores)) + 3
    assert done["mean_iou"] == pytest.approx(max(scores), rel=1e-5)


def test_a_separate_crf_leaves_the_network_alone(root, uninterrupted, tmp_path):
    start = uninterrupted / "network" / "best"
    network = NetworkConfig("tiny", weights=str(start))
    stages = stages_of(crf="separate", learning_rates={"crf.": 0.1})
    train(recipe(root, network=network, stages=stages, out=str(tmp_path / "run")))
    before, after = load_file(start / "model.safetensors"), weights(tmp_path / "run")
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # batch statistics too
    assert not torch.equal(after["crf.compatibility"], 1 - torch.eye(3))


@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 2}, {"optimiser": "adamw"}, {"class_weights": "balanced", "gradient_clip": 1.0, "warm_up": 2}],
    ids=["accumulate", "adamw", "weights"],
)
def test_other_stages(root, tmp_path, changes):
    train(recipe(root, stages=stages_of(**changes), out=str(tmp_path / "run")))
    updates = (tmp_path / "run" / "only" / "log.csv").read_text().splitlines()[-1].split(",")[1]
    assert int(updates) == (4 if "accumulate" in changes else 6)


def test_mixed_precision(root, tmp_path):
    hardware = HardwareConfig(accelerator="cpu", precision="bf16-mixed")
    train(recipe(root, hardware=hardware, out=str(tmp_path / "run")))
    assert {value.dtype for value in weights(tmp_path / "run").values()} <= {torch.float32, torch.int64}


BAD = {
    "hardware": (HardwareConfig(accelerator="abacus"), r"^hardware: .*abacus"),
    "network": (NetworkConfig("alexnet"), r"^unary: 'alexnet' is none of"),
    "stages": (stages_of(learning_rates={"crf.": 1}), r"^learning_rates: no parameter of stage 'only'"),
}


@pytest.mark.parametrize("part", BAD)
def test_recipes_that_cannot_be(root, tmp_path, part):
    value, reason = BAD[part]
    with pytest.raises(ValueError, match=reason) as caught:
        train(recipe(root, **{part: value}, out=str(tmp_path / "run")))
    assert "\n" not in str(caught.value)


def test_weights_of_another_number_of_classes(root, uninterrupted, tmp_path):
    data = DataConfig("folders", str(root), options=made.FOLDERS | {"classes": ["a", "b", "c", "d"]}, workers=0)
    network = NetworkConfig("tiny", weights=str(uninterrupted / "model"))
    with pytest.raises(ValueError, match=r"^weights: .* has 3 classes, but the data have 4"):
        train(recipe(root, data=data, network=network, out=str(tmp_path / "run")))


def test_files_that_do_not_fit_stop_it_before_it_begins(root, tmp_path, capsys):
    data = shutil.copytree(root, tmp_path / "data")
    (data / "masks/val/01.png").write_bytes(b"\x89PNG")
    (data / "masks/val/02.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"^data: .*01\.png: .* and 1 more; crfrnn data check"):
        train(recipe(data, out=str(tmp_path / "run")))
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"data": {"name": "folders", "root": "x", "options": made.FOLDERS}}))
    assert main(["data", "check", str(config), "--root", str(data)]) == 1
    out, err = capsys.readouterr()
    assert "train: 6 images, 32 x 24 (6), 91.7% of the pixels labelled, 8.3% void" in out
    assert err.count("\n") == 3
    assert err.startswith("crfrnn data check: 2 problems\n  ")
    assert main(["data", "check", str(config), "--root", str(root)]) == 0
    assert capsys.readouterr().out.endswith("no problems found\n")


def test_a_crf_at_another_size_than_the_photographs_is_told(root, tmp_path, capsys):
    sizes = (16, 12), None
    small, large = (DataConfig("folders", str(root), size=size, options=made.FOLDERS, workers=0) for size in sizes)
    larger = "bilateral:8,30,3 spatial:2,1 are bilateral:16,30,3 spatial:4,1 in photographs of 32 x 24\n"
    for number, (data, crf, notes) in enumerate([(small, "trained", 1), (small, "none", 0), (large, "trained", 0)]):
        stages = [StageConfig("only", epochs=1, crf=crf)]
        train(recipe(root, data=data, stages=stages, out=str(tmp_path / str(number))))
        out = capsys.readouterr().out
        assert out.count(f"note: crf: kernels count in pixels of 16 x 12 (data.size): {larger}") == notes
        assert "note" not in out or notes
