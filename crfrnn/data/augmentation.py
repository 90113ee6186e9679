"""Augmentation: scale, crop, flip and colour, of a photograph and its mask together."""

import numpy as np
import torch
from torch import Generator, Tensor

from crfrnn.data.config import Augmentation
from crfrnn.data.datasets.dataset import VOID, scale

MEAN_COLOUR = (124, 116, 104)  # ImageNet's, which normalisation takes to zero
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how bright red, green and blue look


def augment(settings: Augmentation, image: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Photograph (3, H, W) uint8 and mask (H, W) uint8, changed by what `generator` draws.

    >>> image, mask = torch.zeros(3, 40, 60, dtype=torch.uint8), torch.zeros(40, 60, dtype=torch.uint8)
    >>> settings = Augmentation(scale=(0.5, 2), crop=(32, 24))
    >>> image, mask = augment(settings, image, mask, torch.Generator().manual_seed(0))
    >>> image.shape, mask.shape
    (torch.Size([3, 24, 32]), torch.Size([24, 32]))
    """
    low, high = settings.scale
    if low < high or low != 1:
        factor = _uniform(low, high, generator)
        height, width = mask.shape
        image, mask = scale(image, mask, (max(1, round(width * factor)), max(1, round(height * factor))))
    if settings.crop is not None:
        image, mask = _window(image, mask, settings.crop, generator)
    if settings.flip and _uniform(0, 1, generator) < settings.flip:
        image, mask = image.flip(-1), mask.flip(-1)
    if settings.colour:
        image = _recoloured(image, settings.colour, generator)
    return image.contiguous(), mask.contiguous()


def generator_for(*numbers: int) -> Generator:
    """A generator that depends on these numbers alone, such as seed, epoch and sample: the same on every machine.

    >>> draw = lambda *numbers: torch.randint(1000, (), generator=generator_for(*numbers)).item()
    >>> draw(0, 1, 2) == draw(0, 1, 2), draw(0, 1, 2) == draw(0, 2, 1)
    (True, False)
    """
    return Generator().manual_seed(seed_for(*numbers))


def seed_for(*numbers: int) -> int:
    """A 63-bit seed mixed from these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _window(image: Tensor, mask: Tensor, crop: tuple[int, int], generator: Generator) -> tuple[Tensor, Tensor]:
    """A window of (width, height), anywhere inside; or all of it, anywhere inside the window."""
    pixels = torch.tensor(MEAN_COLOUR, dtype=torch.uint8).view(3, 1, 1).repeat(1, crop[1], crop[0])
    numbers = torch.full((crop[1], crop[0]), VOID, dtype=torch.uint8)
    source, target = [], []
    for have, want in zip(mask.shape, crop[::-1], strict=True):
        slack = abs(have - want)
        start = int(torch.randint(slack + 1, (), generator=generator))
        length = min(have, want)
        source.append(slice(start, start + length) if have > want else slice(0, length))
        target.append(slice(0, length) if have > want else slice(start, start + length))
    pixels[:, target[0], target[1]] = image[:, source[0], source[1]]
    numbers[target[0], target[1]] = mask[source[0], source[1]]
    return pixels, numbers


def _recoloured(image: Tensor, strength: float, generator: Generator) -> Tensor:
    brightness, contrast, saturation = (_uniform(1 - strength, 1 + strength, generator) for _ in range(3))
    pixels = image.float() * brightness
    grey = (pixels * torch.tensor(LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    pixels = grey + saturation * (pixels - grey)
    mean = grey.mean()
    return (mean + contrast * (pixels - mean)).round_().clamp_(0, 255).to(torch.uint8)
