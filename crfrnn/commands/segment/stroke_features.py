"""What the network of one photo knows about a pixel: its colour, its surroundings at several scales, its place."""

import math

import torch
from torch import Tensor

from crfrnn.filtering.kernels import Spatial

SCALES = (1, 2, 4, 8, 16)  # standard deviations of the surroundings, in pixels of a photo of 200 x 200
WAVES = 8  # random Fourier features of position: a sine and a cosine of each
WAVE_NUMBER = math.pi  # their standard deviation, in radians for each half of the photo's longer side
PLACE = 0.5  # the weight of position against colour, whose features have variance 1
VARIANCE_FLOOR = 1e-4  # of the squared deviations in a surrounding, so that their root has a gradient and a scale

# sRGB primaries to the CIE XYZ of its white point D65, each row divided by the white (IEC 61966-2-1).
XYZ_OF_RGB = ((0.4339, 0.3762, 0.1899), (0.2126, 0.7152, 0.0722), (0.0178, 0.1095, 0.8727))
LAB_SCALE = (50.0, 30.0, 30.0)  # brings lightness and the two colour axes to about 1


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


def pixel_features(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """(1, 3, H, W) sRGB in 0..255 -> (H * W, F): one row for each pixel, the same for all sizes of a photo.

    Colour and, at each scale, the surrounding's mean colour and its deviation, each with mean 0 and variance 1 over
    the photo; then position in -1..1 along the longer side, and sines and cosines of random directions of it
    (Rahimi and Recht 2007; Tancik et al. 2020), drawn from `generator`: smooth functions of where a pixel is.
    """
    height, width = rgb.shape[2:]
    colour = lab(rgb)
    maps = [colour]
    for scale in SCALES:
        blur = Spatial(scale * math.sqrt(height * width) / 200).prepare(rgb)
        mean = blur(colour)
        maps += [mean, (blur(colour**2) - mean**2).clamp(min=0).add(VARIANCE_FLOOR).sqrt()]
    looks = torch.cat(maps, dim=1).flatten(2)[0]
    deviation, average = torch.std_mean(looks, dim=1, correction=0, keepdim=True)
    looks = (looks - average) / (deviation + 1e-3)

    half = max(height, width) / 2
    y, x = ((torch.arange(size) + 0.5 - size / 2) / half for size in (height, width))
    place = torch.stack([y.view(-1, 1).expand(height, width), x.expand(height, width)]).flatten(1)
    angles = WAVE_NUMBER * torch.randn(WAVES, 2, generator=generator) @ place
    return torch.cat([looks, PLACE * torch.cat([place, angles.sin(), angles.cos()])]).t().contiguous()
