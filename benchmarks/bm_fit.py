"""What `crfrnn.fit` promises and what is kept, on real networks' outputs: Pascal VOC 2012 and CamVid.

    python -m benchmarks.bm_fit --data PATH_TO/data [--sets camvid native ...] [--every N] [--splits N]
                                [--out docs/fit.md]

PATH_TO/data holds ``voc2012`` (see `bm_voc2012`); and ``camvid_coarse_logits/ID.npz`` with ``logits`` (11, h, w), of
images ``camvid/test/ID.*`` with labels ``camvid/testannot/ID.png`` (11 is void). Logits are upsampled bilinearly to
the image.

First two folds, in the order of the names, measured in the images' own size: what `fit` reports. Then splits: of
`BLOCKS` runs of neighbours a random half is fitted, and what is promised there (cross-validated within it, as `fit`
does) is compared with what is kept on the other half, in the size of the search. Each set leaves its counts in
benchmarks/results/fit, so that the tables can be written again, or a set run again by itself.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.bm_voc2012 import POOLS, VOID, logits_of
from benchmarks.inputs import machine
from crfrnn.commands.fit.fit import ALONE, FITTED, CrossValidation, Images, cross_validate
from crfrnn.commands.fit.sample import Sample
from crfrnn.commands.fit.search import START, Search
from crfrnn.commands.fit.workers import Workers, workers
from crfrnn.commands.gain import gain, iou
from crfrnn.data.datasets.camvid import CLASSES as CAMVID
from crfrnn.data.datasets.voc import CLASSES as VOC
from crfrnn.parameters import CRFParameters

RESULTS = Path(__file__).parent / "results" / "fit"
CAMVID_VOID = 11
SETS = ("camvid", *POOLS)
BLOCKS = 12  # of a split; neighbours in a video stay together
ITERATIONS = 5


class Lazy(Sequence[Any]):
    """Items that are read when they are needed."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Any]):
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: Any) -> Any:
        return self.read(self.items[number])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def labels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def voc2012(folder: Path, pool: int, every: int) -> Images:
    """As `bm_voc2012` reads it."""
    names = (folder / "ids.txt").read_text().split()[::every]

    def read(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        truth = labels(folder / "labels" / f"{name}.png")
        values = logits_of(folder / "unaries" / f"{name}.npz", truth.shape, pool)
        return pixels(folder / "images" / f"{name}.jpg"), values, truth

    return Images(Lazy(names, read), logits=True)


def camvid(folder: Path, every: int) -> Images:
    """The coarse logits, and the images and labels of CamVid's test split."""
    files = sorted((folder / "camvid_coarse_logits").glob("*.npz"))[::every]
    test = folder / "camvid"

    def read(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = labels(test / "testannot" / f"{file.stem}.png")
        truth = np.where(values == CAMVID_VOID, VOID, values)
        with np.load(file) as stored:
            maps = torch.from_numpy(stored["logits"].astype(np.float32))[None]
        logits = interpolate(maps, size=truth.shape, mode="bilinear", align_corners=False)[0].numpy()
        return pixels(next((test / "test").glob(f"{file.stem}.*"))), logits, truth

    return Images(Lazy(files, read), logits=True)


def run(name: str, folder: Path, every: int, splits: int) -> None:
    """Cross-validate and split one set; counts, gains and times go to `RESULTS`."""
    data = camvid(folder, every) if name == "camvid" else voc2012(folder / "voc2012", POOLS[name], every)
    start, processor = time.time(), time.process_time()
    with workers() as pool:
        samples = data.samples(pool)
        search = Search(samples, None, ITERATIONS, pool)
        found = cross_validate(search, range(len(data)), 2, data.measured, pool)
        about: dict[str, Any] = {"images": len(data), "chosen": search.learn(range(len(data))).rung}
        about |= {"minutes": round((time.time() - start) / 60, 1), "machine": machine()}
        about["core minutes"] = round((time.process_time() - processor) / 60, 1)
        about["splits"] = [split(search, samples, pool, seed) for seed in range(splits)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    counts = {key: value.numpy().astype(np.int32) for key, value in found.counts.items()}
    np.savez_compressed(RESULTS / f"{name.replace(' ', '-')}.npz", **counts)  # type: ignore[arg-type]
    (RESULTS / f"{name.replace(' ', '-')}.json").write_text(json.dumps(about, indent=2) + "\n")


def split(search: Search, samples: Sequence[Sample], pool: Workers, seed: int) -> dict[str, Any]:
    """One random half is fitted; what it promises, and what the other half keeps, in points of mean IoU."""

    def measured(number: int, options: Mapping[str, CRFParameters | None]) -> dict[str, Tensor]:
        one = samples[number]
        return {name: one.alone() if crf is None else one.counts(crf) for name, crf in options.items()}

    blocks = np.array_split(np.arange(len(samples)), BLOCKS)
    fitted = set(np.random.default_rng(seed).permutation(BLOCKS)[: BLOCKS // 2].tolist())
    halves = [
        [i for number, block in enumerate(blocks) if (number in fitted) == half for i in block.tolist()]
        for half in (True, False)
    ]
    promised = cross_validate(search, halves[0], 2, measured, pool)
    learned = search.learn(halves[0])
    options = {ALONE: None, START: learned.start, FITTED: learned.parameters}
    kept = pool.over(halves[1], lambda number: measured(number, options))
    alone, preset, counts = (torch.stack([one[name] for one in kept]) for name in options)
    promise, outcome = promised.gain(FITTED), gain(counts, alone)
    return {
        "chosen": learned.rung,
        "promised": [100 * value for value in (promise.value, promise.low, promise.high)],
        "kept": [100 * value for value in (outcome.value, outcome.low, outcome.high)],
        "over the preset": 100 * gain(counts, preset).value,
        "preset": 100 * gain(preset, alone).value,
    }


def stored(names: Sequence[str]) -> list[tuple[str, CrossValidation, dict[str, Any]]]:
    """Of the sets that were run."""
    found = []
    for name in names:
        path = RESULTS / f"{name.replace(' ', '-')}.npz"
        if path.exists():
            with np.load(path) as file:
                counts = CrossValidation({key: torch.from_numpy(file[key]).long() for key in file.files})
            found.append((name, counts, json.loads(path.with_suffix(".json").read_text())))
    return found


def tables(names: Sequence[str]) -> list[str]:
    """The report: gains over the network alone, then each class, then the splits."""
    lines = ["| | network alone | best preset | fitted | over the preset | worst class |", "|---|---|---|---|---|---|"]
    details, splits = [], []
    for name, found, about in stored(names):
        change = 100 * (iou(found.counts[FITTED]) - iou(found.counts[ALONE]))
        classes = (CAMVID if name == "camvid" else VOC).names
        worst = min(range(len(classes)), key=lambda label: np.nan_to_num(change[label].item(), nan=0))
        cells = [found.gain(START), found.gain(FITTED), found.gain(FITTED, START)]
        lines.append(
            f"| {name} | {100 * found.mean_iou(ALONE):.2f} | {' | '.join(map(str, cells))} |"
            f" {classes[worst]} {change[worst]:+.2f} |"
        )
        present = [(label, value) for label, value in zip(classes, change.tolist(), strict=True) if not np.isnan(value)]
        each = ", ".join(f"{label} {value:+.1f}" for label, value in present)
        details.append(
            f"- {name}: {about['images']} images, all of them: {about['chosen']}; {about['core minutes']} core minutes,"
            f" {about['minutes']} minutes on {about['machine']}. {each}."
        )
        splits.append(_split_row(name, about["splits"]))
    heading = (
        "| | splits | promised | kept | kept within the promised interval | intervals meet | over the best preset |"
    )
    return [*lines, "", *details, "", heading, "|---|---|---|---|---|---|---|", *splits]


def _split_row(name: str, splits: Sequence[Mapping[str, Any]]) -> str:
    if not splits:
        return f"| {name} | 0 | | | | | |"
    promised, kept = (np.array([one[what] for one in splits]) for what in ("promised", "kept"))
    over = np.array([one["over the preset"] for one in splits])
    within = int(((promised[:, 1] <= kept[:, 0]) & (kept[:, 0] <= promised[:, 2])).sum())
    meet = int(((promised[:, 1] <= kept[:, 2]) & (kept[:, 1] <= promised[:, 2])).sum())
    cells = [_spread(promised[:, 0]), _spread(kept[:, 0]), str(within), str(meet), _spread(over)]
    return f"| {name} | {len(splits)} | {' | '.join(cells)} |"


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():+.2f} ({values.min():+.2f} to {values.max():+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--every", type=int, default=1, help="only every N-th image, for a trial")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.data:
        for name in options.sets:
            run(name, options.data, options.every, options.splits)
            print("\n".join(tables([name])), flush=True)
    rows = tables(SETS)
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(head + "<!-- table -->\n\n" + "\n".join(rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
