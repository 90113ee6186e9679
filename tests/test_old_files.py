"""What earlier versions saved is read, to the same numbers; `tests/support/saved/README.md` says what there is."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from crfrnn import CRFRNN, CRFParameters, SegmentationNetwork
from crfrnn.cli import main
from crfrnn.networks.unary import UNARIES
from tests.support.places import ROOT
from tests.support.saved import make

SAVED = ROOT / "tests/support/saved"
VERSIONS = sorted(path.name for path in SAVED.iterdir() if (path / "layers.pt").exists())


@pytest.fixture(autouse=True)
def small(monkeypatch, torch_threads):
    torch_threads(1)
    monkeypatch.setitem(UNARIES, "small", make.Small)


def assert_near(got: torch.Tensor, expected: torch.Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Equal but for rounding, which differs between processors."""
    error = (got - expected).abs().max().item()
    assert error <= tolerance * expected.abs().max().item(), f"{what}: differs by {error:.2g}"


@pytest.mark.parametrize("version", VERSIONS)
def test_layers(version):
    saved = torch.load(SAVED / version / "layers.pt", weights_only=True)
    assert saved["layers"].keys() <= make.LAYERS.keys()
    for name, old in saved["layers"].items():
        layer = make.build_layer(name)
        layer.load_state_dict(old["state"])
        with torch.no_grad():
            for mode in ("training", "evaluation"):
                got = layer.train(mode == "training")(saved["logits"], saved["image"])
                assert_near(got, old[mode], f"{name}, {mode}")


@pytest.mark.parametrize("version", VERSIONS)
def test_networks(version):
    network = SegmentationNetwork.from_pretrained(SAVED / version / "network").eval()
    assert network.class_names == ["a", "b", "c", "d"]
    old = torch.load(SAVED / version / "network/output.pt", weights_only=True)
    with torch.no_grad():
        assert_near(network(old["images"]), old["logits"], "network")


@pytest.mark.parametrize("version", VERSIONS)
def test_parameters(version):
    path = SAVED / version / "crf.yaml"
    chosen = CRFParameters.from_yaml(path)
    assert chosen == CRFParameters(make.KERNELS, "symmetric", 0.6, 7, ((1.0, 2.2, 0.5, 1.0), (1.0, 1.9, 0.7, 1.1)))
    assert chosen.fitted == {"images": 3, "verdict": "it helps"}
    assert chosen.as_yaml() == path.read_text()
    assert CRFRNN.from_config(path).num_classes == make.LABELS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_training_goes_on(version, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning", reason="training needs the extra train")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAVED / version / "run", "run")
    make.make_scenes(tmp_path / "scenes")
    (tmp_path / "config.yaml").write_text(make.CONFIG)
    assert main(["train", "--config", "config.yaml", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "epoch 2 of 3" in said
    assert "epoch 1 of" not in said  # what was done stays
    model, finished = load_file("run/model/model.safetensors"), load_file(SAVED / version / "finished.safetensors")
    assert model.keys() == finished.keys()
    for name, expected in finished.items():
        assert_near(model[name], expected, name, tolerance=1e-4)  # rounding, and three updates
