"""Sharpen somebody's predictions: a photograph and probabilities in, the marginals of the dense CRF out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.value_range import value_range
from crfrnn.filtering.kernels import Kernel, with_accuracy
from crfrnn.inference.recurrence import iterates, marginals
from crfrnn.inference.solvers import MeanField, Solver, find_solver
from crfrnn.parameters import check_class_weights, check_temperature, find_preset
from crfrnn.runtime import threads

Image = np.ndarray | Tensor
Predictions = TypeVar("Predictions", np.ndarray, Tensor, list[np.ndarray], list[Tensor])

SMALLEST = 1e-10  # probabilities below count as this, so that their logarithm is finite
SUM_TOLERANCE = 0.05  # what storage as float16 or in 8 bits may do to a sum of one


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
    kernels: tuple[Kernel, ...]
    normalization: str
    self_connection: bool
    iterations: int
    tolerance: float
    temperature: float
    class_weights: Sequence[Sequence[float]] | None
    colour_units: bool  # theta_beta is a preset's and counts in 0..255
    solver: Solver | None
    trace: Callable[[Moment], object] | None


def refine(
    image: Image | Sequence[Image],
    probabilities: Predictions | None = None,
    *,
    logits: Predictions | None = None,
    preset: str = "crfrnn",
    iterations: int = 10,
    kernels: Sequence[Kernel] | None = None,
    normalization: str | None = None,
    accuracy: int | None = None,
    self_connection: bool = True,
    tolerance: float = 1e-3,
    solver: Solver | str | None = None,
    trace: Callable[[Moment], object] | None = None,
    temperature: float = 1.0,
    class_weights: Sequence[Sequence[float]] | None = None,
) -> Predictions:
    """Mean-field marginals of a fully connected CRF whose unary term is a network's prediction.

    Args:
        image: the photograph, NumPy (H, W, 3) uint8 or torch (3, H, W) uint8. Any other guide of that size too: one
            channel (H, W), any number of channels, floats in the units of ``theta_beta``.
        probabilities: (L, H, W), L at least 2, summing to 1 over the labels; NumPy or torch. (H, W, L) is told apart
            by the image's size, and comes back as it was given; where both would fit, it is (L, H, W).
        logits: instead of probabilities, the network's output before its softmax.
        preset: ``crfrnn``, ``pydensecrf``, ``deeplab-v1`` or ``deeplab-v2``; see `crfrnn.PRESETS`.
        iterations: T.
        kernels: instead of the preset's, such as ``[Bilateral(50, 5, weight=10), Spatial(3, weight=3)]``.
        normalization: instead of the preset's: ``after``, ``symmetric``, ``before`` or ``none``.
        accuracy: of the bilateral filters, 1 to 3: how close to the exact CRF, for how much time (docs/accuracy.md). It
            takes the place of the kernels' own, which is 1 in the presets.
        self_connection: whether a pixel hears itself, as in every released code; False leaves the term j = i out.
        tolerance: labels that are nowhere more probable than this are left out and come back as 0, which is as much
            faster as there are fewer labels. With w the sum of the kernels' weights their marginals could not have
            risen above about ``tolerance * exp(w * tolerance)`` anywhere (normalisation "after": a message is at most
            its label's largest marginal). 0 leaves none out.
        solver: what an iteration does, an object of `crfrnn.solvers` or its name, such as ``damped:0.5``; None is the
            paper's mean field, the fastest.
        trace: called with a `Moment` after each iteration, from t = 0, as ``moments.append`` for a list; for one image.
            It takes longer, as every iteration's marginals and energies are computed.
        temperature: divides the logits (the logarithms of the probabilities). Above 1 it tells the CRF to believe the
            network less, below 1 more, down to nothing but the network.
        class_weights: (M, L), a row for each kernel with what its weight is multiplied by for each class. What
            ``crfrnn fit`` finds; `crfrnn.CRFParameters` reads and holds all of it.

    Returns:
        The marginals, in the shape, type (NumPy or torch, on its device) and dtype of what was given; the label map
        is their argmax over the labels. They are computed in float32.

        Lists of images and of predictions give a list in the same order, worked on by all cores.

    Raises:
        ValueError: shapes that do not belong together, probabilities that are none, NaN, an image that is not in the
            units of the preset's theta_beta. The message begins with the argument's name.

    A probability of exactly 0 or 1 is a certainty that hardly any CRF overrules: soften hard labels first, as
    ``crfrnn refine --labels --confidence`` does.

    >>> image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    >>> probabilities = np.full((21, 24, 32), 1 / 21, np.float32)
    >>> refine(image, probabilities, preset="deeplab-v2").shape
    (21, 24, 32)
    """
    if (probabilities is None) == (logits is None):
        raise ValueError("probabilities: give either probabilities or logits, and not both")
    given: Any = probabilities if logits is None else logits
    chosen = find_preset(preset)
    settings = _Settings(
        name="probabilities" if logits is None else "logits",
        kernels=with_accuracy(chosen.kernels if kernels is None else tuple(kernels), accuracy),
        normalization=chosen.normalization if normalization is None else normalization,
        self_connection=self_connection,
        iterations=iterations,
        tolerance=tolerance,
        temperature=temperature,
        class_weights=class_weights,
        colour_units=kernels is None,
        solver=find_solver(solver) if isinstance(solver, str) else solver,
        trace=trace,
    )
    if not settings.kernels:
        raise ValueError("kernels: give at least one")
    if not 0 <= tolerance < 0.1:
        raise ValueError(f"tolerance: a probability of at least 0 and below 0.1, got {tolerance}")
    check_temperature(temperature)
    if not isinstance(image, list | tuple) and not isinstance(given, list | tuple):
        return _one(image, given, settings)
    if not isinstance(image, list | tuple) or not isinstance(given, list | tuple):
        raise ValueError(f"image: one of image and {settings.name} is a list; make both lists, or none")
    if trace is not None:
        raise ValueError("trace: follows one image; call refine for each of the list")
    if len(image) != len(given):
        raise ValueError(f"image: {len(image)} images, but {len(given)} {settings.name}")
    return _many(image, given, settings)  # type: ignore[return-value]


def _many(images: Sequence[Any], given: Sequence[Any], settings: _Settings) -> list[Any]:
    """One image for each thread where there are enough of them, else all threads for each image."""

    def work(number: int) -> Any:
        try:
            return _one(images[number], given[number], settings)
        except ValueError as error:
            raise ValueError(f"number {number} of the list: {error}") from error

    workers = threads.count()
    if workers == 1 or len(images) < workers:
        return [work(number) for number in range(len(images))]
    with threads.side_by_side(workers) as pool:
        return list(pool.map(work, range(len(images))))


def _one(image: Any, given: Any, settings: _Settings) -> Any:
    """One image: to tensors, through the recurrence, and back to what was given."""
    guide = _guide(image, settings.colour_units)
    values = _tensor(given, settings.name)
    labels_last = _labels_last(values, guide, settings.name)
    planes = values.movedim(-1, 0) if labels_last else values

    def give_back(q: Tensor) -> Any:
        q = q[0].movedim(0, -1) if labels_last else q[0]
        if isinstance(given, Tensor):
            return q.to(values.dtype if values.is_floating_point() else torch.float32)
        dtype = given.dtype if given.dtype.kind == "f" else np.dtype(np.float32)
        return q.numpy().astype(dtype.newbyteorder("="), copy=False)

    with torch.no_grad():
        return give_back(_marginals(guide.to(values.device), planes.unsqueeze(0), settings, give_back))


def checked(image: Image, predictions: Any, name: str) -> tuple[Tensor, Tensor]:
    """One image in the form in which a CRF takes it: guide (1, C, H, W), and U (1, L, H, W) float32.

    `name` is ``probabilities`` or ``logits``. Raises `refine`'s ValueErrors.
    """
    guide = _guide(image, colour_units=True)
    values = _tensor(predictions, name)
    planes = values.movedim(-1, 0) if _labels_last(values, guide, name) else values
    return guide, unary_logits(planes.unsqueeze(0), name)


def _marginals(guide: Tensor, values: Tensor, settings: _Settings, give_back: Callable[[Tensor], Any]) -> Tensor:
    """(1, C, H, W), (1, L, H, W) -> (1, L, H, W). The copies of the labels that live at a time decide the memory."""
    filters = [kernel.prepare(guide, normalization=settings.normalization) for kernel in settings.kernels]
    if not settings.self_connection:
        filters = [gaussian.without_self() for gaussian in filters]
    weights = torch.tensor([[float(kernel.weight)] for kernel in settings.kernels], device=values.device)
    if settings.class_weights is not None:
        check_class_weights(settings.class_weights, len(settings.kernels), values.shape[1])
        weights = weights * torch.tensor(settings.class_weights, device=values.device)
    values, highest = _checked_predictions(values, settings.name)
    # the logarithm of probabilities is left to the recurrence where nothing else is done with it
    smallest = SMALLEST if _normalised(settings) and settings.trace is None else 0.0
    unary = values if smallest else _logarithm(values, settings.name)
    if settings.temperature != 1:
        unary = unary / settings.temperature
    labels = _occurring(unary, highest if _normalised(settings) else None, settings)
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
        arguments = unary, filters, weights, potts, settings.iterations
        return among_all(marginals(*arguments, solver=settings.solver, smallest=smallest))
    solver = settings.solver or MeanField()
    for now in iterates(unary, filters, weights, potts, settings.iterations, solver):
        energies = [value.item() for value in (now.energy, now.free_energy, solver.objective(now))]
        q = among_all(now.q)
        settings.trace(Moment(now.t, give_back(q), *energies))
    return q


def _normalised(settings: _Settings) -> bool:
    """Whether the probabilities of a pixel sum to 1, or those whose logarithms the unary is."""
    return settings.name == "probabilities" and settings.temperature == 1


def _occurring(unary: Tensor, highest: Tensor | None, settings: _Settings) -> list[int]:
    """The labels that are somewhere more probable than the tolerance, and at least the two most probable ones.

    highest (L,): of each label's probabilities, where the unary is their logarithm or is still to be made of them.
    """
    if settings.tolerance == 0 or any(kernel.weight < 0 for kernel in settings.kernels):
        return list(range(unary.shape[1]))
    if highest is None:
        logarithms = (unary - torch.logsumexp(unary, dim=1, keepdim=True)).amax(dim=(0, 2, 3))
    else:
        logarithms = highest.clamp(min=SMALLEST).log()
    second = logarithms.sort(descending=True).values[1]
    return (logarithms >= min(np.log(settings.tolerance), second.item())).nonzero().flatten().tolist()


def unary_logits(values: Tensor, name: str) -> Tensor:
    """U (1, L, H, W) float32 from probabilities or logits, which are checked."""
    return _logarithm(_checked_predictions(values, name)[0], name)


def _logarithm(values: Tensor, name: str) -> Tensor:
    """That of probabilities; logits as they are."""
    return values.clamp(min=SMALLEST).log_() if name == "probabilities" else values


def _checked_predictions(values: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """The same as float32 and, of probabilities, the highest of each label; or a ValueError."""
    values = values.float()
    if name == "logits":
        if not torch.stack(values.sum(dim=1).aminmax()).isfinite().all():
            raise ValueError("logits: NaN or infinity in them")
        return values, None
    lowest, highest, least, most = value_range(values)
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError("probabilities: NaN or infinity in them")
    if lowest < 0:
        raise ValueError(f"probabilities: the smallest is {lowest:.3g}; logits go into logits=")
    if least < 1 - SUM_TOLERANCE or most > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"probabilities: a pixel's sum to {least:.3g}..{most:.3g} over the labels instead of 1;"
            " logits go into logits=, and scores must be divided by their sum"
        )
    return values, highest


def _labels_last(values: Tensor, guide: Tensor, name: str) -> bool:
    """Whether the predictions are (H, W, L) instead of (L, H, W), by the size of the image."""
    shape, (height, width) = tuple(values.shape), guide.shape[2:]
    if len(shape) == 2:
        raise ValueError(
            f"{name}: shape {shape}, expected (labels, height, width); a foreground's p alone is stack([1 - p, p])"
        )
    if len(shape) != 3:
        raise ValueError(f"{name}: shape {shape}, expected (labels, height, width); several images go in a list")
    labels_last = shape[1:] != (height, width) and shape[:2] == (height, width)
    if not labels_last and shape[1:] != (height, width):
        swapped = "; height and width are swapped" if (width, height) in (shape[1:], shape[:2]) else ""
        raise ValueError(f"{name}: shape {shape} does not fit the image, expected (labels, {height}, {width}){swapped}")
    labels = shape[-1] if labels_last else shape[0]
    if labels < 2:
        raise ValueError(f"{name}: {labels} label, a CRF needs at least 2; a foreground's p alone is stack([1 - p, p])")
    return labels_last


def _guide(image: Any, colour_units: bool) -> Tensor:
    """(1, C, H, W) from NumPy (H, W), (H, W, C) or torch (H, W), (C, H, W)."""
    pixels = _tensor(image, "image")
    if pixels.dim() not in (2, 3) or pixels.numel() == 0:
        raise ValueError(
            f"image: shape {tuple(pixels.shape)}, expected (height, width, channels) for NumPy"
            " and (channels, height, width) for torch; several images go in a list"
        )
    if pixels.dim() == 2:
        pixels = pixels.unsqueeze(0)
    elif not isinstance(image, Tensor):
        pixels = pixels.movedim(-1, 0)
    if pixels.dtype != torch.uint8:
        pixels = pixels.to(torch.float32)
        _check_units(pixels, colour_units)
    return pixels.unsqueeze(0)


def _check_units(pixels: Tensor, colour_units: bool) -> None:
    """A preset's theta_beta counts in 0..255: an image scaled to 0..1 would be blank to it, one of 16 bits noise."""
    low, high = (bound.item() for bound in pixels.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("image: NaN or infinity in it")
    scaled = high > low and ((low >= 0 and high <= 1) or (low < 0 and high - low <= 10))
    if colour_units and (scaled or high > 255.5):
        raise ValueError(
            f"image: values {low:.3g}..{high:.3g}, but theta_beta of a preset counts in 0..255; give uint8,"
            " or kernels= with a theta_beta in the image's own units"
        )


def _tensor(array: Any, name: str) -> Tensor:
    """The array's own memory as a tensor, copied only where torch cannot see it (read-only, reversed, swapped)."""
    if isinstance(array, Tensor):
        return array.detach()
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected an array of numbers, got {array.dtype}")
    plain = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if plain else np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
