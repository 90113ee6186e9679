"""Scenes window by window, wherever they are: `windows.py` says why that gives what the whole scene would give."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.inputs import with_background
from crfrnn.commands.refine.whole import Request, refine_whole
from crfrnn.commands.refine.windows import BEGUN, Window, parse_memory, placed, planned
from crfrnn.data.predictions import Form
from crfrnn.filtering.guide_units import black_and_white, stretched
from crfrnn.filtering.kernels import Kernel, per_pixel, with_accuracy
from crfrnn.parameters import DEFAULT, CRFParameters
from crfrnn.runtime import threads

WHITE = 255.5  # beyond what is brightest in 0..255
SAMPLES = 1 << 20  # pixels that are looked at for the range of the channels
Result = TypeVar("Result")


class Scene(NamedTuple):
    """One window's arrays."""

    guide: Tensor  # (C, h, w) float32
    predictions: Tensor  # (L, h, w), L at least 2
    mask: Tensor | None  # (h, w) bool, where pixels count


def both_labels(planes: np.ndarray, mask: np.ndarray | None, name: str) -> np.ndarray:
    """`with_background`, whatever a foreground alone (1, h, w) holds outside of the mask; more labels as they are."""
    if len(planes) > 1:
        return planes
    return with_background(planes if mask is None else np.where(mask, planes, planes.dtype.type(0)), name)


class Reader(Protocol):
    def __call__(self, rows: slice, columns: slice) -> Scene: ...


def units(sample: Tensor, standardize: bool, name: str) -> tuple[Callable[[Tensor], Tensor], str]:
    """What makes of counts (C, h, w) the units in which a preset's theta_beta counts, and how to say so; from a sample
    (C, N) of them. ValueError, which begins with the name, where they are in others and not to be standardized."""
    low, high = (bound.item() for bound in sample.aminmax())
    if not standardize:
        if high > WHITE or low < 0 or high <= 1:
            raise ValueError(
                f"{name}: counts {low:g}..{high:g}, but theta_beta of a preset counts in 0..255; standardize them, or"
                " give a kernel with a theta_beta in counts"
            )
        return lambda bands: bands, "in counts"
    black, white = black_and_white(sample.unsqueeze(0))
    ranges = ", ".join(f"{b:g}..{w:g}" for b, w in zip(black[0].tolist(), white[0].tolist(), strict=True))
    return lambda bands: stretched(bands.unsqueeze(0), black, white)[0], f"standardized: {ranges} as 0..255"


def refined(
    read: Reader,
    window: Window,
    crf: CRFParameters,
    name: str,
    tolerance: float,
    took: Callable[[int], object] | None = None,
) -> tuple[Tensor, Scene] | None:
    """The marginals (L, h, w) of the core, and what was read for it; None where no pixel of it counts.

    A window settles by itself.
    """
    scene = read(window.seen_rows, window.seen_columns)
    mask = None if scene.mask is None or bool(scene.mask.all()) else scene.mask
    core = (..., *window.core)
    kept = Scene(scene.guide[core], scene.predictions[core], None if scene.mask is None else scene.mask[core])
    if mask is not None and not bool(mask[core].any()):
        return None
    rows, columns = window.seen_rows, window.seen_columns
    y = torch.arange(rows.start, rows.stop, dtype=torch.float32).view(1, -1, 1).expand(1, *scene.guide.shape[1:])
    x = torch.arange(columns.start, columns.stop, dtype=torch.float32).view(1, 1, -1).expand_as(y)
    crf = replace(crf, kernels=[placed(k, len(scene.guide)) for k in crf.kernels], standardize=False)
    request = Request(name, crf, tolerance, mask=mask, took=took)
    return refine_whole(torch.cat([x, y, scene.guide]), scene.predictions, request)[core], kept


def each(work: Callable[[Window], Result], windows: Sequence[Window], workers: int) -> Iterator[tuple[Window, Result]]:
    """What comes of each window, in their order, so many at a time."""
    if workers == 1:
        for window in windows:
            yield window, work(window)
        return
    with threads.side_by_side(workers) as pool:
        results: Any = pool.map(work, windows)
        with closing(results):  # what has not begun is given up where nobody asks for more
            yield from zip(windows, results, strict=True)


def refine_windows(
    image: np.ndarray,
    probabilities: np.ndarray | None = None,
    *,
    out: np.ndarray,
    logits: np.ndarray | None = None,
    memory: str = "2GB",
    mask: np.ndarray | None = None,
    preset: str = DEFAULT,
    kernels: Sequence[Kernel | str] | None = None,
    accuracy: int | None = None,
    tolerance: float = 1e-3,
    spacing: Sequence[float] | None = None,
    standardize: bool = False,
    **options: Any,
) -> np.ndarray:
    """`crfrnn.refine` of a picture that is larger than memory: window by window, in and out of memory-mapped arrays.

    Args:
        image: (H, W) or (H, W, C), an array of NumPy or a `numpy.memmap`, of which windows are read.
        probabilities: as in `refine`, likewise; or logits.
        out: what the result is written to: labels, where it is (H, W) of whole numbers, or else marginals, in the shape
            of the predictions.
        memory: what may be taken besides the arrays' own pages, such as ``2GB`` or ``900MB``.
        mask: (H, W), True where a pixel counts; the others get the largest number that `out` holds, or NaN.
        preset, kernels, accuracy, tolerance, spacing, standardize: as in `refine`, where the range of each channel is
            that of a million pixels.
        options: iterations, normalization, solver, temperature, class_weights, self_connection, as in `refine`.

    Returns:
        out.

    Raises:
        ValueError: as `refine`; where the memory is too small for the halo of the kernels (docs/rasters.md).

    >>> image, p = np.full((40, 60, 3), 99, np.uint8), np.full((2, 40, 60), 0.5, np.float16)
    >>> refine_windows(image, p, out=np.empty((40, 60), np.uint8)).shape
    (40, 60)
    """
    if (probabilities is None) == (logits is None):
        raise ValueError("probabilities: give either probabilities or logits, and not both")
    crf = CRFParameters.of_preset(preset, kernels=kernels, standardize=standardize, **options)
    crf = replace(crf, kernels=with_accuracy(crf.kernels, accuracy))
    name, given = ("probabilities", probabilities) if logits is None else ("logits", logits)
    request = Request(name, crf, tolerance, colour_units=kernels is None, spacing=spacing, mask=mask)
    assert given is not None
    return refine_into(out, image, given, request, parse_memory(memory) - BEGUN)


def refine_into(
    out: np.ndarray, image: np.ndarray, given: np.ndarray, request: Request, room: float, outside: float = np.nan
) -> np.ndarray:
    """`refine_windows`, in so many bytes; `outside` of the mask are marginals this."""
    if image.ndim not in (2, 3):
        raise ValueError(f"image: shape {image.shape}, expected (height, width) or (height, width, channels)")
    crf, mask, size, name = request.crf, request.mask, (image.shape[0], image.shape[1]), request.name
    form = Form.of(given.shape, [size])
    if form.size(given.shape) != size:
        raise ValueError(f"{name}: shape {given.shape} does not fit the image, which is {size[0]} x {size[1]}")
    as_labels = out.shape == size and out.dtype.kind in "ui"
    if not as_labels and (out.shape != given.shape or out.dtype.kind != "f"):
        raise ValueError(f"out: {out.dtype} {out.shape}, expected whole numbers {size} or floats {given.shape}")
    bands, planes = image if image.ndim == 3 else image[..., None], form.planes(given)
    if mask is not None and (mask := np.asarray(mask)).shape != size:
        raise ValueError(f"mask: shape {mask.shape}, expected {size}, True where a pixel counts")
    into, labels = None if as_labels else form.planes(out), max(2, len(planes))
    if as_labels and labels - 1 + (mask is not None) > np.iinfo(out.dtype).max:
        raise ValueError(f"out: {out.dtype} is too small for {labels} labels{' and a mask' * (mask is not None)}")
    scaled = _range(bands, mask, crf.standardize) if request.colour_units or crf.standardize else lambda guide: guide
    crf = crf if request.spacing is None else crf.scaled(per_pixel(request.spacing, 2))
    plan = planned(size, crf.kernels, labels, bands.shape[2], room, threads.count())

    def read(rows: slice, columns: slice) -> Scene:
        guide = torch.from_numpy(np.moveaxis(bands[rows, columns], 2, 0).astype(np.float32))
        inside = None if mask is None else mask[rows, columns] != 0
        values = torch.from_numpy(both_labels(planes[:, rows, columns].astype(np.float32), inside, name))
        return Scene(scaled(guide), values, None if inside is None else torch.from_numpy(inside))

    def work(window: Window) -> None:
        found = refined(read, window, crf, name, request.tolerance)
        where = window.rows, window.columns
        inside = None if mask is None else mask[where] != 0
        if into is None:
            indices = found[0].max(dim=0).indices.numpy() if found else 0
            out[where] = indices if inside is None else np.where(inside, indices, np.iinfo(out.dtype).max)
        else:
            q = found[0].numpy()[1 if len(into) == 1 else 0 :] if found else outside
            into[(..., *where)] = q if inside is None else np.where(inside, q, outside)

    for _ in each(work, plan.windows, plan.workers):
        pass
    return out


def _range(bands: np.ndarray, mask: np.ndarray | None, standardize: bool) -> Callable[[Tensor], Tensor]:
    """`units` of an image (H, W, C), from a grid of its pixels."""
    step = max(1, int((bands.shape[0] * bands.shape[1] / SAMPLES) ** 0.5))
    some = bands[::step, ::step]
    some = some.reshape(-1, bands.shape[2]) if mask is None else some[mask[::step, ::step] != 0]
    if not len(some):
        raise ValueError("mask: no pixel that was looked at counts; it is True where one does")
    return units(torch.from_numpy(some.T.astype(np.float32)), standardize, "image")[0]
