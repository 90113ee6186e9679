"""How fast are the calls that users make, on a real network's outputs, against pydensecrf and an older build?

    python -m benchmarks.bm_real --data PATH_TO/voc2012 [--other CHECKOUT] [--rounds 7] [--only TEXT ...] [--out FILE]

PATH_TO/voc2012 is what `bm_voc2012` takes; CHECKOUT is a folder with another version of this repository. Each contender
is a process of its own that waits while another works: pydensecrf (where it is installed; it gets two rounds, without
one to warm up), and the other build and this one, with all threads and with one.

All of it takes an hour. FILE keeps the rows of cases that are not asked for, so that it may be filled by several runs.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Contender:
    """A process that knows one implementation and runs one case when it is told to."""

    def __init__(self, folder: Path, who: str, threads: int | None = None):
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # where pydensecrf may be
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, others)])}
        command = [sys.executable, __file__, "--worker", who, *([] if threads is None else ["--threads", str(threads)])]
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, case: Path) -> tuple[float, float, int]:
        """Wall seconds, CPU seconds, and the most memory of the process so far in MB."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(case, file=self.process.stdin, flush=True)
        wall, cpu, peak = self.process.stdout.readline().split()
        return float(wall), float(cpu), int(peak)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def work(who: str, threads: int | None) -> None:
    """The process of one contender: names of pickled cases come in, seconds go out."""
    import torch  # noqa: PLC0415 (of the checkout that the process was started for)

    if threads is not None:
        torch.set_num_threads(threads)
    for line in sys.stdin:
        case = pickle.loads(Path(line.strip()).read_bytes())
        call = pydensecrf_call(case, peer=True) if who == "pydensecrf" else our_call(case)
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(entry.split()[1]) // 1024 for entry in status if entry.startswith("VmHWM"))
        print(wall, cpu, peak, flush=True)


def our_call(case: dict) -> Callable[[], object]:
    """With public names alone, which every version has."""
    from crfrnn import Bilateral, Spatial, refine  # noqa: PLC0415

    if case["drop_in"]:
        return pydensecrf_call(case, peer=False)
    (theta_gamma, smooth), (theta_alpha, theta_beta, weight) = case["kernels"]
    options = {
        "kernels": (Bilateral(theta_alpha, theta_beta, weight), Spatial(theta_gamma, smooth)),
        "normalization": case["normalization"],
        "iterations": case["iterations"],
    }
    if case["together"]:
        return lambda: refine(case["images"], case["probabilities"], **options)
    pairs = list(zip(case["images"], case["probabilities"], strict=True))
    return lambda: [refine(image, p, **options) for image, p in pairs]


def pydensecrf_call(case: dict, peer: bool) -> Callable[[], object]:
    """By pydensecrf's own calls: its, or our drop-in's."""
    import numpy as np  # noqa: PLC0415

    if peer:
        import pydensecrf.densecrf as module  # type: ignore[import-not-found]  # noqa: PLC0415
    else:
        import crfrnn.pydensecrf.densecrf as module  # noqa: PLC0415
    (theta_gamma, smooth), (theta_alpha, theta_beta, weight) = case["kernels"]
    kind = module.NO_NORMALIZATION if case["normalization"] == "none" else module.NORMALIZE_SYMMETRIC

    def one(image: np.ndarray, p: np.ndarray) -> np.ndarray:
        labels, height, width = p.shape
        crf = module.DenseCRF2D(width, height, labels)
        crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(p, 1e-10)).reshape(labels, -1)))
        crf.addPairwiseGaussian(sxy=theta_gamma, compat=smooth, normalization=kind)
        crf.addPairwiseBilateral(sxy=theta_alpha, srgb=theta_beta, rgbim=image, compat=weight, normalization=kind)
        return np.array(crf.inference(case["iterations"]))

    pairs = list(zip(case["images"], case["probabilities"], strict=True))
    return lambda: [one(image, p) for image, p in pairs]


PEER_ROUNDS = 2


def measure(case: Path, contenders: dict[str, tuple[Path, str, int | None]], rounds: int) -> dict[str, list[float]]:
    """By contender: median wall and CPU seconds of one image or list, and the peak in MB."""
    running = {name: Contender(*how) for name, how in contenders.items()}
    timed: dict[str, list[tuple[float, float, int]]] = {name: [] for name in running}
    for number in range(-1, rounds):  # the first one warms up
        for name in sorted(running, reverse=bool(number % 2)):
            if name == "pydensecrf" and not 0 <= number < PEER_ROUNDS:
                continue
            once = running[name].run(case)
            if number >= 0:
                timed[name].append(once)
    for contender in running.values():
        contender.close()
    return {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in timed.items()}


def row(name: str, found: dict[str, list[float]]) -> str:
    """A line of the table."""

    def seconds(who: str, which: int = 0) -> str:
        return f"{found[who][which]:.3f}" if who in found else ""

    def ratio(who: str, to: str, which: int = 0) -> str:
        return f"{found[who][which] / found[to][which]:.1f}x" if who in found else ""

    def megabytes(who: str) -> str:
        return f"{found[who][2]:.0f}" if who in found else ""

    cells = [
        name,
        seconds("pydensecrf"),
        seconds("other"),
        seconds("this"),
        ratio("other", "this"),
        ratio("pydensecrf", "this"),
        seconds("other, one thread", 1),
        seconds("this, one thread", 1),
        ratio("other, one thread", "this, one thread", 1),
        megabytes("pydensecrf"),
        megabytes("other"),
        megabytes("this"),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose names have one of these in them")
    parser.add_argument("--every", type=int, help="of the photos that are refined one by one")
    parser.add_argument("--out", type=Path, help="write the report to this Markdown file too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.threads)
        return
    if options.data is None:
        parser.error("--data: the folder with images, labels and unaries is missing")
    from benchmarks import inputs, real_inputs  # noqa: PLC0415 (a worker takes nothing of this checkout)

    contenders: dict[str, tuple[Path, str, int | None]] = {}
    if inputs.peer:
        contenders["pydensecrf"] = (ROOT, "pydensecrf", None)
    if options.other:
        contenders["other"] = (options.other.resolve(), "ours", None)
        contenders["other, one thread"] = (options.other.resolve(), "ours", 1)
    contenders["this"], contenders["this, one thread"] = (ROOT, "ours", None), (ROOT, "ours", 1)
    every = options.every or real_inputs.EVERY
    cases = real_inputs.cases(options.data, every)
    asked = [name for name in cases if any(text in name for text in options.only)]
    rows = dict(kept(options.out, list(cases)))
    for name in asked:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "case.pickle")
            file.write_bytes(pickle.dumps(cases[name]()._asdict()))
            rows[name] = row(name, measure(file, contenders, options.rounds))
        print(rows[name], flush=True)
        if options.out:
            options.out.write_text("\n".join([*head(options, every), *(rows[n] for n in cases if n in rows), ""]))


def head(options: argparse.Namespace, every: int) -> list[str]:
    """What stands above the rows."""
    from benchmarks import inputs  # noqa: PLC0415

    def commit(folder: Path) -> str:
        command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    other = f"; other: {commit(options.other)}" if options.other else ""
    return [
        "# Real outputs",
        "",
        f"`python -m benchmarks.bm_real --every {every}`, {time.strftime('%Y-%m-%d')}, at {commit(ROOT)}{other}.",
        f"Machine: {inputs.machine()}. Wall seconds with all threads, CPU seconds of one thread: medians of",
        f"{options.rounds} rounds in turn, of pydensecrf {PEER_ROUNDS}, all images of a case together; most memory of a"
        " process that did nothing else, its inputs among it.",
        "",
        "| case | pydensecrf | other | this | to other | to pydensecrf | CPU, other | CPU, this | to other"
        " | MB, pydensecrf | MB, other | MB, this |",
        "|---" * 12 + "|",
    ]


def kept(file: Path | None, names: list[str]) -> Iterator[tuple[str, str]]:
    """Names and rows of an earlier run."""
    for line in file.read_text().splitlines() if file is not None and file.exists() else []:
        name = line.removeprefix("| ").partition(" | ")[0]
        if name in names:
            yield name, line


if __name__ == "__main__":
    main()
