"""How many iterations do a network's outputs need until they settle, what still moves, and what do they cost?

    python -m benchmarks.bm_settled --data PATH_TO/voc2012 [--every 12] [--rounds 3] [--out FILE]

PATH_TO/voc2012 is what `bm_voc2012` takes. One thread, whole calls of `refine`: T = 10, T = 50 and "settled", in turn.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import inputs, real_inputs
from crfrnn import Bilateral, Spatial, refine, trajectory

TOLERANCE = 1e-3
SHOWN = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
LENGTHS = (10, 50, "settled")


def moving(image: np.ndarray, p: np.ndarray, kernels: tuple) -> list[float]:
    """The share of the pixels that move by more than the tolerance in iterations 1, 2, ..., 50."""
    guide = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    filters = [kernel.prepare(guide, normalization="symmetric") for kernel in kernels]
    logits = torch.from_numpy(np.log(np.maximum(p, 1e-10)))[None]
    weights = torch.tensor([[float(kernel.weight)] for kernel in kernels])
    run: Iterator[torch.Tensor] = trajectory(logits, filters, weights, 1 - torch.eye(len(p)), SHOWN[-1])
    before, shares = next(run).clone(), []
    for q in run:
        shares.append(float(((q - before).abs().amax(dim=1) > TOLERANCE).float().mean()))
        before = q.clone()
    return shares


def report(name: str, cases: list[tuple[np.ndarray, np.ndarray]], rounds: int) -> tuple[list[str], list[str]]:
    """A line of each of the two tables for a set of kernels."""
    (theta_gamma, smooth), (theta_alpha, theta_beta, weight) = real_inputs.SETS[name]
    kernels = Bilateral(theta_alpha, theta_beta, weight), Spatial(theta_gamma, smooth)
    seconds: dict[object, list[float]] = {length: [] for length in LENGTHS}
    counts: list[int] = []
    for image, p in cases:
        timed: dict[object, list[float]] = {length: [] for length in LENGTHS}
        for number in range(-1, rounds):  # the first one warms up
            taken: list[int] = []
            for length in LENGTHS:
                start = time.process_time()
                refine(image, p, kernels=kernels, normalization="symmetric", iterations=length, took=taken.append)
                if number >= 0:
                    timed[length].append(time.process_time() - start)
        counts.append(taken[-1])
        for length, times in timed.items():
            seconds[length].append(statistics.median(times))
    ms = [1e3 * statistics.mean(seconds[length]) for length in LENGTHS]
    spread = f"{min(counts)}, {statistics.median(counts):g}, {max(counts)}"
    ended = sum(count < 100 for count in counts)
    costs = [name, *(f"{value:.0f}" for value in ms), f"{ms[1] / ms[0]:.2f}", spread, f"{ended} of {len(counts)}"]
    shares = np.mean([moving(image, p, kernels) for image, p in cases], axis=0)
    return costs, [name, *(f"{100 * shares[t - 1]:.1f}" for t in SHOWN)]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--every", type=int, default=12, help="of the images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = (options.data / "ids.txt").read_text().split()[:: options.every]
    cases = [real_inputs.read(options.data, name) for name in names]
    costs, shares = zip(*[report(name, cases, options.rounds) for name in real_inputs.SETS], strict=True)
    head = [
        "kernels",
        "T = 10, ms",
        "T = 50, ms",
        "settled, ms",
        "50 to 10",
        "T: least, median, most",
        "settled before 100",
    ]
    lines = [
        "# Until it settles",
        "",
        f"`python -m benchmarks.bm_settled`, {time.strftime('%Y-%m-%d')}. Machine: {inputs.machine()}.",
        f"{len(names)} outputs of a real network (VOC 2012), 21 labels; CPU milliseconds of a whole call",
        f"with one thread, medians of {options.rounds} rounds in turn, mean of the images; tolerance {TOLERANCE:g}.",
        "",
        *table(head, list(costs)),
        "",
        "Per cent of the pixels of which a marginal moves by more than the tolerance in iteration t:",
        "",
        *table(["kernels", *(f"t = {t}" for t in SHOWN)], list(shares)),
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
