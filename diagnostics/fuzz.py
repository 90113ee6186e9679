"""Random calls, in child processes: none hangs or ends the process, none returns what is no number, errors have a name.

    python -m diagnostics.fuzz [CALLS]

Each call has usual arguments, of which up to three are exchanged for odd ones. A call must return finite marginals that
sum to one, or raise a ValueError of one line that begins with the name of an argument.
"""

import json
import math
import select
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import crfrnn.pydensecrf.densecrf as dcrf
from crfrnn import CRFRNN, Bilateral, Spatial, gaussian_filter, mean_field, refine
from crfrnn.inference.solvers import SOLVERS
from crfrnn.parameters import PRESETS

CALLS, SECONDS = 20_000, 60
NUMBERS = [0, 1, -1, 2, 0.5, 1e-30, 1e30, 1e20, -1e30, math.nan, math.inf, -math.inf, True, "3", None, 10**12, [1], 7.5]
LABELS, HEIGHT, WIDTH = 3, 7, 9
Arguments = dict[str, Any]


def odd_array(rng: np.random.Generator, usual: np.ndarray) -> Any:
    """Something near a usual array that is odd in one way."""
    array = np.array(usual)
    way = rng.integers(9)
    if way < 3:
        value = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30, 0, 1e-45, 3e38])
        where = rng.random(array.shape) < rng.choice([0.01, 0.5, 1])
        return np.where(where, value, array).astype(rng.choice(["f4", "f8"]))
    if way == 3:
        return array[..., : rng.integers(array.shape[-1])]
    if way == 4:
        return np.moveaxis(array, 0, -1)
    if way == 5:
        return array.astype(rng.choice(["f2", "i4", "u1", "c8", "S4", "?", "O"]))
    if way == 6:
        return array[::-1, None]
    return torch.from_numpy(array) if way == 7 else rng.choice(np.array(NUMBERS, object))


def refined(rng: np.random.Generator) -> tuple[Callable[..., Any], Arguments]:
    scores = rng.standard_normal((LABELS, HEIGHT, WIDTH)).astype(np.float32)
    usual = {
        "image": rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
        "logits": scores,
        "iterations": 2,
        "temperature": 1.0,
        "tolerance": 1e-3,
        "preset": str(rng.choice(list(PRESETS))),
        "accuracy": 1,
        "normalization": "after",
        "solver": str(rng.choice(list(SOLVERS))),
    }
    return refine, usual


def layered(rng: np.random.Generator) -> tuple[Callable[..., Any], Arguments]:
    def run(logits: Any, image: Any, learn: bool, **settings: Any) -> Any:
        crf = CRFRNN(LABELS, **settings)
        x = logits.clone().requires_grad_() if learn and torch.is_tensor(logits) else logits
        return crf(x, image).detach().softmax(dim=1)[0]

    usual = {
        "logits": torch.from_numpy(rng.standard_normal((1, LABELS, HEIGHT, WIDTH))).float(),
        "image": torch.from_numpy(rng.integers(0, 256, (1, 3, HEIGHT, WIDTH))).float(),
        "iterations": 2,
        "temperature": 1.0,
        "normalization": "symmetric",
        "learn": bool(rng.integers(2)),
    }
    return run, usual


def inferred(rng: np.random.Generator) -> tuple[Callable[..., Any], Arguments]:
    def run(guide: Any, theta_alpha: Any, theta_beta: Any, theta_gamma: Any, **problem: Any) -> Any:
        kernels = Bilateral(theta_alpha, theta_beta), Spatial(theta_gamma)
        filters = [kernel.prepare(guide) for kernel in kernels]
        return mean_field(filters=filters, iterations=2, **problem).softmax(dim=1)[0]

    usual = {
        "guide": torch.from_numpy(rng.integers(0, 256, (1, 3, HEIGHT, WIDTH))).float(),
        "theta_alpha": 5.0,
        "theta_beta": 30.0,
        "theta_gamma": 2.0,
        "logits": torch.from_numpy(rng.standard_normal((1, LABELS, HEIGHT, WIDTH))).float(),
        "kernel_weights": torch.full((2, 1), 3.0),
        "compatibility": 1 - torch.eye(LABELS),
    }
    return run, usual


def filtered(rng: np.random.Generator) -> tuple[Callable[..., Any], Arguments]:
    values = torch.from_numpy(rng.random((1, LABELS, HEIGHT, WIDTH))).float()  # NaN in them is NaN in what comes out
    usual = {
        "features": torch.from_numpy(rng.random((1, 5, HEIGHT, WIDTH))).float(),
        "method": "permutohedral",
        "normalization": "after",
        "accuracy": 1,
    }
    return (lambda **given: torch.softmax(gaussian_filter(values, **given)[0], dim=0)), usual


def dropped_in(rng: np.random.Generator) -> tuple[Callable[..., Any], Arguments]:
    def run(u: Any, sxy: Any, srgb: Any, rgbim: Any, compat: Any, niter: Any) -> Any:
        crf = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
        crf.setUnaryEnergy(u)
        crf.addPairwiseGaussian(sxy=sxy, compat=compat)
        crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=rgbim, compat=compat)
        return crf.inference(niter)

    usual = {
        "u": rng.random((LABELS, HEIGHT * WIDTH)).astype(np.float32),
        "sxy": 3,
        "srgb": 30,
        "rgbim": rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
        "compat": 3.0,
        "niter": 2,
    }
    return run, usual


TARGETS = refined, layered, inferred, filtered, dropped_in


def outcome(seed: int) -> str:
    """What came of one call, in a word or two; a call that is as it should be is "fine" or "refused"."""
    rng = np.random.default_rng(seed)
    run, given = TARGETS[rng.integers(len(TARGETS))](rng)
    names = list(given)
    for name in rng.choice(names, rng.integers(4), replace=False):
        value = given[name]
        if isinstance(value, np.ndarray):
            given[name] = odd_array(rng, value)
        elif isinstance(value, torch.Tensor):
            odd = odd_array(rng, value.numpy())
            numeric = isinstance(odd, np.ndarray) and odd.dtype.kind in "fiu"
            given[name] = torch.from_numpy(np.array(odd, order="C")) if numeric else odd
        else:
            given[name] = rng.choice(np.array([*NUMBERS, value], object))
    if isinstance(given.get("iterations", given.get("niter")), int | float):  # a large number of them is no hang
        count = "iterations" if "iterations" in given else "niter"
        given[count] = given[count] if not given[count] > 100 else 100
    try:
        q = run(**given)
    except ValueError as error:
        text = str(error)
        named = any(
            name in text.partition(":")[0].replace(",", " ").split()
            for name in (*names, "features", "values", "num_classes")
        )
        return "refused" if named and "\n" not in text else f"without a name: {text[:90]}"
    except Exception as error:
        return f"{type(error).__name__} of {run.__module__}: {str(error)[:90]}"
    values = np.asarray(q, np.float64)  # in the form that the predictions had
    sums = values.sum(axis=-1 if values.shape == (HEIGHT, WIDTH, LABELS) else 0)
    return "fine" if np.abs(sums - 1).max() < 1e-2 else f"sums {sums.min():.3g}..{sums.max():.3g} {sorted(names)[:2]}"


def child(first: int, last: int) -> None:
    """The calls of these seeds: a line for each."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for seed in range(first, last):
        print(json.dumps([seed, outcome(seed)]), flush=True)


def main(calls: int) -> None:
    counts: Counter[str] = Counter()
    examples: dict[str, int] = {}
    seed, start = 0, time.perf_counter()
    while seed < calls:
        command = [sys.executable, "-m", "diagnostics.fuzz", "child", str(seed), str(calls)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            while seed < calls:
                ready, _, _ = select.select([process.stdout], [], [], SECONDS)
                line = process.stdout.readline() if ready else ""
                if not line:
                    word = "ended the process" if ready else "hung"
                    process.kill()
                else:
                    word = json.loads(line)[1]
                counts[word] += 1
                examples.setdefault(word, seed)
                seed += 1
                if not line:
                    break
    print(f"{calls} calls in {time.perf_counter() - start:.0f} s")
    for word, count in counts.most_common():
        print(f"{count:6d} {count / calls:7.2%}  {word}  (such as number {examples[word]})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS)
