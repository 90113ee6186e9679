"""Is this checkout faster or slower than another one? The calls of `bm_cpu`, in turn, one process for each checkout.

    python -m benchmarks.compare OTHER [--rounds 7] [--only TEXT]

OTHER is a folder with another version of this repository. A process waits while the other one works, so that a change
of the machine's speed meets both; medians, and the ratio of this checkout to the other (below 1: faster).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLD = "first call ever"
IMAGES = 32


class Checkout:
    """A process that knows one checkout and runs one call at a time when it is told to."""

    def __init__(self, folder: Path):
        self.env = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, __file__, str(folder), "--worker"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=self.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.names = self.process.stdout.readline().strip().split("; ")

    def seconds(self, name: str) -> float:
        if name == COLD:
            return self._cold()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def _cold(self) -> float:
        """A fresh process that compiles all the kernels of a `refine`."""
        code = (
            "import time; from benchmarks import inputs as q; i, p = q.photo(500, 375), q.probabilities(500, 375);"
            "k = q.SETS['b']['kernels']; t = time.perf_counter(); q.ours(i, p, k, 5); print(time.perf_counter() - t)"
        )
        with tempfile.TemporaryDirectory() as cache:
            env = {**self.env, "NUMBA_CACHE_DIR": cache}
            out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
        return float(out.stdout.split()[-1])


def calls() -> dict[str, Callable[[], object]]:
    """What is timed, by its name; with public names alone, which every version has."""
    import numpy as np  # noqa: PLC0415 (of the checkout that the process was started for)
    import torch  # noqa: PLC0415

    import crfrnn.pydensecrf.densecrf as drop_in  # noqa: PLC0415
    from benchmarks import inputs  # noqa: PLC0415
    from crfrnn import CRFRNN, refine  # noqa: PLC0415

    image, p = inputs.photo(500, 375), inputs.probabilities(500, 375)
    wide, many = (inputs.photo(2048, 1024), inputs.probabilities(2048, 1024)), range(IMAGES)
    images = [np.ascontiguousarray(np.roll(image, 13 * k, axis=1)) for k in many]
    values = [inputs.probabilities(500, 375, seed=k) for k in many]
    guide, unary = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(p).log().unsqueeze(0)

    def step(layer: CRFRNN) -> None:
        y = layer(unary.clone().requires_grad_(), guide)
        y.backward(torch.ones_like(y))

    found: dict[str, Callable[[], object]] = {}
    for letter, choice in inputs.SETS.items():
        k = choice["kernels"]
        for t in (5, 10):
            found[f"{letter}, T = {t}, one thread"] = inputs.with_threads(
                1, lambda k=k, t=t: inputs.ours(image, p, k, t)
            )
            found[f"{letter}, T = {t}"] = lambda k=k, t=t: inputs.ours(image, p, k, t)
            found[f"{letter}, T = {t}, drop-in"] = lambda k=k, t=t: inputs.pydensecrf(image, p, k, t, module=drop_in)
        potts, learned = (CRFRNN(inputs.LABELS, kernels=k, iterations=5) for _ in range(2))
        with torch.no_grad():
            learned.compatibility.add_(0.1 * torch.rand(inputs.LABELS, inputs.LABELS))
        found[f"{letter}, training, Potts"] = lambda layer=potts: step(layer)
        found[f"{letter}, training, learned"] = lambda layer=learned: step(layer)
        found[f"{letter}, 2048 x 1024"] = lambda k=k: inputs.ours(*wide, k, 10)
        found[f"{letter}, {IMAGES} images"] = lambda k=k: refine(
            images, values, kernels=k, normalization="symmetric", iterations=5
        )
    return found


def work() -> None:
    """The process of one checkout: names come in, seconds go out."""
    known = calls()
    print("; ".join(known), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        known[line.strip()]()
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="calls whose names have this in them")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return
    here, other = Checkout(ROOT), Checkout(options.other.resolve())
    print("| call | other | this | ratio | ratios |\n|---|---|---|---|---|")
    for name in [*here.names, COLD]:
        if options.only not in name:
            continue
        rounds = max(3, options.rounds // 2) if name == COLD or "2048" in name else options.rounds
        pairs = []
        for number in range(-(name != COLD), rounds):  # the first one warms up
            first, second = (here, other) if number % 2 else (other, here)
            timed = {one: one.seconds(name) for one in (first, second)}
            if number >= 0:
                pairs.append((timed[other], timed[here]))
        before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(b / a for a, b in pairs)
        middle = statistics.median(ratios)
        spread = f"{ratios[0]:.2f}..{ratios[-1]:.2f}"
        print(f"| {name} | {before:.3f} s | {after:.3f} s | {middle:.3f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
