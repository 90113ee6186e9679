"""How fast is one call on a CPU, from probabilities to marginals, and how does pydensecrf compare?

    python -m benchmarks.bm_cpu [--quick] [--out benchmarks/results/cpu.md]

Installs nothing; columns of pydensecrf stay empty where ``pydensecrf2`` is not installed. Contenders run in turn in
one process, medians after a warm-up. Nothing is timed before its result is checked.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import crfrnn.pydensecrf.densecrf as drop_in
from benchmarks import inputs
from crfrnn import CRFRNN, refine

CORES = os.cpu_count() or 1
Contenders = dict[str, Callable[[], object]]


def check() -> None:
    """Refuse to time what is not right: the drop-in equals pydensecrf, refine agrees with it on the labels."""
    image, p = inputs.photo(250, 188), inputs.probabilities(250, 188)
    for choice in inputs.SETS.values():
        mine = inputs.ours(image, p, choice["kernels"], 5)
        assert np.isfinite(mine).all()
        assert np.allclose(mine.sum(axis=0), 1, atol=1e-4)
        if inputs.peer:
            theirs = inputs.pydensecrf(image, p, choice["kernels"], 5)
            dropped = inputs.pydensecrf(image, p, choice["kernels"], 5, module=drop_in)
            assert np.abs(dropped - theirs).mean() < 1e-3, "the drop-in differs from pydensecrf"
            agreement = (mine.argmax(axis=0) == theirs.argmax(axis=0)).mean()
            assert agreement > 0.98, f"refine agrees with pydensecrf on {agreement:.1%} of the labels only"


def single(rounds: int) -> list[str]:
    """One 500 x 375 photo, 21 labels."""
    image, p = inputs.photo(500, 375), inputs.probabilities(500, 375)
    rows = [
        "| set | T | pydensecrf | one thread | ratio | all threads | ratio | drop-in | ratio |",
        "|---|---" * 4 + "|---|",
    ]
    for letter, choice in inputs.SETS.items():
        kernels = choice["kernels"]
        for iterations in (5, 10):
            contenders: Contenders = {
                "one": inputs.with_threads(1, lambda k=kernels, t=iterations: inputs.ours(image, p, k, t)),
                "all": lambda k=kernels, t=iterations: inputs.ours(image, p, k, t),
                "drop": lambda k=kernels, t=iterations: inputs.pydensecrf(image, p, k, t, module=drop_in),
            }
            if inputs.peer:
                contenders["peer"] = lambda k=kernels, t=iterations: inputs.pydensecrf(image, p, k, t)
            m = inputs.alternate(contenders, rounds)
            rows.append(f"| {letter} | {iterations} | {_seconds(m.get('peer'))} |" + _against(m, "one", "all", "drop"))
    return rows


def training(rounds: int) -> list[str]:
    """Forward and backward of the layer, T = 5, against pydensecrf's forward alone."""
    image, p = inputs.photo(500, 375), inputs.probabilities(500, 375)
    guide = torch.from_numpy(image).permute(2, 0, 1)[None]
    rows = [
        "| set | compatibility | pydensecrf, forward | ours, forward and backward | share |",
        "|---|---|---|---|---|",
    ]
    for letter, choice in inputs.SETS.items():
        for start in ("Potts", "learned"):
            layer = CRFRNN(inputs.LABELS, kernels=choice["kernels"], iterations=5)
            if start == "learned":
                with torch.no_grad():
                    layer.compatibility.add_(0.1 * torch.rand(inputs.LABELS, inputs.LABELS))

            def step(layer: CRFRNN = layer) -> None:
                logits = torch.from_numpy(p).log().unsqueeze(0).requires_grad_(True)
                y = layer(logits, guide)
                y.backward(torch.ones_like(y))

            contenders: Contenders = {"ours": step}
            if inputs.peer:
                contenders["peer"] = lambda k=choice["kernels"]: inputs.pydensecrf(image, p, k, 5)
            m = inputs.alternate(contenders, rounds)
            share = f"{m['ours'] / m['peer']:.2f}" if "peer" in m else ""
            rows.append(f"| {letter} | {start} | {_seconds(m.get('peer'))} | {_seconds(m['ours'])} | {share} |")
    return rows


def large(rounds: int) -> list[str]:
    """2048 x 1024, T = 10, and the peak memory of a process that does nothing else."""
    image, p = inputs.photo(2048, 1024), inputs.probabilities(2048, 1024)
    rows = ["| set | pydensecrf | all threads | ratio | pydensecrf peak | our peak |", "|---|---|---|---|---|---|"]
    for letter, choice in inputs.SETS.items():
        kernels = choice["kernels"]
        contenders: Contenders = {"all": lambda k=kernels: inputs.ours(image, p, k, 10)}
        if inputs.peer:
            contenders["peer"] = lambda k=kernels: inputs.pydensecrf(image, p, k, 10)
        m = inputs.alternate(contenders, rounds)
        peer = _peak(letter, "pydensecrf") if inputs.peer else ""
        rows.append(f"| {letter} | {_seconds(m.get('peer'))} |{_against(m, 'all')} {peer} | {_peak(letter, 'ours')} |")
    return rows


def _peak(letter: str, who: str) -> str:
    """Peak resident memory of a fresh process: imports, inputs and one 2048 x 1024 call."""
    # VmHWM, as getrusage's peak is inherited from the process that started this one
    code = (
        "from pathlib import Path; from benchmarks import peak_process as q;"
        f"q.run({letter!r}, {who!r}); lines = Path('/proc/self/status').read_text().splitlines();"
        "print([int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')][0])"
    )
    image, p = inputs.photo(2048, 1024), inputs.probabilities(2048, 1024)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "input.npz"), image=image, p=p)
        env = {**os.environ, "BENCHMARK_INPUT": str(Path(folder, "input.npz"))}
        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    return f"{int(out.stdout.split()[-1])} MB"


def _peer_job(arguments: tuple) -> None:
    inputs.pydensecrf(*arguments)


def many(count: int, rounds: int) -> list[str]:
    """A list of images, T = 5: ours in one call, pydensecrf in as many processes as there are cores."""
    images = [np.ascontiguousarray(np.roll(inputs.photo(500, 375), 13 * k, axis=1)) for k in range(count)]
    values = [inputs.probabilities(500, 375, seed=k) for k in range(count)]
    rows = [f"| set | pydensecrf, {CORES} processes | ours | ratio |", "|---|---|---|---|"]
    for letter, choice in inputs.SETS.items():
        kernels = choice["kernels"]
        contenders: Contenders = {
            "all": lambda k=kernels: refine(images, values, kernels=k, normalization="symmetric", iterations=5)
        }
        pool = multiprocessing.get_context("spawn").Pool(CORES) if inputs.peer else None
        if pool is not None:
            jobs = [(image, p, kernels, 5) for image, p in zip(images, values, strict=True)]
            contenders["peer"] = lambda jobs=jobs, pool=pool: pool.map(_peer_job, jobs, chunksize=1)
        m = inputs.alternate(contenders, rounds)
        if pool is not None:
            pool.terminate()
        peer = f"{count / m['peer']:.1f} images/s" if "peer" in m else ""
        ratio = f"{m['peer'] / m['all']:.1f}" if "peer" in m else ""
        rows.append(f"| {letter} | {peer} | {count / m['all']:.1f} images/s | {ratio} |")
    return rows


def first_call() -> list[str]:
    """Seconds of the first call ever (kernels compiled), of the first in a later process, and of a warm one."""
    code = (
        "import time; from benchmarks import inputs as q; i, p = q.photo(500, 375), q.probabilities(500, 375);"
        "k = q.SETS['b']['kernels']; t = time.perf_counter(); q.ours(i, p, k, 5); a = time.perf_counter();"
        "q.ours(i, p, k, 5); print(a - t, time.perf_counter() - a)"
    )
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "NUMBA_CACHE_DIR": folder}
        runs = [
            subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
            for _ in range(2)
        ]
    (ever, _), (later, warm) = ([float(x) for x in run.stdout.split()] for run in runs)
    return [
        "| first call ever | first call of a later process | a warm call |",
        "|---|---|---|",
        f"| {ever:.1f} s | {later:.2f} s | {warm:.2f} s |",
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} s"


def _against(medians: dict[str, float], *names: str) -> str:
    peer = medians.get("peer")
    cells = [f" {_seconds(medians[name])} | {f'{peer / medians[name]:.1f}x' if peer else ''} |" for name in names]
    return "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 7, 8 images instead of 32")
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file too")
    options = parser.parse_args()
    rounds, count = (3, 8) if options.quick else (7, 32)
    start = time.time()
    check()
    sections = [
        ("One image, 500 x 375, 21 labels, whole call", single(rounds)),
        ("Training, T = 5, 500 x 375, 21 labels", training(rounds)),
        ("2048 x 1024, 21 labels, T = 10", large(3)),
        (f"A list of {count} images, 500 x 375, T = 5", many(count, rounds)),
        ("Compilation, set b, T = 5", first_call()),
    ]
    sets = "; ".join(f"{letter} = {choice['name']}" for letter, choice in inputs.SETS.items())
    lines = [
        "# CPU benchmark",
        "",
        f"`python -m benchmarks.bm_cpu`, {time.strftime('%Y-%m-%d')}. Machine: {inputs.machine()}.",
        f"Sets: {sets}. Symmetric normalisation. Medians of {rounds} alternating rounds.",
    ]
    for title, rows in sections:
        lines += ["", f"## {title}", "", *rows]
    report = "\n".join(lines) + "\n"
    print(report, f"({time.time() - start:.0f} s)")
    if options.out:
        options.out.write_text(report)


if __name__ == "__main__":
    main()
