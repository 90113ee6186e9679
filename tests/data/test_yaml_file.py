"""YAML files: one meaning of a text, whoever reads it."""

import json
import math
import sys

import pytest
from jsonargparse import get_loader

from crfrnn.cli import main
from crfrnn.data import yaml_file
from crfrnn.data.yaml_file import as_number, read_yaml

TEXTS = (
    "5e-1 -5e-2 1e3 1E5 1e+3 .5 .5e-1 .5e+1 5.e+2 1. +3 1_000 1e 5e-1x 0x1f 010 0o17 1:30 1:30.5 2026-01-01 .inf -.inf"
    " '0.5' yes off null ~ true name bilateral:30,5"
)


@pytest.mark.parametrize("text", TEXTS.split())
def test_a_value_is_what_the_command_line_takes_it_for(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"a: {text}\nb: [{text}]")
    got, expected = read_yaml(tmp_path / "a.yaml"), get_loader("yaml")(f"a: {text}\nb: [{text}]")
    assert got == expected
    assert (type(got["a"]), type(got["b"][0])) == (type(expected["a"]), type(expected["b"][0]))


def test_no_number(tmp_path):
    (tmp_path / "a.yaml").write_text("a: .nan")
    assert math.isnan(read_yaml(tmp_path / "a.yaml")["a"])


def test_texts_where_numbers_are_wanted():
    assert as_number(["5e-1", ["2"], 3, None, "hot", "["]) == [0.5, [2], 3, None, "hot", "["]


BOMB = "a0: &a0 [1, 1]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "its aliases stand for more than 100 values"),
        (json.dumps({"class_weights": BOMB}), "its aliases stand for more than 100 values"),
        ("a: &a [*a]", "its aliases stand for more than 100 values"),
        ("a: 1 # " + 1000 * "x", "1,007 bytes, and settings have at most 1,000"),
        ("a: " + 300 * "[" + 300 * "]", "recursion"),
    ],
)
def test_what_would_take_for_ever_is_refused(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.setattr(yaml_file, "MOST_BYTES", 1000)
    monkeypatch.setattr(yaml_file, "MOST_VALUES", 100)
    limit = sys.getrecursionlimit()
    path = tmp_path / "a.yaml"
    path.write_text(text)
    sys.setrecursionlimit(400)
    try:
        with pytest.raises(ValueError, match=rf"a\.yaml: not a readable YAML file .*{message}"):
            read_yaml(path)
    finally:
        sys.setrecursionlimit(limit)
    if "alias" in message:
        with pytest.raises(SystemExit):
            main(["refine", "a.jpg", "--labels", "b.png", "--out", "c.png", "--config", str(path)])
        assert message in capsys.readouterr().err


def test_aliases_that_are_of_use(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a [1, 2]\nb: *a\nc: x * y & z\nd: '*e &e'")
    assert read_yaml(path) == {"a": [1, 2], "b": [1, 2], "c": "x * y & z", "d": "*e &e"}
