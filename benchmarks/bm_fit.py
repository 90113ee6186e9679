"""What `crfrnn.fit` gains on real networks' outputs, cross-validated: Pascal VOC 2012 and CamVid.

    python -m benchmarks.bm_fit --data PATH_TO/data [--sets camvid native ...] [--every N] [--out docs/fit.md]

PATH_TO/data holds ``voc2012`` (see `bm_voc2012`); and ``camvid_coarse_logits/ID.npz`` with ``logits`` (11, h, w), of
images ``camvid/test/ID.*`` with labels ``camvid/testannot/ID.png`` (11 is void). Logits are upsampled bilinearly to
the image. Two folds, in the order of the names: no image is measured with parameters that it was fitted on. Each set
leaves its counts in benchmarks/results/fit, so that the table can be written again, or a set run again by itself.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from benchmarks.bm_voc2012 import POOLS, VOID, logits_of
from benchmarks.inputs import machine
from crfrnn.commands.fit.fit import ALONE, RUNGS, START, CrossValidation, Images, cross_validate, steps, ticks
from crfrnn.commands.fit.workers import workers
from crfrnn.commands.progress import steps_bar
from crfrnn.data.datasets.camvid import CLASSES as CAMVID
from crfrnn.data.datasets.voc import CLASSES as VOC

RESULTS = Path(__file__).parent / "results" / "fit"
CAMVID_VOID = 11
SETS = ("camvid", *POOLS)


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


def run(name: str, folder: Path, every: int) -> None:
    """Cross-validate on one set; the counts and the time go to `RESULTS`."""
    data = camvid(folder, every) if name == "camvid" else voc2012(folder / "voc2012", POOLS[name], every)
    start, processor = time.time(), time.process_time()
    with steps_bar(name) as bar, workers(ticks(bar, steps(len(data), folds=2))) as pool:
        samples = data.samples(pool)
        found = cross_validate(data, samples, pool)
    RESULTS.mkdir(parents=True, exist_ok=True)
    counts = {key: value.numpy().astype(np.int32) for key, value in found.counts.items()}
    np.savez_compressed(RESULTS / f"{name.replace(' ', '-')}.npz", **counts)  # type: ignore[arg-type]
    about = {"images": len(data), "minutes": round((time.time() - start) / 60, 1), "machine": machine()}
    about["core minutes"] = round((time.process_time() - processor) / 60, 1)
    (RESULTS / f"{name.replace(' ', '-')}.json").write_text(json.dumps(about, indent=2) + "\n")
    print("\n".join(table([name])))


def table(names: Sequence[str]) -> list[str]:
    """The report on the sets that were run: gains over the network alone, then each class."""
    lines = [
        "| | network alone | best preset | scalar weights | class weights | worst class |",
        "|---|---|---|---|---|---|",
    ]
    details = []
    for name in names:
        path = RESULTS / f"{name.replace(' ', '-')}.npz"
        if not path.exists():
            continue
        with np.load(path) as stored:
            found = CrossValidation({key: torch.from_numpy(stored[key]).long() for key in stored.files})
        alone = found.scores(ALONE)
        cells = [str(found.gain(kind)) for kind in (START, *RUNGS)]
        change = 100 * (found.scores(found.best).iou - alone.iou)
        classes = (CAMVID if name == "camvid" else VOC).names
        worst = int(change.argmin())
        lines.append(
            f"| {name} | {100 * alone.mean_iou:.2f} | {' | '.join(cells)} | {classes[worst]} {change[worst]:+.2f} |"
        )
        about = json.loads(path.with_suffix(".json").read_text())
        each = ", ".join(f"{label} {value:+.1f}" for label, value in zip(classes, change.tolist(), strict=True))
        details.append(
            f"{name}: {about['images']} images, chosen {found.best}, {found.gain(found.best, START)} over the preset;"
            f" {about['core minutes']} core minutes, {about['minutes']} minutes on {about['machine']}. {each}."
        )
    return [*lines, "", *(f"- {detail}" for detail in details)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--every", type=int, default=1, help="only every N-th image, for a trial")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.data:
        for name in options.sets:
            run(name, options.data, options.every)
    rows = table(SETS)
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(head + "<!-- table -->\n\n" + "\n".join(rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
