"""A data set of scribbles from one of masks, and the recipes of the experiment with it."""

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.make_scribbles import make_scribbles
from crfrnn.commands.train.options import CRFConfig
from crfrnn.commands.train.recipe import build_crf
from crfrnn.data.config import read_data_config
from crfrnn.data.splits import open_split
from tests.support.places import ROOT

RECIPES = sorted((ROOT / "docs/experiments/scribbles").glob("*.yaml"))
CONFIG = {"data": {"name": "folders", "root": "x", "options": {"classes": ["ground", "thing"]}}}


def test_training_masks_are_strokes_and_all_others_are_as_they_were(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    for number in range(8):
        for folder, shape in (("images", (60, 80, 3)), ("masks", (60, 80))):
            place = tmp_path / "data" / folder / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            mask = np.zeros(shape, np.uint8)
            mask[10 + number : 40 + number, 20:60] = 1
            Image.fromarray(mask).save(place)
    shares = [make_scribbles(tmp_path / "c.yaml", tmp_path / "data", tmp_path / name, 0.05) for name in "ab"]
    assert shares[0] == shares[1]
    assert 0.02 < shares[0] < 0.08
    splits = {}
    for name in ("data", "a", "b"):
        config = read_data_config(tmp_path / "c.yaml", str(tmp_path / name))
        splits[name] = {
            s: [open_split(config, s)[k] for k in range(len(open_split(config, s)))] for s in ("train", "val")
        }
    for full, one, other in zip(*(splits[name]["train"] for name in ("data", "a", "b")), strict=True):
        drawn = one.mask != 255
        assert (one.mask == other.mask).all()
        assert (one.mask[drawn] == full.mask[drawn]).all()
        assert set(one.mask[drawn].tolist()) == {0, 1}
        assert drawn.float().mean() < 0.1
        assert (one.image == full.image).all()
    for full, one in zip(splits["data"]["val"], splits["a"]["val"], strict=True):
        assert (one.mask == full.mask).all()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_rows_of_the_recipes_fit_their_stages(path):
    recipe = yaml.safe_load(path.read_text())
    stages, seen = [stage["name"] for stage in recipe["stages"]], set()
    for name, row in recipe["rows"].items():
        assert set(row["stages"]) <= set(stages)
        assert row.get("after") in {None, *seen}
        seen.add(name)
    assert [name for name, row in recipe["rows"].items() if row.get("base")] == ["partial cross-entropy"]
    build_crf(CRFConfig(**recipe["crf"]), 3)
