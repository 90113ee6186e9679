"""YAML files: one meaning of a text, whoever reads it."""

import math

import pytest
from jsonargparse import get_loader

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
