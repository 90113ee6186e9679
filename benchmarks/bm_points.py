"""Clouds of points: how much CPU time, how much memory, how much better, how near to the exact CRF.

    python -m benchmarks.bm_points [--out docs/points.md] [--points 100000 1000000 ...]

Streets by rule (`benchmarks/street.py`), four labels, the default kernels on positions and intensity, T = 10. Each size
runs in a process of its own, after a small cloud that loads the kernels. The tables with the markers
`<!-- size -->` and `<!-- accuracy -->` are replaced in --out.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree

from benchmarks.street import LABELS, Street, street
from crfrnn import Bilateral, point_kernels, refine_points
from crfrnn.filtering.points import ALPHA
from diagnostics.tables import replace_table

SIZES = (100_000, 1_000_000, 5_000_000)
DENSITIES = (0.25, 1.0, 4.0)
POINTS, EXACT = 100_000, 6000  # of a street, and for which the exact CRF is affordable
VOTERS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--points", type=int, nargs="*", default=SIZES)
    parser.add_argument("--one", type=int, help="measure one size, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one)))
        return
    threads = torch.get_num_threads()
    sizes = [
        f"| points | CPU seconds, threads: {threads} | points a second | peak memory, GB | the same before the call |",
        "|---|---|---|---|---|",
    ]
    for points in options.points:
        command = [sys.executable, "-m", "benchmarks.bm_points", "--one", str(points)]
        one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rate = points / one["seconds"]
        sizes.append(f"| {points:,} | {one['seconds']:.1f} | {rate:,.0f} | {one['peak']:.2f} | {one['before']:.2f} |")
        print(sizes[-1], flush=True)
    rows = accuracy()
    if options.out:
        replace_table(options.out, "size", sizes)
        replace_table(options.out, "accuracy", rows)


def measured(points: int) -> dict[str, float]:
    """CPU seconds of a call, and the largest memory of the process in GB, before it and after."""
    small = street(2000)
    refine_points(small.positions, small.probabilities, attributes=small.intensity)
    scene = street(points)
    before = _peak()
    start = time.process_time()
    refine_points(scene.positions, scene.probabilities, attributes=scene.intensity)
    return {"seconds": time.process_time() - start, "peak": _peak(), "before": before}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def accuracy() -> list[str]:
    """Of the given labels, of a vote, of the CRF with and without the intensity; and labels beside the exact CRF's."""
    names = ("given", f"vote of {VOTERS}", "positions alone", "with intensity")
    rows = [f"| spacing, m | {' | '.join(names)} | labels unlike exact |", f"|{'---|' * (len(names) + 2)}"]
    for density in DENSITIES:
        scene = street(POINTS, density=density)
        near = KDTree(scene.positions).query(scene.positions, k=VOTERS + 1)[1]
        found = (
            scene.probabilities,
            scene.probabilities[near].mean(axis=1),
            refine_points(scene.positions, scene.probabilities),
            refine_points(scene.positions, scene.probabilities, attributes=scene.intensity),
        )
        cells = [_figures(one.argmax(axis=1), scene.truth) for one in found]
        spacing = _default(scene).theta_alpha / ALPHA
        rows.append(f"| {spacing:.2f} | {' | '.join(cells)} | {_unlike_exact(street(EXACT, density=density)):.1%} |")
        print(rows[-1], flush=True)
    return rows


def _default(scene: Street) -> Any:
    return point_kernels(scene.positions, scene.intensity)[0]


def _unlike_exact(scene: Street) -> float:
    """Share of the labels that are not those of the exact filter."""
    lattice = _default(scene)
    exact = Bilateral(lattice.theta_alpha, lattice.theta_beta, lattice.weight, method="exact")
    labels = [
        refine_points(scene.positions, scene.probabilities, attributes=scene.intensity, kernels=[kernel]).argmax(axis=1)
        for kernel in (lattice, exact)
    ]
    return float((labels[0] != labels[1]).mean())


def _figures(labels: np.ndarray, truth: np.ndarray) -> str:
    """Accuracy, mean IoU and the poles' IoU, per cent."""
    ious = []
    for label in range(len(LABELS)):
        both = (labels == label) & (truth == label)
        ious.append(both.sum() / ((labels == label) | (truth == label)).sum())
    return " / ".join(f"{100 * figure:.1f}" for figure in ((labels == truth).mean(), np.mean(ious), ious[2]))


if __name__ == "__main__":
    main()
