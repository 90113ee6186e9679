"""`crfrnn.refine` and `crfrnn refine` on volumes: millimetres, files and folders."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from crfrnn import Bilateral, Spatial, refine, standardized
from tests.commands.refine.test_refine import brute_force
from tests.support import command
from tests.support.volumes import AFFINE, SIZE, SPACING, case, load, nibabel, save

IMAGE, P, TRUTH = case()
CRF = ("--kernel=bilateral:6,60,2", "--kernel=spatial:1.5,1", "--iterations=3")
KERNELS = ["bilateral:6,60,2", "spatial:1.5,1"]
run = partial(command.run, "refine")


class TestInPython:
    def test_against_brute_force(self):
        """Positions times their spacing, in millimetres: every pair of voxels, one after another."""
        image, p = IMAGE[4:8, 5:12, 5:12], P[:, 4:8, 5:12, 5:12]
        kernels = [Bilateral(3, 60, weight=2, method="exact"), Spatial(1.2, weight=1, method="exact")]
        expected = brute_force(image[..., None], p, kernels, "after", 3, SPACING)
        actual = refine(image, p, kernels=kernels, iterations=3, tolerance=0, spacing=SPACING)
        assert_allclose(actual, expected, atol=1e-5)

    def test_spacing_is_a_bandwidth_for_each_axis(self):
        options: dict[str, Any] = {"iterations": 3, "tolerance": 0}
        per_axis = [Bilateral((8, 25, 25), 60, weight=2), Spatial((0.8, 2.5, 2.5), weight=1)]
        expected = refine(IMAGE, P, kernels=per_axis, spacing=(1, 1, 1), **options)
        alike = [Bilateral(20, 60, weight=2), Spatial(2, weight=1)]
        assert_allclose(refine(IMAGE, P, kernels=alike, spacing=SPACING, **options), expected, atol=1e-6)
        q = refine(IMAGE[0], P[:, 0], kernels=[Spatial((2.5, 5))], spacing=(1, 1), **options)
        assert_allclose(refine(IMAGE[0], P[:, 0], kernels=["spatial:1"], spacing=(0.4, 0.2), **options), q, atol=1e-6)

    def test_forms(self):
        expected = refine(IMAGE, P, kernels=KERNELS, spacing=SPACING)
        many = np.stack([IMAGE, IMAGE], axis=-1)
        given: list[tuple[Any, Any]] = [
            (torch.from_numpy(IMAGE)[None], torch.from_numpy(P)),
            (IMAGE[..., None], np.moveaxis(P, 0, -1)),
            (torch.from_numpy(IMAGE)[None, None], torch.from_numpy(P)[None]),
        ]
        for image, p in given:
            q: Any = np.asarray(refine(image, p, kernels=KERNELS, spacing=SPACING)).reshape(p.shape)
            assert_allclose(np.moveaxis(q, -1, 0) if q.shape[-1] == 2 else q.reshape(P.shape), expected, atol=1e-6)
        assert_allclose(refine(IMAGE, P[1], kernels=KERNELS, spacing=SPACING), expected[1], atol=1e-6)
        assert refine(many, P, kernels=KERNELS, spacing=SPACING, iterations=1).shape == P.shape

    def test_standardize(self):
        scan = torch.from_numpy(IMAGE)[None, None].float()
        scaled = standardized(scan)
        low, high = np.percentile(IMAGE, (0.5, 99.5), method="nearest")
        assert_allclose(scaled[0, 0], (IMAGE.astype(float) - low) * 255 / (float(high) - low), atol=0.01)
        kernels = ["bilateral:30,5,1.5", "spatial:1.5,1"]
        spacing: Any = np.array(SPACING)
        expected = refine(scaled[0], torch.from_numpy(P), kernels=kernels, spacing=spacing)
        assert_allclose(refine(IMAGE, P, spacing=SPACING, standardize=True), expected, atol=1e-5)
        assert_allclose(standardized(torch.full((1, 1, 30), 7.0)), 0)  # of one colour
        seldom = torch.cat([torch.zeros(1, 1, 2000), torch.full((1, 1, 2), 9.0)], dim=2)
        assert standardized(seldom).aminmax() == (0, 255)

    @pytest.mark.parametrize(
        ("spacing", "message"),
        [
            ((1, 1), r"^image: shape \(10, 18, 22\)|^probabilities: shape"),
            ((1, 0, 1), "^spacing: expected a positive number for each of 3 axes"),
            ((1, np.nan, 1), "^spacing: expected a positive number"),
            ((1,), "^spacing: expected a number for each axis"),
            (2.0, "^spacing: expected a number for each axis"),
        ],
    )
    def test_spacings_that_are_none(self, spacing, message):
        with pytest.raises(ValueError, match=message):
            refine(IMAGE, P, kernels=KERNELS, spacing=spacing)

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"^image: values .*0\.\.255; .* or standardize$"):
            refine(IMAGE, P, spacing=SPACING)
        with pytest.raises(ValueError, match=r"^image: NaN"):
            refine(np.where(TRUTH, np.nan, 1), P, spacing=SPACING, standardize=True)
        with pytest.raises(ValueError, match=r"^probabilities: .*in the order x, y, z$"):
            refine(IMAGE, P.transpose(0, 3, 2, 1), kernels=KERNELS, spacing=SPACING)
        with pytest.raises(ValueError, match=r"^image: .*\(z, y, x, channels\), give image.transpose\(1, 2, 3, 0\)$"):
            refine(IMAGE[None], P, kernels=KERNELS, spacing=SPACING)


class TestFiles:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch) -> Path:
        nibabel()
        monkeypatch.chdir(tmp_path)
        save("ct.nii.gz", IMAGE)
        return tmp_path

    def expected(self) -> np.ndarray:
        return refine(IMAGE, P, kernels=KERNELS, iterations=3, spacing=SPACING)

    def test_every_form_of_predictions(self, capsys):
        q = self.expected()
        save("p.nii.gz", P)
        np.save("p.npy", P)
        np.savez("p.npz", probabilities=P)
        np.save("last.npy", np.moveaxis(P, 0, -1))
        np.save("logits.npy", np.log(P))
        save("f.nii", P[1])
        sources = {"p.nii.gz", "p.npy", "p.npz", "last.npy", "f.nii"}
        for kind, source in [*(("probabilities", source) for source in sources), ("logits", "logits.npy")]:
            assert run("ct.nii.gz", f"--{kind}={source}", "--out=o.nii.gz", *CRF) == 0
            assert (load("o.nii.gz") == q.argmax(0)).mean() > 0.999, source
            assert load("o.nii.gz").dtype == np.uint8
        assert "(22 x 18 x 10), 2 labels" in capsys.readouterr().out
        assert (q.argmax(0) == TRUTH).mean() > (P.argmax(0) == TRUTH).mean() + 0.1

    def test_all_outputs(self):
        save("p.nii.gz", P)
        outputs = ("--save-probabilities=q.nii.gz", "--overlay=o.png", "--trace=t.csv")
        assert run("ct.nii.gz", "--probabilities=p.nii.gz", "--out=new/o.nii", *outputs, *CRF) == 0
        assert_allclose(load("q.nii.gz"), self.expected(), atol=1e-5)
        there, here = nibabel().load("ct.nii.gz"), nibabel().load("new/o.nii")
        for one in (here, nibabel().load("q.nii.gz")):
            assert_array_equal(one.affine, there.affine)
            assert [int(one.header[code]) for code in ("qform_code", "sform_code")] == [1, 2]
        assert Path("o.png").exists()
        assert Path("t.svg").exists()

    def test_two_dimensions_of_nnunet(self):
        """(C, 1, H, W) beside a volume of one plane, and (C, D, H, W) beside others."""
        save("slice.nii.gz", IMAGE[4:5])
        np.savez("slice.npz", probabilities=P[:, 4:5])
        assert run("slice.nii.gz", "--probabilities=slice.npz", "--out=o.nii.gz", *CRF) == 0
        assert load("o.nii.gz").shape == (1, *SIZE[1:])

    def test_labels_with_confidence(self):
        """As int16 with values of their own; unsure voxels get a label too."""
        coarse = np.where(P[1] > 0.5, 7, 2).astype(np.int16)
        coarse[:, :3] = 255
        save("seg.nii.gz", coarse)
        np.save("p.npy", np.select([coarse == 7, coarse == 2], [0.6, 0.4], 0.5).astype(np.float32))
        source = ("ct.nii.gz", "--labels=seg.nii.gz", "--confidence=0.6")
        assert run(*source, "--unsure=255", "--out=o.nii.gz", *CRF) == 0
        assert run("ct.nii.gz", "--probabilities=p.npy", "--out=expected.nii.gz", *CRF) == 0
        assert_array_equal(load("o.nii.gz"), np.array([2, 7])[load("expected.nii.gz")])
        assert load("o.nii.gz").dtype == np.int16

    def test_an_atlas(self):
        save("atlas.nii.gz", (np.arange(IMAGE.size).reshape(SIZE) // 60).astype(np.int32))  # 66 labels
        assert run("ct.nii.gz", "--labels=atlas.nii.gz", "--out=o.nii.gz", "--iterations=1", "--standardize") == 0
        assert load("o.nii.gz").dtype == np.int32

    def test_modalities(self):
        other = (IMAGE[::-1] // 2).astype(np.float32)
        save("t2.nii", other)
        np.save("p.npy", P)
        outputs = ("--out=o.nii.gz", "--save-probabilities=q.nii.gz")
        assert run("ct.nii.gz,t2.nii", "--probabilities=p.npy", *outputs, *CRF) == 0
        both = refine(np.stack([IMAGE, other], axis=-1), P, kernels=KERNELS, iterations=3, spacing=SPACING)
        assert_allclose(load("q.nii.gz"), both, atol=1e-4)
        assert np.abs(both - self.expected()).max() > 0.01

    def test_folders_of_nnunet(self, capsys):
        """imagesTs/case_0000.nii.gz and _0001, predictions case.npz; a second run does what the first one left."""
        for number in range(3):
            one = case(number)
            Path("predictions").mkdir(exist_ok=True)
            Path("imagesTs").mkdir(exist_ok=True)
            save(f"imagesTs/case{number}_0000.nii.gz", one.image)
            save(f"imagesTs/case{number}_0001.nii.gz", one.image[::-1])
            np.savez(f"predictions/case{number}.npz", probabilities=one.probabilities)
        command = ("imagesTs", "--probabilities=predictions", "--out=refined", "--save-probabilities=soft", *CRF)
        assert run(*command) == 0
        assert "refined 3 images" in (said := capsys.readouterr().out)
        assert "without predictions" not in said
        assert sorted(path.name for path in Path("refined").iterdir()) == [f"case{n}.nii.gz" for n in range(3)]
        assert (load("refined/case1.nii.gz") == case(1).truth).mean() > 0.97
        with np.load("soft/case0.npz") as soft:
            assert soft["probabilities"].shape == P.shape
        Path("refined/case1.nii.gz").unlink()
        assert run(*command) == 0
        assert "refined 1 images" in capsys.readouterr().out

    def test_folders_of_modalities(self):
        for folder, image in (("t1", IMAGE), ("t2", IMAGE[::-1])):
            Path(folder).mkdir()
            save(f"{folder}/a.nii.gz", image)
        Path("seg").mkdir()
        save("seg/a.nii.gz", TRUTH)
        assert run("t1,t2", "--labels=seg", "--out=o", *CRF) == 0
        assert load("o/a.nii.gz").shape == SIZE
        Path("t2/a.nii.gz").unlink()
        assert run("t1,t2", "--labels=seg", "--out=o2", *CRF) == 1

    def test_one_broken_file_among_many(self, capsys):
        for name in ("images", "seg"):
            Path(name).mkdir()
        for number in range(3):
            save(f"images/{number}.nii.gz", IMAGE)
            save(f"seg/{number}.nii.gz", TRUTH)
        whole = Path("images/1.nii.gz").read_bytes()
        Path("images/1.nii.gz").write_bytes(whole[:-200])
        save("seg/2.nii.gz", TRUTH, AFFINE @ np.diag([1, 1, 2, 1]))
        assert run("images", "--labels=seg", "--out=o", *CRF) == 1
        error = capsys.readouterr().err
        assert "2 of 3 failed" in error
        assert "images/1.nii.gz: not a readable volume (Compressed file ended" in error
        assert "seg/2.nii.gz: another affine" in error
        assert [path.name for path in Path("o").iterdir()] == ["0.nii.gz"]

    @pytest.mark.parametrize(
        ("make", "arguments", "code", "message"),
        [
            (lambda: np.save("p.npy", P), ("--out=o.png",), 2, "out: labels of volumes are written as .nii.gz or .nii"),
            (lambda: np.save("p.npy", P), ("--out=o.nii.gz",), 1, "values -3.* or standardize"),
            (lambda: np.save("p.npy", P[:, :-1]), ("--out=o.nii", *CRF), 1, "22 x 18 x 9, but ct.nii.gz has 22 x 18"),
            (lambda: np.save("p.npy", P.transpose(0, 3, 2, 1)), ("--out=o.nii", *CRF), 1, "transpose them"),
            (lambda: np.save("p.npy", P[0, 0]), ("--out=o.nii", *CRF), 1, r"p.npy: shape .*\(labels, z, y, x\)"),
        ],
    )
    def test_refusals(self, make, arguments, code, message, capsys, folder):
        make()
        before = sorted(folder.iterdir())
        assert run("ct.nii.gz", "--probabilities=p.npy", *arguments) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)
        assert sorted(folder.iterdir()) == before

    def test_volumes_and_photographs(self, capsys):
        np.save("p.npy", P)
        assert run("ct.nii.gz", "--foreground=p.npy", "--out=o.nii.gz") == 2
        nan = IMAGE.astype(np.float32)
        nan[0, 0, 0] = np.nan
        save("nan.nii.gz", nan)
        assert run("nan.nii.gz", "--probabilities=p.npy", "--out=o.nii.gz", *CRF) == 1
        assert "nan.nii.gz, p.npy: image: NaN or infinity in it" in capsys.readouterr().err
        assert not Path("o.nii.gz").exists()

    def test_one_label_stays_as_it_is(self):
        """An empty mask: there is nothing that a CRF could move."""
        save("seg.nii.gz", np.zeros(SIZE, np.uint8))
        assert run("ct.nii.gz", "--labels=seg.nii.gz", "--out=o.nii.gz", *CRF) == 0
        assert not load("o.nii.gz").any()

    def test_another_size_is_scaled(self):
        np.save("p.npy", P[:, ::2, ::2, ::2])
        assert run("ct.nii.gz", "--probabilities=p.npy", "--resize", "--out=o.nii.gz", *CRF) == 0
        assert load("o.nii.gz").shape == SIZE
