"""What the default tolerance changes: labels and marginals against the run in which every label takes part.

    python -m benchmarks.bm_tolerance --data PATH_TO/voc2012 [--every 1] [--presets crfrnn ...] [--out FILE]

PATH_TO/voc2012 is what `bm_voc2012` takes. T = 10, by `refine` with a preset and by the drop-in with its kernels, each
with its default tolerance and with 0, a process for each core. Promised are at least 99.99 % of the labels of every
image by `refine`, and by the drop-in 99.98 % and a mean difference of the marginals of at most 1e-4.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import crfrnn.pydensecrf.densecrf as drop_in
from benchmarks import inputs, real_inputs
from crfrnn import PRESETS, Bilateral, Spatial, refine

T = 10
KINDS = {"after": drop_in.NORMALIZE_AFTER, "symmetric": drop_in.NORMALIZE_SYMMETRIC}
LEAST = {"refine": 99.99, "drop-in": 99.98}  # per cent of an image's labels


class Change(NamedTuple):
    """What the tolerance changes in one image."""

    same: float  # per cent of its labels
    mean: float  # of the differences of its marginals
    most: float


def by_refine(image: np.ndarray, p: np.ndarray, preset: str, tolerance: float) -> np.ndarray:
    return refine(image, p, preset=preset, iterations=T, tolerance=tolerance)


def by_drop_in(image: np.ndarray, p: np.ndarray, preset: str, tolerance: float) -> np.ndarray:
    crf = drop_in.DenseCRF2D(image.shape[1], image.shape[0], len(p))
    crf.tolerance = tolerance
    crf.setUnaryEnergy(-np.log(np.maximum(p, 1e-10)).reshape(len(p), -1))
    kind = KINDS[PRESETS[preset].normalization]
    for kernel in PRESETS[preset].kernels:
        if isinstance(kernel, Spatial):
            crf.addPairwiseGaussian(kernel.theta_gamma, kernel.weight, normalization=kind)
        elif isinstance(kernel, Bilateral):
            crf.addPairwiseBilateral(kernel.theta_alpha, kernel.theta_beta, image, kernel.weight, normalization=kind)
    return crf.inference(T).reshape(p.shape)


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, str, float], np.ndarray]] = {
    "refine": by_refine,
    "drop-in": by_drop_in,
}


def changes(folder: Path, name: str, presets: list[str]) -> dict[tuple[str, str], Change]:
    """Of one image, by way and preset."""
    torch.set_num_threads(1)
    image, p = real_inputs.read(folder, name)
    found = {}
    for preset in presets:
        for way, call in WAYS.items():
            some, every = (call(image, p, preset, tolerance) for tolerance in (drop_in.DenseCRF.tolerance, 0.0))
            moved = np.abs(some - every)
            same = 100 * float((some.argmax(axis=0) == every.argmax(axis=0)).mean())
            found[way, preset] = Change(same, float(moved.mean()), float(moved.max()))
    return found


def row(way: str, preset: str, found: dict[str, Change]) -> str:
    same = np.array([change.same for change in found.values()])
    worst = min(found, key=lambda name: found[name].same)
    cells = [
        way,
        preset,
        f"{found[worst].same:.4f} % ({worst})",
        f"{same.mean():.5f} %",
        f"{int((same == 100).sum())} of {len(same)}",
        f"{int((same < LEAST[way]).sum())}",
        f"{max(change.mean for change in found.values()):.1e}",
        f"{max(change.most for change in found.values()):.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="of the images")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(real_inputs.SETS))
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file too")
    options = parser.parse_args()
    names = (options.data / "ids.txt").read_text().split()[:: options.every]
    found: dict[tuple[str, str], dict[str, Change]] = {(w, p): {} for p in options.presets for w in WAYS}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        each = pool.map(changes, *zip(*((options.data, name, options.presets) for name in names), strict=True))
        for name, image in zip(names, each, strict=True):
            for key, change in image.items():
                found[key][name] = change
                print(name, *key, *change, flush=True)
    report = [
        "# What the default tolerance changes",
        "",
        f"`python -m benchmarks.bm_tolerance`, {time.strftime('%Y-%m-%d')}. Machine: {inputs.machine()}.",
        f"{len(names)} outputs of a real network (VOC 2012), 21 labels, T = {T}; tolerance"
        f" {drop_in.DenseCRF.tolerance:g} against 0, in which every label takes part.",
        f"Below the promise: images with less than {LEAST['refine']} % of their labels by `refine`,"
        f" {LEAST['drop-in']} % by the drop-in.",
        "",
        "| call | kernels | labels of the worst image | mean | images without a change | below the promise"
        " | largest mean difference of an image's marginals | largest of all |",
        "|---" * 8 + "|",
        *(row(way, preset, each) for (way, preset), each in found.items()),
    ]
    print("\n".join(report))
    if options.out:
        options.out.write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
