"""Rung 1 of the truth: the definitions as loops over pixels and labels, in float64, for a dozen pixels.

Everything is an array without a batch: features (d, N), values (C, N), logits and marginals (L, N).
"""

import math

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
