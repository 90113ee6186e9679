"""A street by rule, as a laser scanner on a car sees it: ground, facades, poles, cars, and what a network says of it.

Positions are those of a map, UTM: hundreds of kilometres east, thousands north. Points lie on the surfaces at random,
2 cm of noise across, the more densely the nearer they are to the car's way. The intensity of a surface varies by a
fifth of itself, as the returns of rough surfaces do. Predictions are wrong as a network's are: unsure at single points,
and sure but wrong in lumps of a metre.
"""

from typing import NamedTuple

import numpy as np

LABELS = ("ground", "facade", "pole", "car")
ORIGIN = (412_345.0, 5_654_321.0, 112.0)  # east, north, height of the street's middle
REFLECTANCE = (60.0, 130.0, 95.0, 30.0)  # mean intensity of each label
SHARES = (0.5, 0.36, 0.03, 0.11)  # of the points
LENGTH, WIDTH, HEIGHT = 60.0, 16.0, 9.0  # of the street, and of its facades, in metres
POLES, CARS = 8, 6
LUMP, WRONG = 1.0, 0.12  # edge of a lump, and the share of lumps that are wrong
MARGIN, NOISE = 4.0, 1.3  # of the logits


class Street(NamedTuple):
    """N points: positions (N, 3) float64, intensity (N,) uint16, truth (N,), probabilities (N, 4) float32."""

    positions: np.ndarray
    intensity: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray


def street(points: int, seed: int = 0, density: float = 1.0) -> Street:
    """A stretch of street with this many points; `density` 1 is 60 m of it with 100,000, in proportion for others.

    >>> scene = street(1000)
    >>> scene.positions.shape, scene.probabilities.shape
    ((1000, 3), (1000, 4))
    """
    rng = np.random.default_rng(seed)
    length = LENGTH * points / 100_000 / density
    truth = rng.choice(len(LABELS), points, p=SHARES)
    local = np.empty((points, 3))
    for label, surface in enumerate((_ground, _facades, _poles, _cars)):
        chosen = truth == label
        local[chosen] = surface(rng, int(chosen.sum()), length)
    local += rng.normal(0, 0.02, local.shape)
    mean = np.array(REFLECTANCE)[truth]
    intensity = np.clip(mean * rng.normal(1, 0.2, points), 1, None).astype(np.uint16) * 256
    return Street(local + ORIGIN, intensity, truth, _predictions(rng, local, truth))


def _along(rng: np.random.Generator, count: int, length: float) -> np.ndarray:
    return rng.uniform(0, length, count)


def _ground(rng: np.random.Generator, count: int, length: float) -> np.ndarray:
    across = rng.triangular(-WIDTH / 2, 0, WIDTH / 2, count)
    height = np.where(np.abs(across) > 5, 0.12, 0.0) - 0.02 * np.abs(across)  # pavements, and a camber
    return np.stack([_along(rng, count, length), across, height], axis=1)


def _facades(rng: np.random.Generator, count: int, length: float) -> np.ndarray:
    side = rng.choice((-1, 1), count)
    along, height = _along(rng, count, length), rng.triangular(-0.15, -0.15, HEIGHT, count)
    depth = WIDTH / 2 + 0.3 * (np.sin(2 * np.pi * along / 3) > 0.6)  # doors and windows lie back
    return np.stack([along, side * depth, height], axis=1)


def _poles(rng: np.random.Generator, count: int, length: float) -> np.ndarray:
    poles = max(1, round(POLES * length / LENGTH))  # as many in a metre, whatever the length
    number = rng.integers(poles, size=count)
    side = np.where(number % 2, -1, 1)
    angle = rng.uniform(0, 2 * np.pi, count)
    along = (number + 0.5) * length / poles + 0.08 * np.cos(angle)
    return np.stack([along, side * 5.5 + 0.08 * np.sin(angle), rng.uniform(0, 5, count)], axis=1)


def _cars(rng: np.random.Generator, count: int, length: float) -> np.ndarray:
    cars = max(1, round(CARS * length / LENGTH))
    number = rng.integers(cars, size=count)
    box = rng.uniform(-1, 1, (count, 3))
    face = rng.integers(5, size=count)  # two sides, two ends, the roof
    box[np.arange(count), np.array([1, 1, 0, 0, 2])[face]] = np.array([-1, 1, -1, 1, 1])[face]
    side = np.where(number % 2, -1, 1)
    middle = np.stack([(number + 0.2) * length / cars, side * 3.8, np.full(count, 0.8)], axis=1)
    return middle + box * (2.1, 0.9, 0.7)


def _predictions(rng: np.random.Generator, local: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 4) float32 that sum to 1."""
    cells = np.floor(local / LUMP).astype(np.int64)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    lumps = cell.max() + 1
    wrong, instead = rng.random(lumps) < WRONG, rng.integers(len(LABELS), size=lumps)
    believed = np.where(wrong[cell], instead[cell], truth)
    logits = MARGIN * np.eye(len(LABELS))[believed] + rng.normal(0, NOISE, (len(truth), len(LABELS)))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
