"""Augmentation: photograph and mask move together, and nothing but the seed decides."""

import pytest
import torch

from crfrnn.data.augmentation import MEAN_COLOUR, augment, generator_for, seed_for
from crfrnn.data.config import Augmentation
from crfrnn.data.datasets import VOID

EVERYTHING = Augmentation(scale=(0.5, 2), crop=(30, 20), flip=0.5, colour=0.3)


def marked() -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph whose red channel is its mask times 20: they show whether both moved alike."""
    coarse = torch.randint(5, (8, 10), generator=torch.Generator().manual_seed(0))
    mask = coarse.repeat_interleave(6, 0).repeat_interleave(6, 1).to(torch.uint8)
    return (20 * mask).repeat(3, 1, 1), mask


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(crop=(30, 20)),
        Augmentation(flip=1),
        Augmentation(crop=(100, 20)),
        Augmentation(flip=0.5, crop=(20, 90)),
    ],
)
def test_image_and_mask_move_together(augmentation):
    image, mask = marked()
    for seed in range(5):
        pixels, numbers = augment(augmentation, image, mask, generator_for(seed))
        sure = numbers != VOID
        assert (pixels[0][sure] == 20 * numbers[sure]).all()
        assert (pixels[:, ~sure] == torch.tensor(MEAN_COLOUR).view(3, 1)).all()
        if augmentation.crop:
            assert numbers.shape == augmentation.crop[::-1]


def test_scaling_moves_both():
    image, mask = marked()
    pixels, numbers = augment(Augmentation(scale=(2, 2)), image, mask, generator_for(0))
    assert numbers.shape == (96, 120)
    assert numbers.tolist() == mask.repeat_interleave(2, 0).repeat_interleave(2, 1).tolist()
    assert ((pixels[0].float() - 20 * numbers.float()).abs() < 1).float().mean() > 0.6  # all but the blurred edges
    sizes = {
        tuple(augment(Augmentation(scale=(0.5, 2)), image, mask, generator_for(seed))[1].shape) for seed in range(6)
    }
    assert len(sizes) > 3
    assert all(24 <= height <= 96 for height, _ in sizes)


def test_the_seed_decides():
    image, mask = marked()
    first, again, other = (
        augment(EVERYTHING, image, mask, generator_for(*key)) for key in ((0, 1, 2), (0, 1, 2), (0, 2, 1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert seed_for(1) != seed_for(2)
    torch.manual_seed(5)  # the global generator has no say
    assert torch.equal(augment(EVERYTHING, image, mask, generator_for(0, 1, 2))[0], first[0])


def test_colour_leaves_the_mask_and_grey_alone():
    image, mask = marked()
    pixels, numbers = augment(Augmentation(colour=0.5), image, mask, generator_for(3))
    assert torch.equal(numbers, mask)
    assert not torch.equal(pixels, image)
    assert (pixels[0] == pixels[1]).all()  # saturation has nothing to do on grey


def test_nothing_asked_nothing_done():
    image, mask = marked()
    pixels, numbers = augment(Augmentation(), image, mask, generator_for(0))
    assert torch.equal(pixels, image)
    assert torch.equal(numbers, mask)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scale": (2, 1)}, "scale"),
        ({"scale": (0, 1)}, "scale"),
        ({"crop": (0, 5)}, "crop"),
        ({"flip": 2}, "flip"),
        ({"colour": -1}, "colour"),
    ],
)
def test_refusals(options, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        Augmentation(**options)
