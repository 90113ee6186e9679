"""One image as a whole: to tensors, through the recurrence, and back to the form that the predictions had."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.inputs import LEAST_PROBABILITY, checked_predictions, fitting, logarithm
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.occurring import occurring
from crfrnn.inference.recurrence import iterates, marginals
from crfrnn.inference.solvers import MeanField
from crfrnn.parameters import CRFParameters
from crfrnn.runtime.meta_tensors import like
from crfrnn.runtime.vectors import LANES

Image = np.ndarray | Tensor


class Moment(NamedTuple):
    """Where a run stands after t iterations. The energies are of the labels that take part (`inference/energy.py`)."""

    t: int
    marginals: Any  # what `refine` would return with t iterations
    energy: float  # E(Q)
    free_energy: float  # E(Q) - H(Q)
    objective: float  # what the solver decreases: the free energy, or E(Q) + lambda r(Q)


@dataclass(frozen=True)
class Request:
    """What `refine` was asked for, beside the images."""

    name: str  # of the argument that holds the predictions: probabilities or logits
    crf: CRFParameters
    tolerance: float
    colour_units: bool = False  # theta_beta is a preset's and counts in 0..255
    trace: Callable[[Moment], object] | None = None
    spacing: Sequence[float] | None = None
    mask: Image | None = None
    took: Callable[[int], object] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.tolerance, Real) and 0 <= self.tolerance < 0.1):
            raise ValueError(f"tolerance: a probability of at least 0 and below 0.1, got {self.tolerance}")

    @property
    def normalised(self) -> bool:
        """Whether the probabilities of a pixel sum to 1, or those whose logarithms the unary is."""
        return self.name == "probabilities" and self.crf.temperature == 1


def refine_whole(image: Any, predictions: Any, request: Request) -> Any:
    """The marginals for one image, see `refine`."""
    units = request.colour_units, request.spacing, request.crf.standardize
    guide, planes, form, pixels, inside = fitting(image, predictions, request.name, *units, request.mask)
    if pixels is not None:
        request = replace(request, crf=request.crf.scaled(pixels))

    def give_back(q: Tensor) -> Any:
        q = q if inside is None else torch.where(inside.to(q.device), q, 1 / q.shape[1])
        q = form.restored(q[0, 1:] if form.labels is None else q[0])
        if isinstance(predictions, Tensor):
            return like(q.to(predictions.dtype if predictions.is_floating_point() else torch.float32), predictions)
        dtype = np.asarray(predictions).dtype
        return q.numpy().astype(dtype.newbyteorder("=") if dtype.kind == "f" else np.float32, copy=False)

    with torch.no_grad():
        mask = None if inside is None else inside.to(planes.device).unsqueeze(0)
        filters = request.crf.prepare(guide.to(planes.device), mask)
        del guide
        return give_back(_marginals(filters, planes.unsqueeze(0), request, give_back))


def _marginals(
    filters: list[GaussianFilter], values: Tensor, request: Request, give_back: Callable[[Tensor], Any]
) -> Tensor:
    """(1, L, *S) -> (1, L, *S). The copies of the labels that live at a time decide the memory."""
    crf, weights = request.crf, request.crf.kernel_weights(values.shape[1]).to(values.device)
    values, highest = checked_predictions(values, request.name)
    # the logarithm of probabilities is left to the recurrence where nothing else is done with it
    floor = LEAST_PROBABILITY if request.normalised and request.trace is None else 0.0
    unary = values if floor else logarithm(values, request.name)
    if crf.temperature != 1:
        unary = unary / crf.temperature
    labels = _labels(unary, highest if floor else None, request)
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

    if request.trace is None:
        arguments = unary, filters, weights, potts, crf.iterations
        more = {"solver": crf.solver, "tolerance": request.tolerance, "took": request.took}
        return among_all(marginals(*arguments, floor=floor, **more))
    solver = crf.solver or MeanField()
    for now in iterates(unary, filters, weights, potts, crf.iterations, solver, request.tolerance):
        energies = [value.item() for value in (now.energy, now.free_energy, solver.objective(now))]
        q = among_all(now.q)
        request.trace(Moment(now.t, give_back(q), *energies))
    if request.took is not None:
        request.took(now.t)
    return q


def _labels(unary: Tensor, highest: Tensor | None, request: Request) -> list[int]:
    """The labels that take part. highest (L,): the largest of each label, where the unary is left as probabilities."""
    every = list(range(unary.shape[1]))
    if request.tolerance == 0 or any(kernel.weight < 0 for kernel in request.crf.kernels):
        return every
    labels = occurring(unary, request.tolerance, highest).tolist()
    # to take more than half of them out, and put them back, costs more than it saves, as most of these vanish
    return labels if len(every) <= LANES or 2 * len(labels) <= len(every) else every
