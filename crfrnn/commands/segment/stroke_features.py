"""What is known about each place of a photo, whatever is drawn on it: colour, position, and a network's features."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crfrnn.networks.models import load_model
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.photo_size import resized
from crfrnn.networks.unary.efficientnet_lite0 import EfficientNetLite0, spread

MODEL = "voc"  # whose network tells things apart
PIXELS = 190_000  # the size at which a photo is looked at: 500 x 375
STRIDE = 4  # of the grid on which features are given
MULTIPLE = 32  # sides of a multiple of this, plus 1: the last output of every stride lies on the last pixel
NARROW, WIDE = 5, 17  # pixels, sides of the squares whose mean colour is taken
FLOOR = 1e-3  # of a channel's deviation over the photo

# sRGB primaries to the CIE XYZ of its white point D65, each row divided by the white (IEC 61966-2-1).
XYZ_OF_RGB = ((0.4339, 0.3762, 0.1899), (0.2126, 0.7152, 0.0722), (0.0178, 0.1095, 0.8727))
LAB_SCALE = (50.0, 30.0, 30.0)  # brings lightness and the two colour axes to about 1

Features = dict[str, Tensor]  # by name, each (C, h, w) on the same grid


def lab(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) sRGB in 0..255 -> (B, 3, H, W) CIE L*a*b*, divided by `LAB_SCALE`: equal steps look equal.

    >>> white = torch.full((1, 3, 1, 1), 255.0)
    >>> [round(v, 2) + 0.0 for v in lab(white).flatten().tolist()]
    [2.0, 0.0, 0.0]
    """
    coded = rgb / 255
    linear = torch.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)
    xyz = torch.einsum("kc,bchw->bkhw", linear.new_tensor(XYZ_OF_RGB), linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-6) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    axes = torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)
    return axes / axes.new_tensor(LAB_SCALE).view(1, 3, 1, 1)


@lru_cache(maxsize=1)
def feature_network() -> SegmentationNetwork:
    """That of `MODEL`."""
    with torch.random.fork_rng(devices=[]):  # a new network draws initial values
        return load_model(MODEL)[0]


def photo_features(photo: np.ndarray) -> Features:
    """(H, W, 3) uint8 -> features of a grid that spans the photo corner to corner.

    ``colour`` and ``surroundings``: mean L*a*b* of small and larger squares; ``position``: (y, x), 0 to 2 along the
    longer side; and a network's maps of strides 4 to 32, ``map4`` to ``map32``, and its ``classes``.
    """
    image = resized(photo, working_size(photo.shape[:2]))
    height, width = (side // STRIDE + 1 for side in image.shape[2:])
    colours = [lab(F.avg_pool2d(F.pad(image, (side // 2,) * 4, "replicate"), side, STRIDE)) for side in (NARROW, WIDE)]
    half = max(height, width) / 2
    y, x = (torch.arange(side) / half for side in (height, width))
    position = torch.stack([y.view(-1, 1).expand(height, width), x.expand(height, width)])
    features = {"colour": colours[0][0], "surroundings": colours[1][0], "position": position}
    return features | _of_network(feature_network(), image)


def working_size(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of about `PIXELS` in all, in nearly the same proportions.

    >>> working_size((375, 500)), working_size((3000, 4000))
    ((385, 513), (385, 513))
    """
    scale = math.sqrt(PIXELS / (size[0] * size[1]))
    height, width = (MULTIPLE * max(1, round(side * scale / MULTIPLE)) + 1 for side in size)
    return height, width


def _of_network(network: SegmentationNetwork, image: Tensor) -> Features:
    """The decoder's maps, those of the backbone where it has none, and the classes' probabilities."""
    unary = network.unary
    assert isinstance(unary, EfficientNetLite0)
    with torch.no_grad():
        maps = unary.backbone(network.normalize(image))
        grid, decoded = maps[STRIDE], unary.decoded(maps)
        several = {stride: x for stride, x in (maps | decoded).items() if stride >= STRIDE}
        features = {f"map{stride}": standardized(spread(x, grid)[0]) for stride, x in several.items()}
        logits = unary.classifier(decoded[min(decoded)])
        return features | {"classes": spread(logits, grid)[0].softmax(dim=0)}


def standardized(values: Tensor) -> Tensor:
    """(C, h, w), each channel with mean 0 and variance 1 / 2C over the photo: two places differ by about 1 in all."""
    deviation, mean = torch.std_mean(values, dim=(1, 2), correction=0, keepdim=True)
    return (values - mean) / ((deviation + FLOOR) * math.sqrt(2 * len(values)))
