"""Folders of saved networks that are broken: each is told in one line."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from crfrnn import CRFRNN, build_unary
from crfrnn.networks.network import SegmentationNetwork


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    SegmentationNetwork(build_unary("fast-scnn", 3), CRFRNN(3), class_names=["a", "b", "c"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: "{", r"config\.json: is not readable as JSON"),
        (lambda config: "[1]", r"config\.json: holds a list, expected settings in braces"),
        (lambda config: "{}", r"config\.json has no unary and no crf and no mean and no std; was it saved by crfrnn\?"),
        (lambda config: config | {"colour": 1}, r"config\.json has settings that do not fit .*'colour'"),
        (lambda config: config | {"unary": {"name": "resnet", "num_classes": 3}}, "unary: 'resnet' is none of"),
        (lambda config: config | {"unary": None}, r"config\.json has settings that do not fit"),
        (lambda config: config | {"crf": {"num_classes": 3}}, r"config\.json has settings that do not fit .*kernels"),
        (lambda config: config | {"crf": config["crf"] | {"kernels": [{"kind": "cubic"}]}}, "do not fit .*cubic"),
        (lambda config: config | {"class_names": ["a"]}, "num_classes: must be the same everywhere, .*class_names 1"),
        (lambda config: config | {"size": 10**6}, "size: must be at least 1 pixel and at most 8192, got 1000000"),
        (lambda config: config | {"size": "big"}, "size: must be at least 1 pixel and at most 8192, got 'big'"),
        (lambda config: config | {"mean": [float("nan")] * 3}, r"config\.json: mean\.0: nan is beyond any network"),
        (lambda config: config | {"palette": [[10**9] * 3] * 3}, r"palette\.0\.0: 1000000000 is beyond any network"),
        (
            lambda config: config | {"class_names": None, "crf": config["crf"] | {"num_classes": 10**5}, "unary": {}},
            r"config\.json has settings that do not fit",
        ),
        (lambda config: config | {"crf": [1]}, r"config\.json has settings that do not fit"),
        (lambda config: config | {"crf": config["crf"] | {"iterations": "many"}}, "iterations: must be a whole number"),
        (lambda config: 400 * "[" + 400 * "]", r"config\.json: holds a list"),
        (lambda config: config | {"crf": None}, r"does not fit the network; unknown: crf\.compatibility, crf\.kernel"),
    ],
)
def test_a_broken_config_is_told_in_one_line(saved: Path, tmp_path: Path, change, message: str):
    config = json.loads((saved / "config.json").read_text())
    changed = change(config)
    (tmp_path / "config.json").write_text(changed if isinstance(changed, str) else json.dumps(changed))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    _one_line(tmp_path, message)


def test_another_number_of_classes_in_the_weights_is_told_in_one_line(saved: Path, tmp_path: Path):
    config = json.loads((saved / "config.json").read_text())
    config |= {"class_names": None, "unary": config["unary"] | {"num_classes": 5}}
    config |= {"crf": config["crf"] | {"num_classes": 5}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    _one_line(tmp_path, r"of another shape: .*crf\.compatibility \(3, 3\) instead of \(5, 5\)")


def test_a_network_that_its_file_cannot_hold_takes_no_memory(saved: Path, tmp_path: Path):
    """100,000 classes with 10,000,000,000 numbers of compatibility."""
    config = json.loads((saved / "config.json").read_text()) | {"class_names": None}
    for part in ("crf", "unary"):
        config[part] |= {"num_classes": 10**5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    _one_line(tmp_path, r"does not fit the network, which has 10,0\d\d,\d\d\d,\d\d\d numbers; ")


def test_missing_and_broken_files_are_told_in_one_line(saved: Path, tmp_path: Path):
    _one_line(tmp_path, r"the folder holds no config\.json")
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    _one_line(tmp_path, r"the folder holds no model\.safetensors")
    whole = (saved / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    _one_line(tmp_path, r"model\.safetensors: is not readable as safetensors")
    state = load_file(saved / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if "classifier" not in name}, tmp_path / "model.safetensors"
    )
    _one_line(tmp_path, r"does not fit the network; missing: unary\.classifier\..* and \d+ more")


@pytest.mark.parametrize("name", ["unary.classifier.", "crf.kernel_weights"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(saved: Path, tmp_path: Path, name: str, bad: float):
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    state = load_file(saved / "model.safetensors")
    broken = next(key for key in state if key.startswith(name) and state[key].is_floating_point())
    state[broken].view(-1)[0] = bad
    save_file(state, tmp_path / "model.safetensors")
    _one_line(tmp_path, rf"model\.safetensors: NaN or infinity in {re.escape(broken)};")


def _one_line(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SegmentationNetwork.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
