"""What the command line says of itself: its help, which nobody waits for, and warnings."""

import dataclasses
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crfrnn.cli import VERBS, build_parser, make_options, warning_format
from crfrnn.commands.examples import EXAMPLES
from tests.support.command import run
from tests.support.places import ROOT

HEAVY = ("torch", "numba", "PIL", "rich", "lightning", "gradio")


@pytest.mark.parametrize("verb", VERBS)
def test_help_tells_every_option(verb, capsys):
    assert run(*verb.split(), "--help", "all") == 0
    out = capsys.readouterr().out
    assert "--config" in out
    options = VERBS[verb].options
    described = inspect.getdoc(options) or ""
    for field in dataclasses.fields(options):
        assert (f"--{field.name.replace('_', '-')}" if field.kw_only else field.name) in out
        assert f"\n    {field.name}: " in described


@pytest.mark.parametrize("verb", VERBS)
def test_short_help_has_three_lines_that_can_be_copied(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    shutil.copy("configs/camvid.yaml", "recipe.yaml")
    Path("crf.yaml").write_text("temperature: 1.5\n")
    for asked in ("--help", "-h"):
        assert run(*verb.split(), asked) == 0
        out = capsys.readouterr().out
        assert out.count("\n") <= 8
        assert f"crfrnn {verb} --help all" in out
    examples = re.findall(r"^  crfrnn (.*)$", out, re.MULTILINE)
    assert tuple(examples) == EXAMPLES[verb]
    assert len(examples) == 3
    for example in examples:
        words = shlex.split(example)
        if "--help" not in words:
            parser = build_parser()
            make_options(parser, parser.parse_args(words), verb)


def test_a_verb_is_a_dataclass_and_a_function_that_takes_it():
    for options, module, function in VERBS.values():
        (parameter,) = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
        assert parameter.annotation is options
        assert dataclasses.is_dataclass(options)


def test_help_waits_for_no_torch():
    """Neither do refusals of what is mistyped: every verb's parser is built and asked, in a fresh process."""
    script = f"""
import sys
from crfrnn.cli import VERBS, main, warning_format
for arguments in [[], *(verb.split() for verb in VERBS)]:
    for word in ("--help", "--nonsense"):
        try:
            main([*arguments, word])
        except SystemExit:
            pass
    main(["serve", "--port", "-1"])
    main(["refine", "cat.png", "--out", "labels.png"])
print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "")
    assert all(f"crfrnn {verb}: " in done.stderr for verb in VERBS)


def test_verbs_of_two_words(capsys):
    assert run("data", "--help") == 0
    assert "check" in capsys.readouterr().out
    for arguments in (["data"], ["data", "chek"], ["data", "check"]):
        assert run(*arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert run("data", "check", "absent.yaml") == 1
    assert capsys.readouterr().err == "crfrnn data check: absent.yaml: there is no such file\n"


def test_a_warning_of_the_package_is_one_line():
    as_text = warning_format("refine")
    assert as_text("image: dark", UserWarning, warning_format.__code__.co_filename, 3) == "crfrnn refine: image: dark\n"
    assert as_text("image: dark", UserWarning, "elsewhere.py", 3, "") == "elsewhere.py:3: UserWarning: image: dark\n"
