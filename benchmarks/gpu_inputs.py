"""Inputs of the GPU benchmark: real photos where scikit-image is installed, made ones where it is not."""

import functools
import importlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


def _made(seed: int) -> np.ndarray:
    """A picture (512, 512, 3) uint8 of flat and shaded regions with sharp edges and a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:512, :512] / 512
    corners = random.random((40, 2))
    region = ((x[..., None] - corners[:, 0]) ** 2 + (y[..., None] - corners[:, 1]) ** 2).argmin(axis=2)
    colours, slopes = random.uniform(30, 225, (40, 3)), random.uniform(-60, 60, (40, 2, 3))
    shading = (x - 0.5)[..., None] * slopes[region, 0] + (y - 0.5)[..., None] * slopes[region, 1]
    return np.clip(colours[region] + shading + random.normal(0, 2, (512, 512, 3)), 0, 255).astype(np.uint8)


@functools.cache
def _picture(number: int) -> tuple[np.ndarray, bool]:
    """(H, W, 3) uint8, and whether it is a real photo. From the fifth on they are mirrored."""
    try:
        picture = getattr(importlib.import_module("skimage.data"), PHOTOS[number % len(PHOTOS)])()
        real = True
    except (ImportError, OSError):
        picture, real = _made(number % len(PHOTOS)), False
    return (picture[:, ::-1] if number // len(PHOTOS) % 2 else picture), real


def source() -> str:
    """What the photos are, for the report."""
    return (
        f"scikit-image's {', '.join(PHOTOS)}" if _picture(0)[1] else "made pictures, for scikit-image is not installed"
    )


def photos(count: int, height: int, width: int, first: int = 0) -> Tensor:
    """(count, 3, height, width) float32, whole numbers 0..255."""
    pictures = []
    for number in range(first, first + count):
        image = Image.fromarray(np.ascontiguousarray(_picture(number)[0]))
        pictures.append(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(pictures).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def logits(count: int, labels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """A coarse network's output: random logits at 1/16 of the size, upsampled. (count, labels, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(count, labels, -(-height // 16), -(-width // 16), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
