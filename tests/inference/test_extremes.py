"""Logits and weights at the ends of what is allowed: the same marginals on every path."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import crfrnn.pydensecrf.densecrf as dcrf
from crfrnn import CRFRNN, Bilateral, Spatial, iterates, mean_field, refine, trajectory
from crfrnn.inference.recurrence import marginals
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import potts, random_values

LABELS, HEIGHT, WIDTH, T = 5, 6, 9, 3
PHOTO = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8))
KERNELS = Bilateral(10, 40, weight=2), Spatial(2, weight=1)
MU = potts(LABELS)


def prepared(dtype: torch.dtype = torch.float32) -> list:
    return [kernel.prepare(PHOTO.unsqueeze(0).to(dtype)) for kernel in KERNELS]


def with_gradients(logits: Tensor, weights: Tensor) -> Tensor:
    y = mean_field(logits.clone().requires_grad_(), prepared(), weights.clone().requires_grad_(), MU, T)
    return y.detach().softmax(dim=1)


def layer(logits: Tensor, weights: Tensor) -> Tensor:
    crf = CRFRNN(LABELS, KERNELS, eval_iterations=T, kernel_weights="scalar").eval()
    with torch.no_grad():
        crf.kernel_weights.copy_(weights)
        return crf(logits, PHOTO.unsqueeze(0)).softmax(dim=1)


def refined(logits: Tensor, weights: Tensor) -> Tensor:
    kernels = [Bilateral(10, 40, weight=float(weights[0])), Spatial(2, weight=float(weights[1]))]
    return refine(PHOTO, logits=logits[0], kernels=kernels, iterations=T, tolerance=0).unsqueeze(0)


def drop_in(logits: Tensor, weights: Tensor) -> Tensor:
    crf, normalization = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS), dcrf.NORMALIZE_AFTER
    crf.setUnaryEnergy(-logits[0].flatten(1).numpy())
    photo = PHOTO.permute(1, 2, 0).numpy()
    crf.addPairwiseBilateral(10, 40, photo, float(weights[0]), normalization=normalization)
    return torch.from_numpy(crf.inference(T)).view(1, LABELS, HEIGHT, WIDTH)


PATHS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fused": lambda logits, weights: marginals(logits, prepared(), weights, MU, T),
    "trajectory": lambda logits, weights: [*trajectory(logits, prepared(), weights, MU, T)][-1],
    "step by step": lambda logits, weights: [*iterates(logits, prepared(), weights, MU, T)][-1].q,
    "with gradients": with_gradients,
    "layer": layer,
    "refine": refined,
}
WEIGHTS = torch.tensor([[2.0], [1.0]])
LOGITS = 2 * random_values(1, LABELS, HEIGHT, WIDTH)


def changed(value: float, labels: int = 1) -> Tensor:
    logits = LOGITS.clone()
    logits[0, :labels, 2, 3] = value
    return logits


CASES = {
    "usual": (LOGITS, WEIGHTS),
    "an impossible label": (changed(-torch.inf), WEIGHTS),
    "all but one impossible": (changed(-torch.inf, LABELS - 1), WEIGHTS),
    "an impossible label in numbers": (changed(-1e35), WEIGHTS),
    "a label that is certain": (changed(1e28), WEIGHTS),
    "no label likely": (changed(-1e28, LABELS), WEIGHTS),
    "weights that leave nothing of the logits": (LOGITS, 1e19 * WEIGHTS),
    "no weights": (LOGITS, 0 * WEIGHTS),
    "weights that repel": (LOGITS, -WEIGHTS),
}


def expected(logits: Tensor, weights: Tensor) -> Tensor:
    filters = prepared(torch.float64)[: len(weights)]
    return marginals(logits.double(), filters, weights.double(), MU.double(), T)


@pytest.mark.parametrize("name", CASES)
@each("path", PATHS)
def test_the_same_marginals(name, path):
    q = PATHS[path](*CASES[name])
    assert_equal(path, q.double(), expected(*CASES[name]), 2e-5)
    assert_equal("sums", q.sum(dim=1), torch.ones_like(q[:, 0]), 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_same_marginals_from_the_drop_in(name):
    """Of the bilateral kernel alone: its Gaussian one is a lattice too."""
    logits, weights = CASES[name]
    assert_equal("drop-in", drop_in(logits, weights).double(), expected(logits, weights[:1]), 2e-5)
