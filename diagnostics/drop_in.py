"""How far `crfrnn.pydensecrf` is from pydensecrf in random cases: the last table of docs/pydensecrf.md.

    pip install pydensecrf2 && python -m diagnostics.drop_in [CASES]

Crops of photos of 8 to 69 pixels along each side, 2 to 33 labels, bandwidths, weights and iterations of all sizes,
every normalisation. pydensecrf handles points by four: where their number is no multiple, it adds points of its own.
"""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from skimage import data

import crfrnn.pydensecrf.densecrf as ours
from tests.pydensecrf.cases import NORMALIZATIONS, Problem, agreement, problem

CASES, SEED = 1500, 0
PHOTOS = (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
CLAIMED = 5e-5  # above it the settings are printed


def cases(count: int, seed: int) -> Iterator[tuple[Problem, dict[str, Any]]]:
    """A photo with its energy, and settings."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        height, width = rng.integers(8, 70, 2)
        photo = PHOTOS[rng.integers(len(PHOTOS))]
        top, left = (rng.integers(0, whole - part) for whole, part in zip(photo.shape, (height, width), strict=False))
        crop = np.ascontiguousarray(photo[top : top + height, left : left + width])
        sxy, srgb, gamma = (float(np.exp(rng.uniform(0, np.log(most)))) for most in (300, 100, 40))
        weights = tuple(float(np.exp(rng.uniform(-1, 3))) for _ in range(2))
        yield (
            problem(crop, int(rng.choice([2, 3, 4, 5, 8, 21, 33]))),
            {
                "sxy": sxy,
                "srgb": srgb,
                "gamma": gamma,
                "weights": weights,
                "normalization": str(rng.choice(NORMALIZATIONS)),
                "iterations": int(rng.choice([1, 5, 10, 20])),
            },
        )


def marginals(module: Any, case: Problem, settings: dict[str, Any]) -> np.ndarray:
    """(labels, points), by either module."""
    height, width = case.photo.shape[:2]
    crf, kind = module.DenseCRF2D(width, height, len(case.energy)), getattr(module, settings["normalization"])
    appearance, smoothness = settings["weights"]
    crf.setUnaryEnergy(case.energy)
    crf.addPairwiseGaussian(sxy=settings["gamma"], compat=smoothness, normalization=kind)
    crf.addPairwiseBilateral(
        sxy=settings["sxy"], srgb=settings["srgb"], rgbim=case.photo, compat=appearance, normalization=kind
    )
    return np.array(crf.inference(settings["iterations"]))


def main(count: int) -> None:
    theirs = importlib.import_module("pydensecrf.densecrf")
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for case, settings in cases(count, SEED):
        difference, same = agreement(*(marginals(module, case, settings) for module in (ours, theirs)))
        found[case.energy.shape[1] % 4 == 0].append((difference, same))
        if difference > CLAIMED:
            print(f"{difference:.1e} {case.photo.shape[:2]} {len(case.energy)} labels {settings}", flush=True)
    print(f"| number of points | cases | median | 99 % | largest | above {CLAIMED:.0e} | same label, least |")
    print("|---|---|---|---|---|---|---|")
    for whole, results in found.items():
        differences, shares = np.array(results).T
        numbers = " | ".join(f"{np.quantile(differences, q):.0e}" for q in (0.5, 0.99, 1))
        above = (differences > CLAIMED).sum()
        name = "a multiple of 4" if whole else "another"
        print(f"| {name} | {len(results)} | {numbers} | {above} | {shares.min():.2%} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
