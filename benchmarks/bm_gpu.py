"""How fast are the layer and the exact filter on a GPU, how far from what the card allows, and how far from a CPU?

    python -m benchmarks.bm_gpu [--out benchmarks/results/gpu.md] [--minutes 8]
    python -m benchmarks.bm_gpu --dry-run      # without a GPU: every call once, tiny, nothing measured

Every figure is checked first, against the plain torch reference on the same device; what is not correct is not timed,
and the exit status is 1. Medians of CUDA event timings after a warm-up; several inputs in turn. Needs no extras but
Triton; photos come from scikit-image where it is installed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import gpu_inputs, gpu_work
from benchmarks.gpu_time import cpu_ms, in_turn, median_ms, stand_in_ms
from benchmarks.gpu_work import Ceilings, Work
from crfrnn import CRFRNN, Bilateral, Spatial
from crfrnn.filtering import methods
from crfrnn.filtering.gaussian_filter import prepare
from crfrnn.filtering.permutohedral.reference import embed, number
from crfrnn.inference.recurrence import recurrence
from crfrnn.runtime import gpu
from crfrnn.runtime.loading import load

SETS = {"a": (160.0, 3.0, 5.0), "b": (80.0, 13.0, 10.0), "c": (67.0, 3.0, 4.0)}  # theta_alpha, theta_beta, weight
EQUAL = 2e-5  # relative L2 error against the reference
AT_FULL_SIZE = 1e-3  # and against the CPU after all iterations, which amplify rounding: it is to find wrong indices
INPUTS = 3  # in turn
ISSUED = 19.3  # instructions that the exact filter's inner loop issues for a pair, counted in its machine code (sm_90)
Row = list[str]


@dataclass(frozen=True)
class Call:
    """One figure of the layer; milliseconds are for one image."""

    name: str
    letter: str
    labels: int
    size: tuple[int, int]
    iterations: int
    bar: float | None
    batch: int = 1
    train: bool = False

    def shrunk(self) -> "Call":
        """The same for --dry-run and for the check: few pixels, at most two images."""
        return replace(self, size=(20, 28), iterations=2, batch=min(2, self.batch))


CALLS = [
    Call("T = 10, set a", "a", 21, (512, 512), 10, 4.0),
    Call("T = 10, set a, batch of 16", "a", 21, (512, 512), 10, 2.0, batch=16),
    Call("T = 10, set b", "b", 21, (512, 512), 10, 2.5),
    Call("T = 10, set b, batch of 16", "b", 21, (512, 512), 10, None, batch=16),
    Call("T = 5, set a, forward and backward", "a", 21, (512, 512), 5, 6.0, train=True),
    Call("T = 10, set a, L = 150", "a", 150, (512, 512), 10, 12.0),
    Call("T = 10, set a, L = 19, 2048 x 1024", "a", 19, (1024, 2048), 10, 12.0),
]
ON_CPU = [CALLS[0], CALLS[2], CALLS[4]]  # what is also timed on the CPU
EXACT_SIZE = (375, 500)
EXACT_BAR = 20.0
OTHERS = ("all tiles", "half precision", "gradients", "sorting")  # what is timed of the exact filter beside near tiles


class Refused(Exception):
    """A result that differs from the reference."""


class Bench:
    """One run: where, with which clock, and until when."""

    def __init__(self, device: torch.device, ceilings: Ceilings, dry: bool, deadline: float):
        self.device = device
        self.ceilings = ceilings
        self.dry = dry
        self.deadline = deadline
        self.clock = stand_in_ms if dry else median_ms
        self.failed = False

    def guarded(self, name: str, columns: int, make: Callable[[], Row]) -> Row:
        """The row, or why there is none; one figure that fails does not cost the others."""
        empty = [""] * (columns - 2)
        if time.time() > self.deadline:
            return [name, "no time left", *empty]
        try:
            return [name, *make()]
        except Refused as reason:
            self.failed = True
            return [name, f"refused: {reason}", *empty]
        except Exception as error:  # whatever torch, CUDA or Triton's compiler find
            self.failed = True
            return [name, f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}", *empty]


def same(quantity: str, actual: Tensor, expected: Tensor, tolerance: float = EQUAL) -> None:
    """Raises `Refused` where the relative L2 error is above the tolerance, or is none."""
    actual, expected = actual.detach().double(), expected.detach().double()
    error = float((actual - expected).norm() / expected.norm())
    if not error <= tolerance:  # NaN is above, too
        raise Refused(f"{quantity} differ from the reference by {error:.1e}")


def kernels(letter: str) -> tuple[Bilateral, Spatial]:
    alpha, beta, weight = SETS[letter]
    return Bilateral(alpha, beta, weight), Spatial(3.0, 3.0)


def layer_of(call: Call, device: torch.device) -> CRFRNN:
    return CRFRNN(call.labels, kernels(call.letter), call.iterations, call.iterations).to(device).train(call.train)


def inputs_of(call: Call, device: torch.device, seed: int) -> tuple[Tensor, Tensor]:
    logits = gpu_inputs.logits(call.batch, call.labels, *call.size, seed=seed)
    image = gpu_inputs.photos(call.batch, *call.size, first=seed)
    return logits.to(device).requires_grad_(call.train), image.to(device)


def run(call: Call, layer: CRFRNN, logits: Tensor, image: Tensor) -> Tensor:
    """Forward, or forward and backward; returns the logits or their gradient."""
    if not call.train:
        with torch.no_grad():
            return layer(logits, image)
    logits.grad = None
    layer.zero_grad(set_to_none=True)
    layer(logits, image).square().mean().backward()
    assert logits.grad is not None
    return logits.grad


def check_layer(call: Call, device: torch.device) -> None:
    """The call, shrunk, against the recurrence as it is written with the reference's filters."""
    small = call.shrunk()
    layer, (logits, image) = layer_of(small, device), inputs_of(small, device, seed=7)
    got = [run(small, layer, logits, image)]
    got += [p.grad for p in layer.parameters() if p.grad is not None]

    filters = [kernel.prepare(image, implementation="reference") for kernel in kernels(small.letter)]
    plain = logits.detach().clone().requires_grad_(small.train)
    layer.zero_grad(set_to_none=True)
    out = recurrence(plain, filters, layer.kernel_weights, layer.compatibility, small.iterations)
    expected = [out.detach()]
    if small.train:
        out.square().mean().backward()
        expected = [g for g in (plain.grad, *(p.grad for p in layer.parameters())) if g is not None]
    if len(got) != len(expected):
        raise Refused(f"{len(got)} results instead of {len(expected)}")
    for quantity, mine, reference in zip(("sums", "gradients", "gradients"), got, expected, strict=False):
        same(quantity, mine, reference)


def check_full_size(call: Call, device: torch.device) -> None:
    """One image as large as it is timed, against the same on the CPU: small ones do not reach every index."""
    one = replace(call, batch=1)
    here, there = (
        run(one, layer_of(one, where), *inputs_of(one, where, seed=7)).cpu() for where in (device, torch.device("cpu"))
    )
    same("results at full size", here, there, AT_FULL_SIZE)


def vertices(image: Tensor, letter: str) -> int:
    """Of the lattice of the first image, (B, 3, H, W)."""
    features = kernels(letter)[0].features(image[:1])[0].flatten(1)
    return int(number(embed(features).keys.reshape(-1, features.shape[0])).max()) + 1


def layer_row(bench: Bench, call: Call) -> Row:
    check_layer(call, bench.device)
    if bench.dry:
        call = call.shrunk()
    check_full_size(call, bench.device)
    layer = layer_of(call, bench.device)
    sets = [inputs_of(call, bench.device, seed) for seed in range(1 if bench.dry else INPUTS)]
    points, count = call.size[0] * call.size[1], vertices(sets[0][1], call.letter)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = bench.clock(in_turn([partial(run, call, layer, *each) for each in sets])) / call.batch
    work = gpu_work.training if call.train else gpu_work.inference
    return [*against(bench, taken, call.bar, work(points, call.labels, count, call.iterations)), memory(bench)]


def against(bench: Bench, taken: float, bar: float | None, work: Work) -> Row:
    """Cells: the bar, the time, the floor, what sets it, and how far it is."""
    floor, unit = work.floor(bench.ceilings)
    return [f"{bar:g}" if bar else "", f"{taken:.2f}", f"{floor:.2f}", unit, f"{taken / floor:.1f}"]


def memory(bench: Bench) -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB" if bench.device.type == "cuda" else ""


def parts_row(bench: Bench, letter: str, which: str) -> Row:
    """One step of `T = 10`: preparing the kernels, or one application of one of them."""
    size = (20, 28) if bench.dry else (512, 512)
    image = gpu_inputs.photos(1, *size).to(bench.device)
    values = gpu_inputs.logits(1, 21, *size).softmax(dim=1).to(bench.device)
    bilateral, spatial = kernels(letter)
    steps = {
        "prepare both kernels": lambda: [kernel.prepare(image) for kernel in (bilateral, spatial)],
        "one bilateral application": partial(bilateral.prepare(image), values),
        "one spatial application": partial(spatial.prepare(image), values),
    }
    return [f"{bench.clock(steps[which]):.3f}"]


def exact_name(device: torch.device) -> str:
    """Which implementation of the exact filter this run looks at."""
    return "triton" if device.type == "cuda" or gpu.interpreted() else "reference"


def exact_filter(features: Tensor, device: torch.device):
    return prepare(features, method="exact", normalization="none", implementation=exact_name(device))


def check_exact(letter: str, device: torch.device, size: tuple[int, int]) -> None:
    """Sums and gradients on a small photo, against the reference in float64."""
    features = kernels(letter)[0].features(gpu_inputs.photos(1, *size)).to(device)
    values = gpu_inputs.logits(1, 21, *size).to(device)
    results = []
    for dtype, name in ((torch.float32, exact_name(device)), (torch.float64, "reference")):
        f, v = (tensor.to(dtype).detach().requires_grad_() for tensor in (features, values))
        out = prepare(f, method="exact", normalization="none", implementation=name)(v)
        results.append([out, *torch.autograd.grad(out.square().sum(), (v, f))])
    for quantity, mine, reference in zip(
        ("sums", "gradients of values", "gradients of features"), *results, strict=True
    ):
        same(quantity, mine, reference)


def check_exact_rows(features: Tensor, values: Tensor, sums: Tensor) -> None:
    """About 256 rows of the sums at full size, each against all points in float64."""
    features = features.detach().flatten(2).double()
    stride = max(1, features.shape[2] // 256)
    rows = slice(None, None, stride)
    squared = torch.cdist(features[:, :, rows].mT, features.mT, compute_mode="donot_use_mm_for_euclid_dist").square()
    same("sums at full size", sums.detach()[:, :, rows], values.detach().double() @ torch.exp(-squared / 2).mT)


def share(operator) -> float:
    """Of all pairs of tiles, those that are near; 1 for the reference, which leaves out none."""
    if getattr(operator, "tiles", None) is None:
        return 1.0
    lists = sys.modules[type(operator).__module__].near_tiles(operator.tiles, operator.tolerance)
    return sum(int(near.counts.sum()) for near in lists) / (operator.tiles.low.shape[0] * operator.tiles.count**2)


def exact_row(bench: Bench, letter: str, kind: str) -> Row:
    """`kind`: all tiles (features so close that none is left out), near tiles, half precision, or the gradients."""
    check_exact(letter, bench.device, (6, 8) if bench.dry else (48, 64))
    size = (8, 12) if bench.dry else EXACT_SIZE
    features = kernels(letter)[0].features(gpu_inputs.photos(1, *size)).to(bench.device)
    values = gpu_inputs.logits(1, 21, *size).softmax(dim=1).flatten(2).to(bench.device)
    if kind == "all tiles":
        features = features * 0.01
    if kind == "gradients":
        features.requires_grad_()
        values.requires_grad_()
    operator = exact_filter(features, bench.device).operator
    near = share(operator)
    check_exact_rows(features, values, operator.apply(values))
    if kind == "half precision":
        same("half precision", operator.apply(values.half()).float(), operator.apply(values), 2e-3)
        values = values.half()
    calls: dict[str, Callable[[], object]] = {
        "sorting": lambda: exact_filter(features.detach(), bench.device),
        "gradients": lambda: torch.autograd.grad(operator.apply(values).sum(), (values, features)),
    }
    taken = bench.clock(calls.get(kind, lambda: operator.apply(values)))
    points = size[0] * size[1]
    bar = EXACT_BAR if kind in ("all tiles", "near tiles") else None
    if kind in ("sorting", "gradients"):
        return ["", f"{taken:.2f}", "", "", "", f"{near:.1%}", ""]
    predicted = 1e3 * ISSUED * near * points**2 / bench.ceilings.fmas
    cells = against(bench, taken, bar, gpu_work.exact(points, values.shape[1], near))
    return [*cells, f"{near:.1%}", f"{predicted:.1f}" if kind != "half precision" else ""]


def cpu_row(bench: Bench, call: Call) -> Row:
    """The same call here and on this machine's CPU, with all its threads."""
    check_layer(call, torch.device("cpu"))
    if bench.dry:
        call = call.shrunk()
    taken = []
    for device, clock in ((bench.device, bench.clock), (torch.device("cpu"), stand_in_ms if bench.dry else cpu_ms)):
        layer, sets = layer_of(call, device), inputs_of(call, device, seed=0)
        taken.append(clock(partial(run, call, layer, *sets)))
    return [f"{taken[0]:.2f}", f"{taken[1]:.0f}", f"{taken[1] / taken[0]:.0f}"]


def table(header: Row, rows: list[Row]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def sections(bench: Bench) -> list[str]:
    """All tables; the most important figures first, as time may run out."""

    def rows(columns: int, wanted: dict[str, Callable[[], Row]]) -> list[Row]:
        done = []
        for name, make in wanted.items():
            done.append(bench.guarded(name, columns, make))
            print(" | ".join(done[-1]), flush=True)
        return done

    head = ["", "bar, ms", "ms", "floor, ms", "set by", "times its floor"]
    layer = {call.name: partial(layer_row, bench, call) for call in CALLS}
    others = [kind for kind in OTHERS if kind != "half precision" or exact_name(bench.device) == "triton"]
    exact = {
        f"{kind}, set {letter}": partial(exact_row, bench, letter, kind)
        for letter, kind in [
            ("a", "near tiles"),
            ("b", "near tiles"),
            ("c", "near tiles"),
            *[("a", kind) for kind in others],
        ]
    }
    parts = {
        f"{which}, set {letter}": partial(parts_row, bench, letter, which)
        for letter in ("a", "b")
        for which in ("prepare both kernels", "one bilateral application", "one spatial application")
    }
    cpu = {call.name: partial(cpu_row, bench, call) for call in ON_CPU}
    height, width = EXACT_SIZE
    return [
        "## The layer, milliseconds for one image",
        "",
        "512 x 512 and 21 labels where nothing else is said; building the lattice is included.",
        "",
        *table([*head, "peak memory"], rows(7, layer)),
        "",
        f"## The exact filter, {width} x {height}, 21 channels, one application",
        "",
        *table([*head, "pairs of tiles", "predicted, ms"], rows(8, exact)),
        "",
        "## Where the layer's time goes, milliseconds",
        "",
        *table(["", "ms"], rows(2, parts)),
        "",
        "## Against this machine's CPU",
        "",
        *table(["", "GPU, ms", "CPU, ms", "ratio"], rows(4, cpu)),
    ]


def heading(bench: Bench) -> list[str]:
    c = bench.ceilings
    card = "dry run: nothing was measured" if bench.dry else torch.cuda.get_device_name(bench.device)
    rows = {method: methods.choose(method, bench.device, torch.float32).name for method in methods.IMPLEMENTATIONS}
    return [
        "# GPU benchmark",
        "",
        f"`python -m benchmarks.bm_gpu`, {time.strftime('%Y-%m-%d')}. {card}; torch {torch.__version__},"
        f" Python {sys.version.split()[0]}. Photos: {gpu_inputs.source()}.",
        f"Implementations: {', '.join(f'{method} {name}' for method, name in rows.items())}."
        f" Sets (theta_alpha, theta_beta, weight): {', '.join(f'{k} {v}' for k, v in SETS.items())}.",
        f"Ceilings{'' if not bench.dry else ' of a datasheet'}: {c.bandwidth / 1e12:.2f} TB/s copied,"
        f" {c.fmas / 1e12:.1f} T multiply-adds, {c.exps / 1e12:.2f} T exponentials,"
        f" {c.products / 1e12:.0f} T tf32 multiply-adds a second.",
        "",
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the report to this Markdown file")
    parser.add_argument("--minutes", type=float, default=8, help="figures that would begin later are left out")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, every call once and tiny")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("bm_gpu: no CUDA device here; run it on a machine with one, or try --dry-run", file=sys.stderr)
        return 1
    if not options.dry_run and not gpu.triton_installed():
        print("bm_gpu: Triton is not installed; pip install 'crfrnn[triton]'", file=sys.stderr)
        return 1
    deadline = time.time() + 60 * options.minutes
    if options.dry_run:
        device, ceilings = torch.device("cpu"), gpu_work.H200
    else:
        device = torch.device("cuda")
        ceilings = load("benchmarks.gpu_ceilings", "measure")(device)
    bench = Bench(device, ceilings, options.dry_run, deadline)
    report = "\n".join([*heading(bench), *sections(bench)]) + "\n"
    print("\n" + report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report)
        print(f"wrote {options.out}")
    return int(bench.failed)


if __name__ == "__main__":
    sys.exit(main())
