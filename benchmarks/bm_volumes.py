"""How long does a volume of two labels take, and how much memory, beside SimpleCRF's denseCRF3D?

    python -m benchmarks.bm_volumes [--simplecrf PYTHON] [--out benchmarks/results/volumes.md]

PYTHON is an interpreter of an environment with SimpleCRF and a NumPy below 2. One thread each, and ours on all besides;
the same kernels and iterations; labels that are not right stop it. CPU seconds, and of all threads those of the clock.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

SIZES = ((96, 96, 96), (128, 256, 256))
ITERATIONS = (2, 5, 10)  # 2 in SimpleCRF's example
RIGHT = 0.99  # share of the voxels


def measured(python: str, who: str, size: tuple[int, ...], iterations: int) -> dict[str, float]:
    """Of a process of its own."""
    words = [python, "-m", "benchmarks.volume_process", who, *map(str, (*size, iterations))]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    result = json.loads(lines[-1])  # denseCRF3D prints its settings first
    if result["right"] < RIGHT:
        raise SystemExit(f"{who}, {size}: {result['right']:.1%} of the voxels are right, so its time means nothing")
    return result


def table(simplecrf: str | None) -> list[str]:
    """Markdown: a row for each size and T."""
    names = ["crfrnn", *(["simplecrf"] if simplecrf else [])]
    heading = ["voxels (z, y, x)", "T", *(f"{name} {what}" for name in names for what in ("CPU s", "peak GB", "right"))]
    heading += ["crfrnn, all threads s", *(["simplecrf s", "one thread", "all threads"] if simplecrf else [])]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    for size in SIZES:
        for iterations in ITERATIONS:
            found: dict[str, dict[str, float]] = {}
            cells = [" x ".join(map(str, size)), str(iterations)]
            for name in names:
                python = simplecrf if name == "simplecrf" and simplecrf else sys.executable
                found[name] = one = measured(python, name, size, iterations)
                cells += [f"{one['cpu']:.1f}", f"{one['peak']:.2f}", f"{one['right']:.2%}"]
            every = measured(sys.executable, "all", size, iterations)["wall"]
            cells.append(f"{every:.1f}")
            if simplecrf:
                ours, theirs = found.values()
                cells += [
                    f"{theirs['wall']:.1f}",
                    *(f"{theirs['cpu'] / ours['cpu']:.1f}x", f"{theirs['wall'] / every:.1f}x"),
                ]
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simplecrf")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = "\n".join([*table(arguments.simplecrf), ""])
    if arguments.out:
        arguments.out.write_text(text)
