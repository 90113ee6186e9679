"""The layer on volumes: bandwidths in millimetres, and MONAI's tensors, which know them."""

import pickle
import re
import shlex
from pathlib import Path

import pytest
import torch

from crfrnn import CRFRNN, Bilateral, Spatial, refine
from crfrnn.cli import main
from crfrnn.networks.saved import crf_config, crf_of_config
from tests.support.compare import assert_equal
from tests.support.places import ROOT
from tests.support.problems import random_values

SPACING = (2.5, 0.8, 0.5)
KERNELS = (Bilateral(6, 40, weight=2), Spatial(2, weight=1))
LOGITS, IMAGE = random_values(1, 3, 5, 8, 9), 128 + 60 * random_values(1, 1, 5, 8, 9, seed=3)


def in_voxels() -> CRFRNN:
    """The same CRF, with the bandwidths that millimetres come to."""
    thetas = [[theta / step for step in SPACING] for theta in (6, 2)]
    return CRFRNN(3, [Bilateral(tuple(thetas[0]), 40, weight=2), Spatial(tuple(thetas[1]), weight=1)])


class TestSpacing:
    def test_bandwidths_count_in_it(self):
        expected = in_voxels()(LOGITS, IMAGE)
        assert_equal("of the layer", CRFRNN(3, KERNELS, spacing=SPACING)(LOGITS, IMAGE), expected, 1e-5)
        other = CRFRNN(3, KERNELS, spacing=(1, 1, 1))
        assert_equal("of a call", other(LOGITS, IMAGE, spacing=SPACING), expected, 1e-5)

    def test_learned_bandwidths_stay_in_it(self):
        """One parameter for all axes; its gradient is the sum of those of the axes, each over its spacing."""
        layer = CRFRNN(3, [Spatial(2.0, method="exact")], learn_bandwidths=True, spacing=SPACING)
        axes = CRFRNN(3, [Spatial(tuple(2 / s for s in SPACING), method="exact")], learn_bandwidths=True)
        for crf in (layer, axes):
            crf(LOGITS, IMAGE).square().sum().backward()
        one, several = (crf.get_parameter("log_bandwidths.0.theta_gamma") for crf in (layer, axes))
        assert one.shape == ()
        assert one.grad is not None
        assert several.grad is not None
        assert_equal("gradient", one.grad, several.grad.sum(), 1e-4)
        assert vars(layer.kernels[0])["theta_gamma"] == pytest.approx(2.0)

    def test_kept(self):
        layer = CRFRNN(3, KERNELS, spacing=SPACING)
        assert crf_of_config(crf_config(layer)).spacing == SPACING
        assert pickle.loads(pickle.dumps(layer)).spacing == SPACING
        assert "spacing" not in crf_config(CRFRNN(3))

    def test_compiled(self):
        layer = CRFRNN(3, KERNELS, spacing=SPACING).eval()
        compiled = torch.compile(layer, backend="eager", fullgraph=True)
        with torch.no_grad():
            assert_equal("compiled", compiled(LOGITS, IMAGE), layer(LOGITS, IMAGE), 1e-6)

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"^spacing: expected a positive number for each of 2 axes"):
            CRFRNN(3, spacing=(1, -1))
        with pytest.raises(ValueError, match=r"^spacing: .* for each of 3 axes, got \(1.0, 1.0\)"):
            CRFRNN(3, spacing=(1, 1))(LOGITS, IMAGE)


class TestMetaTensors:
    @pytest.fixture(autouse=True)
    def monai(self):
        return pytest.importorskip("monai.data", reason="pip install 'crfrnn[volumes]'")

    @pytest.fixture
    def affine(self) -> torch.Tensor:
        return torch.diag(torch.tensor([-SPACING[0], SPACING[1], SPACING[2], 1], dtype=torch.float64))

    def test_refine(self, monai, affine):
        image = monai.MetaTensor(IMAGE[0], affine=affine, meta={"filename_or_obj": "ct.nii.gz"})
        p = monai.MetaTensor(LOGITS[0].softmax(0), affine=affine, meta={"name": "p"})
        q = refine(image, p, kernels=KERNELS, iterations=2)
        assert isinstance(q, monai.MetaTensor)
        assert torch.equal(q.affine, affine)
        assert q.meta["name"] == "p"
        expected = refine(IMAGE[0], LOGITS[0].softmax(0), kernels=KERNELS, iterations=2, spacing=SPACING)
        assert type(expected) is torch.Tensor
        assert_equal("marginals", q.as_tensor(), expected, 1e-6)

    def test_layer(self, monai, affine):
        """A batch as MONAI's loader makes it; logits of a network that lost the affine come back without one."""
        both = monai.list_data_collate([monai.MetaTensor(IMAGE[0], affine=affine)] * 2)
        logits = monai.list_data_collate([monai.MetaTensor(LOGITS[0], affine=affine)] * 2).requires_grad_()
        layer = CRFRNN(3, KERNELS)
        y = layer(logits, both)
        assert isinstance(y, monai.MetaTensor)
        assert torch.equal(y.affine, both.affine)
        expected = CRFRNN(3, KERNELS, spacing=SPACING)(LOGITS, IMAGE)
        assert_equal("layer", y.as_tensor()[:1], expected, 1e-5)
        y.square().sum().backward()
        assert logits.grad is not None
        assert type(layer(LOGITS.repeat(2, 1, 1, 1, 1), both)) is torch.Tensor

    def test_a_batch_of_several_spacings(self, monai, affine):
        both = monai.list_data_collate([monai.MetaTensor(IMAGE[0], affine=a) for a in (affine, 2 * affine)])
        layer, logits = CRFRNN(3, KERNELS), LOGITS.repeat(2, 1, 1, 1, 1)
        with pytest.raises(ValueError, match=r"^spacing: the volumes of a batch have several"):
            layer(logits, both)
        assert layer(logits, both, spacing=SPACING).shape == logits.shape

    def test_pictures_count_in_pixels(self, monai):
        picture = monai.MetaTensor(IMAGE[0, :, 0], affine=torch.diag(torch.tensor([3.0, 3, 1, 1])))
        p = LOGITS[0, :, 0].softmax(0)
        q = refine(picture, p, kernels=KERNELS, iterations=2)
        assert_equal("picture", q, refine(IMAGE[0, :, 0], p, kernels=KERNELS, iterations=2), 1e-6)


def test_the_document_runs(tmp_path, monkeypatch, capsys):
    """Every block of docs/volumes.md, in their order, on the files that the first one makes."""
    for package in ("nibabel", "monai"):
        pytest.importorskip(package, reason="pip install 'crfrnn[volumes]'")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "volumes.md").read_text()
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "sh", "sh", "python"]
    for language, code in blocks:
        if language == "python":
            exec(compile(code, "docs/volumes.md", "exec"), {})
        for line in code.splitlines() * (language == "sh"):
            program, *arguments = shlex.split(line)
            assert (program, main(arguments)) == ("crfrnn", 0), line
    said = capsys.readouterr().out
    assert "The CRF helps" in said
    before, after = (re.search(rf"^{name}/ +3 +\S+ +(\S+)", said, re.MULTILINE) for name in ("predictions", "refined"))
    assert before
    assert after
    assert float(after[1]) > float(before[1]) + 10  # Dice
    assert sorted(path.name for path in Path("fitted").iterdir()) == [f"case{n}.nii.gz" for n in range(3)]
