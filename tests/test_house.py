"""The plan of the house: eleven rooms, arrows that go down, modules that are what their names say."""

import ast
import functools
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import crfrnn
from tests.support.places import ROOT

PACKAGE = ROOT / "crfrnn"
ROOMS = {"runtime", "filtering", "inference", "losses", "networks", "data", "commands", "web", "pydensecrf"}
FILES = {"parameters.py", "layer.py", "bilateralfilter.py", "cli.py", "__init__.py", "__main__.py", "py.typed"}


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    files = {path.relative_to(ROOT).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


def imports(path: Path, names: dict[str, Path]) -> set[str]:
    """The modules that this one imports, those included whose whole name is a text in it: `load` is given these."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & names.keys()) or {str(node.module)}
    return found & names.keys()


@functools.cache
def arrows() -> set[tuple[str, str]]:
    """(who, whom) for every import. The root is left out: its lazy names stand above all rooms."""
    names = modules()
    found = {(who, whom) for who, path in names.items() for whom in imports(path, names)}
    return {(who, whom) for who, whom in found if "crfrnn" not in (who, whom) and who != whom}


def layers(contract: dict) -> dict[str, int]:
    """The floor of each place in a contract, from above."""
    inside = contract.get("containers", [""])[0]
    floors = {}
    for floor, layer in enumerate(contract["layers"]):
        for name in layer.split("|"):
            floors[f"{inside}.{name.strip()}".lstrip(".")] = floor
    return floors


def test_rooms():
    there = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__" and path.suffix != ".pyi"}
    assert there == ROOMS | FILES


def test_strings_count_as_imports():
    """The table of implementations, the fused twins and the verbs are loaded by name: the test must see them."""
    assert ("crfrnn.filtering.methods", "crfrnn.filtering.permutohedral.lattice_cpu") in arrows()
    assert ("crfrnn.inference.fused.choice", "crfrnn.inference.fused.recurrence_gpu") in arrows()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            texts = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
            pieces = [text for text in texts if re.search(r"\bcrfrnn(\.\w+)*\.$", text)]
            assert not pieces, f"{name} puts a module's name together, which nobody can follow: {pieces}"


def test_no_arrow_goes_up():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] != "layers":
            continue
        floors = layers(contract)

        def floor(module: str, floors: dict[str, int] = floors) -> int | None:
            return next((n for place, n in floors.items() if f"{module}.".startswith(f"{place}.")), None)

        for who, whom in arrows():
            above, below = floor(who), floor(whom)
            if above is not None and below is not None:
                assert above <= below, f"{who} imports {whom}, which lies above it"


def test_no_circles():
    """Depth first: whoever is met again before it is left closes a circle."""
    targets: dict[str, list[str]] = {}
    for who, whom in sorted(arrows()):
        targets.setdefault(who, []).append(whom)
    left: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in left:
            for whom in targets.get(module, ()):
                visit(whom, (*way, module))
            left.add(module)

    for module in modules():
        visit(module, ())


# In a process of its own: every module is imported, and must then be found under its whole name by `import a.b.c as m`.
IMPORT_ALL = """
import importlib, json, sys, functools, types
missing, wrong = [], []
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert not error.name.startswith("crfrnn"), name
        missing.append(error.name)
        continue
    first, *rest = name.split(".")
    if functools.reduce(getattr, rest, sys.modules[first]) is not sys.modules[name]:
        wrong.append(name)
import crfrnn
wrong += [name for name in ("refine", "fit", "mean_field") if isinstance(getattr(crfrnn, name), types.ModuleType)]
print(json.dumps([missing, wrong]))
"""


def test_every_module_is_found_under_its_name():
    names = json.dumps(sorted(set(modules()) - {"crfrnn.__main__"}))
    command = [sys.executable, "-c", IMPORT_ALL, names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    missing, wrong = json.loads(done.stdout.splitlines()[-1])
    assert set(missing) <= {"gradio", "starlette", "lightning", "triton"}
    assert wrong == []


def test_no_module_at_the_root_has_the_name_of_a_public_function():
    homes = {"cluster": "crfrnn.commands.cluster", "losses": "crfrnn.losses", "solvers": "crfrnn.inference.solvers"}
    assert {name: getattr(crfrnn, name).__name__ for name in homes} == homes
    for name, path in itertools.product(set(crfrnn.__all__) - homes.keys(), PACKAGE.iterdir()):
        assert path.stem != name


def test_files_are_not_too_long():
    """400 lines at most; one subject each is seen at a glance."""
    for name, path in modules().items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{name} has {lines} lines"


def test_unknown_names_at_the_root():
    with pytest.raises(AttributeError, match="has no attribute 'Segmentation'"):
        _ = crfrnn.Segmentation
    assert set(crfrnn.__all__) <= set(dir(crfrnn))
    assert set(crfrnn.__all__) == set(crfrnn._HOMES)
