"""What each solver costs: a 500 x 375 photo, 21 labels, T = 10, forward and backward.

    python -m benchmarks.bm_solvers

Seconds of processor time on one thread, medians, so that a busy machine does not show; filters are prepared before.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.inputs import LABELS, SETS, machine, photo, probabilities
from crfrnn.inference.recurrence import marginals, mean_field
from crfrnn.inference.solvers import SOLVERS, ConvergentMeanField, Solver

WIDTH, HEIGHT, ITERATIONS = 500, 375, 10


def seconds(call: Callable[[], object], rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    guide = torch.from_numpy(photo(WIDTH, HEIGHT)).permute(2, 0, 1)[None]
    logits = torch.from_numpy(probabilities(WIDTH, HEIGHT)).log()[None]
    kernels = SETS["b"]["kernels"]
    filters = [kernel.prepare(guide, normalization="symmetric") for kernel in kernels]
    weights = torch.tensor([[kernel.weight] for kernel in kernels])
    potts = 1 - torch.eye(LABELS)
    rows: dict[str, Solver | None] = {"`mean-field`, fused": None}
    rows |= {f"`{name}`": solver() for name, solver in SOLVERS.items() if name != "mean-field"}
    rows["`convergent`, curvature 5"] = ConvergentMeanField(5.0)
    print(f"{machine()}; set b, {WIDTH} x {HEIGHT}, {LABELS} labels, T = {ITERATIONS}\n")
    print("| solver | forward, s | forward and backward, s |\n|---|---|---|")
    for name, solver in rows.items():

        def infer(solver: Solver | None = solver) -> None:
            marginals(logits, filters, weights, potts, ITERATIONS, solver=solver)

        def train(solver: Solver | None = solver) -> None:
            inputs = [tensor.clone().requires_grad_() for tensor in (logits, weights, potts)]
            u, w, mu = inputs
            mean_field(u, filters, w, mu, ITERATIONS, solver).square().mean().backward()

        print(f"| {name} | {seconds(infer, options.rounds):.2f} | {seconds(train, options.rounds):.2f} |", flush=True)


if __name__ == "__main__":
    main()
