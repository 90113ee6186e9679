"""Volumes in files: what is read is what was written, and lies where it lay."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from crfrnn.data.kinds import Volume
from crfrnn.data.labels import UNSURE, LabelStyle
from crfrnn.data.predictions import Form
from tests.support.volumes import AFFINE, SIZE, SPACING, case, load, nibabel, save

nibabel()
IMAGE, P, TRUTH = case()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with ct.nii.gz."""
    monkeypatch.chdir(tmp_path)
    save("ct.nii.gz", IMAGE)
    return tmp_path


def opened(*names: str) -> Volume:
    return Volume.open([Path(name) for name in names])


class TestReading:
    def test_axes_and_spacing(self):
        ct = opened("ct.nii.gz")
        assert ct.size == SIZE
        assert_allclose(ct.spacing, SPACING, rtol=1e-6)
        assert_array_equal(ct.guide(), IMAGE)
        assert ct.guide().dtype == np.int16

    def test_every_voxel_lies_where_nibabel_says(self):
        """Independent of any transposing: the voxel with the largest value, in millimetres."""
        z, y, x = np.unravel_index(np.argmax(opened("ct.nii.gz").guide()), SIZE)
        image = nibabel().load("ct.nii.gz")
        there = np.unravel_index(np.argmax(image.get_fdata()), image.shape)
        assert_allclose(image.affine @ (x, y, z, 1), image.affine @ (*there, 1))

    def test_scl_slope_is_honoured(self):
        image = nibabel().Nifti1Image(IMAGE.T, AFFINE)
        image.header.set_slope_inter(0.5, -7)
        image.to_filename("scaled.nii")
        stored = np.frombuffer(Path("scaled.nii").read_bytes()[352:], "<i2").reshape(SIZE)
        assert_allclose(opened("scaled.nii").guide(), stored * 0.5 - 7)

    @pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)])
    def test_units_become_millimetres(self, unit, factor):
        image = nibabel().Nifti1Image(IMAGE.T, AFFINE)
        image.header.set_xyzt_units(unit)
        image.to_filename("u.nii")
        assert_allclose(opened("u.nii").spacing, np.array(SPACING) * factor, rtol=1e-6)

    def test_modalities(self):
        save("t2.nii", IMAGE[::-1].astype(np.float32))
        save("both.nii", np.stack([IMAGE, IMAGE[::-1]]))
        expected = np.stack([IMAGE, IMAGE[::-1]], axis=-1)
        assert_array_equal(opened("ct.nii.gz", "t2.nii").guide(), expected)
        assert_array_equal(opened("both.nii").guide(), expected)

    def test_colours(self):
        rgb = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
        packed = np.ascontiguousarray(rgb).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
        nibabel().Nifti1Image(packed, AFFINE).to_filename("rgb.nii")
        assert_array_equal(opened("rgb.nii").guide(), rgb.transpose(2, 1, 0, 3))

    def test_what_others_wrote(self):
        """Files of nibabel's own test data: big-endian, of four axes, NIfTI-2, scaled."""
        there = Path(nibabel().__file__).parent / "tests" / "data"
        for name in ("anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii"):
            image = nibabel().load(there / name)
            volume = opened(str(there / name))
            assert_allclose(volume.spacing, image.header.get_zooms()[2::-1], rtol=1e-5, err_msg=name)
            channels = image.get_fdata()[..., None] if image.ndim == 3 else image.get_fdata()
            assert_allclose(volume.guide().reshape(*volume.size, -1), channels.transpose(2, 1, 0, 3), err_msg=name)
            labels = np.zeros(volume.size, int)
            volume.write_labels(Path("l.nii.gz"), labels, LabelStyle.voc(2))
            written = nibabel().load("l.nii.gz")
            assert type(written) is type(image), name
            assert_array_equal(written.affine, image.affine, err_msg=name)


class TestLabels:
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32"])
    @pytest.mark.parametrize("codes", [(1, 2), (0, 4), (3, 0)])
    def test_round_trip(self, dtype, codes):
        """Values, dtype, affine and the codes of both forms; no scaling, and none of the image's window."""
        values = np.array([0, 3, 200])[TRUTH + TRUTH[::-1]].astype(dtype)
        source = nibabel().Nifti1Image(values.T, AFFINE, dtype=dtype)
        source.header.set_qform(AFFINE, codes[0])
        source.header.set_sform(AFFINE, codes[1])
        source.header["cal_max"] = 1000
        source.to_filename("l.nii.gz")
        labels = Volume.read_labels(Path("l.nii.gz"))
        assert labels.style.values == (0, 3, 200)
        opened("l.nii.gz").write_labels(Path("o.nii.gz"), labels.indices, labels.style)
        written, source = nibabel().load("o.nii.gz"), nibabel().load("l.nii.gz")
        assert_array_equal(load("o.nii.gz"), values)
        assert written.get_data_dtype() == np.dtype(dtype)
        assert_array_equal(written.affine, source.affine)
        for field in ("qform_code", "sform_code", "pixdim", "quatern_b", "srow_y", "xyzt_units"):
            assert_array_equal(written.header[field], source.header[field], err_msg=field)
        raw = gzip.decompress(Path("o.nii.gz").read_bytes())
        assert np.frombuffer(raw[112:120], "<f4").tolist() == [1, 0]  # scl_slope, scl_inter
        assert written.header["cal_max"] == 0

    def test_unsure(self):
        values = TRUTH.astype(np.int16)
        values[0] = 255
        save("l.nii", values)
        labels = Volume.read_labels(Path("l.nii"), unsure=255)
        assert labels.style.values == (0, 1)
        assert_array_equal(labels.indices == UNSURE, values == 255)

    @pytest.mark.parametrize("values", [P[1], np.where(TRUTH, np.nan, 1).astype(np.float32)])
    def test_what_is_no_label(self, values):
        save("l.nii", values)
        with pytest.raises(ValueError, match=r"^l\.nii: numbers that are not whole.*--probabilities"):
            Volume.read_labels(Path("l.nii"))


class TestPredictions:
    def test_labels_first(self):
        save("p.nii.gz", P)
        assert_array_equal(Volume.read_predictions(Path("p.nii.gz")), P)
        save("f.nii.gz", P[1])
        assert_array_equal(Volume.read_predictions(Path("f.nii.gz")), P[1])

    def test_written(self):
        ct, form = opened("ct.nii.gz"), Form.of(P.shape, [SIZE], 3)
        ct.write_predictions(Path("q.nii.gz"), P, form)
        assert_array_equal(load("q.nii.gz"), P)
        ct.write_predictions(Path("f.nii.gz"), P[1:], Form.of(SIZE, [SIZE], 3))
        assert_array_equal(load("f.nii.gz"), P[1])
        ct.write_predictions(Path("q.npz"), P, form)
        with np.load("q.npz") as saved:
            assert_allclose(saved["probabilities"], P, atol=1e-3)


class TestPlaces:
    def test_the_same_place(self):
        slightly = AFFINE + 1e-4
        save("l.nii", TRUTH, slightly)
        opened("ct.nii.gz").check_place(Path("l.nii"))
        opened("ct.nii.gz").check_place(Path("p.npy"))  # says nothing of it

    @pytest.mark.parametrize("axis", range(3))
    def test_another_place(self, axis):
        moved = AFFINE.copy()
        moved[axis, 3] += 0.5
        save("l.nii", TRUTH, moved)
        with pytest.raises(ValueError, match=r"^l\.nii: another affine, up to 0\.5 mm away; .* ct\.nii\.gz"):
            opened("ct.nii.gz").check_place(Path("l.nii"))
        with pytest.raises(ValueError, match="another affine"):
            opened("ct.nii.gz", "l.nii")

    def test_flipped(self):
        flipped = AFFINE @ np.diag([-1, 1, 1, 1])
        flipped[:3, 3] += AFFINE[:3, 0] * (SIZE[2] - 1)
        save("l.nii", TRUTH, flipped)
        with pytest.raises(ValueError, match="another affine"):
            opened("ct.nii.gz").check_place(Path("l.nii"))

    def test_another_size(self):
        save("l.nii", TRUTH[:-1])
        with pytest.raises(ValueError, match=r"^l\.nii: 22 x 18 x 9 voxels instead of 22 x 18 x 10"):
            opened("ct.nii.gz").check_place(Path("l.nii"))


class TestBadFiles:
    def test_broken(self, folder):
        whole = Path("ct.nii.gz").read_bytes()
        Path("cut.nii.gz").write_bytes(whole[: len(whole) // 2])
        Path("junk.nii.gz").write_bytes(b"no gzip")
        Path("short.nii").write_bytes(gzip.decompress(whole)[:1000])
        Path("empty.nii").write_bytes(b"")
        for name in ("cut.nii.gz", "junk.nii.gz", "short.nii", "empty.nii"):
            with pytest.raises(ValueError, match=rf"^{name}: not a readable volume") as caught:
                opened(name)
            assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=r"^none\.nii: there is no such file"):
            opened("none.nii")

    def test_more_than_the_memory(self):
        raw = bytearray(gzip.decompress(Path("ct.nii.gz").read_bytes()))
        raw[42:48] = np.array([32000] * 3, "<i2").tobytes()
        Path("huge.nii").write_bytes(raw)
        with pytest.raises(ValueError, match=r"^huge\.nii: .* more than the memory"):
            opened("huge.nii")

    def test_numbers_that_are_none(self):
        save("c.nii", IMAGE.astype(np.complex64))
        with pytest.raises(ValueError, match=r"^c\.nii: holds complex64"):
            opened("c.nii")
        nibabel().Nifti1Image(np.zeros((4, 4, 4, 2, 3), np.uint8), AFFINE).to_filename("five.nii")
        with pytest.raises(ValueError, match=r"^five\.nii: .* one axis besides"):
            opened("five.nii")

    def test_voxels_without_a_size(self):
        affine = AFFINE.copy()
        affine[:3, 1] = 0
        image = nibabel().Nifti1Image(IMAGE.T, AFFINE)
        image.header.set_sform(affine, 1)
        image.header.set_qform(None, 0)
        Path("flat.nii").write_bytes(nibabel().Nifti1Image(IMAGE.T, None, image.header).to_bytes())
        with pytest.raises(ValueError, match=r"^flat\.nii: its header gives voxels no size"):
            opened("flat.nii")


class TestITK:
    @pytest.fixture(autouse=True)
    def sitk(self):
        return pytest.importorskip("SimpleITK", reason="pip install SimpleITK")

    @pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
    def test_the_same_place_as_nifti(self, sitk, suffix):
        """SimpleITK reads what nibabel wrote, and writes it in its formats."""
        sitk.WriteImage(sitk.ReadImage("ct.nii.gz"), f"ct{suffix}")
        volume = opened(f"ct{suffix}")
        assert_array_equal(volume.guide(), IMAGE)
        assert_allclose(volume.spacing, SPACING, rtol=1e-6)
        volume.check_place(Path("ct.nii.gz"))
        opened("ct.nii.gz").check_place(Path(f"ct{suffix}"))
        for name in ("l.nrrd", "l.mha", "l.nii.gz"):
            volume.write_labels(Path(name), TRUTH, LabelStyle.voc(2))
            before, after = sitk.ReadImage(f"ct{suffix}"), sitk.ReadImage(name)
            assert_array_equal(sitk.GetArrayFromImage(after), TRUTH)
            for place in ("GetOrigin", "GetSpacing", "GetDirection"):
                assert_allclose(getattr(after, place)(), getattr(before, place)(), atol=1e-5, err_msg=f"{name} {place}")

    def test_channels(self):
        ct, form = opened("ct.nii.gz"), Form.of(P.shape, [SIZE], 3)
        ct.write_predictions(Path("q.nrrd"), P, form)
        assert_array_equal(Volume.read_predictions(Path("q.nrrd")), P)

    def test_broken(self):
        Path("junk.nrrd").write_bytes(b"NRRD0004\n")
        with pytest.raises(ValueError, match=r"^junk\.nrrd: not a readable volume"):
            opened("junk.nrrd")
        with pytest.raises(ValueError, match=r"^none\.mha: there is no such file"):
            opened("none.mha")
