"""`crfrnn refine` with what binary networks, nnU-Net and maps of one class leave in files and folders."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from crfrnn.commands.refine.refine import refine
from crfrnn.data.labels import voc_palette
from tests.support import command

HEIGHT, WIDTH = 20, 28
PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SOFT = np.random.default_rng(1).random((HEIGHT, WIDTH)).astype(np.float32)
run = partial(command.run, "refine")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with cat.png."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("cat.png")
    return tmp_path


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (HEIGHT, WIDTH, 1)])
def test_a_foreground_alone(shape, capsys):
    np.save("p.npy", SOFT.reshape(shape))
    np.savez("logits.npz", x=(np.log(SOFT) - np.log1p(-SOFT)).reshape(shape))
    expected = refine(PHOTO, SOFT, iterations=2)
    for option, source in (("--probabilities", "p.npy"), ("--logits", "logits.npz")):
        outputs = ("--out=out.png", "--save-probabilities=q.npy", "--overlay=over.jpg", "--trace=t.json")
        assert run("cat.png", option, source, "--iterations=2", *outputs) == 0
        assert_array_equal(pixels("out.png"), expected > 0.5)
        assert_allclose(np.load("q.npy"), expected.reshape(shape), atol=1e-3)
        rows = json.loads(Path("t.json").read_text())
        assert [row["iteration"] for row in rows] == [0, 1, 2]
        assert rows[1]["labels_changed"] > 0
    assert "2 labels" in capsys.readouterr().out


def test_until_it_settles(capsys):
    np.save("p.npy", SOFT)
    counts: list[int] = []
    expected = refine(PHOTO, SOFT, iterations="settled", tolerance=0.01, took=counts.append)
    settled = "--iterations=settled", "--tolerance=0.01"
    assert run("cat.png", "--probabilities", "p.npy", "--out=out.png", "--trace=t.json", *settled) == 0
    assert_array_equal(pixels("out.png"), expected > 0.5)
    assert f"settled in {counts[0]} iterations\n" in capsys.readouterr().out
    assert len(json.loads(Path("t.json").read_text())) == 1 + counts[0]


def test_a_folder_says_how_many_it_took(capsys):
    for folder in ("photos", "maps"):
        Path(folder).mkdir()
    counts: list[int] = []
    for name, p in (("sure", SOFT), ("unsure", 0.5 + 0.1 * (SOFT - 0.5))):
        Image.fromarray(PHOTO).save(f"photos/{name}.png")
        np.save(f"maps/{name}.npy", p)
        refine(PHOTO, p, iterations="settled", took=counts.append)
    assert run("photos", "--probabilities", "maps", "--out", "labels", "--iterations", "settled") == 0
    assert min(counts) < max(counts), "a test of images that take different times"
    assert f"settled in {min(counts)} to {max(counts)} iterations" in capsys.readouterr().out


def test_a_foreground_of_another_size():
    """Logits are scaled before the sigmoid, as those of several labels are before the softmax."""
    x = np.random.default_rng(2).standard_normal((HEIGHT // 2, WIDTH // 2)).astype(np.float32)
    np.save("x.npy", x)
    np.save("both.npy", np.stack([np.zeros_like(x), x]))
    for name in ("x", "both"):
        assert run("cat.png", "--logits", f"{name}.npy", "--out", f"{name}.png", "--resize", "--iterations=2") == 0
    assert_array_equal(pixels("x.png"), pixels("both.png"))


def test_what_is_no_foreground(capsys):
    np.save("mask.npy", (SOFT * 255).astype(np.uint8))
    assert run("cat.png", "--probabilities", "mask.npy", "--out", "out.png") == 1
    error = capsys.readouterr().err
    assert error.startswith("crfrnn refine: cat.png, mask.npy: probabilities: the largest of the foreground is 25")
    assert not Path("out.png").exists()


def test_labels_without_rows_are_no_foreground(capsys):
    """(labels, pixels), as pydensecrf has them, could be scaled as a picture of two rows."""
    np.save("flat.npy", np.stack([SOFT, 1 - SOFT]).reshape(2, -1))
    assert run("cat.png", "--probabilities", "flat.npy", "--out", "out.png", "--resize") == 1
    assert "flat.npy: shape (2, 560) has no rows; reshape it to (labels, 20, 28)" in capsys.readouterr().err
    Image.fromarray(PHOTO[:1]).save("row.png")
    np.save("row.npy", SOFT[:1])
    assert run("row.png", "--probabilities", "row.npy", "--out", "out.png") == 0


def test_a_picture_is_no_array(capsys):
    assert run("cat.png", "--probabilities", "cat.png", "--out", "out.png") == 1
    assert "cat.png: no array but a picture; a soft mask goes to --foreground" in capsys.readouterr().err


def test_files_of_nnunet():
    """(classes, 1, height, width) comes back in that form."""
    scores = np.exp(np.random.default_rng(3).standard_normal((3, 1, HEIGHT, WIDTH)))
    p = (scores / scores.sum(0)).astype(np.float32)
    np.savez("case.npz", probabilities=p)
    assert run("cat.png", "--probabilities=case.npz", "--out=out.png", "--save-probabilities=q.npz") == 0
    assert_array_equal(pixels("out.png"), refine(PHOTO, p[:, 0]).argmax(0))
    with np.load("q.npz") as saved:
        assert_allclose(saved["probabilities"], refine(PHOTO, p), atol=1e-3)


def test_a_soft_mask_is_asked_about(folder, capsys):
    Image.fromarray((SOFT * 255).astype(np.uint8)).save("soft.png")
    before = sorted(folder.iterdir())
    assert run("cat.png", "--labels", "soft.png", "--out", "out.png") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "levels of grey" in error
    assert "--foreground instead of --labels" in error
    assert sorted(folder.iterdir()) == before
    assert run("cat.png", "--labels", "soft.png", "--many-labels", "--out", "labels.png", "--iterations=1") == 0
    Image.fromarray((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 10).astype(np.uint16)).save("deep.png")
    assert run("cat.png", "--labels", "deep.png", "--out", "labels.png", "--iterations=1") == 0
    palette = Image.open("soft.png")
    palette.putpalette(voc_palette().tobytes())
    palette.save("palette.png")
    assert run("cat.png", "--labels", "palette.png", "--out", "labels.png", "--iterations=1") == 0
    assert run("cat.png", "--foreground", "soft.png", "--out", "out.png", "--save-probabilities", "q.npy") == 0
    expected = refine(PHOTO, (np.floor(SOFT * 255) + 0.5) / 256)
    assert_array_equal(pixels("out.png"), 255 * (expected > 0.5))
    assert_allclose(np.load("q.npy"), expected, atol=1e-3)
    assert run("cat.png", "--foreground", "soft.png", "--unsure", "0", "--out", "out.png") == 2


def test_folders_of_soft_masks_and_of_arrays(capsys):
    for name in ("photos", "masks", "arrays"):
        Path(name).mkdir()
    for number in range(4):
        Image.fromarray(PHOTO).save(f"photos/{number}.jpg")
        Image.fromarray((SOFT * 255).astype(np.uint8)).save(f"masks/{number}.png")
        np.save(f"arrays/{number}.npy", SOFT if number % 2 else SOFT[None])
    assert run("photos", "--foreground", "masks", "--out", "out", "--iterations=1", "--overlay", "over") == 0
    assert "refined 4 images" in capsys.readouterr().out
    assert set(np.unique(pixels("out/0.png"))) == {0, 255}
    assert (
        run("photos", "--probabilities", "arrays", "--out", "two", "--iterations=1", "--save-probabilities", "q") == 0
    )
    with np.load("q/1.npz") as odd, np.load("q/2.npz") as even:
        assert (odd["probabilities"].shape, even["probabilities"].shape) == ((HEIGHT, WIDTH), (1, HEIGHT, WIDTH))
    assert run("photos", "--labels", "masks", "--out", "labels") == 1
    assert capsys.readouterr().err.count("levels of grey") == 4


def one_class() -> dict[str, Image.Image]:
    grey = Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8))
    palette = grey.copy()
    palette.putpalette(voc_palette().tobytes())
    return {"grey": grey, "palette": palette, "colours": palette.convert("RGB")}


@pytest.mark.parametrize("kind", one_class())
def test_a_map_of_one_class_stays_as_it_is(kind, capsys):
    one_class()[kind].save("one.png")
    outputs = ("--out=out.png", "--overlay=over.png", "--save-probabilities=q.npy", "--trace=t.json")
    assert run("cat.png", "--labels", "one.png", "--iterations=3", *outputs) == 0
    assert_array_equal(pixels("out.png"), pixels("one.png"))
    with Image.open("one.png") as before, Image.open("out.png") as after:
        assert (after.mode, after.getpalette()) == (before.mode, before.getpalette())
    assert_array_equal(np.load("q.npy"), np.ones((1, HEIGHT, WIDTH)))
    rows = json.loads(Path("t.json").read_text())
    assert [(row["iteration"], row["energy"], row["change"]) for row in rows] == [(t, 0, 0) for t in range(4)]
    assert "1 label" in (out := capsys.readouterr().out)
    assert "0.0% of the pixels changed" in out


def test_unsure_pixels_get_the_only_label():
    coarse = np.full((HEIGHT, WIDTH), 7, np.uint8)
    coarse[:5] = 255
    Image.fromarray(coarse).save("one.png")
    assert run("cat.png", "--labels", "one.png", "--unsure", "255", "--out", "out.png") == 0
    assert (pixels("out.png") == 7).all()


@pytest.fixture
def maps(folder) -> None:
    """photos/ and maps/ with one, two and three classes."""
    Path("photos").mkdir()
    Path("maps").mkdir()
    for classes in (1, 2, 3):
        Image.fromarray(PHOTO).save(f"photos/{classes}.jpg")
        Image.fromarray((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % classes).astype(np.uint8)).save(
            f"maps/{classes}.png"
        )


def test_one_class_among_the_maps_of_a_folder(maps, capsys):
    command = ("photos", "--labels", "maps", "--out", "out", "--iterations=1")
    assert run(*command) == 0
    assert "refined 3 images" in capsys.readouterr().out
    assert (pixels("out/1.png") == 0).all()
    assert run(*command) == 0
    assert "refined 0 images" in capsys.readouterr().out


def test_a_confidence_that_is_too_low_for_one_map_is_refused_for_all(maps, capsys):
    command = ("photos", "--labels", "maps", "--out", "out", "--iterations=1", "--confidence")
    for confidence in ("0.5", "0.2"):
        assert run(*command, confidence) == 2
        assert f"confidence: {confidence} must be above 1 / 2, as maps/2.png has 2 labels" in capsys.readouterr().err
        assert not Path("out").exists()
    shards = [run(*command, "0.5", f"--shard={number}/2") for number in (1, 2)]
    assert sorted(shards) == [0, 2]  # each looks at its own maps
    shutil.rmtree("out")
    assert run("photos/3.jpg", "--labels=maps/3.png", "--out=3.png", "--confidence=0.3") == 2
    assert run("photos/3.jpg", "--labels=maps/3.png", "--out=3.png", "--confidence=0.4") == 0
    Path("maps/2.png").write_bytes(b"")  # as far as it can be read
    capsys.readouterr()
    assert run(*command, "0.4") == 1
    assert "1 of 3 failed" in capsys.readouterr().err
    assert sorted(path.name for path in Path("out").iterdir()) == ["1.png", "3.png"]


def test_16_bits_are_read_as_by_the_function(folder):
    deep, scores = PHOTO.mean(axis=2).astype(np.uint16) * 16, np.random.default_rng(0).random((3, *PHOTO.shape[:2]))
    p = (scores / scores.sum(0)).astype(np.float32)
    Image.fromarray(deep).save("deep.tif")
    np.save("p.npy", p)
    with pytest.warns(UserWarning, match="no value is above 4095"):
        assert run("deep.tif", "--probabilities", "p.npy", "--out", "o.png", "--iterations", "2") == 0
    with pytest.warns(UserWarning, match="no value is above 4095"):
        expected = refine(np.stack([deep] * 3, axis=2), p, iterations=2)
    assert_array_equal(np.asarray(Image.open("o.png")), expected.argmax(0))


def test_numbers_at_the_ends_of_names_are_no_channels():
    """frame_0000.png and frame_0001.png with predictions of these names are two photographs."""
    Path("frames").mkdir()
    Path("soft").mkdir()
    for number in range(2):
        Image.fromarray(PHOTO[:, ::-1] if number else PHOTO).save(f"frames/frame_{number:04d}.png")
        np.save(f"soft/frame_{number:04d}.npy", SOFT)
    assert run("frames", "--probabilities=soft", "--out=out", "--iterations=1") == 0
    assert_array_equal(pixels("out/frame_0000.png"), refine(PHOTO, SOFT, iterations=1) > 0.5)
    assert_array_equal(pixels("out/frame_0001.png"), refine(PHOTO[:, ::-1], SOFT, iterations=1) > 0.5)
