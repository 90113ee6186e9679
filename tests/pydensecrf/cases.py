"""The problems on which `crfrnn.pydensecrf` and pydensecrf are compared. No randomness: the same on every machine."""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# name -> (sxy, srgb, weight) of the appearance kernel and (sxy, weight) of the smoothness kernel
PARAMETERS = {"crfrnn": ((160, 3, 5), (3, 3)), "pydensecrf": ((80, 13, 10), (3, 3))}
NORMALIZATIONS = ("NO_NORMALIZATION", "NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC")
ITERATIONS = (5, 10)
MEAN_DIFFERENCE = 1e-3  # of marginals, and
LABEL_AGREEMENT = 0.998  # the share of points: what "the same numbers" means

# What somebody has on disk who refines masks with pydensecrf. The import lines are all that a switch changes.
USER_SCRIPT = """
import numpy as np
import pydensecrf.densecrf as dcrf
from pydensecrf.utils import unary_from_labels, create_pairwise_bilateral
from PIL import Image

photo = np.array(Image.open("photo.png"))
strokes = np.array(Image.open("strokes.png"))          # 0: nobody said, 1 and 2: classes
height, width = strokes.shape
classes = strokes.max()

crf = dcrf.DenseCRF2D(width, height, classes)
crf.setUnaryEnergy(unary_from_labels(strokes.astype(np.int32), classes, gt_prob=0.9, zero_unsure=True))
crf.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=dcrf.DIAG_KERNEL, normalization=dcrf.NORMALIZE_SYMMETRIC)
crf.addPairwiseEnergy(create_pairwise_bilateral(sdims=(40, 40), schan=[13, 13, 13], img=photo, chdim=2), compat=8)
by_inference = np.argmax(crf.inference(5), axis=0).reshape(height, width)

Q, tmp1, tmp2 = crf.startInference()
divergence = []
for _ in range(5):
    divergence.append(crf.klDivergence(Q))
    crf.stepInference(Q, tmp1, tmp2)
probabilities = np.array(Q).reshape((classes, height, width))
by_steps = probabilities.argmax(axis=0)
Image.fromarray(by_steps.astype(np.uint8)).save("labels.png")
"""


class Problem(NamedTuple):
    """A photo (h, w, 3) uint8 and an energy (labels, h * w) float32."""

    photo: NDArray[np.uint8]
    energy: NDArray[np.float32]


def problem(photo: NDArray[np.uint8], labels: int) -> Problem:
    """Energies that waver between labels: waves over the photo, a pull towards each label's colour, and noise."""
    h, w = photo.shape[:2]
    y, x = np.mgrid[:h, :w]
    grey = photo.mean(axis=2)
    scores = np.empty((labels, h, w))
    for label in range(labels):
        waves = np.sin(0.11 * (1 + label % 5) * x + label) * np.cos(0.09 * (1 + label % 4) * y - label)
        noise = ((x * 73856093) ^ (y * 19349663) ^ (label * 83492791 + 12345)) % 1009 / 1009
        colour = -((grey - 255 * (label + 0.5) / labels) ** 2) / (2 * 90.0**2)
        scores[label] = 1.2 * waves + 2 * noise + 1.5 * colour
    scores -= np.log(np.exp(scores).sum(axis=0))
    return Problem(photo, (-scores).reshape(labels, -1).astype(np.float32))


def strokes(h: int, w: int) -> NDArray[np.uint8]:
    """Two strokes on an unknown ground, for the script: (h, w) with 0, 1, 2."""
    drawn = np.zeros((h, w), np.uint8)
    drawn[h // 2 - 3 : h // 2 + 3, w // 3 : 2 * w // 3] = 1
    drawn[:6] = 2
    drawn[:, :4] = 2
    return drawn


def marginals(
    module: Any, case: Problem, parameters: str, normalization: str, iterations: tuple[int, ...] = ITERATIONS
) -> list[NDArray[np.float32]]:
    """(labels, h * w) after each number of iterations, by either module."""
    h, w = case.photo.shape[:2]
    (alpha, beta, appearance), (gamma, smoothness) = PARAMETERS[parameters]
    crf = module.DenseCRF2D(w, h, len(case.energy))
    crf.setUnaryEnergy(case.energy)
    kind = getattr(module, normalization)
    crf.addPairwiseGaussian(sxy=gamma, compat=smoothness, normalization=kind)
    crf.addPairwiseBilateral(sxy=alpha, srgb=beta, rgbim=case.photo, compat=appearance, normalization=kind)
    return [np.array(crf.inference(n)) for n in iterations]


def compatibilities(labels: int) -> dict[str, Any]:
    """Every kind of `compat`, with both signs and no symmetry."""
    row = np.arange(labels, dtype=np.float32)
    return {
        "number": 2.5,
        "negative": -1.5,
        "vector": np.cos(row),
        "matrix": np.sin(row[:, None] * 2 + row),
    }


def volume(module: Any, utils: Any, compat: Any, normalization: str) -> tuple[NDArray[np.float32], list[float]]:
    """A DenseCRF on a 4 x 6 x 7 volume, stepped: its marginals (3, 168) and the divergence before each step.

    The number of points is a multiple of 4, so that pydensecrf adds no points of its own (docs/pydensecrf.md).
    """
    shape, labels = (4, 6, 7), 3
    points = 4 * 6 * 7
    index = np.arange(points)
    grey = (index * 37 % 101).astype(np.float32).reshape(shape)
    energy = (((index * 7919 + np.arange(labels)[:, None] * 104729) % 211) / 100).astype(np.float32)
    crf = module.DenseCRF(points, labels)
    crf.setUnaryEnergy(energy)
    kind = getattr(module, normalization)
    if kind == module.NO_NORMALIZATION:
        compat = compat * np.float32(0.02)  # else the sum over all neighbours outvotes every point
    crf.addPairwiseEnergy(utils.create_pairwise_gaussian((1.5, 2, 2.5), shape), compat, normalization=kind)
    bilateral = utils.create_pairwise_bilateral((3, 3, 3), 40, grey)
    crf.addPairwiseEnergy(bilateral, compat, kernel=module.FULL_KERNEL, normalization=kind)
    q, tmp1, tmp2 = crf.startInference()
    divergence = []
    for _ in range(4):
        divergence.append(crf.klDivergence(q))
        crf.stepInference(q, tmp1, tmp2)
    return np.array(q), divergence


def run_script(prefix: str) -> dict[str, Any]:
    """Run the user's script in the current folder with its imports from `prefix`; returns its variables."""
    variables: dict[str, Any] = {}
    exec(USER_SCRIPT.replace("pydensecrf.", prefix + "."), variables)
    return {name: value for name, value in variables.items() if not isinstance(value, ModuleType)}


def agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[float, float]:
    """(mean absolute difference of marginals, share of points with the same label)."""
    return float(np.abs(ours - theirs).mean()), float((ours.argmax(axis=0) == theirs.argmax(axis=0)).mean())
