"""`crfrnn segment` with a trained model, from end to end: one photo, several, folders, failures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw
from skimage import data

from crfrnn import SegmentationNetwork, build_unary
from crfrnn.cli import main
from crfrnn.commands.segment import files as segment_files
from crfrnn.networks import photo_size
from crfrnn.networks.models import MODELS, load_model

HEIGHT, WIDTH = 48, 64


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos/0.jpg to photos/3.jpg and one.png."""
    monkeypatch.chdir(tmp_path)
    told = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(told))
    (told / "crfrnn").mkdir()
    for name in MODELS:
        (told / "crfrnn" / f"licence-of-{name}").touch()
    Path("photos").mkdir()
    for number in range(4):
        top = 60 * number
        Image.fromarray(data.rocket()[top : top + HEIGHT, 200 : 200 + WIDTH]).save(f"photos/{number}.jpg")
    Image.fromarray(photo()).save("one.png")
    return tmp_path


def photo() -> np.ndarray:
    return np.array(Image.fromarray(data.astronaut()).resize((WIDTH, HEIGHT)))


def run(*arguments: str) -> int:
    return main(["segment", *arguments])


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file() and path.parts[0] != "photos")


def test_results_do_not_go_among_the_photographs(capsys: pytest.CaptureFixture[str]):
    before = sorted(Path().rglob("*"))
    several = ["photos/0.jpg", "photos/1.jpg"]
    for inputs, option, folder in (
        (["photos"], "out", "photos"),
        (["photos"], "overlay", "./photos/../photos"),
        (several, "out", "photos"),
        (several, "compare", "photos"),
    ):
        outputs = ["--out", "labels", f"--{option}", folder] if option != "out" else ["--out", folder]
        assert run(*inputs, *outputs) == 2
        assert f"{option}: {Path(folder)} is read as an input; give another folder" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_one_photo_to_all_outputs(capsys: pytest.CaptureFixture[str]):
    outputs = ["--overlay", "over.png", "--save-probabilities", "q.npy", "--compare", "figure.jpg"]
    assert run("one.png", "--out", "new/labels.png", *outputs) == 0
    out, err = capsys.readouterr()
    assert out.startswith("segmented one.png (64 x 48) with voc in ")
    assert "; the CRF changed the label of " in out
    assert all(f"wrote {path}" in out for path in ("new/labels.png", "over.png", "q.npy", "figure.jpg"))
    assert err == ""
    network, _ = load_model()
    with Image.open("new/labels.png") as image:
        labels = np.asarray(image)
        assert image.mode == "P"
        assert (image.getpalette("RGB") or [])[:63] == np.ravel(network.palette or []).tolist()
        assert json.loads(image.info["class_names"]) == network.class_names
    np.testing.assert_array_equal(labels, network.predict(photo()))
    marginals = np.load("q.npy")
    assert (marginals.shape, marginals.dtype) == ((21, HEIGHT, WIDTH), np.float16)
    with Image.open("over.png") as image:
        assert image.height > HEIGHT  # the legend
    with Image.open("figure.jpg") as image:
        assert image.width > 3 * WIDTH


def test_the_licence_of_a_model_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    for model, said in (("voc", 1), ("camvid", 1), ("voc", 0)):
        assert run("one.png", "--out", "labels.png", "--iterations", "1", "--model", model) == 0
        err = capsys.readouterr().err
        assert err.count("\n") == err.count(f"note: the model {model} is for research and other non-commercial") == said
    Path("cache").rename("there")
    Path("cache").touch()  # no folder can be made there
    for _ in range(2):
        assert run("one.png", "--out", "labels.png", "--iterations", "1") == 0
        assert "non-commercial" in capsys.readouterr().err


def test_a_build_without_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.setitem(MODELS, "voc", tmp_path)
    assert run("one.png", "--out", "labels.png") == 1
    assert "model: this build of crfrnn comes without the weights of voc" in capsys.readouterr().err


def test_a_cut_out(capsys: pytest.CaptureFixture[str]):
    Image.fromarray(data.chelsea()).save("cat.png")
    network, _ = load_model()
    cat = (network.class_names or []).index("cat")
    probability = network.probabilities(data.chelsea())
    for classes, expected in ((["--classes", "Cat"], probability[cat]), ([], 1 - probability[0])):
        assert run("cat.png", "--cutout", "cutout.png", *classes) == 0
        with Image.open("cutout.png") as image:
            assert (image.mode, image.size) == ("RGBA", (451, 300))
            alpha = np.asarray(image)[..., 3]
            shown = alpha > 0
            np.testing.assert_array_equal(np.asarray(image)[shown][:, :3], data.chelsea()[shown])
        np.testing.assert_array_equal(alpha > 127, expected.astype(np.float16) > 0.5)
    assert files() == ["cat.png", "cutout.png", "one.png"]
    capsys.readouterr()
    assert run("photos", "--cutout", "cutouts", "--classes", "sheep", "--classes", "cow") == 0
    assert "; nothing is left in 4 of the cut-outs" in capsys.readouterr().out
    assert files()[2:6] == [f"cutouts/{number}.png" for number in range(4)]


def test_a_cut_out_by_strokes():
    Image.fromarray(data.chelsea()).save("cat.png")
    for name, colour in (("#E6194B", RED), ("red", RED), ("blue", BLUE)):
        strokes = Image.new("RGBA", (451, 300))
        strokes.paste(RED, (120, 80, 260, 90))
        strokes.paste(BLUE, (420, 80, 430, 220))
        strokes.save("strokes.png")
        assert run("cat.png", "--strokes", "strokes.png", "--cutout", "cutout.webp", "--classes", name) == 0
        with Image.open("cutout.webp") as image:
            alpha = np.asarray(image)[..., 3]
        assert (alpha[85, 130], alpha[150, 425]) == ((255, 0) if colour == RED else (0, 255))


def test_strokes_painted_on_the_photo_itself(capsys: pytest.CaptureFixture[str]):
    """As a paint program saves them with soft edges; the same as on a transparent layer."""
    cat = Image.fromarray(data.chelsea())
    cat.save("cat.png")
    large = Image.new("RGBA", (3 * 451, 3 * 300))
    for colour, ends in ((RED, [(450, 240), (600, 600)]), (BLUE, [(1290, 180), (1280, 750)])):
        ImageDraw.Draw(large).line(ends, fill=colour, width=20)
    soft = large.resize((451, 300), Image.Resampling.BOX)
    painted = cat.convert("RGBA")
    painted.alpha_composite(soft)
    painted.convert("RGB").save("painted.png")
    alone = np.asarray(soft).copy()
    alone[alone[..., 3] < 255] = 0
    Image.fromarray(alone).save("alone.png")
    for strokes in ("painted", "alone"):
        assert run("cat.png", "--strokes", f"{strokes}.png", "--out", f"labels-{strokes}.png") == 0
    assert "what is as in the photograph means nothing drawn" in capsys.readouterr().out
    painted_labels, labels = (np.asarray(Image.open(f"labels-{one}.png")) for one in ("painted", "alone"))
    np.testing.assert_array_equal(painted_labels, labels)
    Image.fromarray(data.chelsea()[::-1]).save("other.png")
    assert run("cat.png", "--strokes", "other.png", "--out", "labels.png") == 1
    assert "or painted on a photograph? paint on a transparent layer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cutout", "c.png", "--classes", "cta"], "classes: no class is called 'cta'; there are background, aer"),
        (["--cutout", "c.png", "--model", "camvid"], "classes: none of them is a background, so say which to"),
        (["--cutout", "c.jpg"], "cutout: c.jpg must end in .png or .webp, which can be transparent"),
        (["--out", "labels.png", "--classes", "cat"], "classes: belong to --cutout"),
        (["--strokes", "s.png", "--cutout", "c.png"], "classes: with --strokes --cutout needs them, such as --classes"),
        ([], "out: nothing is to be written; give --out labels.png, or --cutout cat.png"),
    ],
)
def test_cut_outs_that_nobody_can_mean(options: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run("one.png", *options) == 2
    assert capsys.readouterr().err.startswith(f"crfrnn segment: {said}")
    assert files() == ["one.png"]


def test_iterations_and_the_network_alone():
    network, _ = load_model()
    for iterations, expected in ((3, network.predict(photo(), iterations=3)), (0, network.predict(photo(), crf=False))):
        assert run("one.png", "--out", "labels.png", "--iterations", str(iterations)) == 0
        with Image.open("labels.png") as image:
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_zero_iterations_leave_the_crf_out_of_a_large_photo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Where the CRF would see a smaller copy, and one of short reach would place the edges."""
    monkeypatch.setattr(photo_size, "CRF_VALUES", 21 * 200)
    network, _ = load_model()
    alone = network.predict(photo(), crf=False)
    assert (network.predict(photo(), iterations=0) == alone).all()
    assert (network.predict(photo(), iterations=1) != alone).any()
    for inputs, out in (("one.png", "labels.png"), ("photos", "labels")):
        assert run(inputs, "--out", out, "--iterations", "0") == 0
        said = capsys.readouterr().out
        assert "; 0 iterations: the CRF is left out" in said
        assert "changed" not in said
    assert run("one.png", "--out", "x.png", "--compare", "y.png", "--iterations", "0") == 2
    assert "compare: 0 iterations leave the CRF out, so there is nothing to compare" in capsys.readouterr().err


RED, BLUE = (230, 25, 75, 255), (0, 0, 255, 255)
TRANSPARENT, WHITE = (0, 0, 0, 0), (255, 255, 255)
STROKES = {
    "one": (
        lambda image: image.paste(RED, (5, 5, 20, 8)),
        "only one colour is drawn, #e6194b, and transparent means nothing drawn; draw on each thing and on the",
    ),
    "another, too thin": (
        lambda image: (image.paste(RED, (5, 5, 35, 15)), image.paste(WHITE, (9, 30, 12, 31))),
        "only one colour is drawn, #e6194b, and transparent means nothing drawn; draw on each thing and on the"
        " background, in a colour of its own for each and at least two pixels wide\n",
    ),
    "specks": (
        lambda image: [image.putpixel((2 * n, 3), (9 * n, 0, 0, 255)) for n in range(25)],
        "no colour is drawn, and transparent means nothing drawn; draw on each thing",
    ),
    "none": (lambda image: None, "every pixel is unsure or transparent, there is no label and no stroke in it\n"),
}


@pytest.mark.parametrize("case", STROKES)
def test_strokes_that_are_no_two_classes_are_told_in_their_colours(case: str, capsys: pytest.CaptureFixture[str]):
    draw, expected = STROKES[case]
    strokes = Image.new("RGBA", (WIDTH, HEIGHT), TRANSPARENT)
    draw(strokes)
    strokes.save("strokes.png")
    assert run("one.png", "--strokes", "strokes.png", "--out", "labels.png") == 1
    assert capsys.readouterr().err.startswith(f"crfrnn segment: strokes.png: {expected}")
    assert files() == ["one.png", "strokes.png"]


@pytest.mark.parametrize(("palette", "name"), [(True, "1 (#e6194b)"), (False, "1")])
def test_one_stroke_by_its_index(palette: bool, name: str, capsys: pytest.CaptureFixture[str]):
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[5:8, 5:20] = 1
    strokes = Image.fromarray(drawn)
    if palette:
        strokes.putpalette([255, 255, 255, *RED[:3]])
    strokes.save("strokes.png")
    assert run("one.png", "--strokes", "strokes.png", "--out", "labels.png") == 1
    assert (
        f"strokes.png: only one colour is drawn, {name}, and 0 means nothing drawn, as it covers most of the picture;"
        in capsys.readouterr().err
    )


def test_an_existing_folder_takes_one_photo():
    Path("out").mkdir()
    assert run("one.png", "--out", "out") == 0
    assert files() == ["one.png", "out/one.png"]


def test_photos_and_folders(capsys: pytest.CaptureFixture[str]):
    command = ["photos", "one.png", "--out", "done/labels", "--overlay", "done/looks", "--iterations", "1"]
    Path("photos/2.jpg").write_bytes(Path("photos/2.jpg").read_bytes()[:500])
    assert run(*command) == 1
    out, err = capsys.readouterr()
    assert "segmented 4 images in " in out
    assert "wrote 4 files into done/labels" in out
    assert err.splitlines()[0] == "crfrnn segment: 1 of 5 failed, the others are done"
    assert err.splitlines()[1].startswith("  photos/2.jpg: not a readable image")
    names = ["0", "1", "3", "one"]
    assert files() == [f"done/labels/{n}.png" for n in names] + [f"done/looks/{n}.jpg" for n in names] + ["one.png"]
    stamps = {path: path.stat().st_mtime_ns for path in Path("done/labels").iterdir()}
    Image.fromarray(photo()).save("photos/2.jpg")
    Path("done/looks/3.jpg").unlink()
    assert run(*command) == 0
    assert "segmented 2 images" in (out := capsys.readouterr().out)
    assert "skipped 3 that were done (--overwrite redoes them)" in out
    changed = {path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns > stamp}
    assert changed == {"3.png"}
    assert run(*command, "--overwrite") == 0
    assert "segmented 5 images" in capsys.readouterr().out


def test_folders_inside_of_folders(capsys: pytest.CaptureFixture[str]):
    Path("in/day").mkdir(parents=True)
    for name in ("in/0.png", "in/day/0.png", "in/day/1.png"):
        shutil.copy("one.png", name)
    for count in (3, 0):  # the second time the labels are there, and are no photographs
        assert run("in", "--out", "in/labels", "--overlay", "in/looks", "--iterations", "1") == 0
        assert f"segmented {count} images" in capsys.readouterr().out
    written = sorted(path.relative_to("in/labels").as_posix() for path in Path("in/labels").rglob("*.png"))
    assert written == ["0.png", "day/0.png", "day/1.png"]


def test_photos_of_the_same_name_are_told(capsys: pytest.CaptureFixture[str]):
    Path("more").mkdir()
    Image.fromarray(photo()).save("more/0.png")
    assert run("photos", "more", "--out", "labels", "--iterations", "0") == 1
    assert "photos/0.jpg and more/0.png have the same name" in capsys.readouterr().err
    assert files() == ["labels/1.png", "labels/2.png", "labels/3.png", "more/0.png", "one.png"]


def test_an_empty_folder(capsys: pytest.CaptureFixture[str]):
    Path("empty").mkdir()
    assert run("empty", "--out", "labels") == 1
    assert capsys.readouterr().err.startswith("crfrnn segment: empty: no photographs (.jpg ")


def test_a_camera_that_lay_on_its_side():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(photo()).transpose(Image.Transpose.ROTATE_90).save("lying.png", exif=exif)
    assert run("lying.png", "--out", "lying-labels.png") == 0
    assert run("one.png", "--out", "labels.png") == 0
    assert Path("lying-labels.png").read_bytes() == Path("labels.png").read_bytes()


def test_a_model_without_crf_names_and_colours(capsys: pytest.CaptureFixture[str]):
    SegmentationNetwork(build_unary("fast-scnn", 4), size=64).save_pretrained("plain")
    before = files()
    assert run("one.png", "--model", "plain", "--out", "labels.png", "--compare", "figure.png") == 1
    assert capsys.readouterr().err == "crfrnn segment: compare: plain has no CRF, so there is nothing to compare\n"
    assert files() == before
    assert run("one.png", "--model", "plain", "--out", "labels.png", "--overlay", "look.jpg") == 0
    assert "with plain in" in (out := capsys.readouterr().out)
    assert "the CRF" not in out
    with Image.open("labels.png") as image:
        assert json.loads(image.info["class_names"]) == ["0", "1", "2", "3"]


def test_a_folder_named_as_the_packages_model():
    SegmentationNetwork(build_unary("fast-scnn", 2), size=64).save_pretrained("camvid")
    assert load_model("camvid")[0].num_classes == 11
    assert load_model("./camvid")[0].num_classes == 2
    assert MODELS["camvid"].is_dir()


@pytest.mark.parametrize("arguments", [["one.png", "--out", "x.png"], ["photos", "--out", "x", "--overlay", "y"]])
def test_ctrl_c_and_a_full_disk_leave_nothing_half_written(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no space left on the device")

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        assert run(*arguments) == 1
    assert "no space left" in capsys.readouterr().err
    assert files() == ["one.png"]
    monkeypatch.setattr(segment_files, "segment_photo" if arguments[0] == "one.png" else "run_jobs", interrupt)
    assert run(*arguments) == 130
    assert capsys.readouterr().err == "crfrnn segment: interrupted\n"
    assert files() == ["one.png"]
