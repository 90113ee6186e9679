"""Sharpen somebody's predictions: a photograph and probabilities in, the marginals of the dense CRF out."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.inputs import LEAST_PROBABILITY, checked_predictions, fitting, logarithm
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.filtering.kernels import Kernel, with_accuracy
from crfrnn.inference.occurring import occurring
from crfrnn.inference.recurrence import iterates, marginals
from crfrnn.inference.settled import Iterations
from crfrnn.inference.solvers import MeanField, Solver
from crfrnn.parameters import DEFAULT, CRFParameters
from crfrnn.runtime import threads
from crfrnn.runtime.meta_tensors import like
from crfrnn.runtime.vectors import LANES

Image = np.ndarray | Tensor
Predictions = TypeVar("Predictions", np.ndarray, Tensor, list[np.ndarray], list[Tensor])


class Moment(NamedTuple):
    """Where a run stands after t iterations. The energies are of the labels that take part (`inference/energy.py`)."""

    t: int
    marginals: Any  # what `refine` would return with t iterations
    energy: float  # E(Q)
    free_energy: float  # E(Q) - H(Q)
    objective: float  # what the solver decreases: the free energy, or E(Q) + lambda r(Q)


@dataclass(frozen=True)
class _Settings:
    name: str  # of the argument that holds the predictions: probabilities or logits
    crf: CRFParameters
    tolerance: float
    colour_units: bool  # theta_beta is a preset's and counts in 0..255
    trace: Callable[[Moment], object] | None
    spacing: Sequence[float] | None
    mask: Image | None
    took: Callable[[int], object] | None

    @property
    def normalised(self) -> bool:
        """Whether the probabilities of a pixel sum to 1, or those whose logarithms the unary is."""
        return self.name == "probabilities" and self.crf.temperature == 1


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
    settings = _Settings(
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
    if not (isinstance(tolerance, Real) and 0 <= tolerance < 0.1):
        raise ValueError(f"tolerance: a probability of at least 0 and below 0.1, got {tolerance}")
    if not isinstance(image, list | tuple) and not isinstance(predictions, list | tuple):
        return _one(image, predictions, settings)
    if not isinstance(image, list | tuple) or not isinstance(predictions, list | tuple):
        raise ValueError(f"image: one of image and {settings.name} is a list; make both lists, or none")
    if trace is not None:
        raise ValueError("trace: follows one image; call refine for each of the list")
    if len(image) != len(predictions):
        raise ValueError(f"image: {len(image)} images, but {len(predictions)} {settings.name}")
    return _many(image, predictions, settings)  # type: ignore[return-value]


def _many(images: Sequence[Any], predictions: Sequence[Any], settings: _Settings) -> list[Any]:
    """One image for each thread where there are enough of them, else all threads for each image."""
    counts: list[list[int]] = [[] for _ in images]
    results = _each(images, predictions, [replace(settings, took=count.append) for count in counts])
    if settings.took is not None:
        for count in itertools.chain(*counts):
            settings.took(count)
    return results


def _each(images: Sequence[Any], predictions: Sequence[Any], settings: Sequence[_Settings]) -> list[Any]:
    def work(number: int) -> Any:
        try:
            return _one(images[number], predictions[number], settings[number])
        except ValueError as error:
            raise ValueError(f"number {number} of the list: {error}") from error

    workers = threads.count()
    if workers == 1 or len(images) < workers:
        return [work(number) for number in range(len(images))]
    with threads.side_by_side(workers) as pool:
        return list(pool.map(work, range(len(images))))


def _one(image: Any, predictions: Any, settings: _Settings) -> Any:
    """One image: to tensors, through the recurrence, and back to the form that the predictions had."""
    units = settings.colour_units, settings.spacing, settings.crf.standardize
    guide, planes, form, pixels, inside = fitting(image, predictions, settings.name, *units, settings.mask)
    if pixels is not None:
        settings = replace(settings, crf=settings.crf.scaled(pixels))

    def give_back(q: Tensor) -> Any:
        q = q if inside is None else torch.where(inside.to(q.device), q, 1 / q.shape[1])
        q = form.restored(q[0, 1:] if form.labels is None else q[0])
        if isinstance(predictions, Tensor):
            return like(q.to(predictions.dtype if predictions.is_floating_point() else torch.float32), predictions)
        dtype = np.asarray(predictions).dtype
        return q.numpy().astype(dtype.newbyteorder("=") if dtype.kind == "f" else np.float32, copy=False)

    with torch.no_grad():
        mask = None if inside is None else inside.to(planes.device).unsqueeze(0)
        filters = settings.crf.prepare(guide.to(planes.device), mask)
        del guide
        return give_back(_marginals(filters, planes.unsqueeze(0), settings, give_back))


def _marginals(
    filters: list[GaussianFilter], values: Tensor, settings: _Settings, give_back: Callable[[Tensor], Any]
) -> Tensor:
    """(1, L, *S) -> (1, L, *S). The copies of the labels that live at a time decide the memory."""
    crf, weights = settings.crf, settings.crf.kernel_weights(values.shape[1]).to(values.device)
    values, highest = checked_predictions(values, settings.name)
    # the logarithm of probabilities is left to the recurrence where nothing else is done with it
    floor = LEAST_PROBABILITY if settings.normalised and settings.trace is None else 0.0
    unary = values if floor else logarithm(values, settings.name)
    if crf.temperature != 1:
        unary = unary / crf.temperature
    labels = _labels(unary, highest if floor else None, settings)
    if len(labels) < unary.shape[1]:
        unary = unary[:, labels]
        weights = weights[:, labels] if weights.shape[1] > 1 else weights
    potts = 1 - torch.eye(len(labels), device=unary.device)

    def among_all(q: Tensor) -> Tensor:
        if len(labels) == values.shape[1]:
            return q
        out = q.new_zeros(values.shape)
        out[:, labels] = q
        return out

    if settings.trace is None:
        arguments = unary, filters, weights, potts, crf.iterations
        more = {"solver": crf.solver, "tolerance": settings.tolerance, "took": settings.took}
        return among_all(marginals(*arguments, floor=floor, **more))
    solver = crf.solver or MeanField()
    for now in iterates(unary, filters, weights, potts, crf.iterations, solver, settings.tolerance):
        energies = [value.item() for value in (now.energy, now.free_energy, solver.objective(now))]
        q = among_all(now.q)
        settings.trace(Moment(now.t, give_back(q), *energies))
    if settings.took is not None:
        settings.took(now.t)
    return q


def _labels(unary: Tensor, highest: Tensor | None, settings: _Settings) -> list[int]:
    """The labels that take part. highest (L,): the largest of each label, where the unary is left as probabilities."""
    every = list(range(unary.shape[1]))
    if settings.tolerance == 0 or any(kernel.weight < 0 for kernel in settings.crf.kernels):
        return every
    labels = occurring(unary, settings.tolerance, highest).tolist()
    # to take more than half of them out, and put them back, costs more than it saves, as most of these vanish
    return labels if len(every) <= LANES or 2 * len(labels) <= len(every) else every
