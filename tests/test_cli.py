"""The command line from end to end: files, folders, configurations, refusals and exit statuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from skimage import data

from crfrnn import __version__
from crfrnn.commands.refine import files as refine_files
from crfrnn.commands.refine.refine import refine
from crfrnn.data.labels import voc_palette
from crfrnn.parameters import parse_kernel
from tests.support.command import run

HEIGHT, WIDTH = 36, 50


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with a photo, its predictions in several forms, and coarse label maps."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()[60 : 60 + HEIGHT, 100 : 100 + WIDTH]).save("cat.png")
    np.save("cat.npy", predictions())
    np.savez("two.npz", first=predictions(), logits=np.log(predictions()))
    coarse = predictions().argmax(0).astype(np.uint8)
    palette = Image.fromarray(np.where(coarse == 2, 255, coarse).astype(np.uint8))
    palette.save("grey.png")
    palette.putpalette(voc_palette().tobytes())
    palette.save("palette.png")
    palette.convert("RGB").save("colours.png")
    strokes = Image.new("RGBA", (WIDTH, HEIGHT))
    strokes.paste("red", (4, 4, 8, 30))
    strokes.paste("blue", (30, 4, 34, 30))
    strokes.save("strokes.png")
    strokes.crop((0, 0, 40, 20)).save("part.png")
    return tmp_path


def predictions(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    scores = np.exp(np.random.default_rng(seed).standard_normal((3, *size)))
    return (scores / scores.sum(0)).astype(np.float32)


def labels_in(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def expected_labels(**options) -> np.ndarray:
    with Image.open("cat.png") as photo:
        return refine(np.asarray(photo), predictions(), **options).argmax(0)


def test_probabilities_to_all_outputs(folder, capsys):
    outputs = ("--out", "new/out.png", "--overlay", "over.jpg", "--save-probabilities", "q.npz")
    assert run("refine", "cat.png", "--probabilities", "cat.npy", *outputs) == 0
    assert (labels_in("new/out.png") == expected_labels()).all()
    with Image.open("new/out.png") as image:
        assert image.mode == "P"
        assert (image.getpalette("RGB") or [])[:9] == voc_palette(3).ravel().tolist()
    with Image.open("over.jpg") as image:
        assert image.size == (WIDTH, HEIGHT)
    with np.load("q.npz") as saved:
        assert saved.files == ["probabilities"]
        assert (saved["probabilities"].argmax(0) == labels_in("new/out.png")).mean() > 0.999  # float16
    out, err = capsys.readouterr()
    assert "refined cat.png (50 x 36), 3 labels, in " in out
    assert all(f"wrote {path}" in out for path in ("new/out.png", "over.jpg", "q.npz"))
    assert err == ""


def test_presets_kernels_and_the_rest(folder):
    assert run("refine", "cat.png", "--probabilities", "cat.npy", "--out", "a.png", "--preset", "deeplab-v2") == 0
    assert (labels_in("a.png") == expected_labels(preset="deeplab-v2")).all()
    kernels = ("--kernel", "bilateral:30,20,2", "--kernel=spatial:2,1", "--normalization", "symmetric")
    assert run("refine", "cat.png", "--logits=two.npz", "--key=logits", "--out=b.png", *kernels, "--iterations=3") == 0
    chosen = [parse_kernel(text) for text in ("bilateral:30,20,2", "spatial:2,1")]
    assert (labels_in("b.png") == expected_labels(kernels=chosen, normalization="symmetric", iterations=3)).all()


@pytest.mark.parametrize(("name", "unsure"), [("grey", "255"), ("palette", "255"), ("colours", "224,224,192")])
def test_label_maps_keep_their_form(folder, capsys, name, unsure):
    assert run("refine", "cat.png", "--labels", f"{name}.png", "--out", "all.png", "--confidence", "0.9") == 0
    assert run("refine", "cat.png", "--labels", f"{name}.png", "--out", "sure.png", "--unsure", unsure) == 0
    with Image.open(f"{name}.png") as before, Image.open("all.png") as after, Image.open("sure.png") as sure:
        assert after.mode == before.mode
        assert after.getpalette() == before.getpalette()
        former, present = (
            set(map(tuple, np.asarray(i.convert("RGB")).reshape(-1, 3).tolist())) for i in (before, sure)
        )
    assert len(former) == 3
    assert present < former  # the unsure pixels got one of the two labels
    assert "2 labels (" in capsys.readouterr().out


def test_a_void_index_is_pointed_at(folder, capsys):
    run("refine", "cat.png", "--labels", "palette.png", "--out", "out.png")
    assert "--unsure 255" in capsys.readouterr().out


def test_labels_last_and_other_sizes(folder, capsys):
    np.save("last.npy", np.moveaxis(predictions(), 0, -1))
    assert run("refine", "cat.png", "--probabilities", "last.npy", "--out", "last.png") == 0
    assert (labels_in("last.png") == expected_labels()).all()
    np.save("small.npy", predictions(size=(9, 13)))
    assert run("refine", "cat.png", "--probabilities", "small.npy", "--out", "small.png") == 1
    error = capsys.readouterr().err
    assert error == "crfrnn refine: small.npy: 13 x 9, but cat.png has 50 x 36 pixels; --resize scales them\n"
    assert not Path("small.png").exists()
    assert run("refine", "cat.png", "--probabilities", "small.npy", "--out", "small.png", "--resize") == 0
    assert labels_in("small.png").shape == (HEIGHT, WIDTH)


def test_a_turned_photo_follows_its_predictions(folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open("cat.png") as photo:
        photo.transpose(Image.Transpose.ROTATE_90).save("lying.png", exif=exif)  # shown upright it is the cat again
    assert run("refine", "lying.png", "--probabilities", "cat.npy", "--out", "out.png") == 0
    assert (labels_in("out.png") == expected_labels()).all()


def test_a_configuration_file_and_who_wins(folder, capsys):
    Path("c.yaml").write_text(
        "image: cat.png\nprobabilities: cat.npy\nout: conf.png\niterations: 2\nkernel: ['bilateral:30,20,2']\n"
    )
    assert run("refine", "--config", "c.yaml") == 0
    kernels = [parse_kernel("bilateral:30,20,2")]
    assert (labels_in("conf.png") == expected_labels(kernels=kernels, iterations=2)).all()
    assert run("refine", "--out", "line.png", "--iterations", "5", "--config=c.yaml") == 0
    assert (labels_in("line.png") == expected_labels(kernels=kernels, iterations=5)).all()
    assert run("refine", "--config", "c.yaml", "--kernel", "spatial:2,1") == 0  # in place of the file's kernels
    kernels = [parse_kernel("spatial:2,1")]
    assert (labels_in("conf.png") == expected_labels(kernels=kernels, iterations=2)).all()
    capsys.readouterr()
    assert run("refine", "cat.png", "--out", "again.png", "--probabilities", "cat.npy", "--print_config") == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert run("refine", "--config", "printed.yaml") == 0
    assert (labels_in("again.png") == expected_labels()).all()
    Path("wrong.yaml").write_text("iteration: 2\n")
    assert run("refine", "cat.png", "--out", "x.png", "--config", "wrong.yaml") == 2
    assert "iteration" in capsys.readouterr().err
    assert run("refine", "cat.png", "--out", "x.png", "--config", "cat.npy") == 2
    assert "crfrnn refine: config: not a readable YAML file" in capsys.readouterr().err


USAGE = {
    "no source": ["refine", "cat.png", "--out", "x.png"],
    "two sources": ["refine", "cat.png", "--out", "x.png", "--probabilities", "cat.npy", "--labels", "grey.png"],
    "no out": ["refine", "cat.png", "--probabilities", "cat.npy"],
    "out is no PNG": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.jpg"],
    "preset": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--preset", "best"],
    "kernel": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--kernel", "bilateral:1"],
    "normalization": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--normalization", "no"],
    "iterations": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--iterations", "-1"],
    "iterations text": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--iterations", "many"],
    "confidence": ["refine", "cat.png", "--labels", "grey.png", "--out", "x.png", "--confidence", "70"],
    "unsure": ["refine", "cat.png", "--labels", "grey.png", "--out", "x.png", "--unsure", "dunno"],
    "unsure without labels": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--unsure", "0"],
    "q is no array": ["refine", "cat.png", "--probabilities=cat.npy", "--out=x.png", "--save-probabilities=q.png"],
    "over its input": ["refine", "cat.png", "--labels", "grey.png", "--out", "grey.png"],
    "overlay": ["refine", "cat.png", "--probabilities", "cat.npy", "--out", "x.png", "--overlay", "x.doc"],
    "file and folder": ["refine", ".", "--labels", "grey.png", "--out", "x.png"],
    "segment with a model and strokes": ["segment", "cat.png", "--strokes=cat.png", "--model=camvid", "--out=x.png"],
    "segment several from strokes": ["segment", "cat.png", "grey.png", "--strokes", "strokes.png", "--out", "x"],
    "segment a folder from strokes": ["segment", ".", "--strokes", "strokes.png", "--out", "x"],
    "segment several into one": ["segment", "cat.png", "grey.png", "--out", "x.png"],
    "segment a folder into itself": ["segment", ".", "--out", "."],
    "segment over a photo": ["segment", "cat.png", "--out", "cat.png"],
    "segment with a model and a seed": ["segment", "cat.png", "--out", "x.png", "--seed", "1"],
    "segment with a model and unsure": ["segment", "cat.png", "--out", "x.png", "--unsure", "0"],
    "segment, iterations": ["segment", "cat.png", "--out", "x.png", "--iterations", "-1"],
    "segment to jpg": ["segment", "cat.png", "--strokes", "strokes.png", "--out", "x.jpg"],
    "segment over its input": ["segment", "cat.png", "--strokes", "strokes.png", "--out", "strokes.png"],
    "segment twice": ["segment", "cat.png", "--strokes=strokes.png", "--out=x.png", "--overlay=x.png"],
    "unknown option": ["refine", "cat.png", "--labels", "grey.png", "--out", "x.png", "--fast"],
    "option without value": ["refine", "cat.png", "--labels", "grey.png", "--out", "x.png", "--kernel"],
    "unknown verb": ["refin"],
    "no verb": [],
}
FAILING = {
    "no photo": ["refine", "dog.png", "--probabilities", "cat.npy", "--out", "x.png"],
    "no predictions": ["refine", "cat.png", "--probabilities", "dog.npy", "--out", "x.png"],
    "no photo to segment": ["segment", "dog.png", "--out", "x.png"],
    "one photo of several is none": ["segment", "cat.png", "dog.png", "--out", "x"],
    "no picture": ["segment", "cat.npy", "--out", "x.png"],
    "no model in the folder": ["segment", "cat.png", "--model", ".", "--out", "x.png"],
    "no such model": ["segment", "cat.png", "--model", "/no/such/folder", "--out", "x.png"],
    "no strokes": ["segment", "cat.png", "--strokes", "none.png", "--out", "x.png"],
    "strokes of another size": ["segment", "cat.png", "--strokes", "part.png", "--out", "x.png"],
    "no array": ["refine", "cat.png", "--probabilities", "cat.png", "--out", "x.png"],
    "no image": ["refine", "cat.npy", "--probabilities", "cat.npy", "--out", "x.png"],
    "which array": ["refine", "cat.png", "--probabilities", "two.npz", "--out", "x.png"],
    "logits": ["refine", "cat.png", "--probabilities", "two.npz", "--key", "logits", "--out", "x.png"],
}


@pytest.mark.parametrize("case", [*USAGE, *FAILING])
def test_refusals_are_one_line_and_leave_nothing(folder, capsys, case):
    before = sorted(folder.iterdir())
    assert run(*(USAGE | FAILING)[case]) == (2 if case in USAGE else 1)
    out, err = capsys.readouterr()
    assert err.startswith("crfrnn")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert out == ""
    assert sorted(folder.iterdir()) == before


@pytest.fixture
def many(folder) -> Path:
    """Six photos in photos/, predictions for five of them in maps/, one of them cut short, one without a photo."""
    Path("photos").mkdir()
    Path("maps").mkdir()
    for number in range(6):
        with Image.open("cat.png") as photo:
            photo.save(f"photos/{number}.jpg")
    for number in (0, 1, 2, 3, 4, 9):
        np.savez(f"maps/{number}.npz", p=predictions(number))
    whole = Path("maps/3.npz").read_bytes()
    Path("maps/3.npz").write_bytes(whole[: len(whole) // 2])
    return folder


def test_folders(many, capsys):
    command = ["refine", "photos", "--probabilities", "maps", "--out", "done/labels", "--iterations", "2"]
    assert run(*command, "--overlay", "done/over") == 1
    out, err = capsys.readouterr()
    assert "refined 4 images in " in out
    assert "left 1 images without predictions alone" in out
    assert "wrote 4 files into done/labels" in out
    lines = err.splitlines()
    assert lines[0] == "crfrnn refine: 2 of 6 failed, the others are done"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {"maps/3.npz", "maps/9.npz"}
    assert "no image 9.* in photos" in err
    written = sorted(str(path) for path in Path("done").rglob("*") if path.is_file())
    names = [f"done/labels/{n}.png" for n in (0, 1, 2, 4)] + [f"done/over/{n}.jpg" for n in (0, 1, 2, 4)]
    assert written == names
    with Image.open("photos/1.jpg") as photo:
        expected = refine(np.asarray(photo), predictions(1), iterations=2).argmax(0)
    assert (labels_in("done/labels/1.png") == expected).all()


def test_folders_inside_of_folders(many, capsys):
    for place in ("a", "b/c"):
        Path("photos", place).mkdir(parents=True)
        Path("maps", place).mkdir(parents=True)
        shutil.copy("cat.png", f"photos/{place}/0.png")
        np.savez(f"maps/{place}/0.npz", p=predictions(7))
    Path("maps/3.npz").unlink()
    Path("maps/9.npz").rename("maps/b/9.npz")
    shutil.copy("cat.png", "photos/9.png")
    command = ["refine", "photos", "--probabilities", "maps", "--out", "photos/labels", "--iterations", "1"]
    assert run(*command) == 1
    out, err = capsys.readouterr()
    assert "refined 6 images" in out
    assert "maps/b/9.npz: no image b/9.* in photos" in err
    outputs = Path("photos/labels")
    written = sorted(path.relative_to(outputs).as_posix() for path in outputs.rglob("*.png"))
    assert written == ["0.png", "1.png", "2.png", "4.png", "a/0.png", "b/c/0.png"]
    assert (labels_in("photos/labels/b/c/0.png") == labels_in("photos/labels/a/0.png")).all()
    assert (labels_in("photos/labels/0.png") != labels_in("photos/labels/a/0.png")).any()
    Path("maps/b/9.npz").unlink()
    assert run(*command) == 0  # what it wrote into the folder is nobody's photo
    assert "left 3 images without" in capsys.readouterr().out


def test_a_rerun_does_what_is_left(many, capsys):
    command = ["refine", "photos", "--probabilities", "maps", "--out", "labels", "--iterations", "1"]
    assert run(*command) == 1
    capsys.readouterr()
    stamps = {path: path.stat().st_mtime_ns for path in Path("labels").iterdir()}
    for name in ("3", "9"):
        np.savez(f"maps/{name}.npz", p=predictions())
    with Image.open("cat.png") as photo:
        photo.save("photos/9.jpg")
    assert run(*command) == 0
    assert "refined 2 images" in (out := capsys.readouterr().out)
    assert "skipped 4 that were done (--overwrite redoes them)" in out
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert run(*command) == 0
    assert "refined 0 images" in (out := capsys.readouterr().out)
    assert "skipped 6" in out
    assert run(*command, "--overwrite") == 0
    assert "refined 6 images" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in stamps.items())


def test_folders_that_do_not_fit(many, capsys):
    Path("none").mkdir()
    assert run("refine", "photos", "--probabilities", "none", "--out", "labels") == 1
    assert "none: holds no .npy or .npz files" in capsys.readouterr().err
    assert run("refine", "photos", "--probabilities", "maps", "--out", "cat.png") == 2
    assert "must be a folder" in capsys.readouterr().err
    assert run("refine", "photos", "--labels", "maps", "--out", "labels") == 1
    with Image.open("grey.png") as grey:
        grey.save("photos/0.png")
    before = Path("photos/0.png").read_bytes()
    assert run("refine", "photos", "--labels", "photos", "--out", "photos") == 2
    assert "photos is read as an input" in capsys.readouterr().err
    assert Path("photos/0.png").read_bytes() == before
    assert run("refine", "photos", "--labels", "photos", "--out", "labels", "--iterations", "1") == 0


def test_nothing_is_left_half_written(folder, monkeypatch, capsys):
    before = sorted(folder.iterdir())

    def fail(*arguments, **options):
        raise OSError("no space left on the device")

    monkeypatch.setattr(Image.Image, "save", fail)
    assert run("refine", "cat.png", "--probabilities", "cat.npy", "--out", "out.png") == 1
    assert "no space left" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_ctrl_c(folder, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(refine_files, "refine", interrupt)
    assert run("refine", "cat.png", "--probabilities", "cat.npy", "--out", "out.png") == 130
    assert capsys.readouterr().err == "crfrnn refine: interrupted\n"
    assert not Path("out.png").exists()


def test_segment_by_strokes(folder, capsys):
    command = ["segment", "cat.png", "--strokes", "strokes.png", "--iterations", "2"]
    outputs = ["--overlay", "over.jpg", "--save-probabilities", "q.npz", "--compare", "fig.png"]
    assert run(*command, "--out", "new/labels.png", *outputs) == 0
    out, err = capsys.readouterr()
    assert "2 classes (#0000ff, #ff0000)" in out
    assert "transparent means nothing drawn" in out
    assert all(f"wrote {path}" in out for path in ("new/labels.png", "over.jpg", "q.npz", "fig.png"))
    assert err == ""
    found = labels_in("new/labels.png").reshape(-1, 3)
    assert {tuple(colour) for colour in found.tolist()} <= {(0, 0, 255), (255, 0, 0)}
    with np.load("q.npz") as saved:
        assert saved["probabilities"].shape == (2, HEIGHT, WIDTH)
    assert run(*command, "--out", "again.png") == 0
    assert Path("again.png").read_bytes() == Path("new/labels.png").read_bytes()
    assert run(*command, "--out", "again.png", "--unsure", "255") == 1
    assert "is colour-coded" in capsys.readouterr().err


def test_as_a_program(folder):
    """What only a process shows: the module runs, and its exit status is that of `main`."""

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "crfrnn", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    version = program("--version")
    assert (version.returncode, version.stdout.strip()) == (0, f"crfrnn {__version__}")
    done = program("refine", "cat.png", "--probabilities", "cat.npy", "--out", "out.png", "--iterations", "1")
    assert done.returncode == 0, done.stderr
    assert "wrote out.png" in done.stdout
    wrong = program("refine", "cat.png")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
