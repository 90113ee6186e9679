"""A few strokes on a photo: `crfrnn segment --strokes` beside OpenCV's grabCut and scikit-image's random walker.

    python -m benchmarks.bm_strokes --voc PATH_TO/voc2012 --camvid PATH_TO/camvid \\
        --results strokes.json --out docs/strokes.md

Strokes are drawn by the rule of `ruled_strokes`; the photos of scikit-image, which need no data, have strokes drawn by
hand (`stroke_photos`) or by the rule. Every method gets the same strokes and the photo at its full size. grabCut knows
two classes only; it begins with everything that is not drawn as probable foreground, or as probable background. The
random walker sees L*a*b* / 100, and its beta is the best of 30, 130, 300, 1000, 3000, 5000 and 20000 on photos that are
not reported. Seconds are of the CPU. What stands in the file of results is not computed again, except for methods that
`--again` names.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from skimage.color import rgb2lab
from skimage.segmentation import random_walker

from benchmarks.inputs import machine
from benchmarks.ruled_strokes import NOTHING, VOID, Task, interval, ruled_strokes, score, tasks, use
from benchmarks.stroke_photos import photo_of, strokes_of, truth_of
from crfrnn.commands.segment.segment import segment_strokes
from crfrnn.commands.segment.stroke_features import photo_features

try:
    import cv2
except ImportError:
    cv2 = None

BETA = 3000.0  # of the random walker
Method = Callable[[Task], np.ndarray]
Results = dict[str, dict[str, dict[str, list[float]]]]  # data, photo, method -> mean IoU, near boundaries, seconds


def with_crf(task: Task) -> np.ndarray:
    return segment_strokes(task.photo, task.strokes).labels


def without_crf(task: Task) -> np.ndarray:
    return segment_strokes(task.photo, task.strokes, iterations=0).labels


def grab_cut(task: Task, foreground: bool) -> np.ndarray:
    """Five rounds, as in OpenCV's example."""
    assert cv2 is not None
    background, thing = task.classes
    mask = np.full(task.strokes.shape, cv2.GC_PR_FGD if foreground else cv2.GC_PR_BGD, np.uint8)
    mask[task.strokes == background], mask[task.strokes == thing] = cv2.GC_BGD, cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    whole = (0, 0, 1, 1)  # a rectangle, which a start with a mask does not look at
    cv2.grabCut(np.ascontiguousarray(task.photo[..., ::-1]), mask, whole, *models, 5, cv2.GC_INIT_WITH_MASK)
    return np.where((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), thing, background)


def walk(task: Task) -> np.ndarray:
    markers = np.where(task.strokes == NOTHING, 0, np.searchsorted(task.classes, task.strokes) + 1)
    walked = random_walker(rgb2lab(task.photo) / 100, markers, beta=BETA, mode="cg_j", channel_axis=2)
    return task.classes[np.clip(walked - 1, 0, None)]


METHODS: dict[str, Method] = {
    "with its CRF": with_crf,
    "without": without_crf,
    "grabCut, from the foreground": lambda task: grab_cut(task, foreground=True),
    "grabCut, from the background": lambda task: grab_cut(task, foreground=False),
    "random walker": walk,
}


def photos() -> Iterator[Task]:
    """Three tasks on the photos of scikit-image: a cat's parts, a table's things, and cat against background."""
    for name in ("chelsea", "coffee"):
        truth = truth_of(name)
        yield Task(name, photo_of(name), np.where(truth == -1, VOID, truth), strokes_of(name))
    truth = truth_of("chelsea")
    truth = np.where(truth == -1, VOID, np.minimum(truth, 2))
    yield Task("chelsea, whole", photo_of("chelsea"), truth, ruled_strokes(truth, seed=0))


def measure(data: str, given: Iterator[Task], results: Results, again: list[str], file: Path | None) -> None:
    """Fill in what is missing in the results, image by image."""
    rows = results.setdefault(data, {})
    for task in given:
        row = rows.setdefault(task.name, {})
        for name, method in METHODS.items():
            two = name.startswith("grabCut")
            if (name in row and name not in again) or (two and (len(task.classes) > 2 or cv2 is None)):
                continue
            start = time.process_time()
            labels = method(task)
            seconds = time.process_time() - start
            row[name] = [*score(labels, task.truth, task.strokes), seconds]
        print(
            f"{data} {task.name}: " + ", ".join(f"{name} {values[0]:.1f}" for name, values in row.items()), flush=True
        )
        if file is not None:
            file.write_text(json.dumps(results))


def table(results: Results) -> list[str]:
    """For each set of photos the means, with the intervals of mean IoU and of the lead over each rival."""
    lines = []
    for data, rows in results.items():
        two = {photo: row for photo, row in rows.items() if any(name.startswith("grabCut") for name in row)}
        groups = {f"{data}, all {len(rows)}": rows}
        if 0 < len(two) < len(rows):
            groups[f"{data}, the {len(two)} of two classes"] = two
        for title, chosen in groups.items():
            cells = [title, "mean IoU", "near boundaries", "lead of ours", "ours is better", "CPU s"]
            lines += ["", f"| {' | '.join(cells)} |", "|---" * len(cells) + "|", *_rows(chosen)]
    return lines[1:]


def _rows(rows: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    for name in METHODS:
        if not all(name in row for row in rows.values()):
            continue
        values = np.array([row[name] for row in rows.values()])
        ours = np.array([row["with its CRF"][0] for row in rows.values()])
        low, high = interval(values[:, 0])
        cells = [f"{values[:, 0].mean():.1f} ({low:.1f} to {high:.1f})", f"{values[:, 1].mean():.1f}"]
        lead = ours - values[:, 0]
        low, high = interval(lead)
        other = name != "with its CRF"
        cells += [f"{lead.mean():+.1f} ({low:+.1f} to {high:+.1f})", f"{np.mean(lead > 0):.0%}"] if other else ["", ""]
        yield f"| {name} | " + " | ".join(cells) + f" | {np.median(values[:, 2]):.2f} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--voc", type=Path, help="the folder voc2012; else left out")
    parser.add_argument("--camvid", type=Path, help="the folder camvid; else left out")
    parser.add_argument("--most", type=int, help="photos of each set")
    parser.add_argument("--model", type=Path, help="the folder of a model, instead of the one in the package")
    parser.add_argument("--results", type=Path, help="a file of results to go on with")
    parser.add_argument("--again", nargs="*", default=[], choices=METHODS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    use(options.model)
    results: Results = {}
    if options.results is not None and options.results.exists():
        results = json.loads(options.results.read_text())
    photo_features(photo_of("chelsea"))  # the first call, which loads and compiles
    sets = {"photos of scikit-image": photos()}
    for title, name in (("VOC", "voc"), ("CamVid", "camvid")):
        if (folder := getattr(options, name)) is not None:
            sets[title] = tasks(name, folder, report=True)
    for title, given in sets.items():
        measure(title, islice(given, options.most), results, options.again, options.results)
    rows = table(results)
    print("\n".join(rows))
    if options.out:
        head = options.out.read_text().split("<!-- table -->")[0] if options.out.exists() else ""
        options.out.write_text(f"{head}<!-- table -->\n\n{machine()}.\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
