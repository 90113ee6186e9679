"""The model in the package: whole, small, described, and loaded without any connection; and models from elsewhere."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from skimage import data

from crfrnn import CRFRNN, SegmentationNetwork, build_unary
from crfrnn.commands.segment.segment import segment_photo
from crfrnn.networks import hub
from crfrnn.networks.models import MODELS, load_model


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("asks for a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_whole_small_and_described(name: str, no_network: None):
    folder = MODELS[name]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    network, _ = load_model(name)
    assert network.crf is not None
    assert not network.training
    assert network.size is not None
    assert network.class_names is not None
    assert network.palette is not None
    assert len(network.class_names) == len(network.palette) == network.num_classes
    assert len(set(map(tuple, network.palette))) == network.num_classes
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("crfrnn", "image-segmentation")
    assert all(class_name in card for class_name in network.class_names)
    assert "non-commercial" in card


def test_it_segments_a_photograph(no_network: None):
    network, name = load_model()
    photo = data.rocket()[:200, :300]
    result = segment_photo(network, photo, iterations=2, probabilities=True)
    assert name == "voc"
    assert result.labels.shape == result.network_labels.shape == photo.shape[:2]
    assert result.classes == tuple(range(21))
    assert set(np.unique(result.labels)) <= set(result.classes)
    assert result.probabilities is not None
    np.testing.assert_allclose(result.probabilities.sum(0, dtype=np.float32), 1, atol=5e-3)
    np.testing.assert_array_equal(result.labels, network.predict(photo, iterations=2))
    np.testing.assert_array_equal(result.network_labels, network.predict(photo, crf=False))
    assert (result.labels != result.network_labels).any()


def test_without_a_crf_both_are_the_network():
    network = SegmentationNetwork(build_unary("fast-scnn", 3), size=64).eval()
    photo = data.rocket()[:60, :80]
    result = segment_photo(network, photo, probabilities=True)
    assert result.labels is result.network_labels
    assert result.probabilities is not None
    assert result.probabilities.shape == (3, 60, 80)
    with pytest.raises(ValueError, match=r"^iterations: must be at least 0, got -1"):
        segment_photo(network, photo, iterations=-1)


def test_the_crf_works_on_the_photos_own_pixels():
    """An edge that the network sees at a quarter of the size comes out where it is in the photo."""

    class Brightness(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            brighter = 2 * images[:, :1] + 1.5  # and so it moves the edge
            return torch.cat([-brighter, brighter], dim=1)

    photo = np.full((64, 96, 3), 20, np.uint8)
    photo[:, 50:] = 230  # within a pixel of the small picture
    network = SegmentationNetwork(Brightness(), CRFRNN(2), size=24).eval()
    bright = photo[..., 0] > 100
    assert (network.predict(photo, crf=False) != bright).any()
    np.testing.assert_array_equal(network.predict(photo), bright)


def test_models_from_elsewhere(tmp_path: Path):
    folder = tmp_path / "runs" / "model"
    shutil.copytree(MODELS["camvid"], folder)
    assert load_model(str(folder))[1] == str(folder)
    with pytest.raises(ValueError, match=r"^model: .*runs holds no config\.json; .*runs/model does$"):
        load_model(str(tmp_path / "runs"))
    with pytest.raises(ValueError, match=r"^model: .* holds no config\.json; a model is what crfrnn train"):
        load_model(str(tmp_path))
    (folder / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"^model: .*does not fit the network, .*; 4 fit in there$"):
        load_model(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"^model: .*the folder holds no model\.safetensors"):
        load_model(str(folder))


def test_a_model_of_other_channels(tmp_path: Path):
    unary = torch.nn.Conv2d(4, 3, 1)
    unary.recipe = {"name": "four", "num_classes": 3}  # type: ignore[assignment]
    network = SegmentationNetwork(unary, mean=(0.5,) * 4, std=(0.5,) * 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationNetwork, "from_pretrained", lambda source: network)
        with pytest.raises(ValueError, match=r"^model: some/four takes images of 4 channels, a photograph has 3$"):
            load_model("some/four")


def test_an_unknown_name_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(ValueError, match=r"^model: camvit: no such .*the package comes voc, camvid$") as caught:
        load_model("camvit")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^model: some/one: no such folder, .*\(no route to host\)$"):
        load_model("some/one")


def test_the_config_is_what_the_network_says():
    for name, folder in MODELS.items():
        assert load_model(name)[0].config() == json.loads((folder / "config.json").read_text())


def test_torchs_compiler_is_not_loaded_for_it():
    """It takes seconds, and leaves a folder among the temporary files."""
    code = "import sys; from crfrnn import load_model; load_model(); print('torch._dynamo' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "False"
