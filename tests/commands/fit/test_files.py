"""``crfrnn fit`` from folders to the file that ``crfrnn refine --config`` reads."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from crfrnn import CRFRNN, refine
from crfrnn.commands.fit import search
from crfrnn.data.kinds import kind, photograph
from crfrnn.parameters import CRFParameters
from tests.support.command import run
from tests.support.scenes import scenes

CALL = ("fit", "photos", "maps", "truth", "--logits", "--out", "crf.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with photos/, maps/ (logits) and truth/ of six images."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "maps", "truth"):
        Path(name).mkdir()
    for number, (image, logits, truth) in enumerate(zip(*scenes(6), strict=True)):
        Image.fromarray(image).save(f"photos/{number}.png")
        np.save(f"maps/{number}.npy", logits)
        Image.fromarray(truth).save(f"truth/{number}.png")
    return tmp_path


def test_folders_inside_of_folders(folder, capsys):
    for name in ("photos", "maps", "truth"):
        Path(name, "day").mkdir()
        for file in sorted(Path(name).glob("[3-5].*")):
            file.rename(Path(name, "day", file.name))
    assert run(*CALL, "--folds", "99") == 2
    assert "folds: must be 2 to 6, the number of images" in capsys.readouterr().err


@pytest.mark.slow
def test_fit_then_refine(folder, capsys):
    Path("names.txt").write_text("background\ndisc\npole\n")
    Image.fromarray(np.where(np.asarray(Image.open("truth/0.png")) == 0, 9, 1).astype(np.uint8)).save("truth/0.png")
    assert run(*CALL, "--classes", "names.txt", "--void", "9") == 0
    out, err = capsys.readouterr()
    assert all(word in out for word in ("background", "pole", "change", "The CRF helps: mean IoU", "wrote crf.yaml"))
    assert err == ""
    parameters = CRFParameters.from_yaml("crf.yaml")
    assert yaml.safe_load(Path("crf.yaml").read_text())["fitted"]["images"] == 6
    call = ("refine", "photos/1.png", "--logits", "maps/1.npy", "--out", "labels.png")
    assert run(*call, "--config", "crf.yaml") == 0
    image, logits = np.asarray(Image.open("photos/1.png")), np.load("maps/1.npy")
    expected = refine(image, logits=logits, **parameters.options()).argmax(0)
    assert (np.asarray(Image.open("labels.png")) == expected).all()
    assert (expected != refine(image, logits=logits).argmax(0)).any()
    assert CRFRNN.from_config("crf.yaml").temperature == parameters.temperature


def test_a_binary_network(folder, capsys):
    """Its foreground alone, as logits (height, width): two classes."""
    for path in Path("maps").iterdir():
        if path.stem > "1":  # two are enough
            path.unlink()
            Path(f"truth/{path.stem}.png").unlink()
            continue
        logits = np.load(path)
        np.save(path, logits[1:].max(0) - logits[0])
        truth = np.asarray(Image.open(f"truth/{path.stem}.png"))
        Image.fromarray(np.minimum(truth, 1)).save(f"truth/{path.stem}.png")
    Path("names.txt").write_text("nothing\nsomething\n")
    assert run(*CALL, "--classes", "names.txt") == 0
    assert "something" in capsys.readouterr().out


def test_a_crf_that_does_not_help(folder, capsys):
    for number in range(6):
        truth = np.asarray(Image.open(f"truth/{number}.png"))
        np.save(f"maps/{number}.npy", np.stack([8.0 * (truth == label) for label in range(3)]))
    assert run(*CALL, "--preset", "deeplab-v2") == 0
    assert "A CRF does not help here" in capsys.readouterr().out
    assert CRFParameters.from_yaml("crf.yaml") == CRFParameters.of_preset("deeplab-v2")


def test_coarse_predictions(folder, capsys):
    for number in range(2, 6):
        for name in (f"photos/{number}.png", f"maps/{number}.npy", f"truth/{number}.png"):
            Path(name).unlink()
    for number in range(2):
        np.save(f"maps/{number}.npy", np.load(f"maps/{number}.npy")[:, ::2, ::2])
    assert run(*CALL) == 1
    assert "--resize scales them" in capsys.readouterr().err
    assert run(*CALL, "--resize", "--preset", "deeplab-v2") == 0


def test_every_file_is_read_twice(folder, monkeypatch):
    """Once to search parameters, once to measure them."""
    opened: Counter[str] = Counter()

    def counted(read):
        def count(path, *rest):
            opened[str(path)] += 1
            return read(path, *rest)

        return count

    for module, name in ((photograph, "open_image"), (kind, "read_predictions")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    assert run(*CALL, "--preset", "deeplab-v2") == 0
    assert {path.partition(".")[0]: times for path, times in opened.items()} == {
        f"{place}/{number}": 2 for place in ("photos", "maps") for number in range(6)
    }


def test_the_pairs_that_there_are(folder, capsys):
    for name in ("photos/1.png", "maps/2.npy", "truth/3.png", "truth/4.png"):
        Path(name).unlink()
    np.save("maps/another.npy", np.load("maps/0.npy"))
    Path("maps/another.npz").write_bytes(b"")
    assert run(*CALL, "--preset", "deeplab-v2") == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "note: fitting on 2 images with predictions and label map; left out: 4 of the predictions (maps/1.npy: no image"
        " 1.* in photos) and 2 of the label maps (truth/1.png: no image 1.* in photos)"
    )
    assert yaml.safe_load(Path("crf.yaml").read_text())["fitted"]["images"] == 2


def test_a_class_that_never_occurs_is_said(folder, capsys):
    Path("names.txt").write_text("background\ndisc\npole\nmoon\n")
    for number in range(6):
        logits = np.load(f"maps/{number}.npy")
        np.save(f"maps/{number}.npy", np.concatenate([logits, logits[:1] - 9]))
    assert run(*CALL, "--preset", "deeplab-v2", "--classes", "names.txt") == 0
    out, err = capsys.readouterr()
    assert out.startswith("note: truths: moon never occurs in the truth: the mean IoU leaves it out\n")
    assert err == ""
    assert "0.00" not in next(row for row in out.splitlines() if "moon " in row and "note" not in row)


def rename_truths():
    for path in sorted(Path("truth").iterdir()):
        path.rename(path.with_name(f"mask{path.name}"))


def keep_one():
    for number in range(1, 6):
        for name in (f"photos/{number}.png", f"maps/{number}.npy", f"truth/{number}.png"):
            Path(name).unlink()


def other_size():
    Image.new("L", (7, 9)).save("truth/3.png")


def classes_in_another_order():
    for number in range(6):
        np.save(f"maps/{number}.npy", np.roll(np.load(f"maps/{number}.npy"), 1, axis=0) - 99 * one_hot(number))


def one_hot(number: int) -> np.ndarray:
    truth = np.asarray(Image.open(f"truth/{number}.png"))
    return np.stack([truth == label for label in range(3)])


def other_class():
    Image.new("L", (60, 44), 7).save("truth/3.png")


FAILING = {
    "one image": (keep_one, (), "images: 1 with predictions and label map, but a fit needs at least 2\n"),
    "other names": (
        rename_truths,
        (),
        "images: 0 with predictions and label map, but a fit needs at least 2; left out: 6 of the predictions"
        " (maps/0.npy: no label map of that name in truth) and 6 of the label maps (truth/mask0.png: no image mask0.*",
    ),
    "another size": (other_size, (), "photos/3.png: truths: (9, 7) (height, width), but the image has (44, 60)"),
    "another class": (other_class, (), "truth/3.png: holds 7, outside the 3 classes and void (255)"),
    "no class in common": (
        classes_in_another_order,
        (),
        "truths: no pixel of any image is what the predictions call it",
    ),
    "no such folder": (lambda: None, ("--key", "x"), None),
    "names": (lambda: Path("n.txt").write_text("a\nb\n"), ("--classes", "n.txt"), "classes: n.txt has 2 names"),
}


@pytest.mark.parametrize("case", FAILING)
def test_bad_input_is_one_line_and_leaves_nothing(folder, capsys, case):
    spoil, options, message = FAILING[case]
    spoil()
    call = [word if case != "no such folder" or word != "truth" else "truths" for word in CALL]
    assert run(*call, *options) == 1
    out, err = capsys.readouterr()
    assert err.startswith("crfrnn fit: ")
    assert err.count("\n") == 1
    assert (message or "truths: there is no such folder") in err
    assert out == ""
    assert not list(folder.glob("*crf.yaml*"))


@pytest.mark.parametrize("options", [("--folds", "7"), ("--preset", "best"), ("--out", "crf.json")])
def test_wrong_usage(folder, capsys, options):
    assert run(*CALL, *options) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupted_fit_leaves_the_former_file(folder, capsys, monkeypatch):
    Path("crf.yaml").write_text("kernel: ['spatial:3,3']\n")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(search.Search, "learn", interrupt)
    assert run(*CALL) == 130
    assert "interrupted: crf.yaml was not written" in capsys.readouterr().err
    assert [path.name for path in folder.glob("*crf.yaml*")] == ["crf.yaml"]
    assert Path("crf.yaml").read_text() == "kernel: ['spatial:3,3']\n"
