"""What a release says of itself in several files is one and the same."""

import re

import pytest
import yaml

from crfrnn import __version__
from tests.support.places import ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPE = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CONDA_NAMES = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}


def test_one_version():
    assert PROJECT["version"] == RECIPE["context"]["version"] == CITATION["version"] == __version__
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_conda_recipe_asks_for_what_pip_asks_for():
    recipe = dict(text.split(" ") for text in RECIPE["requirements"]["run"])
    for text in PROJECT["dependencies"]:
        name, bound = text.split(">=")
        name = name.partition("[")[0]
        assert recipe[CONDA_NAMES.get(name, name.lower())] == f">={bound}"
    assert recipe["python"] == PROJECT["requires-python"]


def test_licences_are_named_where_tools_look():
    assert PROJECT["license"] == RECIPE["about"]["license"]
    assert PROJECT["license-files"] == RECIPE["about"]["license_file"]
    weights = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "crfrnn").rglob("*.safetensors"))
    named = re.findall(r"^crfrnn/.*\.safetensors$", (ROOT / "LICENSE-MODELS.txt").read_text(), re.MULTILINE)
    assert sorted(named) == weights


def test_the_lower_bounds_are_what_the_documents_say():
    bounds = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', str(PROJECT["dependencies"]).replace("'", '"')))
    for page in ("docs/start.md", "docs/zh/start.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"Python {PROJECT['requires-python'].lstrip('>=')}" in text
        assert f"PyTorch {bounds['torch']}" in text
