"""Published weights: files in the published formats, made here, against the published networks' own arithmetic."""

import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from crfrnn import CRFRNN
from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.unary import build_unary
from crfrnn.networks.unary.vgg16 import STAGES, TORCHVISION
from crfrnn.networks.weights import CAFFE_NAMES, URLS, fetch, load_crfasrnn, load_vgg16, read_state
from tests.support.caffe_files import write_caffemodel

LABELS, HIDDEN = 3, 8
MEAN_BGR = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
KERNELS = ("crfrnn.spatial_ker_weights", "crfrnn.bilateral_ker_weights", "crfrnn.compatibility_matrix")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """What crfasrnn_pytorch saves, random, with three labels and few hidden channels."""
    torch.manual_seed(0)
    shapes = {}
    channels = 3
    for stage, widths in enumerate(STAGES, 1):
        for number, width in enumerate(widths, 1):
            shapes[f"conv{stage}_{number}"] = (width, channels, 3, 3)
            channels = width
    shapes |= {"fc6": (HIDDEN, 512, 7, 7), "fc7": (HIDDEN, HIDDEN, 1, 1), "score_fr": (LABELS, HIDDEN, 1, 1)}
    shapes |= {"score_pool3": (LABELS, 256, 1, 1), "score_pool4": (LABELS, 512, 1, 1)}
    shapes |= {"upscore2": (LABELS, LABELS, 4, 4), "upscore8": (LABELS, LABELS, 16, 16)}
    shapes |= {"upscore_pool4": (LABELS, LABELS, 4, 4)}
    values = {}
    for name, shape in shapes.items():
        spread = (2 / np.prod(shape[1:])) ** 0.5 if "score" not in name else 0.1
        values[f"{name}.weight"] = torch.randn(shape) * spread
        if name not in ("upscore8", "upscore_pool4"):
            values[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    values["conv1_1.weight"] /= 50  # colours in 0..255
    for name, scale in zip(KERNELS, (2, 3, 1), strict=True):
        values[name] = scale * torch.eye(LABELS) + 0.3 * torch.randn(LABELS, LABELS)
    return values


@pytest.fixture(scope="module")
def pth(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "crfasrnn_weights.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def network(pth: Path) -> SegmentationNetwork:
    return load_crfasrnn(pth)


def caffe_layers(state: dict[str, Tensor]) -> dict[str, list[np.ndarray]]:
    """The same network in the Caffe model's names; its CRF subtracts."""
    layers: dict[str, list[np.ndarray]] = {}
    for key, value in state.items():
        name = key.split(".")[0]
        if name != "crfrnn":
            layers.setdefault(CAFFE_NAMES.get(name, name), []).append(value.numpy())
    spatial, bilateral, compatibility = (state[key].numpy() for key in KERNELS)
    return layers | {
        "inference1": [blob.reshape(1, 1, LABELS, LABELS) for blob in (spatial, bilateral, -compatibility)]
    }


def published_fcn(state: dict[str, Tensor], bgr: Tensor) -> Tensor:
    """FCN-8s as the Caffe model computes it: blue first, minus the mean, crops 5, 9 and 31."""

    def layer(name: str, x: Tensor, padding: int = 0) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def up(name: str, x: Tensor, stride: int) -> Tensor:
        return functional.conv_transpose2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=stride)

    def cut(x: Tensor, start: int, height: int, width: int) -> Tensor:
        return x[..., start : start + height, start : start + width]

    x, pools = bgr, []
    for stage, widths in enumerate(STAGES, 1):
        for number in range(1, len(widths) + 1):
            x = layer(f"conv{stage}_{number}", x, padding=100 if stage == number == 1 else 1).relu()
        x = functional.max_pool2d(x, 2, stride=2, ceil_mode=True)
        pools.append(x)
    coarse = up("upscore2", layer("score_fr", layer("fc7", layer("fc6", x).relu()).relu()), 2)
    middle = up("upscore_pool4", coarse + cut(layer("score_pool4", pools[3]), 5, *coarse.shape[2:]), 2)
    fine = up("upscore8", middle + cut(layer("score_pool3", pools[2]), 9, *middle.shape[2:]), 8)
    return cut(fine, 31, *bgr.shape[2:])


def published_crf(state: dict[str, Tensor], logits: Tensor, image: Tensor, iterations: int) -> Tensor:
    """CrfRnn.forward of crfasrnn_pytorch on one image: it adds; the filters are ours."""
    spatial, bilateral, compatibility = (state[key].to(logits) for key in KERNELS)
    filters = [kernel.prepare(image, normalization="after") for kernel in (Spatial(3), Bilateral(160, 3))]
    current = logits
    for _ in range(iterations):
        q = current.softmax(1)
        near, alike = (f(q).flatten(2) for f in filters)
        message = spatial @ near + bilateral @ alike
        current = (compatibility @ message).view_as(logits) + logits
    return current


def photo(height: int = 21, width: int = 34) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_network_sees_what_it_saw(network: SegmentationNetwork, state: dict[str, Tensor]):
    """RGB over ImageNet's deviations with the converted weights is BGR minus the mean with the published ones."""
    rgb = torch.from_numpy(photo()).movedim(2, 0)[None].float()
    with torch.no_grad():
        ours = network.unary_logits(network.normalize(rgb))
        theirs = published_fcn(state, rgb.flip(1) - MEAN_BGR)
    assert theirs.std() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_the_crf_does_what_it_did(network: SegmentationNetwork, state: dict[str, Tensor]):
    torch.manual_seed(2)
    logits = 2 * torch.randn(1, LABELS, 12, 17, dtype=torch.float64)
    image = torch.randint(0, 256, (1, 3, 12, 17)).double()
    assert network.crf is not None
    ours = network.crf.double()(logits, image, iterations=4)
    theirs = published_crf(state, logits, image, iterations=4)
    network.crf.float()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (theirs - logits).abs().max() > 1  # the CRF matters here


def test_what_their_crf_starts_with_is_what_ours_starts_with(state: dict[str, Tensor], tmp_path: Path):
    """+I added is the Potts model subtracted, but for a constant: the marginals of an unlearned CRF are the same."""
    start = {KERNELS[0]: 3 * torch.eye(LABELS), KERNELS[1]: 5 * torch.eye(LABELS), KERNELS[2]: torch.eye(LABELS)}
    torch.manual_seed(3)
    logits, image = torch.randn(1, LABELS, 10, 11), torch.randint(0, 256, (1, 3, 10, 11)).float()
    ours = CRFRNN(LABELS)(logits, image, iterations=3)
    torch.testing.assert_close(published_crf(start, logits, image, 3).softmax(1), ours.softmax(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("generation", ["layers", "layer"])
def test_the_caffemodel_is_the_same_network(
    network: SegmentationNetwork, state: dict[str, Tensor], tmp_path: Path, generation: str
):
    path = tmp_path / "TVG_CRFRNN_COCO_VOC.caffemodel"
    write_caffemodel(path, caffe_layers(state), generation=generation)
    found = load_crfasrnn(path)
    assert found.config() == network.config()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value, rtol=1e-6, atol=1e-7)


def test_a_published_network_is_ready_for_photos(network: SegmentationNetwork):
    assert not network.training
    assert (network.num_classes, network.size, network.class_names) == (LABELS, 500, None)
    assert network.predict(photo(), size=34).shape == (21, 34)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc6.bias": None, "conv3_2.weight": None}, r"missing: conv3_2\.weight, fc6\.bias$"),
        ({"score_pool4.bias": torch.zeros(5)}, r"of another shape: score_pool4\.bias \(5,\) instead of \(3,\)$"),
        ({"head.weight": torch.zeros(5)}, r"unknown: head\.weight$"),
        ({"conv1_1.weight": torch.zeros(64, 1, 3, 3)}, r"conv1_1\.weight \(64, 1, 3, 3\) instead of \(64, 3, 3, 3\)$"),
        ({KERNELS[2]: None}, r"lacks crfrnn\.compatibility_matrix; it has conv1_1\.weight, .* more$"),
        ({KERNELS[2]: torch.eye(4)}, r"expected 3 x 3 numbers, found crfrnn\.compatibility_matrix \(4, 4\)$"),
        ({"score_fr.weight": None}, r"lacks score_fr\.weight; it has"),
    ],
)
def test_a_wrong_pth_says_all_that_is_wrong(state: dict[str, Tensor], tmp_path: Path, change: dict, message: str):
    path = tmp_path / "wrong.pth"
    torch.save({key: value for key, value in (state | change).items() if value is not None}, path)
    with pytest.raises(ValueError, match=rf"wrong\.pth: .*{message}") as caught:
        load_crfasrnn(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score-fr": None, "upsample": None}, "lacks score-fr, upsample; it has conv1_1, conv1_2"),
        ({"inference1": None}, "lacks inference1; it has"),
        ({"inference1": [np.eye(3, dtype=np.float32)]}, "inference1 has 1 blobs, expected 3"),
        (
            {"fc7": [np.zeros((2, HIDDEN, 1, 1), np.float32)]},
            r"missing: fc7\.bias; of another shape: fc7\.weight \(2, 8",
        ),
    ],
)
def test_a_wrong_caffemodel_says_all_that_is_wrong(
    state: dict[str, Tensor], tmp_path: Path, change: dict, message: str
):
    path = tmp_path / "wrong.caffemodel"
    layers = {name: blobs for name, blobs in (caffe_layers(state) | change).items() if blobs is not None}
    write_caffemodel(path, layers)
    with pytest.raises(ValueError, match=rf"wrong\.caffemodel: .*{message}") as caught:
        load_crfasrnn(path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Path]:
    """torchvision's VGG-16 with a narrow classifier."""
    torch.manual_seed(4)
    hidden, channels, values = 16, 3, {}
    for number, width in zip(TORCHVISION.values(), (width for stage in STAGES for width in stage), strict=True):
        values[f"features.{number}.weight"] = torch.randn(width, channels, 3, 3) / 20
        values[f"features.{number}.bias"] = torch.randn(width)
        channels = width
    for number, inputs, outputs in ((0, 512 * 49, hidden), (3, hidden, hidden), (6, hidden, 10)):
        values[f"classifier.{number}.weight"] = torch.randn(outputs, inputs) / 100
        values[f"classifier.{number}.bias"] = torch.randn(outputs)
    path = tmp_path_factory.mktemp("vgg") / "vgg16-397923af.pth"
    torch.save(values, path)
    return values, path


def test_vgg16_fills_fcn8s_with_its_classifier_as_convolutions(vgg16: tuple[dict[str, Tensor], Path]):
    values, path = vgg16
    unary = build_unary("fcn8s", 5, fc_channels=16)
    scores = {key: value.clone() for key, value in unary.state_dict().items() if "score" in key}
    load_vgg16(unary, path)
    state = unary.state_dict()
    for name, number in TORCHVISION.items():
        assert torch.equal(state[f"{name}.weight"], values[f"features.{number}.weight"])
        assert torch.equal(state[f"{name}.bias"], values[f"features.{number}.bias"])
    features = torch.randn(2, 512, 7, 7)  # where the classifier sees one window, the convolutions do what it does
    hidden = functional.linear(features.flatten(1), values["classifier.0.weight"], values["classifier.0.bias"]).relu()
    expected = functional.linear(hidden, values["classifier.3.weight"], values["classifier.3.bias"])
    found = unary.get_submodule("fc7")(unary.get_submodule("fc6")(features).relu())
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-4)
    for key, value in scores.items():
        assert torch.equal(state[key], value), key


def test_vgg16_is_thinned_out_for_deeplab(vgg16: tuple[dict[str, Tensor], Path]):
    values, path = vgg16
    unary = build_unary("deeplab", 5, fc_channels=4)
    load_vgg16(unary, path)
    fc6 = values["classifier.0.weight"].view(16, 512, 7, 7)
    state = unary.state_dict()
    chosen = [0, 5, 10, 15]
    assert torch.equal(state["fc6.weight"], fc6[chosen][:, :, ::3, ::3])
    assert torch.equal(state["fc6.bias"], values["classifier.0.bias"][chosen])
    assert torch.equal(state["fc7.weight"][..., 0, 0], values["classifier.3.weight"][chosen][:, chosen])


def test_vgg16_says_what_does_not_fit(vgg16: tuple[dict[str, Tensor], Path], tmp_path: Path):
    values, path = vgg16
    with pytest.raises(ValueError, match=r"^unary: VGG-16 fits fcn8s and deeplab, not FastScnn$"):
        load_vgg16(build_unary("fast-scnn", 5), path)
    with pytest.raises(
        ValueError, match=r"of another shape: fc6\.weight \(16, 512, 7, 7\) instead of \(17, 512, 7, 7\)"
    ):
        load_vgg16(build_unary("fcn8s", 5, fc_channels=17), path)
    wrong = tmp_path / "resnet50.pth"
    torch.save({"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, wrong)
    message = r"lacks features\.0\.weight, .* and 26 more; it has conv1\.weight, fc\.bias$"
    with pytest.raises(ValueError, match=message):
        load_vgg16(build_unary("deeplab", 5, fc_channels=4), wrong)
    torch.save(values | {"classifier.3.weight": torch.zeros(3, 3)}, wrong)
    with pytest.raises(
        ValueError, match=r"fc7\.weight has shape \(3, 3\) there, expected the numbers of \(16, 16, 1, 1\)"
    ):
        load_vgg16(build_unary("deeplab", 5, fc_channels=4), wrong)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_pth(tmp_path: Path, content: bytes):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth: is not readable as a file of tensors") as caught:
        load_crfasrnn(path)
    assert "\n" not in str(caught.value)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module\.pth: is not readable as a file of tensors"):
        load_crfasrnn(tmp_path / "module.pth")
    torch.save({"epoch": 3, "state": {}}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint\.pth: holds no state dict"):
        load_crfasrnn(tmp_path / "checkpoint.pth")


def test_downloads_are_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(url: str, target: str, hash_prefix: str | None) -> None:
        asked.append((url, hash_prefix))
        Path(target).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert fetch("vgg16").read_bytes() == b"weights"
    assert fetch("https://example.org/a/net.caffemodel?raw=true").name == "net.caffemodel"
    assert asked == [URLS["vgg16"], ("https://example.org/a/net.caffemodel?raw=true", None)]


def test_downloads_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def download(url: str, target: str, hash_prefix: str | None) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(
        ValueError, match=r"^crfasrnn: cannot be downloaded from https://github.*give the path of a file$"
    ):
        load_crfasrnn()
    with pytest.raises(
        ValueError, match=r"^weights/none\.pth: no such file, and none of crfasrnn, vgg16 or an address"
    ):
        load_crfasrnn("weights/none.pth")


def test_files_that_unpack_to_more_than_they_are(tmp_path: Path):
    path, packed = tmp_path / "a.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(10_000)}, path)
    assert read_state(path)["a"].shape == (10_000,)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in whole.namelist():
            other.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"packed\.pth: is not readable as a file of tensors \(it unpacks to 4\d,"):
        read_state(packed)
    torch.save({"a": torch.zeros(1).expand(100, 100)}, path)
    with pytest.raises(ValueError, match=r"a, \(100, 100\), has fewer numbers in the file than it says"):
        read_state(path)
