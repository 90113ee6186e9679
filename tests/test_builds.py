"""What the build makes of the checkout: a wheel, an sdist, and a wheel without weights from either."""

import email
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from tests.support.places import ROOT

pytest.importorskip("hatchling", reason="the build's backend")
BUILD = "import sys, hatchling.build as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def built(kind: str, source: Path, into: Path, **environment: str) -> Path:
    """The wheel or sdist of a folder, as pip has it built."""
    variables = {**os.environ, "CRFRNN_WITHOUT_MODELS": "0", "PIP_BUILD_TRACKER": str(into), **environment}
    words = [sys.executable, "-c", BUILD, kind, str(into)]
    done = subprocess.run(words, cwd=source, env=variables, check=True, capture_output=True, text=True)
    return into / done.stdout.split()[-1]


def contents(wheel: Path) -> tuple[list[str], Message]:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        return names, email.message_from_bytes(file.read(metadata))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The sdist as its receiver has it."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built("sdist", ROOT, folder)) as file:
        file.extractall(folder, filter="data")
    (found,) = (path for path in folder.iterdir() if path.is_dir())
    return found


def weights(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


def licences(names: list[str]) -> list[str]:
    return sorted(name.rpartition("/")[2] for name in names if "/licenses/" in name)


def test_the_wheel_has_the_models_and_says_so(unpacked, tmp_path):
    names, metadata = contents(built("wheel", unpacked, tmp_path))
    assert len(weights(names)) == 2
    assert metadata["License-Expression"] == "MIT AND LicenseRef-crfrnn-models"
    assert licences(names) == sorted(metadata.get_all("License-File", [])) == ["LICENSE", "LICENSE-MODELS.txt"]
    assert "crfrnn/py.typed" in names


@pytest.mark.parametrize("source", ["checkout", "sdist"])
def test_a_wheel_without_models_is_mit_alone(source, unpacked, tmp_path):
    folder = ROOT if source == "checkout" else unpacked
    names, metadata = contents(built("wheel", folder, tmp_path, CRFRNN_WITHOUT_MODELS="1"))
    assert not weights(names)
    assert metadata["License-Expression"] == "MIT"
    assert licences(names) == metadata.get_all("License-File") == ["LICENSE"]
    whole, _ = contents(built("wheel", unpacked, tmp_path))
    gone = set(whole) - set(names)
    assert {name.rpartition("/")[2] for name in gone} == {"model.safetensors", "LICENSE-MODELS.txt"}


def test_the_readme_of_the_index_has_no_links_into_the_checkout(unpacked, tmp_path):
    _, metadata = contents(built("wheel", unpacked, tmp_path))
    text = str(metadata.get_payload())
    assert text.startswith("# crfrnn\n")
    left = [target for target in importlib.import_module("tests.test_docs").LINK.findall(text) if ":" not in target]
    assert not left
    assert "docs/pydensecrf.md" in text  # what a link led to is still named
    assert "\n```sh\npip install crfrnn" in text  # code is as it was


def test_an_image_is_built_from_all_that_the_build_reads(tmp_path):
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in kept:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (into := tmp_path / "dist").mkdir()
    names, metadata = contents(built("wheel", tmp_path, into))
    assert weights(names)
    assert metadata.get_payload()  # the README
    (line,) = (line for line in (ROOT / "packaging/Dockerfile").read_text().splitlines() if "-c " in line)
    assert set(re.findall(r"-c (\S+)", line)) <= set(kept)
