"""`crfrnn refine` on rasters: any bands, nodata, places on the map, windows; what is wrong is one line."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import ExifTags, Image

from crfrnn import refine
from crfrnn.cli import main
from crfrnn.commands.refine import windows
from tests.support import command
from tests.support.rasters import SIZE, STEP, case, load, rasterio, save, utm

rasterio()
BANDS, P, TRUTH = case()
GUIDE = np.moveaxis(BANDS, 0, -1).astype(np.float32)
CRF = ("--kernel=bilateral:6,200,2", "--kernel=spatial:1.5,1", "--iterations=3")
KERNELS = ["bilateral:6,200,2", "spatial:1.5,1"]
SMALL = 3600  # pixels of all windows at a time
run = partial(command.run, "refine")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with scene.tif and p.npy."""
    monkeypatch.chdir(tmp_path)
    save("scene.tif", BANDS)
    np.save("p.npy", P)
    return tmp_path


@pytest.fixture
def small_windows(monkeypatch) -> None:
    """As if the scene were larger than memory, and halos short enough for it."""
    monkeypatch.setattr(windows, "LEAST_CORE", 8)
    monkeypatch.setattr(windows, "bytes_per_pixel", lambda *_: (2e9 - windows.BEGUN) / SMALL)


def expected(**options: Any) -> np.ndarray:
    return refine(GUIDE, P, **{"kernels": KERNELS, "iterations": 3, **options})


class TestOneWindow:
    def test_every_form_of_predictions(self, capsys):
        save("p.tif", P)
        scaled = np.rint(P * 250).astype(np.uint8)
        save("eighth.tif", scaled)
        with rasterio().open("eighth.tif", "r+") as file:
            file.scales = (1 / 250,) * 3
        np.save("last.npy", np.moveaxis(P, 0, -1))
        np.savez("p.npz", other=P, probabilities=P)
        save("logits.tif", np.log(P))
        found = {}
        for name in ("p.npy", "p.tif", "last.npy", "p.npz", "eighth.tif", "logits.tif"):
            kind = "logits" if name == "logits.tif" else "probabilities"
            assert run("scene.tif", f"--{kind}={name}", "--key=other", "--out=o.tif", *CRF) == 0, name
            found[name] = load("o.tif")
            assert (found[name] == expected().argmax(0)).mean() > 0.995, name
        for name in ("p.tif", "last.npy", "p.npz"):  # the same numbers
            assert_array_equal(found[name], found["p.npy"], err_msg=name)
            assert load("o.tif").dtype == np.uint8
        said = capsys.readouterr().out
        assert "refined scene.tif (70 x 52), 3 labels" in said
        assert "bands 1, 2, 3 in counts" in said
        assert "windows" not in said
        assert (expected().argmax(0) == TRUTH).mean() > (P.argmax(0) == TRUTH).mean() + 0.05

    def test_marginals_are_those_of_the_function(self):
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF) == 0
        assert_allclose(load("q.tif"), expected(), atol=1e-5)
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.npy", *CRF) == 0
        assert_array_equal(np.load("q.npy"), load("q.tif").astype(np.float16))
        np.save("f.npy", P[1][None])
        assert run("scene.tif", "--probabilities=f.npy", "--out=o.tif", "--save-probabilities=q.npy", *CRF) == 0
        assert_allclose(np.load("q.npy"), refine(GUIDE, P[1][None], kernels=KERNELS, iterations=3), atol=1e-3)

    def test_place_dtype_nodata_and_colours(self):
        """What a desktop program needs to show the labels where the scene is."""
        place: dict[str, Any] = {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "zstd", "nodata": 4095}
        holed = BANDS.copy()
        holed[1, 8:20, 50:60] = 4095
        save("scene.tif", holed, **place)
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF) == 0
        with rasterio().open("scene.tif") as scene, rasterio().open("o.tif") as file, rasterio().open("q.tif") as q:
            for one in (file, q):
                assert (one.crs, one.transform, one.block_shapes[0]) == (scene.crs, scene.transform, (16, 32))
                assert one.compression == scene.compression
            assert (file.nodata, file.dtypes) == (255, ("uint8",))
            assert file.colormap(1)[1] == (128, 0, 0, 255)
            assert np.isnan(q.nodata)
            assert_array_equal(file.read_masks(1) == 0, np.isnan(q.read(1)))
            assert_array_equal(file.read_masks(1) == 0, (holed == 4095).any(axis=0))

    def test_nodata_has_no_opinion_and_no_influence(self, capsys):
        mask, found = np.ones(SIZE, bool), []
        mask[10:25, 30:50] = False
        for junk, seed in ((0, 1), (3000, 2)):
            p, bands = P.copy(), np.where(mask, BANDS, junk).astype(np.float32)
            bands[:, ~mask] += 7 * np.random.default_rng(seed).random((3, (~mask).sum()))
            save("junk.tif", bands)
            with rasterio().open("junk.tif", "r+") as file:
                file.write_mask(mask)
            p[:, ~mask] = np.nan
            np.save("junk.npy", p)
            assert run("junk.tif", "--probabilities=junk.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF) == 0
            found.append(load("q.tif"))
            assert np.isnan(found[-1][:, ~mask]).all()
            assert_array_equal(load("o.tif") == 255, ~mask)
        assert_array_equal(*found)
        # here what does not count makes no vertices of the lattice, in the function it does: exact CRFs would be equal
        assert_allclose(found[0][:, mask], expected(mask=mask)[:, mask], atol=2e-3)
        assert f"masked: {(~mask).mean():.1%} of the pixels" in capsys.readouterr().out

    def test_nodata_of_predictions(self):
        p = P.copy()
        p[:, :9] = -1
        save("p.tif", p, nodata=-1)
        assert run("scene.tif", "--probabilities=p.tif", "--out=o.tif", *CRF) == 0
        assert_array_equal(load("o.tif") == 255, np.indices(SIZE)[0] < 9)
        save("f.tif", p[1], nodata=-1)
        assert run("scene.tif", "--probabilities=f.tif", "--out=o.tif", *CRF) == 0
        assert_array_equal(np.unique(load("o.tif")), (0, 1, 255))

    def test_bands_and_several_files(self):
        save("other.tif", BANDS[:1] + 9)
        arguments = ("--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF)
        assert run("scene.tif", "--bands=3,1", *arguments) == 0
        assert_allclose(load("q.tif"), refine(GUIDE[..., [2, 0]], P, kernels=KERNELS, iterations=3), atol=1e-5)
        assert run("scene.tif,other.tif", "--bands=4,2", *arguments) == 0
        both = np.stack([GUIDE[..., 0] + 9, GUIDE[..., 1]], axis=-1)
        assert_allclose(load("q.tif"), refine(both, P, kernels=KERNELS, iterations=3), atol=1e-5)

    def test_metres(self):
        """Bandwidths through the transform, of pixels that are no squares."""
        save("scene.tif", BANDS, utm() | {"transform": utm()["transform"].from_gdal(0, 20, 0, 0, 0, -STEP)})
        metres = ("--metres", "--kernel=bilateral:60,200,2", "--kernel=spatial:30,1", "--iterations=3")
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *metres) == 0
        q = refine(GUIDE, P, kernels=["bilateral:60,200,2", "spatial:30,1"], iterations=3, spacing=(STEP, 20))
        assert_allclose(load("q.tif"), q, atol=1e-5)

    def test_standardize(self, capsys):
        assert (
            run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", "--standardize") == 0
        )
        assert_allclose(load("q.tif"), refine(GUIDE, P, standardize=True), atol=1e-5)
        lows = [int(np.percentile(band, 0.5, method="nearest")) for band in BANDS]
        assert re.search(
            rf"bands 1, 2, 3 standardized: {lows[0]}\.\.\d+, {lows[1]}\.\.\d+, {lows[2]}", capsys.readouterr().out
        )

    def test_label_maps(self):
        seg = np.array([3, 400, 7], np.uint16)[P.argmax(0)]
        seg[:, :5], seg[:6] = 99, 0
        save("seg.tif", seg, nodata=0)
        source = ("scene.tif", "--labels=seg.tif", "--confidence=0.6", "--unsure=99", "--out=o.tif", *CRF)
        assert run(*source) == 0
        mask = seg != 0
        order = [0, 2, 1]  # of the values 3, 7, 400
        p = np.where(P.argmax(0) == np.arange(3)[:, None, None], 0.6, 0.2)[order]
        p[:, seg == 99] = 1 / 3
        q = refine(GUIDE, p.astype(np.float32), kernels=KERNELS, iterations=3, mask=mask)
        values = np.array([3, 7, 400])[q.argmax(0)]
        assert (load("o.tif") == np.where(mask, values, 0)).mean() > 0.999
        with rasterio().open("o.tif") as file:
            assert (file.nodata, file.dtypes) == (0, ("uint16",))

    def test_one_label_stays_as_it_is(self):
        save("seg.tif", np.full(SIZE, 4, np.uint8))
        assert run("scene.tif", "--labels=seg.tif", "--out=o.tif", *CRF) == 0
        assert_array_equal(load("o.tif"), 4)

    def test_photographs_that_become_tiffs(self):
        Image.fromarray((np.moveaxis(BANDS, 0, -1) // 16).astype(np.uint8)).save("photo.png")
        assert run("photo.png", "--probabilities=p.npy", "--out=o.tif") == 0
        assert_array_equal(load("o.tif"), refine((np.moveaxis(BANDS, 0, -1) // 16).astype(np.uint8), P).argmax(0))

    def test_photographs_that_lie_down(self, capsys):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 3
        Image.fromarray((np.moveaxis(BANDS, 0, -1) // 16).astype(np.uint8)).save("photo.jpg", exif=exif)
        assert run("photo.jpg", "--probabilities=p.npy", "--out=o.tif") == 1
        assert "photo.jpg: its EXIF data say to turn it" in capsys.readouterr().err


@pytest.mark.usefixtures("small_windows")
class TestLargePhotographs:
    """More pixels than are safe: the same command and the same PNG."""

    @pytest.fixture(autouse=True)
    def few_are_safe(self, monkeypatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    def test_labels_are_those_of_the_whole(self, capsys, monkeypatch):
        photo = (np.moveaxis(BANDS, 0, -1) // 16).astype(np.uint8)
        Image.fromarray(photo).save("photo.png")
        assert run("photo.png", "--probabilities=p.npy", "--out=o.png", *CRF) == 0
        assert "windows: " in capsys.readouterr().out
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert run("photo.png", "--probabilities=p.npy", "--out=whole.png", *CRF) == 0
        with Image.open("o.png") as windows, Image.open("whole.png") as whole:
            assert windows.mode == whole.mode == "P"
            assert (windows.getpalette() or [])[:9] == (whole.getpalette() or [])[:9] != []
            assert (np.asarray(windows) == np.asarray(whole)).mean() > 0.999
        assert not list(Path().glob("*.xml"))

    def test_refusals(self, capsys):
        Image.fromarray(BANDS[0].astype(np.uint8)).convert("P").save("photo.png")
        assert run("photo.png", "--probabilities=p.npy", "--out=o.png") == 1
        assert "photo.png: its colours are a palette's" in capsys.readouterr().err
        assert run("photo.png", "--probabilities=p.npy", "--out=o.png", "--overlay=v.png") == 2
        assert not Path("o.png").exists()


@pytest.mark.usefixtures("small_windows")
class TestWindows:
    def test_labels_are_those_of_the_whole(self, capsys):
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF) == 0
        said = re.search(r"windows: (\d+) of \d+ x \d+ pixels with a halo of 18, \d at a time", capsys.readouterr().out)
        assert said
        assert int(said[1]) > 4
        assert (load("o.tif") == expected().argmax(0)).mean() > 0.999
        assert_array_equal(load("q.tif").argmax(0), load("o.tif"))
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.npy", *CRF) == 0
        assert_array_equal(np.load("q.npy"), load("q.tif").astype(np.float16))

    def test_each_settles_by_itself(self, capsys):
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", *CRF[:2], "--iterations=settled") == 0
        assert re.search(r"settled in (\d+ to )?\d+ iterations\n", capsys.readouterr().out)
        assert (load("o.tif") == expected(iterations="settled").argmax(0)).mean() > 0.99

    def test_windows_without_anything(self):
        """Most of a scene is nodata, as it is where a path of a satellite crosses its square."""
        empty = np.where(np.indices(SIZE).sum(axis=0) < 90, 0, BANDS).astype(np.uint16)
        save("scene.tif", empty, nodata=0)
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF) == 0
        assert_array_equal(load("o.tif") == 255, empty[0] == 0)
        mask = empty[0] > 0
        assert (load("o.tif") == expected(mask=mask).argmax(0))[mask].mean() > 0.999

    def test_failures_leave_nothing(self, folder, capsys):
        """In the last window, after all others were written."""
        p = P.copy()
        p[:, -1, -1] = np.nan
        np.save("p.npy", p)
        before = sorted(folder.iterdir())
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", "--save-probabilities=q.tif", *CRF) == 1
        assert "scene.tif, p.npy: probabilities: NaN" in capsys.readouterr().err
        assert sorted(folder.iterdir()) == before


class TestFolders:
    def test_resumed_and_one_broken(self, capsys):
        for name in ("scenes", "p"):
            Path(name).mkdir()
        for number in range(3):
            one = case(number)
            save(f"scenes/{number}.tif", one.bands)
            save(f"p/{number}.tif", one.probabilities)
        whole = Path("scenes/1.tif").read_bytes()
        Path("scenes/1.tif").write_bytes(whole[: len(whole) // 2])
        command = ("scenes", "--probabilities=p", "--out=o", "--save-probabilities=q", *CRF)
        assert run(*command) == 1
        assert "scenes/1.tif: not a readable raster" in capsys.readouterr().err
        assert sorted(path.name for path in Path("o").iterdir()) == ["0.tif", "2.tif"]
        Path("scenes/1.tif").write_bytes(whole)
        assert run(*command) == 0
        assert "refined 1 images" in (said := capsys.readouterr().out)
        assert "skipped 2 that were done" in said
        assert sorted(path.name for path in Path("q").iterdir()) == ["0.tif", "1.tif", "2.tif"]


class TestOtherVerbs:
    def test_evaluate(self, capsys):
        """By hand: nodata of the truth does not count."""
        pytest.importorskip("monai", reason="pip install 'crfrnn[volumes]'")
        truth, called = TRUTH.copy(), np.zeros(SIZE, np.uint8)
        truth[:, :5] = 99
        save("truth.tif", truth, nodata=99)
        save("called.tif", called)
        assert main(("evaluate", "called.tif", "--ground-truth=truth.tif", "--out=e")) == 0
        (scores,) = json.loads(Path("e/scores.json").read_text())
        assert scores["iou"]["0"] == pytest.approx((truth == 0).mean() / (truth != 99).mean())
        assert scores["iou"]["1"] == 0
        save("called.tif", called, utm() | {"crs": "EPSG:32633"})
        assert main(("evaluate", "called.tif", "--ground-truth=truth.tif")) == 1
        assert "called.tif: another coordinate system" in capsys.readouterr().err

    def test_fit_wants_pictures(self, capsys):
        for name in ("scenes", "p"):
            Path(name).mkdir()
            save(f"{name}/a.tif", BANDS)
        assert main(("fit", "scenes", "p", "scenes", "--out=crf.yaml")) == 1
        assert "scenes: holds rasters, and fit wants pictures" in capsys.readouterr().err


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--out=o.png", *CRF), 2, "out: labels of rasters are written as .tif or .tiff, and o.png"),
            (("--out=o.tif",), 1, r"scene.tif: counts \d+\.\.\d+, but theta_beta of a preset .* standardize"),
            (("--out=o.tif", "--bands=4,x", *CRF), 2, "bands: expected different numbers from 1 on"),
            (("--out=o.tif", "--bands=4,4", *CRF), 2, "bands: expected different numbers from 1 on"),
            (("--out=o.tif", "--bands=4", *CRF), 1, "bands: scene.tif has bands 1 to 3, and no 4"),
            (("--out=o.tif", "--memory=much", *CRF), 2, "memory: expected a size such as 2GB"),
            (("--out=o.tif", "--memory=601MB", *CRF), 1, "memory: leaves room for a window of"),
            (("--out=o.tif", "--overlay=o.png", *CRF), 2, "overlay: there is no picture of a raster"),
            (("--out=o.tif", "--resize", *CRF), 2, "resize: predictions for a raster must be on its grid"),
            (("--out=o.tif", "--trace=t.csv", *CRF), 2, "trace: rasters are worked on window by window"),
            (("--out=o.tif", "--attributes=red", *CRF), 2, "attributes: is for clouds of points"),
            (("--out=o.tif", "--save-probabilities=q.npz", *CRF), 2, "save-probabilities: q.npz must end in .tif or"),
        ],
    )
    def test_options(self, arguments, code, message, capsys, folder):
        before = sorted(folder.iterdir())
        assert run("scene.tif", "--probabilities=p.npy", *arguments) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)
        assert sorted(folder.iterdir()) == before

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: np.save("p.npy", P[:, 1:]), "p.npy: 70 x 51, but the raster has 70 x 52 pixels"),
            (lambda: np.save("p.npy", 9 * P), r"scene.tif, p.npy: probabilities: they sum to 9\.\.9"),
            (lambda: Path("p.npy").write_bytes(Path("p.npy").read_bytes()[:5000]), "p.npy: not a readable array"),
            (lambda: np.save("p.npy", np.full_like(P, np.nan)), "scene.tif, p.npy: probabilities: NaN"),
            (lambda: save("scene.tif", BANDS * 0, nodata=0), "scene.tif: every pixel is nodata or masked"),
            (lambda: save("scene.tif", BANDS * np.float32(np.nan)), "scene.tif: every pixel is nodata or masked"),
            (lambda: Path("scene.tif").write_bytes(b"II*\0"), "scene.tif: not a readable raster"),
        ],
    )
    def test_files(self, make, message, capsys, folder):
        make()
        before = sorted(folder.iterdir())
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", *CRF) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)
        assert sorted(folder.iterdir()) == before

    def test_places(self, capsys):
        other = utm() | {"crs": "EPSG:32633"}
        save("seg.tif", TRUTH, other)
        save("p.tif", P, utm() | {"transform": utm()["transform"].from_gdal(0, STEP, 0, 0, 0, -STEP)})
        for source, message in (
            ("labels=seg.tif", "seg.tif: another coord"),
            ("probabilities=p.tif", "p.tif: another tr"),
        ):
            assert run("scene.tif", f"--{source}", "--out=o.tif", *CRF) == 1
            assert message in capsys.readouterr().err
        save("degrees.tif", BANDS, {"crs": "EPSG:4326", "transform": utm()["transform"]})
        assert run("degrees.tif", "--probabilities=p.npy", "--out=o.tif", "--metres", *CRF) == 1
        assert "metres: degrees.tif is in degrees (EPSG:4326)" in capsys.readouterr().err

    def test_other_kinds_have_none_of_it(self, capsys):
        Image.new("RGB", (SIZE[1], SIZE[0])).save("a.png")
        for option in ("--bands=1", "--metres", "--memory=1GB"):
            assert run("a.png", "--probabilities=p.npy", "--out=o.png", option) == 2
            assert "is for rasters" in capsys.readouterr().err

    def test_without_the_library(self, monkeypatch, capsys):
        monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
        assert run("scene.tif", "--probabilities=p.npy", "--out=o.tif", *CRF) == 1
        assert "scene.tif: needs rasterio; pip install 'crfrnn[rasters]'" in capsys.readouterr().err
