"""Labels from what resembles the strokes: a Gaussian process over features, in closed form, and its CRF."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from crfrnn.commands.segment.stroke_features import Features
from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.layer import CRFRNN

AT_ONCE = 20_000  # places of the grid that are labelled at once: bounded memory


@dataclass(frozen=True)
class Similarity:
    """The kernel of the process, and the CRF behind it: chosen once, on other photos (docs/strokes.md).

    k(x, x') = exp(-sum_b exp(log_weight_b) |f_b(x) - f_b(x')|^2) over the features f_b.
    """

    log_weights: dict[str, float]  # by the feature's name
    log_noise: float  # of the variance of a label on a stroke, where all classes have as many places
    balance: float  # classes count with (number of their places)^-balance: 0 by their area, 1 all alike
    log_sharpness: float  # logits are so many times the process's mean
    theta_alpha: float  # in diagonals of the photo
    theta_beta: float  # in 0..255
    theta_gamma: float  # in diagonals
    bilateral_weight: float
    spatial_weight: float

    def crf(self, labels: int, size: tuple[int, int], iterations: int = 10) -> CRFRNN:
        """The CRF for a photo of (height, width): bandwidths of position are shares of its diagonal."""
        diagonal = math.hypot(*size)
        kernels = (
            Bilateral(self.theta_alpha * diagonal, self.theta_beta, weight=self.bilateral_weight),
            Spatial(self.theta_gamma * diagonal, weight=self.spatial_weight),
        )
        return CRFRNN(labels, kernels=kernels, iterations=5, eval_iterations=iterations)


SIMILARITY = Similarity(  # python -m benchmarks.learn_similarity
    {
        "colour": -2.1,
        "surroundings": -5.4,
        "position": -3.8,
        "map4": -2.0,
        "map8": -1.9,
        "map16": -2.2,
        "map32": -2.8,
        "classes": -2.3,
    },
    log_noise=-1.8,
    balance=0.2,
    log_sharpness=1.9,
    theta_alpha=0.08,
    theta_beta=5.0,
    theta_gamma=0.006,
    bilateral_weight=4.0,
    spatial_weight=2.0,
)


def similarity_logits(
    features: Features, places: Tensor, targets: Tensor, labels: int, similarity: Similarity
) -> Tensor:
    """Gaussian process regression on the labels of some places -> logits (1, L, h, w) of all.

    Args:
        features: each (C, h, w).
        places: (P,), as indices into h * w.
        targets: (P,), their labels.
        labels: L.
        similarity: the kernel.

    What resembles nothing that is drawn could be anything: all its logits are 0. Source: Rasmussen and Williams,
    "Gaussian Processes for Machine Learning", 2006, section 2.2, with a mean of 1 / L and one output for each label.
    """
    height, width = next(iter(features.values())).shape[1:]
    rows = torch.cat(
        [math.exp(weight / 2) * features[name].flatten(1) for name, weight in similarity.log_weights.items()]
    ).t()
    drawn = rows[places]
    importance = torch.bincount(targets, minlength=labels).float()[targets] ** -similarity.balance
    noise = math.exp(similarity.log_noise) * importance.mean() / importance
    wanted = F.one_hot(targets, labels).float() - 1 / labels
    coefficients = torch.linalg.solve(gaussian(drawn, drawn) + noise.diag(), wanted)
    mean = torch.cat([gaussian(part, drawn) @ coefficients for part in rows.split(AT_ONCE)])
    return math.exp(similarity.log_sharpness) * mean.t().reshape(1, labels, height, width)


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """(N, C), (P, C) -> (N, P), exp(-|x - y|^2)."""
    squared = (x**2).sum(dim=1, keepdim=True) + (y**2).sum(dim=1) - 2 * x @ y.t()
    return squared.clamp(min=0).neg().exp()
