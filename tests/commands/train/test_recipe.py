"""Recipes: the files in configs/ are whole and fit their networks; parameter groups, schedules, refusals."""

import dataclasses
from pathlib import Path

import pytest
import torch

from crfrnn.cli import build_parser, main, make_options
from crfrnn.commands.train.options import (
    CRFConfig,
    DenseCRFLossConfig,
    GatedCRFLossConfig,
    HardwareConfig,
    LossConfig,
    NetworkConfig,
    StageConfig,
    TrainOptions,
)
from crfrnn.commands.train.recipe import (
    build_crf,
    build_network,
    build_optimiser,
    parameter_groups,
    rate_factor,
    settings_that_differ,
)
from crfrnn.data.config import DataConfig
from crfrnn.data.datasets import DATASETS, Classes, camvid, voc
from tests.support.places import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
CLASSES = {"camvid": camvid.CLASSES, "voc2012": voc.CLASSES, "folders": Classes(("background", "thing"))}


def read(path: Path) -> TrainOptions:
    """As the command line reads it."""
    parser = build_parser()
    return make_options(parser, parser.parse_args(["train", "--config", str(path), "--out", "x"]), "train")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_can_be_trained(path):
    recipe = read(path)
    assert recipe.data.name in DATASETS
    assert [stage.crf for stage in recipe.stages] == ["none", "trained"]
    assert (recipe.crf.iterations, recipe.crf.eval_iterations) == (5, 10)
    bare = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, weights=None))
    for stage in recipe.stages:
        with torch.device("meta"):
            network = build_network(bare, stage, CLASSES[recipe.data.name])
        groups = parameter_groups(network, stage)
        assert len(groups) > 1
        assert set(stage.learning_rates.values()) <= {group["lr"] for group in groups}


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which `crfrnn train` refuses c.yaml."""
    try:
        status = main(["train", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("epoch: 60", "epochs: 60", "epoch"),
        ("unari:", "unary:", "unari"),
        ("crf: both", "crf: trained", "'both' is none of"),
    ],
)
def test_slips_in_a_configuration_are_one_line(tmp_path, capsys, wrong, right, said):
    text = (CONFIGS[0].parent / "folders.yaml").read_text()
    assert right in text
    (tmp_path / "c.yaml").write_text(text.replace(right, wrong))
    error = refusal(tmp_path, capsys)
    assert error.startswith("crfrnn")
    assert said in error


LOSS = """crf: trained
    loss:
      cross_entropy: 0.5
      dense_crf: {weight: 2.0e-3, kernels: ["bilateral:50,15,1", "spatial:3,0.1"], gate: true}
      gated_crf: {radius: 3}"""


def test_a_loss_in_a_recipe(tmp_path):
    text = (CONFIGS[0].parent / "folders.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("crf: trained", LOSS))
    first, last = read(tmp_path / "c.yaml").stages
    assert first.loss == LossConfig()
    dense = DenseCRFLossConfig(2e-3, ("bilateral:50,15,1", "spatial:3,0.1"), gate=True)
    assert last.loss == LossConfig(0.5, dense, GatedCRFLossConfig(radius=3))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("cross_entropy: 0.5", "cross_entropy: -1", "loss.cross_entropy: must be at least 0"),
        ("gate: true", "gates: true", "gates"),
        ('"spatial:3,0.1"', '"spatial:x"', "kernels: 'spatial:x'"),
        ("weight: 2.0e-3", "weight: -1", "weight: must be at least 0"),
        ("radius: 3", "radius: -3", "radius: expected whole pixels"),
        ("radius: 3", "scale: 2", "loss.gated_crf.scale: must be above 0 and at most 1"),
    ],
)
def test_slips_in_a_loss_are_one_line(tmp_path, capsys, right, wrong, said):
    assert right in LOSS
    text = (CONFIGS[0].parent / "folders.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("crf: trained", LOSS.replace(right, wrong)))
    assert said in refusal(tmp_path, capsys)


def test_there_is_a_configuration_for_each_of_them():
    assert {path.stem for path in CONFIGS} == {"camvid", "folders", "voc2012-deeplab", "voc2012-fcn8s"}


def network(stage: StageConfig, **options):
    data, unary = DataConfig("camvid", "x"), NetworkConfig("fast-scnn")
    recipe = TrainOptions(data=data, network=unary, stages=[stage], crf=CRFConfig(**options), out="run")
    return build_network(recipe, stage, camvid.CLASSES)


def test_parameter_groups():
    rates = {"crf.": 0.1, "crf.compatibility": 0.2, "unary.downsample": 0}
    stage = StageConfig("s", 1, crf="trained", learning_rate=0.3, learning_rates=rates, weight_decay=0.01)
    built = network(stage)
    groups = parameter_groups(built, stage)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, parameter in built.named_parameters():
        if name.startswith("unary.downsample"):
            assert id(parameter) not in found
            assert not parameter.requires_grad
        else:
            rate = {"crf.compatibility": 0.2, "crf.kernel_weights": 0.1}.get(name, 0.3)
            decay = 0.01 if parameter.dim() > 1 and name.startswith("unary.") else 0.0
            assert found[id(parameter)] == (rate, decay), name


def test_stages_differ_in_their_crf():
    assert network(StageConfig("s", 1)).crf is None
    trained = network(StageConfig("s", 1, crf="trained"), preset="deeplab-v2", kernel_weights="scalar", iterations=3)
    assert trained.crf is not None
    assert (trained.crf.iterations, trained.crf.normalization) == (3, "symmetric")
    assert trained.crf.kernel_weights.shape == (2, 1)
    assert trained.class_names == list(camvid.CLASSES.names)
    separate = network(StageConfig("s", 1, crf="separate"))
    assert separate.separate
    assert {name.split(".")[0] for name, p in separate.named_parameters() if p.requires_grad} == {"crf"}
    frozen = StageConfig("s", 1, learning_rates={"unary.": 0})
    with pytest.raises(ValueError, match=r"^learning_rate: every parameter .* is frozen"):
        parameter_groups(network(frozen), frozen)


def test_optimisers():
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        stage = StageConfig("s", 1, optimiser=name, momentum=0.7)
        optimiser = build_optimiser(torch.nn.Linear(2, 2), stage)
        assert isinstance(optimiser, kind)
        assert name == "adamw" or optimiser.param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_schedules(schedule):
    stage = StageConfig("s", 1, schedule=schedule, power=0.9)
    factors = [rate_factor(stage, update, 10) for update in range(11)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(1 if schedule == "constant" else 0, abs=1e-6)
    expected = {"poly": 0.5**0.9, "cosine": 0.5, "constant": 1}
    assert factors[5] == pytest.approx(expected[schedule])
    rising = StageConfig("s", 1, schedule="constant", warm_up=4)
    assert [rate_factor(rising, update, 10) for update in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_kernels_in_place_of_a_preset():
    crf = build_crf(CRFConfig(kernels=["bilateral:30,10,4"], normalization="before"), 3)
    assert crf.kernel_weights.tolist() == [[4, 4, 4]]
    assert crf.normalization == "before"


def test_settings_that_differ():
    first = {"a": 1, "b": {"c": [1, 2], "d": 3}}
    assert list(settings_that_differ(first, first)) == []
    second = {"a": 1, "b": {"c": [1, 5], "e": 3}}
    assert list(settings_that_differ(first, second)) == [
        "b.c.1 2 there, 5 here",
        "b.d 3 there, None here",
        "b.e None there, 3 here",
    ]


def layer(**options):
    return build_crf(CRFConfig(**options), 3)


WHATEVER = {"data": DataConfig("camvid", "x"), "network": NetworkConfig(), "out": "run"}


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (StageConfig, {"name": "../x", "epochs": 1}, "name"),
        (StageConfig, {"name": "model", "epochs": 1}, "name"),
        (StageConfig, {"name": "s", "epochs": 0}, "epochs"),
        (StageConfig, {"name": "s", "epochs": 1, "crf": "both"}, "crf"),
        (StageConfig, {"name": "s", "epochs": 1, "batch_size": 0}, "batch_size"),
        (StageConfig, {"name": "s", "epochs": 1, "optimiser": "adam"}, "optimiser"),
        (StageConfig, {"name": "s", "epochs": 1, "schedule": "step"}, "schedule"),
        (StageConfig, {"name": "s", "epochs": 1, "learning_rate": -1}, "learning_rate"),
        (StageConfig, {"name": "s", "epochs": 1, "learning_rates": {"crf": float("inf")}}, r"learning_rates\.crf"),
        (StageConfig, {"name": "s", "epochs": 1, "class_weights": "yes"}, "class_weights"),
        (layer, {"preset": "best"}, "preset"),
        (layer, {"kernels": ["bilateral:1"]}, "kernels"),
        (layer, {"normalization": "no"}, "normalization"),
        (layer, {"kernel_weights": "all"}, "kernel_weights"),
        (HardwareConfig, {"log": "paper"}, "log"),
        (HardwareConfig, {"machines": 0}, "machines"),
        (TrainOptions, WHATEVER | {"stages": []}, "stages"),
        (TrainOptions, WHATEVER | {"stages": [StageConfig("s", 1)] * 2}, "stages"),
        (TrainOptions, WHATEVER | {"stages": [StageConfig("s", 1)], "seed": -1}, "seed"),
    ],
)
def test_refusals(kind, options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        kind(**options)
