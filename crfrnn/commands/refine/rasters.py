"""`crfrnn refine` of rasters: window by window, from the disk to the disk."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.job import Job, Outcome, Settings
from crfrnn.commands.refine.scenes import Scene, both_labels, each, refined, units
from crfrnn.commands.refine.windows import BEGUN, HELD, Window, planned
from crfrnn.data.kinds import gdal
from crfrnn.data.kinds.raster import Raster
from crfrnn.data.kinds.raster_labels import RasterLabels
from crfrnn.data.kinds.raster_predictions import RasterPredictions
from crfrnn.data.labels import LabelMap, LabelStyle
from crfrnn.data.predictions import Form
from crfrnn.filtering.kernels import per_pixel, with_accuracy
from crfrnn.inference.settled import SETTLED
from crfrnn.runtime import threads


@dataclass(frozen=True)
class _Source:
    """The predictions, wherever they are read from."""

    name: str  # of the argument of `refine`
    labels: int  # at least 2, or the only one of a label map
    style: LabelStyle
    form: Form  # in which probabilities are saved
    planes: Callable[[slice, slice], tuple[np.ndarray, np.ndarray | None]]  # as they are, and where there are any
    hard: bool = False  # a label map, whose unsure pixels have no opinion
    nodata: float | None = None  # of a label map
    masked: bool = True  # whether there may be none somewhere

    @classmethod
    def open(cls, job: Job, settings: Settings, image: Raster) -> "_Source":
        options = settings.options
        if options.kind == "labels":
            labels = RasterLabels.open(job.source, settings.unsure)
            count, frame = len(labels.style.values), labels.frame

            def soft(rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
                indices, valid = labels.indices(rows, columns)
                return LabelMap(indices, labels.style).probabilities(options.confidence), valid

            return cls("probabilities", count, labels.style, Form.usual(2), soft, True, frame.nodata, frame.masked)
        given = RasterPredictions.open(job.source, options.key, image.size)

        count = max(2, given.labels)
        return cls(options.kind, count, LabelStyle.voc(count), given.form, given.read, masked=given.masked)


@dataclass(frozen=True)
class _Core:
    """What came of a window."""

    indices: np.ndarray  # (h, w) labels, in few bytes, as a row of windows is held
    valid: np.ndarray  # (h, w), where there are any
    sure: int  # pixels that had one before
    changed: int  # of them


def refine_raster(job: Job, settings: Settings, share: float, progress: Callable[[int, int], object]) -> Outcome:
    """Read, refine and write one raster, in at most this share of the memory. The label map comes last."""
    image = settings.kind.open(job.images).with_channels(settings.channels)
    assert isinstance(image, Raster), "no other kind is windowed"
    image.check_place(job.source)
    source = _Source.open(job, settings, image)
    crf = settings.parameters
    crf = replace(crf, kernels=with_accuracy(crf.kernels, settings.options.accuracy))
    if settings.options.metres:
        crf = crf.scaled(per_pixel(image.frame.steps(), 2))
    guide, said = _units(image, settings)
    blocks = image.frame.layout.get("blockysize", 1), image.frame.layout.get("blockxsize", 1)
    room = (settings.memory - BEGUN - gdal.CACHE - HELD * image.size[1]) * share
    plan = planned(image.size, crf.kernels, source.labels, len(image.bands), room, threads.count(), blocks)

    def read(rows: slice, columns: slice) -> Scene:
        bands, valid = image.read(rows, columns)
        planes, known = source.planes(rows, columns)
        valid = valid if known is None else valid & known
        planes = planes if source.hard else both_labels(planes, valid, source.name)
        return Scene(guide(torch.from_numpy(bands)), torch.from_numpy(planes), torch.from_numpy(valid))

    counts: list[int] = []

    def work(window: Window) -> _Core:
        try:
            if source.labels == 1:  # which is everywhere
                kept = read(window.rows, window.columns)
                found = torch.ones_like(kept.predictions), kept
            else:
                found = refined(read, window, crf, source.name, settings.options.tolerance, counts.append)
        except ValueError as error:
            files = (*job.images, job.source)
            if any(str(file) in str(error) for file in files):
                raise
            raise ValueError(f"{', '.join(map(str, files))}: {error}") from error
        if save is not None:
            alone = source.form.labels is None
            planes = _planes(window, found, source.labels)
            with lock:
                save(window.rows, window.columns, planes[1:] if alone else planes)
        return _core(window, found, source)

    with ExitStack() as files:
        save, lock, masked = None, threading.Lock(), image.masked or source.masked
        write = files.enter_context(image.writing_labels(job.targets.lead, source.style, source.nodata, masked))
        if job.targets.probabilities is not None:  # which appears before the labels
            count = 1 if source.form.labels is None else source.labels
            save = files.enter_context(image.writing_planes(job.targets.probabilities, source.form, count, masked))
        strip: list[_Core] = []
        sure = changed = valid = 0
        for number, (window, core) in enumerate(each(work, plan.windows, plan.workers), 1):
            sure, changed, valid = sure + core.sure, changed + core.changed, valid + int(core.valid.sum())
            strip.append(core)
            if window.columns.stop == image.size[1]:
                indices, counted = ([getattr(core, name) for core in strip] for name in ("indices", "valid"))
                write(window.rows.start, np.concatenate(indices, axis=1), np.concatenate(counted, axis=1))
                strip = []
            progress(number, len(plan.windows))
        if not valid:
            raise ValueError(f"{job.images[0]}: every pixel is nodata or masked, here or in {job.source}")
    pixels = image.size[0] * image.size[1]
    notes = [f"bands {', '.join(image.channels)} {said}"]
    taken = counts if crf.iterations == SETTLED else []
    if len(plan.windows) > 1:
        notes.append(f"windows: {plan.described()}")
    if valid < pixels:
        notes.append(f"masked: {(pixels - valid) / pixels:.1%} of the pixels, which stay without a label")
    return Outcome(image.extent, source.style.names(), changed / max(1, sure), tuple(notes), tuple(taken))


def _units(image: Raster, settings: Settings) -> tuple[Callable[[Tensor], Tensor], str]:
    """What makes of counts (C, h, w) the units in which theta_beta counts, and how to say so."""
    if not settings.parameters.standardize and settings.options.kernel:
        return lambda bands: bands, "in counts"
    sample = torch.from_numpy(image.sample())
    if not sample.numel():
        raise ValueError(f"{image.frame.path}: every pixel that was looked at is nodata or masked; give --kernel")
    return units(sample, settings.parameters.standardize, str(image.frame.path))


def _core(window: Window, found: tuple[Tensor, Scene] | None, source: _Source) -> _Core:
    few = np.min_scalar_type(source.labels)
    if found is None:
        return _Core(np.zeros(window.shape, few), np.zeros(window.shape, bool), 0, 0)
    marginals, kept = found
    before = kept.predictions.max(dim=0)
    indices = marginals.max(dim=0).indices
    valid = torch.ones(window.shape, dtype=torch.bool) if kept.mask is None else kept.mask
    sure = valid & (before.values > 1 / source.labels) if source.hard and source.labels > 1 else valid
    changed = int((sure & (indices != before.indices)).sum())
    return _Core(indices.numpy().astype(few), valid.numpy(), int(sure.sum()), changed)


def _planes(window: Window, found: tuple[Tensor, Scene] | None, labels: int) -> np.ndarray:
    """The marginals (L, h, w), NaN where there are none."""
    if found is None:
        return np.full((labels, *window.shape), np.nan, np.float32)
    marginals, kept = found
    return (marginals if kept.mask is None else marginals.masked_fill(~kept.mask, torch.nan)).numpy()
