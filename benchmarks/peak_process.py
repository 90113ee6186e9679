"""One call in a process of its own, for its peak memory. pydensecrf's side imports neither torch nor this package."""

import os

import numpy as np


def run(letter: str, who: str) -> None:
    """The call of `bm_cpu.large` on the arrays in the file that BENCHMARK_INPUT names."""
    with np.load(os.environ["BENCHMARK_INPUT"]) as stored:
        image, p = stored["image"], stored["p"]
    sxy, srgb, compat = (160, 3, 5) if letter == "a" else (80, 13, 10)
    if who == "ours":
        from crfrnn import Bilateral, Spatial, refine

        refine(image, p, kernels=[Bilateral(sxy, srgb, compat), Spatial(3, 3)], normalization="symmetric")
        return
    import pydensecrf.densecrf as dcrf  # type: ignore[import-not-found]

    labels, height, width = p.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(p, 1e-10)).reshape(labels, -1)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image, compat=compat)
    np.array(crf.inference(10))
