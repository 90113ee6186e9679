"""Gains with their intervals, and what counts as one; parabolas through counts."""

import math

import pytest
import torch

from crfrnn.commands.fit import surface
from crfrnn.commands.fit.held_out import merit, painted_over
from crfrnn.commands.fit.surface import STEP, Surface
from crfrnn.commands.gain import gain, iou, mean_iou
from crfrnn.commands.metrics import class_counts
from crfrnn.parameters import CRFParameters


def counted(*images: list[list[int]]) -> torch.Tensor:
    """(N, 3, L) of confusion matrices."""
    return torch.stack([class_counts(torch.tensor(one)) for one in images])


class TestGain:
    def test_bootstrap_interval_of_a_known_difference(self):
        """Images that gain 0 or 10 points of accuracy by a coin: the gain's standard error is 10 / 2 / sqrt(N)."""
        before, after = [[50, 50], [50, 50]], [[60, 40], [40, 60]]
        found = gain(counted(*[before, after] * 50), counted(*[before] * 100))
        assert found.low < found.value < found.high
        slope = 2 / (2 - 0.55) ** 2  # of the IoU a / (2 - a) in the accuracy a, which is 0.55 on average
        assert found.high - found.low == pytest.approx(2 * 1.96 * 0.05 / 10 * slope, rel=0.1)
        assert found.chance == 0

    def test_a_class_that_never_occurs_changes_nothing(self):
        """The network calls one pixel a class that is nowhere, the CRF none, and that is no gain."""
        alone = counted(*[[[90, 10, 0], [10, 89, 1], [0, 0, 0]]] * 4)
        fitted = counted(*[[[80, 20, 0], [20, 80, 0], [0, 0, 0]]] * 4)
        lost = gain(fitted, alone)
        assert lost.high == pytest.approx(lost.low) == pytest.approx(lost.value)
        assert lost.value == pytest.approx(80 / 120 - (90 / 110 + 89 / 109) / 2, abs=0.01)
        assert lost.chance == 1
        assert merit(fitted, alone) < mean_iou(fitted) < mean_iou(alone)

    def test_resampled_sets_count_what_occurs_in_their_truth(self):
        """The third class is in one image alone: a set without it counts two classes, in both predictions."""
        common, rare = [[9, 1, 0], [1, 9, 0], [0, 0, 0]], [[9, 1, 0], [1, 9, 0], [2, 0, 8]]
        stray = [[9, 0, 1], [1, 9, 0], [0, 0, 0]]  # what was called 1 is called 2, in images where 2 is nowhere
        found = gain(counted(*[stray] * 3, rare), counted(*[common] * 3, rare))
        assert found.low < 0 < found.high


class TestMerit:
    def test_a_class_that_is_painted_over_is_no_gain(self):
        alone = counted([[90, 10, 0], [10, 90, 0], [2, 2, 6]])
        painted = counted([[100, 0, 0], [0, 100, 0], [3, 3, 4]])
        assert mean_iou(painted) > mean_iou(alone)
        assert merit(painted, alone) < mean_iou(painted) - 0.05
        gone = counted([[100, 0, 0], [0, 100, 0], [5, 5, 0]])
        assert merit(gone, alone) == -1
        assert painted_over(gone, alone) == [2]

    def test_a_class_that_was_hardly_found_is_not_worth_a_veto(self):
        alone = counted([[80, 20, 0], [20, 80, 0], [9, 9, 1]])
        gone = counted([[100, 0, 0], [0, 100, 0], [9, 10, 0]])
        assert painted_over(gone, alone) == []
        assert merit(gone, alone) > mean_iou(alone)

    def test_less_what_classes_lose_is_a_mean_over_those_that_occur(self):
        alone, fitted = counted([[80, 20], [20, 80]]), counted([[90, 10], [40, 60]])
        wider = [torch.nn.functional.pad(counts, (0, 5)) for counts in (fitted, alone)]
        assert merit(*wider) == pytest.approx(merit(fitted, alone))


class TestSurface:
    def made(self) -> torch.Tensor:
        """(K = 2, 3, 3, L = 2): 100 pixels of each class; what is right is 70 - 20 (delta_0 - 1/2)^2 of the first."""
        moved = torch.empty(2, 3, 3, 2)
        for side in range(3):
            for number in range(2):
                right = 70 - 20 * ((side - 1) * (number == 0) - 0.5) ** 2
                moved[number, side] = torch.tensor([[right, 60.0], [right, 60.0], [100.0, 100.0]])
        return moved

    def test_what_was_measured_is_on_it(self):
        moved = torch.randint(0, 99, (4, 5, 3, 3, 6))
        moved[:, :, 1] = moved[:, :1, 1]  # where nothing moves it is the same for every coordinate
        found = Surface.of(moved)
        for number, side in ((0, -1), (3, 1), (2, 0)):
            delta = torch.zeros(5, dtype=torch.float64)
            delta[number] = side
            assert torch.allclose(found.at(delta), moved[:, number, 1 + side].double())

    def test_best_is_the_top_of_the_parabola(self):
        assert Surface.of(self.made()).best(0.0, 2)[0] == 0.5
        assert iou(Surface.of(self.made()).at(torch.tensor([0.5, 0.0]))[None])[0] == pytest.approx(0.7)

    def test_shrinkage_and_coordinates_that_may_not_move(self):
        assert Surface.of(self.made()).best(1.0, 2).tolist() == [0, 0]
        assert Surface.of(self.made()).best(0.0, 0).tolist() == [0, 0]

    def test_coordinates(self):
        begun = CRFParameters.of_preset("deeplab-v2", temperature=0.5)
        found = surface.at(begun, torch.tensor([1.0, 0.5, 0, *[0] * 6]))
        assert found.temperature == pytest.approx(1)
        weights = [kernel.weight for kernel in found.kernels]  # type: ignore[attr-defined]
        assert weights == pytest.approx([4 / 2 * math.exp(STEP / 2), 3 / 2])
        assert found.class_weights is None
        factors = surface.at(begun, torch.tensor([0, 0, 0, 1.0, 0, -1, 0, 0, 1])).class_weights
        assert factors == ((2, 1, 0.5), (1, 1, 2))
