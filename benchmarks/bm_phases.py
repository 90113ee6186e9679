"""Where the time of one call goes, against the bytes and operations that must move.

    python -m benchmarks.bm_phases [--out benchmarks/results/phases.md]

One 500 x 375 photo, 21 labels, T = 10, one thread. The floor of a phase is the larger of two times: the bytes of its
large arrays, each read or written once, over the copy bandwidth measured here, and its multiply-adds over the rate
measured here. A phase far above its floor waits for memory in an order that cannot be guessed, or for sorting.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks import inputs
from crfrnn.filtering.permutohedral import numba_cpu as lattice
from crfrnn.filtering.permutohedral import vertices_cpu as building
from crfrnn.filtering.separable import numba_cpu as grid
from crfrnn.inference.fused import numba_cpu as pixels

WIDTH, HEIGHT, T = 500, 375, 10
N, C, CORNERS = WIDTH * HEIGHT, 24, 6
PHASES = {
    building: ["number_vertices", "merge_strips", "link_chain"],
    lattice: ["add_ghosts", "blur", "copy_to_ghosts"],
    grid: ["apply_to_planes"],
    pixels: ["initialise", "update", "finish"],
}


def ceilings() -> tuple[float, float]:
    """(bytes a second of a large copy, multiply-adds a second of a matrix product), one thread."""
    source, target = np.ones(40_000_000, np.float32), np.ones(40_000_000, np.float32)
    matrix = torch.rand(512, 512)
    copies, products = [], []
    for _ in range(7):
        start = time.perf_counter()
        np.copyto(target, source)
        copies.append(time.perf_counter() - start)
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        products.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(copies), 512**3 / min(products)


def bytes_and_operations(vertices: int, ghosts: int) -> dict[str, tuple[float, float]]:
    """What the phases of one whole call must move (bytes) and compute (multiply-adds).

    The spatial kernel's coarse grid has half the nodes along each axis. A node is a sum of 7 pixels and 7 lines, then
    of 11 nodes along each axis, and a pixel is one of 4 lines of nodes and of 4 nodes.
    """
    rows, table, copies = 4 * C * N, 4 * C * (vertices + ghosts), 4 * C * ghosts
    index = 8 * CORNERS * N  # a row and a weight for each corner
    return {
        "number_vertices": (4 * 5 * N + index, 100 * N),
        "merge_strips": ((8 + 8) * (vertices + ghosts), 0),
        "link_chain": ((8 + 8) * CORNERS * vertices, 0),
        "add_ghosts": (T * 3 * copies, T * C * ghosts),
        "blur": (T * CORNERS * 2 * 4 * C * vertices, T * CORNERS * 2 * C * vertices),
        "copy_to_ghosts": (T * 2 * copies, 0),
        "apply_to_planes": (T * 0.5 * rows, T * 2 * 11 / 4 * C * N),
        "initialise": (4 * 21 * N + 1.25 * rows + index + table, (20 + CORNERS + 3.5 + 1.75) * C * N),
        "update": ((T - 1) * (1.5 * rows + index + 2 * table), (T - 1) * (2 * CORNERS + 11.25 + 20) * C * N),
        "finish": (1.25 * rows + index + table + 4 * 21 * N, (CORNERS + 6 + 20) * C * N),
    }


def sizes(letter: str) -> tuple[int, int]:
    """Vertices of the photo's lattice, and rows beside them that are ghosts."""
    guide = torch.from_numpy(inputs.photo(WIDTH, HEIGHT)).permute(2, 0, 1)[None]
    lattices = inputs.SETS[letter]["kernels"][0].prepare(guide).operator.lattices
    ghosts = int(lattices.sizes[0, 0])
    return int(lattices.rows[0, -1]) - ghosts, ghosts


def measure(letter: str) -> tuple[dict[str, float], float]:
    """Seconds of each phase and of the whole call, the fastest of 8."""
    image, p = inputs.photo(WIDTH, HEIGHT), inputs.probabilities(WIDTH, HEIGHT)
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(name, kernel):
        def call(*arguments):
            start = time.perf_counter()
            result = kernel(*arguments)
            spent[name] += time.perf_counter() - start
            return result

        return call

    originals = {(module, name): getattr(module, name) for module, names in PHASES.items() for name in names}
    best: tuple[dict[str, float], float] = {}, float("inf")
    try:
        for (module, name), kernel in originals.items():
            setattr(module, name, timed(name, kernel))
        for _ in range(8):
            spent.clear()
            start = time.perf_counter()
            inputs.ours(image, p, inputs.SETS[letter]["kernels"], T)
            total = time.perf_counter() - start
            if total < best[1]:
                best = dict(spent), total
    finally:
        for (module, name), kernel in originals.items():
            setattr(module, name, kernel)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bandwidth, rate = ceilings()
    lines = [
        "# Where the time goes",
        "",
        f"`python -m benchmarks.bm_phases`, {time.strftime('%Y-%m-%d')}. Machine: {inputs.machine()}; one thread.",
        f"Ceilings of the same run: copying {bandwidth / 1e9:.0f} GB/s, {rate / 1e9:.0f} G multiply-adds a second.",
        f"{WIDTH} x {HEIGHT}, 21 labels (24 channels in memory), T = {T}, the fastest of 8 calls.",
    ]
    for letter, choice in inputs.SETS.items():
        (spent, total), (vertices, ghosts) = measure(letter), sizes(letter)
        needed = bytes_and_operations(vertices, ghosts)
        lines += [
            "",
            f"## Set {letter}, {choice['name']}: {1000 * total:.0f} ms,"
            f" {vertices / N:.2f} vertices a pixel, {ghosts / N:.2f} ghosts",
            "",
        ]
        lines += [
            "| phase | ms | MB to move | M multiply-adds | floor, ms | times the floor |",
            "|---|---|---|---|---|---|",
        ]
        for name, (moved, operations) in needed.items():
            floor = max(moved / bandwidth, operations / rate)
            seconds = spent[name]
            lines.append(
                f"| {name} | {1e3 * seconds:.0f} | {moved / 1e6:.0f} | {operations / 1e6:.0f} | {1e3 * floor:.1f}"
                f" | {seconds / floor:.1f} |"
            )
        lines.append(f"| everything else | {1e3 * (total - sum(spent.values())):.0f} | | | | |")
    report = "\n".join(lines) + "\n"
    print(report)
    if options.out:
        tail = options.out.read_text().partition("<!-- notes -->") if options.out.exists() else ("", "", "")
        options.out.write_text(report + "\n" + "".join(tail[1:]) if tail[1] else report)


if __name__ == "__main__":
    main()
