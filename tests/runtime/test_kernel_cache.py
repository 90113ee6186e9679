"""Kernels are kept for the next process wherever that can be, and those of other sources are not taken for ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import crfrnn
from crfrnn.runtime import kernel_cache
from tests.support.places import ROOT

# A package with one kernel, made of an operation in another module; it compiles in a moment.
TINY = {
    "__init__": "",
    "operations": "from crfrnn.runtime.compiled import part\n@part\ndef twice(x):\n    return 2 * x\n",
    "kernels": "from crfrnn.runtime.compiled import kernel\nfrom tiny.operations import twice\n"
    "@kernel\ndef six_times(x):\n    return 3 * twice(x)\n",
}
CALL = "from tiny.kernels import six_times; print(six_times(7.0))"
COMPILES, CANNOT_KEEP = "compiling CPU kernels", "set NUMBA_CACHE_DIR to a folder"

pytestmark = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")


class Installed:
    """A package in a folder of its own, with nothing compiled, and a user whose folders are here too."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "temporary").mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
        self.env = {
            **inherited,
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
            "XDG_CACHE_HOME": str(folder / "user"),
            "TMPDIR": str(folder / "temporary"),
        }

    def run(self, program: str = CALL, **env: str) -> tuple[float, str]:
        """What it computes, and what it says."""
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout), done.stderr

    def refuse(self, name: str) -> None:
        """Nobody can write to this folder, not even root: it is a file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text("")

    def refuse_beside_the_source(self) -> None:
        self.refuse("tiny/__pycache__")

    def kept(self, where: str = "") -> list[Path]:
        return sorted((self.folder / where).rglob("*.nbc"))


@pytest.fixture
def tiny(tmp_path) -> Installed:
    (tmp_path / "tiny").mkdir()
    for name, text in TINY.items():
        (tmp_path / "tiny" / f"{name}.py").write_text(text)
    return Installed(tmp_path)


def test_compiled_once(tiny):
    value, said = tiny.run()
    assert value == 42
    assert COMPILES in said
    assert tiny.kept() == tiny.kept("tiny") != []
    assert tiny.run() == (42, "")


def test_changed_operation(tiny):
    """Of another file, and compiled into the kernel."""
    assert tiny.run()[0] == 42
    before = [path.name for path in tiny.kept()]
    (tiny.folder / "tiny" / "operations.py").write_text(TINY["operations"].replace("2 *", "20 *"))
    changed, said = tiny.run()
    assert changed == 420
    assert COMPILES in said
    assert [path.name for path in tiny.kept()] == before  # nothing is left behind
    assert tiny.run() == (changed, "")


@pytest.mark.slow
def test_changed_operation_of_the_package(tmp_path):
    """The separable Gaussian with twice the weights: four times the sum, as there are two axes."""
    shutil.copytree(
        Path(crfrnn.__file__).parent, tmp_path / "crfrnn", ignore=shutil.ignore_patterns("__pycache__", "*.pyi")
    )
    copy = Installed(tmp_path)
    program = (
        "import torch, crfrnn\n"
        "blur = crfrnn.Spatial(2).prepare(torch.zeros(1, 3, 9, 9), normalization='none')\n"
        "print(blur(torch.ones(1, 1, 9, 9)).sum().item())"
    )
    value, _ = copy.run(program)
    rows, once = tmp_path / "crfrnn" / "runtime" / "rows.py", "weight = v.spread(builder.load(at))"
    assert once in rows.read_text()
    rows.write_text(rows.read_text().replace(once, f"{once}; weight = v.add(weight, weight)"))
    assert copy.run(program)[0] == pytest.approx(4 * value, rel=1e-6)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:40], lambda b: b[:-1], lambda b: b[:-9] + bytes(9)],
                         ids=["empty", "begun", "cut off", "overwritten"])  # fmt: skip
def test_damaged_file(tiny, damage):
    value, _ = tiny.run()
    for path in tiny.kept():
        path.write_bytes(damage(path.read_bytes()))
    again, said = tiny.run()
    assert again == value
    assert COMPILES in said
    assert tiny.run() == (value, "")


def test_unreadable_file(tiny):
    """A folder in its place: neither to be read nor to be replaced."""
    value, _ = tiny.run()
    for path in tiny.kept():
        path.unlink()
        path.mkdir()
    assert tiny.run()[0] == value
    assert tiny.run() == (value, "")  # from the user's folder
    assert tiny.kept("user")


def test_chosen_folder(tiny):
    value, _ = tiny.run(NUMBA_CACHE_DIR=str(tiny.folder / "chosen"))
    assert tiny.kept() == tiny.kept("chosen") != []
    assert tiny.run(NUMBA_CACHE_DIR=str(tiny.folder / "chosen")) == (value, "")


def test_what_is_there_serves_where_nobody_may_write(tiny):
    """As the kernels that a container's image was built with."""
    value, _ = tiny.run()
    files = tiny.kept()
    tiny.refuse("user")
    tiny.refuse("temporary/file")
    assert tiny.run(TMPDIR=str(tiny.folder / "temporary" / "file")) == (value, "")
    assert tiny.kept() == files


def test_user_folder(tiny):
    tiny.refuse_beside_the_source()
    value, said = tiny.run()
    assert COMPILES in said
    assert CANNOT_KEEP not in said
    assert tiny.kept() == tiny.kept("user") != []
    assert tiny.run() == (value, "")


def test_temporary_folder(tiny):
    """A user without a home, as in containers: the system's folder, and there only what belongs to the user."""
    tiny.refuse_beside_the_source()
    tiny.refuse("user")
    value, said = tiny.run()
    assert CANNOT_KEEP not in said
    assert tiny.kept() == tiny.kept("temporary") != []
    assert tiny.run() == (value, "")
    for folder in (tiny.folder / "temporary").iterdir():
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o777)  # somebody else may have written this
    assert COMPILES in tiny.run()[1]


def test_nowhere(tiny):
    """It works all the same, and says once what it costs and how to mend it."""
    program = "import tempfile; tempfile.tempdir = '/dev/null/none'; " + CALL
    tiny.refuse_beside_the_source()
    tiny.refuse("user")
    for _ in range(2):
        value, said = tiny.run(program)
        assert said.count(COMPILES) == said.count(CANNOT_KEEP) == 1
        assert "Traceback" not in said
    assert tiny.kept() == []
    assert value == tiny.run()[0]
    assert CANNOT_KEEP in tiny.run(NUMBA_CACHE_DIR="/dev/null/none")[1]


def test_sources():
    """Of the files that a kernel is compiled from none is left out, and none that has nothing to do with it."""
    names = set(kernel_cache.sources("crfrnn.inference.fused.numba_cpu"))
    assert {"crfrnn.runtime.rows", "crfrnn.runtime.vectors", "crfrnn.runtime.compiled"} < names
    assert "crfrnn.inference.fused.softmax_cpu" in names
    assert "crfrnn.filtering.permutohedral.numba_cpu" not in names
