"""Labels that nothing tells apart, computed once, against the run with all of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import Bilateral, Spatial
from crfrnn.inference import recurrence
from crfrnn.inference.alike import merged
from crfrnn.inference.problem import Problem
from crfrnn.inference.recurrence import marginals, mean_field
from crfrnn.pydensecrf import densecrf, utils
from tests.support.problems import random_values

GROUPS = (0, 1, 1, 2, 3, 1, 3, 4)  # eight labels of five kinds
SIZE = (9, 12)


def scores(kinds: tuple[int, ...] = GROUPS, batch: int = 1) -> Tensor:
    return random_values(batch, max(kinds) + 1, *SIZE)[:, list(kinds)]


def filters(batch: int = 1) -> list:
    guide = 60 * random_values(batch, 3, *SIZE, seed=3)
    return [Bilateral(6, 40).prepare(guide), Spatial(2).prepare(guide)]


def weights(*shape: int) -> Tensor:
    return 1 + random_values(*shape, seed=4).abs()


def potts(labels: int) -> Tensor:
    return 1 - torch.eye(labels)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("of_classes", [False, True])
def test_the_same_marginals(batch: int, of_classes: bool):
    kinds = weights(2, 5)[:, list(GROUPS)] if of_classes else weights(2, 1)
    arguments = scores(batch=batch), filters(batch), kinds, potts(8)
    few = merged(Problem(*arguments))
    assert few is not None
    assert few.problem.scores.shape[1] == 5
    torch.testing.assert_close(marginals(*arguments, 6), mean_field(*arguments, 6).softmax(1), rtol=2e-5, atol=2e-6)


def test_probabilities_below_the_floor():
    p = scores().softmax(1)
    p[:, 1] = p[:, 2] = p[:, 5] = 0
    arguments = filters(), weights(2, 1), potts(8)
    expected = mean_field(p.clamp(min=1e-6).log(), *arguments, 4).softmax(1)
    torch.testing.assert_close(marginals(p, *arguments, 4, floor=1e-6), expected, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("labels", [3, 1203])
def test_all_labels_alike(labels: int):
    found = marginals(torch.zeros(1, labels, *SIZE), filters(), weights(2, 1), potts(labels), 3)
    torch.testing.assert_close(found, torch.full_like(found, 1 / labels))


def test_one_pixel_tells_two_labels_apart():
    values = scores()
    values[0, 5, 4, 7] += 1
    few = merged(Problem(values, filters(), weights(2, 1), potts(8)))
    assert few is not None
    assert few.group.tolist() == [0, 1, 1, 2, 3, 4, 3, 5]


def test_kernel_weights_tell_labels_apart():
    kinds = weights(2, 8)
    kinds[:, 6] = kinds[:, 4]
    few = merged(Problem(scores(), filters(), kinds, potts(8)))
    assert few is not None
    assert few.group.tolist() == [0, 1, 2, 3, 4, 5, 4, 6]


@pytest.mark.parametrize("why", ["all differ", "compatibility", "matrices of weights", "two labels"])
def test_where_nothing_is_merged(why: str):
    values, kinds, compatibility = scores(), weights(2, 1), potts(8)
    if why == "all differ":
        values = random_values(1, 8, *SIZE)
    elif why == "compatibility":
        compatibility[1, 2] = 0.5
    elif why == "matrices of weights":
        kinds = torch.eye(8).repeat(2, 1, 1)
    else:
        values, compatibility = values[:, [1, 2]], potts(2)
    assert merged(Problem(values, filters(), kinds, compatibility)) is None


def test_the_drop_in_computes_absent_labels_once(monkeypatch: pytest.MonkeyPatch):
    """The commonest call of weak supervision: 81 classes, of which a label map has three."""
    sizes = []
    run = recurrence._marginals
    monkeypatch.setattr(
        recurrence,
        "_marginals",
        lambda problem, *rest, **more: sizes.append(problem.scores.shape[1]) or run(problem, *rest, **more),
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    crf = densecrf.DenseCRF2D(SIZE[1], SIZE[0], 81)
    crf.setUnaryEnergy(utils.unary_from_labels(rng.choice([0, 7, 40], SIZE), 81, gt_prob=0.7, zero_unsure=False))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image, compat=10)
    q = crf.inference(10)
    assert sizes == [4]
    assert q.shape == (81, SIZE[0] * SIZE[1])
    np.testing.assert_allclose(q.sum(axis=0), 1, atol=1e-5)
    assert (np.delete(q, [0, 7, 40], axis=0) == q[1]).all()
