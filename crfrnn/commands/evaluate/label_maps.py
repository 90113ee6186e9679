"""`crfrnn evaluate --ground-truth`: label maps, or predictions, of anybody beside the truth: overlap and surfaces."""

import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.batch import run_all
from crfrnn.commands.evaluate.options import EvaluateOptions
from crfrnn.commands.evaluate.results import as_text, number, percent, write_scores
from crfrnn.commands.metrics import class_counts, class_dice, class_iou, confusion_matrix
from crfrnn.commands.progress import say
from crfrnn.data.datasets import VOID
from crfrnn.data.files import pair_by_stem, suffix_of
from crfrnn.data.kinds import Kind, kind_of
from crfrnn.data.predictions import Form

PERCENTILE = 95  # of the distances, the robust Hausdorff distance
UNITS = {"pixels": "px", "voxels": "mm"}


@dataclass(frozen=True)
class Case:
    truth: Path
    prediction: Path


@dataclass(frozen=True)
class _Scored:
    """One image: `counts` (3, L), and the mean and the robust Hausdorff distance (L,) of the surfaces, NaN without."""

    counts: Tensor
    mean_distance: Tensor
    hausdorff: Tensor


@dataclass(frozen=True)
class Comparison:
    """What one folder of label maps comes to: (L,) each, NaN for a class that does not occur.

    `iou` is over all images together; `dice` and the distances are means over the images, of which the distances leave
    out those where the truth or the prediction lacks the class, `missing` of them.
    """

    name: str
    images: int
    iou: Tensor
    dice: Tensor
    mean_distance: Tensor
    hausdorff: Tensor
    missing: Tensor

    @classmethod
    def of(cls, name: str, scored: Sequence[_Scored]) -> "Comparison":
        counts = torch.stack([one.counts for one in scored]).double()  # (N, 3, L)
        right, predicted, true = counts.unbind(1)
        return cls(
            name,
            len(scored),
            class_iou(*counts.sum(0)),
            class_dice(right, predicted, true).nanmean(dim=0),
            torch.stack([one.mean_distance for one in scored]).nanmean(dim=0),
            torch.stack([one.hausdorff for one in scored]).nanmean(dim=0),
            ((predicted + true > 0) & ((predicted == 0) | (true == 0))).sum(0),
        )

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain numbers by class; None where there was nothing to count."""
        measures = ("iou", "dice", "mean_distance", "hausdorff", "missing")
        return {"name": self.name, "images": self.images} | {
            measure: {name: number(value) for name, value in zip(names, getattr(self, measure).tolist(), strict=True)}
            for measure in measures
        }


def evaluate_label_maps(options: EvaluateOptions) -> None:
    """What the options ask for."""
    truths = Path(options.ground_truth or "")
    kind = kind_of_truths(truths)
    compared = [(name, cases_of(kind, truths, Path(name))) for name in options.model]
    highest = max(
        int(n) for n in run_cases(partial(highest_class, kind), {case.truth for _, cases in compared for case in cases})
    )
    names = [str(number) for number in range(highest + 1)]
    results = []
    for name, cases in compared:
        results.append(Comparison.of(name, run_cases(partial(_scored, kind, len(names)), cases)))
    tables = [_summary(results, UNITS[kind.points]), _by_class(results, names, UNITS[kind.points])]
    say("\n\n".join(as_text(table) for table in tables))
    if options.out is not None:
        written = write_scores(Path(options.out), [result.as_json(names) for result in results], tables)
        say(f"\nwrote {', '.join(map(str, written))}")


def kind_of_truths(truths: Path) -> type[Kind]:
    """ValueError where there are none, or none that can be compared."""
    if not truths.exists():
        raise ValueError(f"{truths}: there is no such file or folder")
    kind = kind_of(truths)
    if not kind.truth_suffixes:
        raise ValueError(f"{truths}: holds {kind.several}, which only refine takes")
    return kind


def cases_of(kind: type[Kind], truths: Path, predictions: Path) -> list[Case]:
    """The files of each image; ValueError where a truth has no prediction."""
    if not predictions.exists():
        raise ValueError(f"{predictions}: there is no such file or folder")
    if not truths.is_dir():
        if predictions.is_dir():
            raise ValueError(f"{predictions}: is a folder, and {truths} is one truth; give the file that belongs to it")
        return [Case(truths, predictions)]
    if not predictions.is_dir():
        raise ValueError(f"{predictions}: is one file, and {truths} is a folder; give the folder that belongs to it")
    suffixes = tuple(dict.fromkeys((*kind.truth_suffixes, *kind.prediction_suffixes)))
    matched = pair_by_stem(truths, predictions, suffixes, image_suffixes=kind.truth_suffixes)
    for path, reason in matched.problems.items():
        raise ValueError(f"{path}: {reason}")
    if matched.lonely:
        raise ValueError(f"{predictions}: has nothing for {matched.unused} of the truths, such as {matched.lonely[0]}")
    if not matched.pairs:
        raise ValueError(f"{predictions}: holds no {' or '.join(suffixes)} files")
    return [Case(*pair) for pair in matched.pairs.values()]


def run_cases(work: Any, jobs: Iterable[Any]) -> list[Any]:
    finished = run_all(work, list(jobs), "measuring")
    for _, reason in finished.failures:
        raise ValueError(reason)
    return finished.results


def highest_class(kind: type[Kind], truth: Path) -> int:
    """The last class in it."""
    values = kind.read_indices(truth)
    wrong = values[(values != VOID) & ((values < 0) | (values > VOID))]
    if wrong.size:
        raise ValueError(f"{truth}: holds {wrong[0]}, and class numbers are 0 to {VOID - 1}; {VOID} does not count")
    return int(values[values != VOID].max(initial=0))


def _scored(kind: type[Kind], classes: int, case: Case) -> _Scored:
    image, truth, prediction = read_case(kind, case)
    sure = truth != VOID
    if (unknown := prediction[sure & ((prediction < 0) | (prediction >= classes))]).size:
        raise ValueError(f"{case.prediction}: holds class {unknown[0]}, the truths have {classes} classes")
    confusion = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(truth), classes)
    spacing = image.spacing or (1.0,) * truth.ndim
    far = [(math.nan, math.nan)]  # of class 0, what surrounds the others
    far += [_distances((truth == label) & sure, (prediction == label) & sure, spacing) for label in range(1, classes)]
    mean, hausdorff = torch.tensor(far, dtype=torch.float64).unbind(1)
    return _Scored(class_counts(confusion), mean, hausdorff)


def read_case(kind: type[Kind], case: Case) -> tuple[Kind, np.ndarray, np.ndarray]:
    """The truth as an image, which knows its place and spacing; its class numbers (*S), int64, and those called."""
    image = kind.open([case.truth])
    image.check_place(case.prediction)
    truth, prediction = kind.read_indices(case.truth), _labels_of(image, case.prediction)
    if prediction.shape != truth.shape:
        raise ValueError(f"{case.prediction}: {prediction.shape}, but {case.truth} has {truth.shape}")
    return image, truth.astype(np.int64), prediction.astype(np.int64)


def _labels_of(image: Kind, path: Path) -> np.ndarray:
    """(*S), class numbers: of a label map as it is, of predictions the most probable one."""
    if suffix_of(path) in image.truth_suffixes:
        return image.read_indices(path)
    values = image.read_predictions(path)
    form = Form.of(values.shape, image.sizes, image.dimensions)
    planes = form.planes(values)
    if form.labels is not None:
        return planes.argmax(0)
    if not 0 <= planes[0].min() <= planes[0].max() <= 1:
        raise ValueError(
            f"{path}: one plane is the probability of the foreground, in 0..1, and this one reaches from"
            f" {planes[0].min():g} to {planes[0].max():g}; of logits take the sigmoid"
        )
    return planes[0] > 0.5


def _distances(truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Mean over both surfaces of how far the other is, and the robust Hausdorff distance; NaN where one has none."""
    if not truth.any() or not prediction.any():
        return math.nan, math.nan
    try:
        metrics = importlib.import_module("monai.metrics")
    except ImportError:
        raise ValueError("ground_truth: the distances need MONAI; pip install 'crfrnn[volumes]'") from None
    one, other = (torch.from_numpy(np.stack([~mask, mask])[None]) for mask in (prediction, truth))
    mean = metrics.compute_average_surface_distance(one, other, symmetric=True, spacing=list(spacing))
    far = metrics.compute_hausdorff_distance(one, other, percentile=PERCENTILE, spacing=list(spacing))
    return mean.item(), far.item()


def _summary(results: Sequence[Comparison], unit: str) -> list[list[str]]:
    rows = [["labels", "images", "mIoU", "Dice", f"surface {unit}", f"HD95 {unit}"]]
    for one in results:
        means = [one.dice[1:].nanmean(), one.mean_distance[1:].nanmean(), one.hausdorff[1:].nanmean()]
        dice, mean, far = (float(value) for value in means)
        rows.append([one.name, str(one.images), percent(one.iou.nanmean()), percent(dice), _far(mean), _far(far)])
    return rows


def _by_class(results: Sequence[Comparison], names: Sequence[str], unit: str) -> list[list[str]]:
    rows = [["class", "labels", "IoU", "Dice", f"surface {unit}", f"HD95 {unit}", "missing"]]
    for label, name in enumerate(names):
        for one in results:
            measures = (one.mean_distance[label], one.hausdorff[label])
            overlap = [percent(one.iou[label]), percent(one.dice[label])]
            rows.append([name, one.name, *overlap, *map(_far, measures), str(int(one.missing[label]))])
    return rows


def _far(value: Any) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
