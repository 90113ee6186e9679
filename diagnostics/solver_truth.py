"""How far each solver is from the truth, which all labellings of a CRF of eight pixels tell.

    python -m diagnostics.solver_truth

For weak to strong kernels, Potts, symmetric normalisation, exact filters, means over CRFs with random logits and
features; T = 100, and T = 10 as in practice. Writes two tables to stdout.
"""

import argparse

import numpy as np
import torch

from crfrnn.inference.recurrence import iterates
from crfrnn.inference.solvers import (
    ConvergentMeanField,
    DampedMeanField,
    EntropicFrankWolfe,
    EuclideanFrankWolfe,
    MeanField,
    Solver,
)
from tests.support import oracle
from tests.support.problems import SmallCRF

SOLVERS: dict[str, Solver] = {
    "unary alone": MeanField(),
    "mean field": MeanField(),
    "damped, step 0.5": DampedMeanField(0.5),
    "convergent": ConvergentMeanField(),
    "entropic Frank-Wolfe, lambda 1": EntropicFrankWolfe(),
    "entropic Frank-Wolfe, lambda 0.3": EntropicFrankWolfe(lambda_=0.3),
    "Euclidean Frank-Wolfe, lambda 1": EuclideanFrankWolfe(),
    "Euclidean Frank-Wolfe, lambda 0.3": EuclideanFrankWolfe(lambda_=0.3),
}
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
KINDS = {"potts": "Potts", "repulsive": "equal labels pay"}


def distances(
    problem: SmallCRF, truth: oracle.Enumeration, solver: Solver, iterations: int
) -> tuple[float, float, float]:
    """The largest error of a marginal; E(x) above the optimum; how much the last step still changed Q."""
    *_, before, now = [None, *iterates(*problem.arguments(), iterations, solver)]
    q = now.q[0].numpy()
    energy = truth.energies[tuple(q.argmax(axis=0).tolist())]
    moved = 0.0 if before is None else float((now.q - before.q).abs().max())
    return float(np.abs(q - truth.marginals).max()), energy - truth.energies[truth.optimum], moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=100)
    options = parser.parse_args()
    for kind, name in KINDS.items():
        problems = {s: [SmallCRF(strength=s, kind=kind, seed=n) for n in range(options.problems)] for s in STRENGTHS}
        truths = {s: [oracle.enumerate_labellings(*p.arrays()) for p in problems[s]] for s in STRENGTHS}
        print(f"\n{name}: largest error of a marginal / E(x) above the optimum / last change of Q\n")
        print(
            "| solver | " + " | ".join(f"strength {s:g}" for s in STRENGTHS) + " |\n|" + "---|" * (1 + len(STRENGTHS))
        )
        for label, solver in SOLVERS.items():
            iterations = 0 if label == "unary alone" else options.iterations
            cells = []
            for s in STRENGTHS:
                pairs = zip(problems[s], truths[s], strict=True)
                error, gap, moved = np.mean([distances(p, t, solver, iterations) for p, t in pairs], axis=0)
                cells.append(
                    f"{error:.3f} / {gap:.3f} / {moved:.0e}" if moved > 1e-6 else f"{error:.3f} / {gap:.3f} / 0"
                )
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
