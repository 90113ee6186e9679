"""`crfrnn evaluate --predictions`: anybody's predictions against the truth, without their network, and what refining
them gained."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from crfrnn.commands.evaluate.label_maps import Case, cases_of, highest_class, kind_of_truths, read_case, run_cases
from crfrnn.commands.evaluate.options import EvaluateOptions
from crfrnn.commands.evaluate.results import as_text, number, percent, write_scores
from crfrnn.commands.gain import Gain, gain, iou, mean_iou
from crfrnn.commands.metrics import boundary_rings, class_counts, confusion_matrix
from crfrnn.commands.progress import say
from crfrnn.data.datasets import VOID
from crfrnn.data.kinds import Kind

RADII = (2, 5)  # pixels from a boundary


def evaluate_predictions(options: EvaluateOptions) -> None:
    """What the options ask for: mean IoU, that near boundaries, and the gain of the refined ones with its interval."""
    truths = Path(options.truth or "")
    kind = kind_of_truths(truths)
    sets = {"predictions": options.predictions, "refined": options.refined}
    cases = {name: cases_of(kind, truths, Path(folder)) for name, folder in sets.items() if folder}
    classes = 1 + max(map(int, run_cases(partial(highest_class, kind), [case.truth for case in cases["predictions"]])))
    counts = {name: torch.stack(run_cases(partial(_counts, kind, classes), some)) for name, some in cases.items()}
    measures = ["mIoU", *(f"mIoU {radius} px" for radius in RADII)][: counts["predictions"].shape[1]]
    gains = []
    if "refined" in counts:
        gains = list(map(gain, counts["refined"].unbind(1), counts["predictions"].unbind(1)))
    tables = [_summary(counts, measures, gains), _by_class(counts, classes)]
    images = len(counts["predictions"])
    say(f"{images} image{'s' * (images > 1)}\n\n" + "\n\n".join(map(as_text, tables)))
    if gains:
        of_one = ", which says nothing for one image" * (images == 1)
        say(f"\ngain: refined less predictions, with the 95 % interval of a bootstrap over the images{of_one}")
    if options.out is not None:
        scores = {name: _scores(one, measures) for name, one in counts.items()}
        found = {"images": images, **scores}
        if gains:
            found["gain"] = {name: vars(one) for name, one in zip(measures, gains, strict=True)}
        say(f"\nwrote {', '.join(map(str, write_scores(Path(options.out), found, tables)))}")


def _counts(kind: type[Kind], classes: int, case: Case) -> Tensor:
    """(1 + radii, 3, L), the `class_counts` of one image, of all of it and near boundaries; of a volume of all of it.

    A class that no truth has is wrong wherever it is called, and counts for no class of its own.
    """
    _, truth, prediction = read_case(kind, case)
    prediction[(prediction < 0) | (prediction >= classes)] = classes
    called, true = torch.from_numpy(prediction), torch.from_numpy(truth)
    masks = [true]
    if true.dim() == 2:
        rings = boundary_rings(true, max(RADII))
        masks += [torch.where(rings <= radius, true, VOID) for radius in RADII]
    every = [class_counts(confusion_matrix(called, mask, classes + 1)) for mask in masks]
    return torch.stack(every)[:, :, :classes]


def _summary(counts: dict[str, Tensor], measures: Sequence[str], gains: Sequence[Gain]) -> list[list[str]]:
    rows = [["labels", *measures]]
    for name, one in counts.items():
        rows.append([name, *(percent(mean_iou(some)) for some in one.unbind(1))])
    return [*rows, ["gain", *map(str, gains)]] if gains else rows


def _by_class(counts: dict[str, Tensor], classes: int) -> list[list[str]]:
    columns = [iou(one[:, 0]).tolist() for one in counts.values()]
    return [["class", *counts]] + [
        [str(label), *(percent(column[label]) for column in columns)] for label in range(classes)
    ]


def _scores(counts: Tensor, measures: Sequence[str]) -> dict[str, object]:
    """Fractions of 1; None for a class that does not occur."""
    means = {name: mean_iou(one) for name, one in zip(measures, counts.unbind(1), strict=True)}
    by_class = iou(counts[:, 0]).tolist()
    return {**means, "iou": list(map(number, by_class))}
