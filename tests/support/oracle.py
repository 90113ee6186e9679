"""Rung 1 of the truth: the definitions as loops over pixels and labels, in float64, for a dozen pixels.

Everything is an array without a batch: features (d, N), values (C, N), logits and marginals (L, N).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


def kernel(features: Array) -> Array:
    """k(f_i, f_j) = exp(-|f_i - f_j|^2 / 2), (N, N)"""
    dimensions, points = features.shape
    k = np.zeros((points, points))
    for i in range(points):
        for j in range(points):
            squared = sum((float(features[a, i]) - float(features[a, j])) ** 2 for a in range(dimensions))
            k[i, j] = math.exp(-0.5 * squared)
    return k


def normalised(k: Array, normalization: str) -> Array:
    """The matrix of the normalised filter, (N, N), from the plain one."""
    points = len(k)
    n = [sum(k[i, j] for j in range(points)) for i in range(points)]
    out = np.zeros((points, points))
    for i in range(points):
        for j in range(points):
            divisor = {
                "after": n[i],
                "before": n[j],
                "symmetric": math.sqrt(n[i]) * math.sqrt(n[j]),
                "none": 1.0,
            }[normalization]
            out[i, j] = k[i, j] / divisor
    return out


def gaussian_filter(values: Array, features: Array, normalization: str = "after", transposed: bool = False) -> Array:
    """(C, N), (d, N) -> (C, N)"""
    matrix = normalised(kernel(features), normalization)
    out = np.zeros(values.shape)
    for c in range(values.shape[0]):
        for i in range(values.shape[1]):
            for j in range(values.shape[1]):
                out[c, i] += (matrix[j, i] if transposed else matrix[i, j]) * float(values[c, j])
    return out


def feature_gradient(
    values: Array, features: Array, grad: Array, normalization: str = "after", transposed: bool = False
) -> Array:
    """(C, N), (d, N), (C, N) -> (d, N): the slope of sum(grad * out) as each feature moves, central differences."""
    step, out = 1e-5, np.zeros(features.shape)
    for a in range(features.shape[0]):
        for i in range(features.shape[1]):
            losses = []
            for sign in (1, -1):
                moved = features.copy()
                moved[a, i] += sign * step
                losses.append(float((grad * gaussian_filter(values, moved, normalization, transposed)).sum()))
            out[a, i] = (losses[0] - losses[1]) / (2 * step)
    return out


def softmax(logits: Array) -> Array:
    """(L, N) -> (L, N), over the labels of each pixel"""
    labels, points = logits.shape
    q = np.zeros((labels, points))
    for i in range(points):
        largest = max(float(u) for u in logits[:, i])
        total = sum(math.exp(float(u) - largest) for u in logits[:, i])
        for label in range(labels):
            q[label, i] = math.exp(float(logits[label, i]) - largest) / total
    return q


def weight(kernel_weights: Array, m: int, to: int, of: int) -> float:
    """w_m(to, of): what the message about label `of` adds to label `to`, for weights (M, 1), (M, L) or (M, L, L)"""
    if kernel_weights.ndim == 3:
        return float(kernel_weights[m, to, of])
    if to != of:
        return 0.0
    return float(kernel_weights[m, to if kernel_weights.shape[1] > 1 else 0])


def iteration(
    logits: Array, q: Array, features: list[Array], kernel_weights: Array, mu: Array, normalization: str = "after"
) -> Array:
    """One mean-field iteration: marginals Q -> logits Qu, (L, N); equations (4.2) to (4.5)."""
    labels, points = logits.shape
    messages = [gaussian_filter(q, f, normalization) for f in features]
    out = np.zeros((labels, points))
    for i in range(points):
        weighted = [0.0] * labels
        for label in range(labels):
            for m in range(len(features)):
                for of in range(labels):
                    weighted[label] += weight(kernel_weights, m, label, of) * messages[m][of, i]
        for label in range(labels):
            penalty = sum(float(mu[label, other]) * weighted[other] for other in range(labels))
            out[label, i] = float(logits[label, i]) - penalty
    return out


def mean_field(
    logits: Array,
    features: list[Array],
    kernel_weights: Array,
    mu: Array,
    iterations: int,
    normalization: str = "after",
) -> Array:
    """The logits after T iterations, (L, N); section 5.1."""
    qu = np.asarray(logits, dtype=np.float64)
    for _ in range(iterations):
        qu = iteration(logits, softmax(qu), features, kernel_weights, mu, normalization)
    return qu


def gibbs_energy(
    labels: tuple[int, ...],
    logits: Array,
    features: list[Array],
    kernel_weights: Array,
    mu: Array,
    normalization: str = "after",
    self_connection: bool = True,
) -> float:
    """E(x) = - sum_i U_i(x_i) + 1/2 sum_ij sum_m A_m(x_i, x_j) k_m(f_i, f_j), with j = i or without

    A_m = mu w_m less what it adds to all labels alike, so that the sum of every row is that of its column.
    """
    kernels = [normalised(kernel(f), normalization) for f in features]
    transforms = []
    for a in [mu @ w for w in _matrices(kernel_weights, len(mu))]:
        alike = [(sum(a[:, label]) - sum(a[label])) / len(mu) for label in range(len(mu))]
        transforms.append(np.array([[a[x, y] - alike[y] for y in range(len(mu))] for x in range(len(mu))]))
    energy = 0.0
    for i, label in enumerate(labels):
        energy -= float(logits[label, i])
        for j, other in enumerate(labels):
            if self_connection or i != j:
                pairs = zip(transforms, kernels, strict=True)
                energy += 0.5 * sum(float(a[label, other]) * float(k[i, j]) for a, k in pairs)
    return energy


def _matrices(kernel_weights: Array, labels: int) -> list[Array]:
    of = range(labels)
    return [np.array([[weight(kernel_weights, m, a, b) for b in of] for a in of]) for m in range(len(kernel_weights))]


@dataclass(frozen=True)
class Enumeration:
    """What a small CRF is in truth, from all its labellings: P(x) = exp(-E(x)) / Z."""

    energies: dict[tuple[int, ...], float]
    log_z: float
    marginals: Array  # (L, N)
    optimum: tuple[int, ...]


def enumerate_labellings(
    logits: Array, features: list[Array], kernel_weights: Array, mu: Array, normalization: str = "after"
) -> Enumeration:
    """All L^N labellings of the CRF without j = i, whose energies are made of tables of all pairs."""
    labels, points = logits.shape
    pairs = np.zeros((points, points, labels, labels))
    for a, f in zip(_matrices(kernel_weights, labels), features, strict=True):
        k = normalised(kernel(f), normalization)
        pairs += (k - np.diag(np.diag(k)))[:, :, None, None] * (mu @ a)
    energies = {}
    for x in itertools.product(range(labels), repeat=points):
        chosen = np.array(x)
        pairwise = pairs[np.arange(points)[:, None], np.arange(points), chosen[:, None], chosen].sum()
        energies[x] = float(0.5 * pairwise - logits[chosen, np.arange(points)].sum())
    lowest = min(energies.values())
    weights = {x: math.exp(lowest - energy) for x, energy in energies.items()}
    z = sum(weights.values())
    marginals = np.zeros((labels, points))
    for x, value in weights.items():
        marginals[np.array(x), np.arange(points)] += value / z
    return Enumeration(energies, math.log(z) - lowest, marginals, min(energies, key=energies.__getitem__))
