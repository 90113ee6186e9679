"""Checks before training, and the configuration that says what to check."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from crfrnn.cli import main
from crfrnn.commands.check_data.check import check, describe
from crfrnn.data.config import DataConfig, data_config, read_data_config
from crfrnn.data.splits import open_split
from tests.support import made


@pytest.fixture
def config(tmp_path) -> DataConfig:
    return DataConfig("folders", str(made.make_folders(tmp_path / "data")), options=made.FOLDERS, workers=0)


def test_a_report_of_what_is_there(config):
    (train, val), problems = check(config, ("train", "val"))
    assert problems == []
    assert (train.split, train.samples, val.samples) == ("train", 6, 6)
    assert train.sizes == {(32, 24): 6}
    masks = [made.scene(number)[1] for number in range(6)]
    assert train.histogram.tolist() == [int(np.sum(np.stack(masks) == number)) for number in range(3)]
    assert train.void == 6 * 2 * 32


def test_every_problem_has_its_line(config):
    root = Path(config.root)
    (root / "images/train/00.png").write_bytes(b"cut short")
    Image.new("L", (5, 5)).save(root / "masks/train/01.png")
    Image.new("L", (32, 24), 77).save(root / "masks/train/02.png")
    shutil.copy(root / "masks/train/03.png", root / "images/val/99.png")
    shutil.rmtree(root / "masks/val")
    reports, problems = check(config, ("train", "val"))
    assert reports[0].samples == 6
    assert sum(reports[0].sizes.values()) == 3
    assert len(problems) == 4
    for problem, part in zip(
        problems,
        ("00.png: not a readable", "01.png: 5 x 5 pixels, but", "02.png: holds 77", "val is no folder"),
        strict=True,
    ):
        assert part in problem
        assert "\n" not in problem


def test_an_image_in_two_splits(config):
    same = DataConfig("folders", config.root, train="all", val="val", options={"classes": ["a", "b", "c"]})
    shutil.move(f"{config.root}/images/train", f"{config.root}/a")
    shutil.move(f"{config.root}/masks/train", f"{config.root}/b")
    options = {"classes": ["a", "b", "c"], "images": "a", "masks": "b", "validation_share": 0.5}
    same = DataConfig("folders", config.root, train="all", val="val", options=options, workers=0)
    _, problems = check(same, ("all", "val"))
    assert len(problems) == 1
    assert "in all and in val (" in problems[0]


def test_nothing_but_void(config):
    for path in Path(config.root, "masks/train").iterdir():
        Image.new("L", (32, 24), 255).save(path)
    _, problems = check(config, ("train",))
    assert problems == ["train: every pixel is void, there is nothing to learn from"]


def test_masks_of_0_and_255_are_doubted_in_their_split(config):
    for path in Path(config.root, "masks/val").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 1, 255, 0).astype(np.uint8)).save(path)
    reports, problems = check(config, ("train", "val"))
    assert problems == []
    notes = [line for line in describe(reports, ("ground", "red", "green")).splitlines() if line.startswith("note: ")]
    assert [note.partition(":")[2][:6] for note in notes] == [" val: "] * 2
    assert "2 of 3 classes never occur in the truth (red, green)" in notes[0]
    assert "store them as 0 and 1" in notes[1]


def test_an_empty_split(config):
    for kind in ("images", "masks"):
        shutil.rmtree(f"{config.root}/{kind}/val")
        Path(config.root, kind, "val").mkdir()
    with pytest.raises(ValueError, match=r"^data: the split 'val' of .* is empty"):
        open_split(config, "val")


def test_the_test_split_is_checked_where_there_is_one(config, tmp_path, capsys):
    section = {"name": "folders", "root": config.root, "options": made.FOLDERS}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": section}))
    command = ["data", "check", str(tmp_path / "c.yaml")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "\nnote: left out the test split: root: " in out
    assert "images/test is no folder" in out
    assert main([*command, "--splits", "test"]) == 1
    assert "images/test is no folder" in capsys.readouterr().err
    for kind in ("images", "masks"):
        shutil.copytree(f"{config.root}/{kind}/val", f"{config.root}/{kind}/test")
    assert main(command) == 0
    assert "\ntest: 6 images, 32 x 24 (6)" in capsys.readouterr().out
    Image.new("L", (32, 24), 77).save(f"{config.root}/masks/test/02.png")
    assert main(command) == 1
    assert "masks/test/02.png: holds 77, outside the 3 classes" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": section | {"test": "val"}}))
    assert main(command) == 0
    assert capsys.readouterr().out.count("val: 6 images") == 1


def test_a_configuration_from_yaml(tmp_path, config):
    path = tmp_path / "c.yaml"
    section = {
        "name": "folders",
        "root": "nowhere",
        "options": made.FOLDERS,
        "size": [16, 12],
        "augmentation": {"flip": 0.5},
    }
    path.write_text(yaml.safe_dump({"data": section, "out": "runs"}))
    read = read_data_config(path, root=config.root)
    assert read.root == config.root
    assert read.size == (16, 12)
    assert read.augmentation.flip == 0.5
    assert open_split(read, "val")[0].mask.shape == (12, 16)
    with pytest.raises(ValueError, match=r"c\.yaml: there is no such file|absent"):
        read_data_config(tmp_path / "absent.yaml")
    for content, reason in (("a: [", "not a readable YAML"), ("- 1", "expected a YAML"), ("out: x", "no section data")):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"c\.yaml: .*{reason}") as caught:
            read_data_config(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"name": "camvid"}, r"^data\.root: is missing"),
        ({"root": "x"}, r"^data\.name: is missing"),
        ({"name": "imagenet", "root": "x"}, r"^data\.name: 'imagenet' is none of camvid, "),
        ({"name": "camvid", "root": "x", "sizes": 3}, r"^data\.sizes: is none of "),
        ({"name": "camvid", "root": "x", "size": "big"}, r"^data: .*big"),
        ({"name": "camvid", "root": "x", "augmentation": {"flop": 1}}, r"^data: .*flop"),
        ({"name": "camvid", "root": "x", "augmentation": {"flip": 7}}, r"^data: flip: must lie"),
        ({"name": "camvid", "root": "x", "options": {"sbd": "y"}}, r"^data\.options: camvid takes none, not 'sbd'"),
        ({"name": "folders", "root": "x"}, r"^data\.options: folders need classes"),
        ({"name": "camvid", "root": "x", "workers": -1}, r"^data\.workers: "),
        ({"name": "camvid", "root": "x"}, r"^data: root: x.train is no folder"),
    ],
)
def test_sections_that_make_no_sense(section, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        open_split(data_config(section), "train")
    assert "\n" not in str(caught.value)
