"""Rasters in files: what is read is what was written, and labels lie where the bands lay."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from crfrnn.data.files import clear_parts
from crfrnn.data.kinds import Photograph, Raster, kind_of
from crfrnn.data.kinds.raster_labels import RasterLabels, label_nodata
from crfrnn.data.labels import UNSURE, LabelStyle
from crfrnn.data.predictions import Form
from tests.support.rasters import SIZE, STEP, case, load, rasterio, save, utm

rasterio()
BANDS, P, TRUTH = case()
ALL = slice(0, SIZE[0]), slice(0, SIZE[1])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(*names: str) -> Raster:
    return Raster.open([Path(name) for name in names])


class TestWhichKind:
    @pytest.mark.parametrize(
        ("values", "profile"),
        [
            (BANDS[:2], {}),
            (np.repeat(BANDS, 4, axis=0), {}),
            (BANDS.astype(np.float32), {}),
            (BANDS.astype(np.uint8), {"nodata": 0}),
            (BANDS.astype(np.uint8), utm()),
            (BANDS[0].astype(np.uint8), {"crs": "EPSG:4326"}),
            (BANDS.astype(np.uint8), {"transform": utm()["transform"]}),
            (BANDS[0].astype(np.int32), {"BIGTIFF": "YES"}),
        ],
    )
    def test_rasters(self, values, profile):
        save("a.tif", values, {}, **profile)
        assert kind_of(Path("a.tif")) is Raster

    @pytest.mark.parametrize("values", [BANDS.astype(np.uint8), BANDS[0].astype(np.uint8), BANDS[0]])
    def test_photographs(self, values):
        """Of 8 bits, or grey of 16, which Pillow has always read; as what becomes a TIFF they are rasters too."""
        save("a.tif", values, {}, photometric="RGB" if values.ndim == 3 else "MINISBLACK")
        Image.new("RGB", (5, 4)).save("b.tif")
        for name in ("a.tif", "b.tif"):
            assert kind_of(Path(name)) is Photograph
            assert kind_of(Path(name), [Path("o.tif")]) is Raster
            assert kind_of(Path(name), [Path("o.png")]) is Photograph
        assert kind_of(Path()) is Photograph

    def test_folders_and_other_files(self):
        for name in ("a.tif", "b.tif"):
            save(name, BANDS)
        Image.new("RGB", (5, 4)).save("c.tif")
        assert kind_of(Path()) is Raster
        Path("d.tif").write_bytes(b"II*\0" + struct.pack("<I", 9999))
        Path("e.tif").write_bytes(b"")
        for name in ("d.tif", "e.tif", "missing.tif"):
            assert kind_of(Path(name)) is Photograph
        assert kind_of(Path("a.jp2")) is Raster


class TestReading:
    def test_bands_in_their_order(self):
        save("a.tif", BANDS)
        save("b.tif", BANDS[0] + 7)
        assert_array_equal(opened("a.tif").guide(), np.moveaxis(BANDS, 0, -1))
        both = opened("a.tif", "b.tif").with_channels(["4", "2", "3"])
        values, valid = both.read(slice(5, 20), slice(30, 33))
        assert_array_equal(values, np.stack([BANDS[0] + 7, BANDS[1], BANDS[2]])[:, 5:20, 30:33])
        assert valid.all()
        assert both.channels == ["4", "2", "3"]

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
    def test_counts_are_as_they_are(self, dtype):
        save("a.tif", (BANDS // 16).astype(dtype))
        assert_array_equal(opened("a.tif").read(*ALL)[0], BANDS // 16)

    def test_nodata_masks_alpha_and_nan(self):
        hole = np.zeros(SIZE, bool)
        hole[3:9, 4:20] = True
        save("nodata.tif", np.where(hole, 5000, BANDS).astype(np.uint16), nodata=5000)
        one = BANDS.astype(np.float32)
        one[1, hole] = np.nan  # in one band alone
        save("nan.tif", one)
        save("mask.tif", BANDS)
        with rasterio().open("mask.tif", "r+") as file:
            file.write_mask(~hole)
        alpha = np.concatenate([BANDS // 16, np.where(hole, 0, 255)[None]]).astype(np.uint8)
        save("alpha.tif", alpha, photometric="RGB", alpha="yes")
        for name in ("nodata.tif", "nan.tif", "mask.tif", "alpha.tif"):
            raster = opened(name)
            assert len(raster.bands) == 3
            assert raster.masked
            assert_array_equal(raster.read(*ALL)[1], ~hole, err_msg=name)
            assert np.isfinite(raster.sample()).all()
            assert raster.sample().shape == (3, (~hole).sum())
        assert opened("nan.tif").with_channels(["1", "3"]).read(*ALL)[1].all()

    def test_metres(self):
        save("a.tif", BANDS)
        assert opened("a.tif").frame.steps() == (STEP, STEP)
        turned = utm()["transform"].from_gdal(5e5, 3, 4, 6e6, 8, -6)  # steps of 5 along x, of 2 * 13**0.5 along y
        save("turned.tif", BANDS, {"crs": "EPSG:32632", "transform": turned})
        assert opened("turned.tif").frame.steps() == pytest.approx((52**0.5, 73**0.5))
        save("feet.tif", BANDS, {"crs": "EPSG:2263", "transform": utm()["transform"]})
        assert opened("feet.tif").frame.steps() == pytest.approx((STEP * 0.3048, STEP * 0.3048), rel=1e-5)
        save("degrees.tif", BANDS, {"crs": "EPSG:4326", "transform": utm()["transform"]})
        save("nowhere.tif", BANDS, {})
        for name, message in (("degrees", r"in degrees \(EPSG:4326\).*gdalwarp"), ("nowhere", "does not say where")):
            with pytest.raises(ValueError, match=f"^metres: {name}.tif .*{message}"):
                opened(f"{name}.tif").frame.steps()

    def test_the_range_of_a_large_one_is_looked_for_all_over_it(self, monkeypatch):
        monkeypatch.setattr("crfrnn.data.kinds.raster.SAMPLES", (4, 8))
        save("a.tif", np.indices(SIZE).sum(axis=0).astype(np.uint16))
        sample = opened("a.tif").sample()
        assert sample.shape == (1, 4 * 4 * 8 * 8)
        assert (sample.min(), sample.max()) == (0, sum(SIZE) - 2)


class TestWriting:
    LAYOUTS: tuple[dict[str, Any], ...] = (
        {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "zstd"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"blockysize": 7, "compress": "lzw"},
        {},
    )

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_place_and_layout_are_kept(self, layout):
        save("a.tif", BANDS, nodata=7, **layout)
        raster = opened("a.tif")
        raster.write_labels(Path("labels.tif"), TRUTH, LabelStyle.voc(3))
        with raster.writing_planes(Path("p.tif"), Form.usual(2), 3) as write:
            write(*ALL, P)
        assert_array_equal(load("labels.tif"), TRUTH)
        assert_array_equal(load("p.tif"), P)
        with rasterio().open("a.tif") as a:
            for name in ("labels.tif", "p.tif"):
                with rasterio().open(name) as file:
                    assert (file.crs, file.transform, file.tags()) == (a.crs, a.transform, a.tags())
                    assert (file.block_shapes[0], file.compression) == (a.block_shapes[0], a.compression)

    def test_pixels_are_points_where_they_were(self):
        save("a.tif", BANDS)
        with rasterio().open("a.tif", "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
        opened("a.tif").write_labels(Path("o.tif"), TRUTH, LabelStyle.voc(3))
        with rasterio().open("o.tif") as file, rasterio().open("a.tif") as a:
            assert file.tags()["AREA_OR_POINT"] == "Point"
            assert file.transform == a.transform

    def test_what_loses_something_is_not_kept(self):
        save("a.tif", BANDS.astype(np.uint8), tiled=True, blockxsize=32, blockysize=32, compress="jpeg")
        opened("a.tif").write_labels(Path("o.tif"), TRUTH, LabelStyle.voc(3))
        assert_array_equal(load("o.tif"), TRUTH)
        with rasterio().open("o.tif") as file:
            assert file.profile["compress"] == "deflate"
            assert file.block_shapes == [(32, 32)]

    def test_without_a_place(self):
        save("a.tif", np.repeat(BANDS, 2, axis=0), {})
        opened("a.tif").write_labels(Path("o.tif"), TRUTH, LabelStyle.voc(3))
        with rasterio().open("o.tif") as file:
            assert file.crs is None
            assert file.transform.is_identity

    def test_colours_and_values(self):
        save("a.tif", BANDS)
        colours = bytes([9, 8, 7, 200, 100, 0, 1, 2, 3]).ljust(768, b"\0")
        opened("a.tif").write_labels(Path("o.tif"), TRUTH, LabelStyle((0, 2, 1), colours))
        assert_array_equal(load("o.tif"), np.array([0, 2, 1])[TRUTH])
        with rasterio().open("o.tif") as file:
            assert file.colormap(1)[1] == (200, 100, 0, 255)
            assert file.colormap(1)[2] == (1, 2, 3, 255)
            assert file.nodata is None
        assert RasterLabels.open(Path("o.tif"), None).style.palette == colours

    @pytest.mark.parametrize(
        ("style", "wishes", "expected"),
        [
            (LabelStyle((0, 1)), (None, 0.0), ("uint8", 255)),  # the image's nodata is a class
            (LabelStyle((0, 1)), (9.0, 7.0), ("uint8", 9)),
            (LabelStyle((0, 1)), (None, -9999.0), ("uint8", 255)),
            (LabelStyle((0, 1), dtype="int16"), (None, -9999.0), ("int16", -9999)),
            (LabelStyle((0, 1)), (None, float("nan")), ("uint8", 255)),
            (LabelStyle((0, 255)), (None, None), ("uint8", 254)),
            (LabelStyle(tuple(range(256))), (None, None), ("uint16", 65535)),
            (LabelStyle((0, 300), deep=True), (None, None), ("uint16", 65535)),
            (LabelStyle((0, 1), dtype="int64"), (None, 2.0**62), ("int64", 2**53)),  # files keep it as a float64
            (LabelStyle((0, 1), dtype="uint64"), (None, None), ("uint64", 2**53)),
        ],
    )
    def test_what_stands_for_no_label(self, style, wishes, expected):
        assert label_nodata(style, wishes) == expected

    def test_a_file_that_is_being_written_stays_locked(self, folder):
        """GDAL writes into the very file that is locked, so that no other process takes it for a left one."""
        save("a.tif", BANDS)
        clear_parts.cache_clear()
        with opened("a.tif").writing_labels(Path("o.tif"), LabelStyle.voc(3)) as write:
            clear_parts.__wrapped__(folder)
            write(0, TRUTH, np.ones(SIZE, bool))
        assert_array_equal(load("o.tif"), TRUTH)

    def test_little_of_files_is_kept_in_memory_but_some(self, folder):
        """A block that is written in two pieces is compressed once: without a cache the file grew to twice the size."""
        noise = np.random.default_rng(0).integers(0, 9, (512, 512), dtype=np.uint8)
        save("a.tif", noise, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
        with opened("a.tif").writing_labels(Path("o.tif"), LabelStyle(tuple(range(9)))) as write:
            for row in range(0, 512, 100):
                write(row, noise[row : row + 100], np.ones_like(noise[row : row + 100], bool))
        assert Path("o.tif").stat().st_size < 1.1 * Path("a.tif").stat().st_size

    def test_nothing_stays_of_what_failed(self, folder):
        save("a.tif", BANDS)
        with pytest.raises(ZeroDivisionError), opened("a.tif").writing_labels(Path("o.tif"), LabelStyle.voc(3)):
            raise ZeroDivisionError
        assert [path.name for path in folder.iterdir()] == ["a.tif"]


class TestLabels:
    def test_dtype_and_nodata(self):
        values = np.array([40, 300, 7], np.int16)[TRUTH]
        values[:4] = -1
        save("seg.tif", values, nodata=-1)
        labels = RasterLabels.open(Path("seg.tif"), 40)
        assert (labels.style.values, labels.style.dtype) == ((7, 300), "int16")
        indices, valid = labels.indices(*ALL)
        assert_array_equal(valid, values != -1)
        assert_array_equal(indices[4:], np.select([values == 40, values == 7], [UNSURE, 0], 1)[4:])

    @pytest.mark.parametrize(
        ("values", "profile", "unsure", "message"),
        [
            (BANDS, {}, None, "seg.tif: 3 bands; a label raster has one"),
            (TRUTH + np.float32(0.5), {}, None, "seg.tif: numbers that are not whole"),
            (TRUTH * 0, {"nodata": 0}, None, "seg.tif: every pixel is unsure"),
            (BANDS[0], {}, None, "seg.tif: .* different values"),
            (TRUTH, {}, (0, 0, 0), "unsure: seg.tif holds numbers"),
        ],
    )
    def test_refusals(self, values, profile, unsure, message):
        save("seg.tif", values, **profile)
        with pytest.raises(ValueError, match=f"^{message}"):
            RasterLabels.open(Path("seg.tif"), unsure)


class TestPlaces:
    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ({"crs": "EPSG:32633"}, "b.tif: another coordinate system, EPSG:32633 instead of EPSG:32632"),
            ({"transform": (50, -50)}, "b.tif: another transform, up to 5 pixels away"),
            ({"size": 1}, "b.tif: 69 x 52 pixels instead of 70 x 52"),
        ],
    )
    def test_misfits(self, place, message):
        save("a.tif", BANDS)
        other = utm() | {"crs": place.get("crs", "EPSG:32632")}
        if "transform" in place:
            other["transform"] = utm()["transform"].from_gdal(500_050, STEP, 0, 5_499_950, 0, -STEP)
        save("b.tif", TRUTH[:, place.get("size", 0) :], other)
        with pytest.raises(ValueError, match=f"^{message}; bring it onto the grid of a.tif"):
            opened("a.tif").check_place(Path("b.tif"))
        with pytest.raises(ValueError, match=f"^{message}"):
            opened("a.tif", "b.tif")

    def test_what_does_not_say_where_it_is(self):
        save("a.tif", BANDS)
        save("b.tif", TRUTH, {})
        opened("a.tif").check_place(Path("b.tif"))
        opened("a.tif").check_place(Path("anything.npy"))


class TestBroken:
    def test_files(self):
        save("a.tif", BANDS, compress="deflate")
        whole = Path("a.tif").read_bytes()
        Path("short.tif").write_bytes(whole[: len(whole) // 2])
        Path("text.tif").write_text("no raster")
        save("complex.tif", BANDS.astype(np.complex64))
        for name, message in (
            ("short.tif", "short.tif: not a readable raster"),
            ("text.tif", "text.tif: not a readable raster"),
            ("missing.tif", "missing.tif: there is no such file"),
            ("complex.tif", "complex.tif: holds complex64, expected real numbers"),
        ):
            with pytest.raises(ValueError, match=f"^{message}"):
                opened(name).guide()

    def test_bands(self):
        save("a.tif", BANDS)
        for bands in (["0"], ["4"], ["1", "9"]):
            with pytest.raises(ValueError, match=r"^bands: a.tif has bands 1 to 3, and no "):
                opened("a.tif").with_channels(bands)
        save("alpha.tif", TRUTH, alpha="yes", photometric="MINISBLACK")
        with rasterio().open("alpha.tif", "r+") as file:
            file.colorinterp = [rasterio().enums.ColorInterp.alpha]
        with pytest.raises(ValueError, match=r"^alpha.tif: has no bands besides its alpha channel"):
            opened("alpha.tif")
