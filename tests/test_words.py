"""How the words of a command line become options, and what is said of those in the wrong place."""

import pytest
import yaml

from tests.support.command import run


def test_several_words_stand_wherever_they_like(capsys):
    words = (
        "a.png",
        "--no-overwrite",
        "b c.png",
        "--seed=3",
        "1",
        "--iterations",
        "2",
        "null",
        "--overwrite",
        "[d].png",
    )
    assert run("segment", "--out", "x", *words, "--print_config") == 0
    said = yaml.safe_load(capsys.readouterr().out)
    assert said["image"] == ["a.png", "b c.png", "1", "null", "[d].png"]
    assert (said["seed"], said["iterations"], said["overwrite"]) == (3, 2, True)
    kernels = ("--kernel", "spatial:2,1", "m", "--kernel=bilateral:30,20,2", "n")
    assert run("evaluate", "--data", "c.yaml", *kernels, "--crf", "separate", "--print_config") == 0
    said = yaml.safe_load(capsys.readouterr().out)
    assert (said["model"], said["kernel"]) == (["m", "n"], ["spatial:2,1", "bilateral:30,20,2"])


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("evaluate a --model b", "evaluate: model: give it without --model, as in: crfrnn evaluate runs/mine/model"),
        ("fit --ground-truth t", "fit: ground_truth: give it without --ground_truth, as in: crfrnn fit photos/"),
        ("refine cat.png dog.png --out x", "refine: 'dog.png' is one word too many: give only image without a name,"),
        ("refine --overwrite cat.png dog.png", "refine: 'dog.png' is one word too many"),
        ("serve x", "serve: 'x' is one word too many: give nothing without a name, as in: crfrnn serve ("),
        ("train x --seed 1", "train: 'x' is one word too many: give nothing without a name, as in: crfrnn train --"),
        ("fit a b", "fit: the following arguments are required: ground_truth, out (crfrnn fit --help)"),
        ("data check", "data check: the following arguments are required: configuration (crfrnn data check --help)"),
        ("refine a --iterations many", "refine: iterations: expected a whole number or settled, got many ("),
        ("refine a --jobs many", "refine: jobs: expected a whole number, got many ("),
        ("refine a --class-weights many", "refine: class-weights: expected a list, got many ("),
        ("train --stages 3", "train: stages: expected a list, got 3 ("),
    ],
)
def test_words_in_the_wrong_place(capsys, command, told):
    assert run(*command.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"crfrnn {told}")
    assert err.count("\n") == 1
    assert out == ""
