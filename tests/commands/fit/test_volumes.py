"""`crfrnn.fit` and `crfrnn fit` on volumes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crfrnn import fit, refine
from crfrnn.cli import main
from crfrnn.commands.fit import sample
from crfrnn.commands.fit.fit import Images
from crfrnn.commands.fit.sample import Sample
from crfrnn.parameters import CRFParameters
from tests.support.volumes import SPACING, case, load, nibabel, save

CASES = [case(number) for number in range(4)]


def test_shrunk_where_voxels_are_closest(monkeypatch):
    """60 x 60 in a plane and 5 planes far apart: these stay, and positions keep their millimetres."""
    monkeypatch.setattr(sample, "VOXELS", 4500)
    guide, truth = torch.rand(1, 1, 5, 60, 60), torch.zeros(5, 60, 60, dtype=torch.uint8)
    small = Sample.of(guide, torch.randn(1, 2, 5, 60, 60), truth, (0.2, 1.0, 1.0))
    assert small.truth.shape == (5, 30, 30)
    assert small.factor == pytest.approx((0.2, 0.5, 0.5))
    assert small.guide.mean() == pytest.approx(guide.mean().item(), abs=1e-5)


def test_counted_as_refine_would():
    items = [(one.image, one.probabilities, one.truth, SPACING) for one in CASES]
    data = Images(items, standardize=True)
    options = {"crf": CRFParameters.of_preset("present")}
    difference = data.sample(0).counts(options["crf"]) - data.measured(0, options)["crf"]
    assert difference.abs().sum() <= 6  # of 3,960 voxels: logits are held as float16
    labels = refine(CASES[0].image, CASES[0].probabilities, spacing=SPACING, standardize=True).argmax(0)
    assert int(data.measured(0, options)["crf"][0].sum()) == (labels == CASES[0].truth).sum()


def test_in_python():
    parts = [[one.image for one in CASES], [one.probabilities for one in CASES], [one.truth for one in CASES]]
    found = fit(*parts, spacing=SPACING, standardize=True, preset="present")
    assert found.helps
    assert found.parameters.standardize
    each = fit(*parts, spacing=[SPACING] * 4, standardize=True, preset="present")
    assert each.parameters == found.parameters
    with pytest.raises(ValueError, match=r"^spacing: 3, but there are 4 images"):
        fit(*parts, spacing=[SPACING] * 3)
    with pytest.raises(ValueError, match=r"^number 0: truths: \(9, 18, 22\) \(z, y, x\), but the image has \(10, "):
        fit(parts[0], parts[1], [truth[:-1] for truth in parts[2]], spacing=SPACING, standardize=True)


def test_fit_then_refine(tmp_path, monkeypatch, capsys):
    nibabel()
    monkeypatch.chdir(tmp_path)
    for name in ("images", "predictions", "truth"):
        Path(name).mkdir()
    for number, one in enumerate(CASES):
        save(f"images/{number}_0000.nii.gz", one.image)
        np.savez(f"predictions/{number}.npz", probabilities=one.probabilities)
        save(f"truth/{number}.nii.gz", np.where(one.truth, 1, 0).astype(np.int16))
    call = ("fit", "images", "predictions", "truth", "--out", "crf.yaml", "--preset", "present")
    assert main(call) == 1
    assert "images/0_0000.nii.gz: image: values" in capsys.readouterr().err
    assert main((*call, "--standardize")) == 0
    assert "The CRF helps" in capsys.readouterr().out
    assert CRFParameters.from_yaml("crf.yaml").standardize
    rest = ("--probabilities=predictions/0.npz", "--config=crf.yaml", "--out=o.nii.gz")
    assert main(("refine", "images/0_0000.nii.gz", *rest)) == 0
    assert (load("o.nii.gz") == CASES[0].truth).mean() > 0.97
    save("truth/1.nii.gz", CASES[1].truth, np.diag([1.0, 2, 3, 1]))
    assert main((*call, "--standardize")) == 1
    assert "truth/1.nii.gz: another affine" in capsys.readouterr().err
