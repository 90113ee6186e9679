"""SegmentationNetwork: what the CRF is given, where gradients go, and that a saved network is the same one."""

import copy
import io
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from torch import Tensor, nn

from crfrnn import CRFRNN, Bilateral, Spatial, refine
from crfrnn.filtering.kernels import Features
from crfrnn.networks.network import IMAGENET_MEAN, IMAGENET_STD, SegmentationNetwork
from crfrnn.networks.unary import UNARIES, build_unary

KERNELS = (Bilateral(20, (8, 9, 10), weight=2), Spatial(2.5, weight=1), Features(30, method="exact"))


class Tiny(nn.Module):
    """Somebody's own network: half the resolution, logits in a dictionary."""

    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.layer(x)}


def photo(height: int = 24, width: int = 33) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalised(*photos: np.ndarray) -> Tensor:
    colours = torch.from_numpy(np.stack(photos)).movedim(3, 1) / 255
    return (colours - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def learned(network: SegmentationNetwork) -> SegmentationNetwork:
    """With weights that no constructor gives."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def test_the_crf_gets_exactly_the_photo():
    network = SegmentationNetwork(Tiny())
    every_colour = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    pixels = torch.from_numpy(every_colour).movedim(2, 0)[None].float()
    assert torch.equal(network.guide(normalised(every_colour)), pixels)
    assert torch.equal(network.guide(network.normalize(pixels.byte())), pixels)
    assert torch.equal(network.guide(network.normalize(pixels).half()), pixels)


def test_the_whole_is_the_network_and_then_refine():
    """The network with its CRF equals the network's logits given to `crfrnn.refine` with the photo file's colours."""
    pixels = photo()
    network = SegmentationNetwork(Tiny(), CRFRNN(3, kernels=KERNELS[:2], eval_iterations=4)).eval()
    logits = nn.functional.interpolate(network.unary(normalised(pixels))["out"], size=(24, 33), mode="bilinear")
    expected = refine(pixels, logits=logits[0].detach().numpy(), kernels=list(KERNELS[:2]), iterations=4, tolerance=0)
    np.testing.assert_allclose(network.probabilities(pixels), expected, atol=1e-5)


def test_images_that_were_not_normalised_are_noticed_once():
    """The CRF's guide would be 0.22 of the picture's contrast, or 57 times it."""
    colours = torch.from_numpy(photo()).movedim(2, 0)[None].float()
    for images in (colours / 255, colours, (colours / 255).half().float()):
        network = SegmentationNetwork(Tiny(), CRFRNN(3))
        with pytest.warns(
            UserWarning, match=r"^images: values .* were not normalised by mean and deviation.*normalize\("
        ):
            network(images)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            network(images)


def test_no_word_of_images_that_were():
    colours = torch.from_numpy(photo()).movedim(2, 0)[None].float()
    takes_units = SegmentationNetwork(Tiny(), CRFRNN(3), mean=(0, 0, 0), std=(1, 1, 1))
    takes_colours = SegmentationNetwork(Tiny(), CRFRNN(3), mean=(0, 0, 0), std=[1 / 255] * 3)
    centred = SegmentationNetwork(Tiny(), CRFRNN(3), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SegmentationNetwork(Tiny(), CRFRNN(3))(1.2 * normalised(photo()))
        SegmentationNetwork(Tiny(), CRFRNN(3))(torch.zeros(1, 3, 24, 33))
        SegmentationNetwork(Tiny())(colours)  # without a CRF nothing is guided
        takes_units(colours / 255)
        takes_colours(colours)
        centred(colours / 127.5 - 1)
    with pytest.warns(UserWarning, match=r"^images: "):
        SegmentationNetwork(Tiny(), CRFRNN(3), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(colours / 255)


def test_without_a_crf_it_is_the_plain_network():
    network = SegmentationNetwork(Tiny())
    images = normalised(photo(), photo())
    assert torch.equal(network(images), network.unary_logits(images))
    assert network(images).shape == (2, 3, 24, 33)


def test_iterations_are_passed_on():
    network = SegmentationNetwork(Tiny(), CRFRNN(3)).eval()
    images = normalised(photo())
    assert torch.equal(network(images, iterations=0), network.unary_logits(images))
    assert torch.equal(network(images), network(images, iterations=10))
    assert not torch.equal(network(images), network(images, iterations=1))


@pytest.mark.parametrize("separate", [False, True])
def test_gradients_reach_the_unary_unless_the_crf_is_separate(separate: bool):
    network = SegmentationNetwork(Tiny(), CRFRNN(3, iterations=2), separate=separate).train()
    network(normalised(photo()))[:, 0].sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    crf = {"crf.kernel_weights", "crf.compatibility"}
    assert reached == (crf if separate else crf | {"unary.layer.weight", "unary.layer.bias"})
    assert all(parameter.grad.any() for parameter in network.parameters() if parameter.grad is not None)


def test_prediction_scales_to_the_size_of_training_and_back():
    network = SegmentationNetwork(Tiny(), CRFRNN(3, kernels=KERNELS[:2]), size=16)
    seen = []
    network.unary.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
    labels = network.predict(photo(21, 40))
    assert (labels.shape, labels.dtype) == ((21, 40), np.int64)
    assert network.predict(photo(21, 40), size=50).shape == (21, 40)
    probabilities = network.probabilities(photo(21, 40), size=40)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert [tuple(size) for size in seen] == [(8, 16), (26, 50), (21, 40)]


def test_prediction_compares_with_the_network_alone_and_leaves_modes_as_they_were():
    network = SegmentationNetwork(nn.Sequential(nn.Dropout(0.9), nn.Conv2d(3, 3, 1)), CRFRNN(3)).train()
    network.get_submodule("unary.1").eval()
    alone = network.probabilities(photo(), crf=False)
    np.testing.assert_array_equal(alone, network.probabilities(photo(), iterations=0))  # dropout is off
    assert np.abs(alone - network.probabilities(photo())).max() > 0.01
    assert [module.training for module in network.modules()].count(False) == 1


@pytest.mark.parametrize("kind", ["class", "scalar", "full"])
def test_saved_and_loaded_it_is_the_same_network(kind: str, tmp_path: Path):
    crf = CRFRNN(3, kernels=KERNELS, iterations=2, eval_iterations=3, kernel_weights=kind, normalization="symmetric")
    network = learned(
        SegmentationNetwork(
            build_unary("fast-scnn", 3, dropout=0.3),
            crf,
            separate=True,
            class_names=["sky", "tree", "car"],
            palette=[[0, 0, 0], [128, 0, 0], [0, 128, 255]],
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.25, 0.3),
            size=240,
        )
    )
    network.save_pretrained(tmp_path)
    again = SegmentationNetwork.from_pretrained(tmp_path)
    assert {"config.json", "model.safetensors", "README.md"} == {path.name for path in tmp_path.iterdir()}
    assert not again.training
    assert again.config() == network.config() == json.loads((tmp_path / "config.json").read_text())
    assert again.crf is not None
    assert again.crf.kernels == KERNELS
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    torch.testing.assert_close(again(normalised(photo())), network(normalised(photo())))


def test_a_plain_network_is_saved_too(tmp_path: Path):
    network = learned(SegmentationNetwork(build_unary("fast-scnn", 2)))
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    network.save_pretrained(tmp_path)
    again = SegmentationNetwork.from_pretrained(str(tmp_path))
    assert again.crf is None
    assert again.num_classes == 2
    torch.testing.assert_close(again(normalised(photo())), network(normalised(photo())))
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1  # who may read the one may read the other


def test_a_network_of_ones_own_is_saved_and_asked_for(tmp_path: Path):
    network = learned(SegmentationNetwork(Tiny(), CRFRNN(3)))
    network.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"unary: it was a module of your own, tests\.networks\.test_network\.Tiny; pass it as"
    ):
        SegmentationNetwork.from_pretrained(tmp_path)
    again = SegmentationNetwork.from_pretrained(tmp_path, unary=Tiny())
    torch.testing.assert_close(again(normalised(photo())), network(normalised(photo())))
    with pytest.raises(ValueError, match=r"of another shape: unary\.layer\.weight \(3, 3, 3, 3\) instead of \(5, "):
        SegmentationNetwork.from_pretrained(tmp_path, unary=Tiny(5))


def test_a_network_of_ones_own_in_the_table_is_built_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Named(Tiny):
        def __init__(self, num_classes: int):
            super().__init__(num_classes)
            self.recipe = {"name": "tiny", "num_classes": num_classes}

    monkeypatch.setitem(UNARIES, "tiny", Named)
    learned(SegmentationNetwork(build_unary("tiny", 3), CRFRNN(3))).save_pretrained(tmp_path)
    assert isinstance(SegmentationNetwork.from_pretrained(tmp_path).unary, Tiny)


def test_weights_shared_inside_a_network_survive(tmp_path: Path):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    network = learned(SegmentationNetwork(Shared()))
    network.save_pretrained(tmp_path)
    again = SegmentationNetwork.from_pretrained(tmp_path, unary=Shared())
    torch.testing.assert_close(again(normalised(photo())), network(normalised(photo())))


def test_copies_pickles_and_state_dicts():
    network = learned(SegmentationNetwork(build_unary("fast-scnn", 3), CRFRNN(3, kernels=KERNELS)))
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    fresh = SegmentationNetwork(build_unary("fast-scnn", 3), CRFRNN(3, kernels=KERNELS)).eval()
    fresh.load_state_dict(network.state_dict())
    copies = [
        copy.deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        torch.load(buffer, weights_only=False),
        fresh,
    ]
    for again in copies:
        torch.testing.assert_close(again(normalised(photo())), network(normalised(photo())))
        assert again.config() == network.config()
    assert not any(name in network.state_dict() for name in ("mean", "std"))


def test_it_is_compiled_and_exported_whole():
    network = learned(SegmentationNetwork(Tiny(), CRFRNN(3, kernels=KERNELS[:2])))
    images = normalised(photo())
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), network(images))
    torch.testing.assert_close(torch.export.export(network, (images,)).module()(images), network(images))


def test_the_unary_brings_its_names_and_normalisation():
    class Named(Tiny):
        class_names = ("a", "b", "c")
        image_mean, image_std = (0.5,) * 3, (0.25,) * 3

    network = SegmentationNetwork(Named())
    assert network.class_names == ["a", "b", "c"]
    assert network.num_classes == 3
    assert network.normalize(torch.full((1, 3, 1, 1), 255.0)).flatten().tolist() == [2, 2, 2]


def test_push_to_hub_uploads_what_is_saved(monkeypatch: pytest.MonkeyPatch):
    uploaded = {}

    def upload_folder(self: HfApi, *, folder_path: Path, **arguments: object) -> str:
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        return "https://example.org/commit"

    class Repository:
        repo_id = "someone/roads"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **arguments: Repository())
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    network = SegmentationNetwork(build_unary("fast-scnn", 3), CRFRNN(3))
    network.push_to_hub("someone/roads")
    assert json.loads(uploaded["config.json"]) == network.config()
    assert "crf-rnn" in uploaded["README.md"].decode()
    assert len(uploaded["model.safetensors"]) > 4_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unary": "fcn8s"}, r"unary: expected a network \(torch\.nn\.Module\), got str"),
        ({"unary": Tiny(), "crf": nn.ReLU()}, "crf: expected a CRFRNN or None, got ReLU"),
        ({"unary": Tiny(), "std": (0.2, 0.2)}, "std: expected a positive number for each of 3 channels"),
        ({"unary": Tiny(), "std": (0.2, 0.2, 0)}, "std: expected a positive number for each of 3 channels"),
        ({"unary": Tiny(), "crf": CRFRNN(3), "class_names": ["a"]}, "num_classes: must be the same everywhere"),
        (
            {"unary": build_unary("fast-scnn", 2), "crf": CRFRNN(3)},
            "num_classes: must be the same everywhere, but the CRF has 3, the unary 2",
        ),
    ],
)
def test_parts_that_do_not_fit(arguments: dict, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        SegmentationNetwork(**arguments)


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8)]
)
def test_images_that_are_not_normalised_ones(images: Tensor):
    with pytest.raises(ValueError, match=r"^images: expected normalised ones, .* normalize\(photos\) makes them"):
        SegmentationNetwork(Tiny())(images)


@pytest.mark.parametrize("pixels", [photo().astype(np.float32), photo()[..., 0], photo()[:0]])
def test_photos_that_are_none(pixels: np.ndarray):
    with pytest.raises(ValueError, match=r"^photo: expected \(H, W, 3\) uint8, got"):
        SegmentationNetwork(Tiny()).predict(pixels)


def test_a_network_that_gives_no_numbers_is_refused():
    for crf in (None, CRFRNN(3)):
        network = SegmentationNetwork(Tiny(), crf)
        with torch.no_grad():
            next(network.unary.parameters()).fill_(torch.nan)
        with pytest.raises(ValueError, match=r"^unary: the network's logits for this photo are NaN or infinite"):
            network.predict(photo())


def test_a_kernel_of_ones_own_cannot_be_saved(tmp_path: Path):
    class Wide(Spatial):
        pass

    (tmp_path / "config.json").write_text("what was there")
    network = SegmentationNetwork(build_unary("fast-scnn", 3), CRFRNN(3, kernels=[Wide(3)]))
    with pytest.raises(ValueError, match=r"^crf: a kernel of your own, Wide, cannot be saved"):
        network.save_pretrained(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]


def test_a_recipe_that_is_no_json_cannot_be_saved(tmp_path: Path):
    class Odd(Tiny):
        recipe: ClassVar = {"name": "odd", "activation": nn.ReLU()}

    with pytest.raises(ValueError, match=r"^unary: its recipe cannot be written as JSON \(.*ReLU"):
        SegmentationNetwork(Odd()).save_pretrained(tmp_path)


def test_the_package_gives_it_without_importing_it_first():
    program = (
        "import sys, crfrnn\n"
        "assert not {'torch', 'crfrnn.networks.network', 'crfrnn.networks.unary'} & set(sys.modules)\n"
        "assert crfrnn.SegmentationNetwork.__module__ == 'crfrnn.networks.network'\n"
        "assert crfrnn.build_unary.__module__ == 'crfrnn.networks.unary'\n"
        "assert 'transformers' not in sys.modules\n"
        "assert all(hasattr(crfrnn, name) for name in crfrnn.__all__)\n"
        "assert not hasattr(crfrnn, 'Segmentation')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
