"""Trouble: a folder in which a killed run or somebody else left something, and a loss that runs away."""

import pytest

from crfrnn.data.files import PART, is_part
from crfrnn.networks.unary import UNARIES

pytest.importorskip("lightning", reason="training needs the extra train")
from crfrnn.commands.train.train import train
from tests.commands.train.test_train import recipe, stages_of
from tests.support import made
from tests.support.tiny import Tiny


@pytest.fixture(autouse=True)
def tiny(monkeypatch, torch_threads):
    torch_threads(1)
    monkeypatch.setitem(UNARIES, "tiny", Tiny)


def test_a_run_that_was_killed_as_it_wrote_its_recipe_begins_again(tmp_path):
    root, run = made.make_folders(tmp_path / "data", count=6), tmp_path / "run"
    run.mkdir()
    (run / PART.format("1234abcd")).write_text('{"stages": [')
    train(recipe(root, stages=stages_of(), out=str(run)))
    assert not any(map(is_part, run.rglob("*")))


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    root = made.make_folders(tmp_path / "data", count=6)
    (tmp_path / "run").mkdir()
    for text, message in (("", "is not readable as JSON"), ('{"seed": 0}', "is no recipe of a training")):
        (tmp_path / "run" / "recipe.json").write_text(text)
        with pytest.raises(ValueError, match=f"recipe.json.*{message}"):
            train(recipe(root, out=str(tmp_path / "run")))


@pytest.mark.parametrize("crf", ["none", "trained"])
def test_a_loss_that_runs_away(tmp_path, crf):
    root = made.make_folders(tmp_path / "data", count=6)
    stages = stages_of(epochs=9, learning_rate=1e30, crf=crf)
    with pytest.raises(ValueError, match=r"^learning_rate: the loss of stage only is no longer a number") as caught:
        train(recipe(root, stages=stages, out=str(tmp_path / "run")))
    assert "\n" not in str(caught.value)
