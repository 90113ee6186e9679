"""Are the seams of windows invisible, and does the memory stay below what was said?

    python -m benchmarks.bm_rasters FOLDER [--seams 4000] [--reaches 512] [--times 5] [--out FILE]

FOLDER is for scenes (`raster_scene.py`) and results. Seams: labels beside those of the whole scene as one window, which
takes some gigabytes. Reaches: the same for other halos. Large: time and peak memory alone, of copies of that scene side
by side. Each run is a process of its own.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio  # type: ignore[import-not-found]

from benchmarks.raster_scene import IMAGE, PROBABILITIES, TRUTH, make, mosaic
from crfrnn import CRFParameters, refine, refine_windows
from crfrnn.commands.refine import windows

PRESENT = ("--preset=present",)
KERNELS = (  # of presets, with positions in a third or a fourth, as the scene is small
    (("bilateral:10,5,1.5", "spatial:1.5,1"), "after"),
    (("bilateral:20,13,10", "spatial:3,3"), "symmetric"),
    (("bilateral:40,3,5", "spatial:3,3"), "after"),
)
REACHES, CORE = (1, 2, 3), 128
ALL = "100GB"  # one window
ROWS = 512  # that are compared at a time
RIGHT = 0.02  # by which the labels must become better


class Run(NamedTuple):
    labels: Path
    windows: str
    seconds: float  # of the CPU
    peak: float  # gigabytes


def file(folder: Path, name: str) -> Path:
    """A scene's, or that of a mosaic."""
    return next(path for path in (folder / name, (folder / name).with_suffix(".vrt")) if path.exists())


def run(folder: Path, name: str, memory: str, words: tuple[str, ...]) -> Run:
    """One refinement; SystemExit where it fails."""
    labels = folder / f"{name}.tif"
    files = [str(file(folder, IMAGE)), f"--probabilities={file(folder, PROBABILITIES)}", f"--out={labels}"]
    options = ["--standardize", "--bands=4,3,2", f"--memory={memory}", *words]
    process = subprocess.Popen(
        [sys.executable, "-m", "crfrnn", "refine", *files, *options], stdout=subprocess.PIPE, text=True
    )
    said = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name}: failed")
    print(said, flush=True)
    laid_out = next((line.removeprefix("windows: ") for line in said.splitlines() if line.startswith("windows")), "one")
    return Run(labels, laid_out, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def equal(one: Path, other: Path, bands: int = 1) -> float:
    """Share of the pixels with the same label; of several bands the highest is the label."""
    same = total = 0
    with rasterio.open(one) as a, rasterio.open(other) as b:
        for start in range(0, a.height, ROWS):
            window = ((start, min(start + ROWS, a.height)), (0, a.width))
            left = a.read(1, window=window)
            right = b.read(1, window=window) if bands == 1 else b.read(window=window).argmax(axis=0)
            same, total = same + int(np.sum(left == right)), total + left.size
    return same / total


def checked(folder: Path, found: Run) -> tuple[float, float]:
    """Shares of right labels before and after; SystemExit where nothing became better."""
    truth = file(folder, TRUTH)
    before, after = equal(truth, file(folder, PROBABILITIES), bands=6), equal(truth, found.labels)
    if after < before + RIGHT:
        raise SystemExit(f"{before:.1%} of the labels were right, {after:.1%} are: its seams mean nothing")
    return before, after


def seams(folder: Path, side: int) -> list[str]:
    make(folder, side)
    divided, whole = run(folder, "windows", "2GB", PRESENT), run(folder, "whole", ALL, PRESENT)
    before, after = checked(folder, divided)
    lines = [
        f"## Seams, {side} x {side}, 6 classes, preset present",
        "",
        f"Labels equal to those of the whole scene: **{equal(divided.labels, whole.labels):.4%}**;"
        f" right {before:.2%} before, {after:.2%} after.",
        "",
        "| | windows | CPU s | peak GB |",
        "|---|---|---|---|",
    ]
    for name, one in (("--memory 2GB", divided), ("as one window", whole)):
        lines.append(f"| {name} | {one.windows} | {one.seconds:.0f} | {one.peak:.2f} |")
    return [*lines, ""]


def reaches(folder: Path, side: int) -> list[str]:
    """Windows of `CORE` pixels and halos of so many bandwidths, in one process."""
    make(folder, side)
    with rasterio.open(folder / IMAGE) as image, rasterio.open(folder / PROBABILITIES) as predictions:
        bands, p = np.moveaxis(image.read([4, 3, 2]), 0, -1), predictions.read().astype(np.float32)
    p /= p.sum(axis=0)
    lines = [f"## Halos, {side} x {side} in windows of {CORE} x {CORE}: labels equal to the whole scene's, %", ""]
    lines += [
        "| kernels | " + " | ".join(f"{reach} bandwidths" for reach in REACHES) + " |",
        "|---" * (len(REACHES) + 1) + "|",
    ]
    for kernels, normalization in KERNELS:
        options = {"kernels": kernels, "normalization": normalization, "standardize": True}
        whole, cells = refine(bands, p, **options).argmax(axis=0), []
        for reach in REACHES:
            windows.REACH = reach
            given = CRFParameters.of_preset("present", kernels=kernels).kernels
            pixels = (CORE + 2 * max(windows.halo_of(given))) ** 2 + 1
            room = windows.BEGUN + pixels * windows.bytes_per_pixel(given, len(p), 3)
            out = np.empty(whole.shape, np.uint8)
            refine_windows(bands, p, out=out, memory=f"{room:.0f}B", **options)
            cells.append(f"{(out == whole).mean():.4%}")
        lines.append(f"| {', '.join(kernels)}, {normalization} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def large(folder: Path, of: Path, side: int, times: int, iterations: int) -> list[str]:
    make(of, side)
    mosaic(folder, of.resolve(), times)
    found = run(folder, "windows", "2GB", (*PRESENT, f"--iterations={iterations}"))
    before, after = checked(folder, found)
    return [
        f"## {times * side} x {times * side} with --memory 2GB, T = {iterations}",
        "",
        f"{found.windows}: {found.seconds:.0f} CPU s, **peak {found.peak:.2f} GB**; right {before:.2%} before,"
        f" {after:.2%} after.",
        "",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seams", type=int, default=4000)
    parser.add_argument("--reaches", type=int, default=512)
    parser.add_argument("--times", type=int, default=5, help="copies of the scene of --seams along each side")
    parser.add_argument("--iterations", type=int, default=10, help="of the large one")
    parser.add_argument("--only", nargs="*", default=["seams", "reaches", "large"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = ["# Rasters", "", "`python -m benchmarks.bm_rasters`, bands 4,3,2 of a scene by rule, standardized.", ""]
    scene, small, wide = (options.folder / name for name in (str(options.seams), str(options.reaches), "mosaic"))
    parts = {
        "seams": lambda: seams(scene, options.seams),
        "reaches": lambda: reaches(small, options.reaches),
        "large": lambda: large(wide, scene, options.seams, options.times, options.iterations),
    }
    for name in options.only:
        text += parts[name]()
        if options.out:
            options.out.write_text("\n".join(text))
    print("\n".join(text))
