"""`crfrnn fit`: folders of images, predictions and labels in, a file with a CRF's parameters out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from crfrnn.commands.batch import on_cores
from crfrnn.commands.errors import UsageError
from crfrnn.commands.fit.fit import Images, fit_images
from crfrnn.commands.fit.options import FitOptions
from crfrnn.commands.progress import say
from crfrnn.commands.refine.inputs import with_background
from crfrnn.data.datasets import VOID
from crfrnn.data.datasets.dataset import Classes
from crfrnn.data.files import Pairs, channels_of, pair_by_stem, stem_of, writing
from crfrnn.data.kinds import Kind, kind_of
from crfrnn.data.predictions import Form, resized
from crfrnn.parameters import CRFParameters


@on_cores
def fit_files(options: FitOptions) -> None:
    """What the options ask for; UsageError, before anything is read, where nobody could mean it."""
    _check_preset(options.preset)
    folders = [Path(folder) for folder in (options.images, options.predictions, options.ground_truth)]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
    kind = kind_of(folders[0])
    if not kind.truth_suffixes:
        raise ValueError(f"{folders[0]}: holds {kind.several}, which only refine takes")
    if kind.windowed:
        raise ValueError(f"{folders[0]}: holds {kind.several}, and fit wants pictures; cut some out, as PNGs of 8 bits")
    files, left_out = _matched(kind, *folders)
    if len(files) < 2:
        reason = f"; left out: {left_out}" if left_out else ""
        raise ValueError(f"images: {len(files)} with predictions and label map, but a fit needs at least 2{reason}")
    if not 2 <= options.folds <= len(files):
        raise UsageError(f"folds: must be 2 to {len(files)}, the number of images, got {options.folds}")
    first = [files[0].read(options)]  # for the number of classes; it need not be read again
    names = _names(options.classes, len(first[0][1]))
    classes = Classes(tuple(names), void=frozenset({VOID, options.void}))

    def read(one: _Files) -> tuple[Any, ...]:
        image, values = first.pop() if first and one is files[0] else one.read(options)
        image.check_place(one.labels)
        return image.guide(), values, classes.of(image.read_indices(one.labels), one.labels), image.spacing

    data = Images(_Lazy(files, read), options.logits, [str(one.image) for one in files], options.standardize)
    if left_out:
        _note(f"fitting on {len(files)} images with predictions and label map; left out: {left_out}")
    chosen = (options.preset, options.folds, options.iterations, options.seed)
    try:
        fit = fit_images(data, *chosen, classes=names if options.classes else None, say=_note)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {options.out} was not written") from None
    text = fit.parameters.as_yaml()
    with writing(Path(options.out)) as file:
        file.write(text.encode())
    _show(fit.table(names), f"mean IoU on held-out images, {options.folds} folds")
    say(fit.verdict())
    say(f"wrote {options.out}; crfrnn refine --config {options.out} uses it")


@dataclass(frozen=True)
class _Files:
    """Those of one image of a kind."""

    kind: type[Kind]
    image: Path
    predictions: Path
    labels: Path

    def read(self, options: FitOptions) -> tuple[Kind, np.ndarray]:
        """The image, turned as its predictions are, and these, (L, *S) with L at least 2, in its size."""
        image = self.kind.open(channels_of(self.image, stem_of(self.predictions).name))
        image.check_place(self.predictions)
        values = image.read_predictions(self.predictions, options.key)
        values = Form.of(values.shape, image.sizes, image.dimensions).planes(values)
        image = image.fitting(values.shape[1:])
        if values.shape[1:] != image.size:
            values = resized(values, image.size, (self.predictions, self.image), options.resize)
        return image, with_background(values, "logits" if options.logits else "probabilities")


class _Lazy(Sequence[Any]):
    """Items that are read when they are needed."""

    def __init__(self, files: Sequence[_Files], read: Callable[[_Files], Any]):
        self._files, self._read = files, read

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: Any) -> Any:
        return self._read(self._files[number])


def _check_preset(preset: str | None) -> None:
    if preset is not None:
        try:
            CRFParameters.of_preset(preset)
        except ValueError as error:
            raise UsageError(str(error)) from None


def _matched(kind: type[Kind], images: Path, predictions: Path, truths: Path) -> tuple[list[_Files], str]:
    """The images that have both predictions and a label map; and in words those of which an image lacks the other."""
    values, labels = (
        pair_by_stem(images, folder, suffixes, image_suffixes=kind.suffixes)
        for folder, suffixes in ((predictions, kind.prediction_suffixes), (truths, kind.truth_suffixes))
    )
    alone = {
        "predictions": values.problems | _alone(values, labels, f"no label map of that name in {truths}"),
        "label maps": labels.problems | _alone(labels, values, f"no predictions of that name in {predictions}"),
    }
    left_out = [
        f"{len(files)} of the {kind} ({path}: {files[path]})"
        for kind, files in alone.items()
        for path in sorted(files)[:1]
    ]
    common = sorted(values.pairs.keys() & labels.pairs.keys())
    return [_Files(kind, *values.pairs[stem], labels.pairs[stem][1]) for stem in common], " and ".join(left_out)


def _alone(present: Pairs, partners: Pairs, reason: str) -> dict[Path, str]:
    return {pair[1]: reason for stem, pair in present.pairs.items() if stem not in partners.pairs}


def _note(text: str) -> None:
    say(f"note: {text}", flush=True)  # at once, also into a pipe: what follows takes minutes


def _names(path: str | None, number: int) -> list[str]:
    if path is None:
        return [str(label) for label in range(number)]
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"classes: {path} is not a readable text file ({error})") from None
    if len(names) != number:
        raise ValueError(f"classes: {path} has {len(names)} names, but the predictions have {number} classes")
    return names


def _show(rows: Sequence[Sequence[str]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows[1:]:
        table.add_row(*row, end_section=row is rows[-2])
    Console(width=None).print(table)
