"""Checks before training: read every file once, count what is there, and name what does not fit."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from crfrnn.commands.batch import run_all
from crfrnn.commands.check_data.options import CheckDataOptions
from crfrnn.commands.metrics import doubts
from crfrnn.commands.progress import say
from crfrnn.data.config import DataConfig, read_data_config
from crfrnn.data.datasets import VOID, SegmentationDataset
from crfrnn.data.splits import open_split

SHOWN = 20  # problems that are printed; more of them have one cause


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    `histogram` (L,) counts the pixels of each class, `void` those that do not count, `sizes` the (width, height) of
    the files, `problems` has one line for each sample that cannot be used.
    """

    split: str
    samples: int
    sizes: Counter[tuple[int, int]]
    histogram: np.ndarray
    void: int
    problems: list[str]


def check_split(dataset: SegmentationDataset, split: str) -> SplitReport:
    """Read every sample of a data set once."""

    def look(index: int) -> tuple[tuple[int, int], np.ndarray]:
        sample = dataset.read(index)
        counts = np.bincount(sample.mask.numpy().ravel(), minlength=VOID + 1)
        return (sample.mask.shape[1], sample.mask.shape[0]), counts

    finished = run_all(look, range(len(dataset)), f"checking {split}")
    counts = sum((count for _, count in finished.results), np.zeros(VOID + 1, np.int64))
    sizes = Counter(size for size, _ in finished.results)
    problems = [reason for _, reason in finished.failures]
    if len(finished.results) and not counts[: len(dataset.classes)].any():
        problems.append(f"{split}: every pixel is void, there is nothing to learn from")
    return SplitReport(split, len(dataset), sizes, counts[: len(dataset.classes)], int(counts[VOID]), problems)


def check(config: DataConfig, splits: tuple[str, ...]) -> tuple[list[SplitReport], list[str]]:
    """Reports of these splits, and one line for each problem; a split that cannot be opened is a problem too."""
    reports, problems = [], []
    opened: dict[str, SegmentationDataset] = {}
    for split in dict.fromkeys(splits):
        try:
            opened[split] = open_split(config, split)
        except ValueError as error:
            problems.append(str(error))
            continue
        report = check_split(opened[split], split)
        reports.append(report)
        problems += report.problems
    return reports, list(dict.fromkeys(problems + _shared(opened)))


def _shared(opened: dict[str, SegmentationDataset]) -> list[str]:
    """Photographs that are in two splits: what is trained on says nothing about anything else."""
    lines = []
    names = {split: {pair.image.resolve() for pair in dataset.pairs} for split, dataset in opened.items()}
    splits = list(names)
    for number, first in enumerate(splits):
        for second in splits[number + 1 :]:
            if both := names[first] & names[second]:
                lines.append(f"{min(both)}: in {first} and in {second} ({len(both)} such images)")
    return lines


def describe(reports: list[SplitReport], names: tuple[str, ...]) -> str:
    """The reports as text: counts, sizes, the share of each class in each split, and what is doubtful in one."""
    lines = []
    for report in reports:
        total = max(1, int(report.histogram.sum()) + report.void)
        common = ", ".join(f"{w} x {h} ({count})" for (w, h), count in report.sizes.most_common(3))
        further_sizes = f" and {len(report.sizes) - 3} more sizes" if len(report.sizes) > 3 else ""
        lines.append(
            f"{report.split}: {report.samples} images, {common}{further_sizes},"
            f" {1 - report.void / total:.1%} of the pixels labelled, {report.void / total:.1%} void"
        )
    width = max(len(name) for name in names)
    lines += ["", f"{'class':<{width + 4}}" + "".join(f"{report.split:>14}" for report in reports)]
    for number, name in enumerate(names):
        shares = [report.histogram[number] / max(1, report.histogram.sum()) for report in reports]
        cells = "".join(f"{share:>13.3%} " for share in shares).rstrip()
        lines.append(f"{number:>3} {name:<{width}}{cells}{'   (nowhere)' * (not any(shares))}")
    for report in reports:
        lines += [f"note: {report.split}: {doubt}" for doubt in doubts(report.histogram.tolist(), report.void, names)]
    return "\n".join(lines)


def check_data(options: CheckDataOptions) -> None:
    """What the options ask for; a ValueError with all problems where there are any."""
    data = read_data_config(options.configuration, options.root)
    without_test = _why_without_test(data) if options.splits is None else ""
    own = (data.train, data.val) if without_test else (data.train, data.val, data.test)
    reports, problems = check(data, tuple(options.splits.split(",")) if options.splits else own)
    if reports:
        names = open_split(data, reports[0].split).classes.names
        say(
            f"{data.name} in {data.root}, {len(names)} classes"
            + (f", scaled to {data.size[0]} x {data.size[1]}" if data.size else "")
        )
        say(describe(reports, names))
    if without_test:
        say(f"note: left out the test split: {without_test}")
    if problems:
        rest = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ValueError(
            "\n  ".join([f"{len(problems)} problems", *problems[:SHOWN], *rest]) if len(problems) > 1 else problems[0]
        )
    say("no problems found")


def _why_without_test(data: DataConfig) -> str:
    """Why the test split cannot be opened; "" where it can. Without one, a network can be trained all the same."""
    try:
        open_split(data, data.test)
    except ValueError as error:
        return str(error).removeprefix("data: ")
    return ""
