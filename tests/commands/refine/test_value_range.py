"""The range of predictions in one pass over the memory equals what torch says of them."""

import numpy as np
import pytest
import torch

from crfrnn.commands.refine.value_range import BLOCK, value_range


def probabilities(labels: int, height: int, width: int) -> torch.Tensor:
    return torch.softmax(3 * torch.randn(1, labels, height, width, generator=torch.Generator().manual_seed(0)), dim=1)


def assert_range(values: torch.Tensor) -> None:
    found, sums = value_range(values), values.sum(dim=1)
    assert found.lowest == values.min()
    assert torch.equal(found.highest, values.amax(dim=(0, 2, 3)))
    assert [found.least, found.most] == pytest.approx([sums.min().item(), sums.max().item()], rel=1e-6)


@pytest.mark.parametrize("points", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize("labels", [2, 21])
def test_range(labels, points):
    values = probabilities(labels, 1, points)
    values[0, 1, 0, points // 2] += 2  # a sum that is none of the others
    values[0, :, 0, -1] /= 3
    assert_range(values)


@pytest.mark.parametrize("number", [-0.5, -0.0, 0.0, 1e-42])
def test_numbers_that_are_not_in_the_order_of_their_bits(number):
    values = probabilities(3, 20, 30)
    values[0, 2, 11, 4] = number
    assert_range(values)


@pytest.mark.parametrize("number", [np.nan, -np.nan, np.inf])
def test_no_numbers(number):
    values = probabilities(3, 20, 30)
    values[0, 1, 19, 29] = number
    assert not np.isfinite(value_range(values).most)


def test_labels_last():
    """A view of (H, W, L) is not copied for it."""
    assert_range(probabilities(20, 30, 4).permute(0, 3, 1, 2))
