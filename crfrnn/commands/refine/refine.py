"""Sharpen somebody's predictions: a photograph and probabilities in, the marginals of the dense CRF out."""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from crfrnn.commands.refine.scenes import refine_into
from crfrnn.commands.refine.whole import Image, Moment, Request, refine_whole
from crfrnn.commands.refine.windows import bytes_per_pixel
from crfrnn.filtering.kernels import Kernel, with_accuracy
from crfrnn.inference.settled import Iterations
from crfrnn.inference.solvers import Solver
from crfrnn.parameters import DEFAULT, CRFParameters
from crfrnn.runtime import memory, threads

SHARE = 0.5  # of the machine's memory: what takes more is worked on window by window, where its arrays are mapped
Predictions = TypeVar("Predictions", np.ndarray, Tensor, list[np.ndarray], list[Tensor])


def refine(
    image: Image | Sequence[Image],
    probabilities: Predictions | None = None,
    *,
    logits: Predictions | None = None,
    preset: str = DEFAULT,
    iterations: Iterations = 10,
    kernels: Sequence[Kernel | str] | None = None,
    normalization: str | None = None,
    accuracy: int | None = None,
    self_connection: bool = True,
    tolerance: float = 1e-3,
    solver: Solver | str | None = None,
    trace: Callable[[Moment], object] | None = None,
    temperature: float = 1.0,
    class_weights: Sequence[Sequence[float]] | None = None,
    spacing: Sequence[float] | None = None,
    standardize: bool = False,
    mask: Image | None = None,
    took: Callable[[int], object] | None = None,
) -> Predictions:
    """Mean-field marginals of a fully connected CRF whose unary term is a network's prediction.

    Args:
        image: the photograph, NumPy (H, W, 3) uint8 or torch (3, H, W) uint8. Any other guide of that size too: one
            channel (H, W), any number of channels, floats in the units of ``theta_beta``. A batch of one will do.
            With a preset, whole numbers of 16 bits are brought to 0..255, those of 10, 12 or 14 bits in use with a
            warning (docs/refine.md). A volume likewise, NumPy (z, y, x) or (z, y, x, C), torch (C, z, y, x); its
            predictions then have three axes in place of (H, W).
        probabilities: (L, H, W), summing to 1 over the labels; NumPy or torch. (H, W, L) is told apart by the image's
            size; where both would fit, it is (L, H, W). Of a binary network (H, W) or (1, H, W), the foreground alone;
            the background is 1 minus it. Further axes may have length 1: (1, L, H, W), nnU-Net's (L, 1, H, W).
        logits: instead of probabilities, the network's output before its softmax; of a binary network before its
            sigmoid. Minus infinity is a label that is impossible there.
        preset: ``present``, ``crfrnn``, ``pydensecrf``, ``deeplab-v1`` or ``deeplab-v2``; see `crfrnn.PRESETS`.
        iterations: T. "settled" are as many as each image needs until none of its marginals moves by more than
            `tolerance`, at most 100.
        kernels: instead of the preset's, such as ``[Bilateral(50, 5, weight=10), Spatial(3, weight=3)]``, or as texts,
            ``bilateral:50,5,10``; one alone needs no list.
        normalization: instead of the preset's: ``after``, ``symmetric``, ``before`` or ``none``.
        accuracy: of the bilateral filters, 1 to 3: how close to the exact CRF, for how much time (docs/accuracy.md). It
            takes the place of the kernels' own, which is 1 in the presets.
        self_connection: whether a pixel hears itself, as in every released code; False leaves the term j = i out.
        tolerance: labels are left out and come back as 0, which is as much faster as there are fewer labels, as long as
            they hold together, at every pixel, at most this share of the most probable label's probability. For any
            number of labels and iterations the result is the exact one of probabilities that are nowhere farther than
            this from the given ones; `inference/occurring.py` derives what the labels could have come to. 0 leaves none
            out.
        solver: what an iteration does, an object of `crfrnn.solvers` or its name, such as ``damped:0.5``; None is the
            paper's mean field, the fastest.
        trace: called with a `Moment` after each iteration, from t = 0, as ``moments.append`` for a list; for one image.
            It takes longer, as every iteration's marginals and energies are computed.
        temperature: divides the logits (the logarithms of the probabilities). Above 1 it tells the CRF to believe the
            network less, below 1 more, down to nothing but the network.
        class_weights: (M, L), a row for each kernel with what its weight is multiplied by for each class, of a binary
            network background and foreground. What ``crfrnn fit`` finds; `crfrnn.CRFParameters` reads and holds it.
        spacing: from one pixel to the next along each axis, (y, x) or (z, y, x); bandwidths of positions then count in
            its unit, millimetres as a rule, instead of in pixels. A MetaTensor of a volume knows it. Say it for a
            volume whose shape could be a picture's.
        standardize: bring each channel's intensities to 0..255, in which theta_beta then counts: from what 0.5 % are
            below to what 0.5 % are above (docs/volumes.md).
        took: called with the number of iterations, as ``counts.append`` for a list; of several images in their order.

    Returns:
        The marginals, in the shape, type (NumPy, torch on its device, MetaTensor) and dtype of what was given; the
        label map is their argmax over the labels, or where the foreground's alone are above a half. They are computed
        in float32.

        Lists of images and of predictions give a list in the same order, worked on by all cores.

    A picture whose array, or that of its predictions, is a `numpy.memmap`, and which may take more than half of the
    machine's memory, is worked on window by window (docs/rasters.md), and its marginals are a `numpy.memmap` too, of a
    temporary file without a name. `refine_windows` lets you choose both.

    Raises:
        ValueError: shapes that do not belong together, probabilities that are none, NaN, masked arrays, an image that
            is not in the units of the preset's theta_beta. The message begins with the argument's name.

    A probability of exactly 0 or 1 is a certainty that hardly any CRF overrules: soften hard labels first, as
    ``crfrnn refine --labels --confidence`` does.

    >>> image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    >>> probabilities = np.full((21, 24, 32), 1 / 21, np.float32)
    >>> refine(image, probabilities, preset="deeplab-v2").shape
    (21, 24, 32)
    """
    if (probabilities is None) == (logits is None):
        raise ValueError("probabilities: give either probabilities or logits, and not both")
    crf = CRFParameters.of_preset(
        preset,
        kernels=kernels,
        normalization=normalization,
        solver=solver,
        iterations=iterations,
        temperature=temperature,
        class_weights=class_weights,
        self_connection=self_connection,
        standardize=standardize,
    )
    settings = Request(
        name="probabilities" if logits is None else "logits",
        crf=replace(crf, kernels=with_accuracy(crf.kernels, accuracy)),
        tolerance=tolerance,
        colour_units=kernels is None,
        trace=trace,
        spacing=spacing,
        mask=mask,
        took=took,
    )
    if mask is not None and (trace is not None or isinstance(image, list | tuple)):
        several = "is of one image; call refine for each of the list"
        raise ValueError(f"mask: {several if trace is None else 'energies are of whole images; leave out trace'}")
    predictions: Any = probabilities if logits is None else logits
    if not isinstance(image, list | tuple) and not isinstance(predictions, list | tuple):
        work: Callable[..., Any] = _by_windows if _larger_than_memory(image, predictions, settings) else refine_whole
        return work(image, predictions, settings)
    if not isinstance(image, list | tuple) or not isinstance(predictions, list | tuple):
        raise ValueError(f"image: one of image and {settings.name} is a list; make both lists, or none")
    if trace is not None:
        raise ValueError("trace: follows one image; call refine for each of the list")
    if len(image) != len(predictions):
        raise ValueError(f"image: {len(image)} images, but {len(predictions)} {settings.name}")
    return _many(image, predictions, settings)  # type: ignore[return-value]


def _many(images: Sequence[Any], predictions: Sequence[Any], settings: Request) -> list[Any]:
    """One image for each thread where there are enough of them, else all threads for each image."""
    counts: list[list[int]] = [[] for _ in images]
    results = _each(images, predictions, [replace(settings, took=count.append) for count in counts])
    if settings.took is not None:
        for count in itertools.chain(*counts):
            settings.took(count)
    return results


def _each(images: Sequence[Any], predictions: Sequence[Any], settings: Sequence[Request]) -> list[Any]:
    def work(number: int) -> Any:
        try:
            return refine_whole(images[number], predictions[number], settings[number])
        except ValueError as error:
            raise ValueError(f"number {number} of the list: {error}") from error

    workers = threads.count()
    if workers == 1 or len(images) < workers:
        return [work(number) for number in range(len(images))]
    with threads.side_by_side(workers) as pool:
        return list(pool.map(work, range(len(images))))


def _larger_than_memory(image: Any, predictions: Any, request: Request) -> bool:
    """Whether a picture, or what belongs to it, lies in a file that is mapped into memory, and may take too much."""
    arrays = image, predictions
    if not all(isinstance(a, np.ndarray) for a in arrays) or not any(isinstance(a, np.memmap) for a in arrays):
        return False
    if image.ndim not in (2, 3) or (request.spacing is not None and len(request.spacing) != 2) or not image.size:
        return False
    height, width, *channels = image.shape
    labels = max(2, predictions.size // (height * width))
    return height * width * bytes_per_pixel(request.crf.kernels, labels, *channels or [1]) > _room() > 0


def _room() -> float:
    return SHARE * memory.machine()


def _by_windows(image: np.ndarray, predictions: np.ndarray, request: Request) -> np.ndarray:
    """The marginals, in a file without a name that is mapped into memory: it is gone when nobody has the array."""
    for name in ("trace", "took"):
        if getattr(request, name) is not None:
            raise ValueError(f"{name}: is of a whole image, and this one is larger than memory; leave it out")
    dtype = predictions.dtype if predictions.dtype.kind == "f" else np.dtype(np.float32)
    with tempfile.TemporaryFile() as file:
        out = np.memmap(file, dtype.newbyteorder("="), "w+", shape=predictions.shape)
    labels = max(2, predictions.size // (image.shape[0] * image.shape[1]))
    return refine_into(out, image, predictions, request, _room(), outside=1 / labels)
