"""Sharpen predictions for points: positions, attributes and probabilities in, the marginals of the dense CRF out."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.inputs import as_tensor
from crfrnn.commands.refine.refine import refine
from crfrnn.commands.refine.whole import Moment
from crfrnn.filtering.kernels import Bandwidth, Bilateral, Kernel, Spatial, with_accuracy
from crfrnn.filtering.points import along_the_longest, centred, check_extent, kernels_for, on_points
from crfrnn.inference.settled import Iterations
from crfrnn.inference.solvers import Solver
from crfrnn.parameters import as_kernels

Array = np.ndarray | Tensor
Predictions = TypeVar("Predictions", np.ndarray, Tensor)


def refine_points(
    positions: Array,
    probabilities: Predictions | None = None,
    *,
    logits: Predictions | None = None,
    attributes: Array | None = None,
    kernels: Sequence[Kernel | str] | None = None,
    iterations: Iterations = 10,
    normalization: str = "after",
    accuracy: int | None = None,
    self_connection: bool = True,
    tolerance: float = 1e-3,
    solver: Solver | str | None = None,
    trace: Callable[[Moment], object] | None = None,
    temperature: float = 1.0,
    class_weights: Sequence[Sequence[float]] | None = None,
    took: Callable[[int], object] | None = None,
) -> Predictions:
    """Mean-field marginals of a fully connected CRF on points, such as those of a laser scanner.

    Args:
        positions: (N, D), NumPy or torch, D at most 3, in the units of the bandwidths, such as metres. Their middle is
            subtracted in float64 first, so that those of a map lose nothing.
        probabilities: (N, L), a row for each point that sums to 1, or (L, N); where both would fit, it is (N, L). Of a
            binary network (N,) or (N, 1), the foreground alone.
        logits: instead of probabilities, the network's output before its softmax; of a binary network before its
            sigmoid. Minus infinity is a label that is impossible there.
        attributes: (N,) or (N, C), what else is known of each point, in units of its own: intensity, colour, a normal,
            the height above the ground.
        kernels: `Bilateral` (theta_alpha of positions, theta_beta of attributes), `Spatial` (theta_gamma of positions)
            and `Features` (of all columns, positions first), or texts such as ``bilateral:0.5,2000,8``. Bandwidths may
            be one for each axis (x, y, z) and attribute. By default those of `point_kernels`.
        iterations, normalization, accuracy, self_connection, tolerance: as in `crfrnn.refine`. ``method="exact"`` of a
            kernel is for some ten thousand points.
        solver, trace, temperature, class_weights, took: as in `crfrnn.refine`.

    Returns:
        The marginals, in the shape, type (NumPy or torch, on its device) and dtype of what was given.

    Raises:
        ValueError: no points, NaN or infinity, shapes that do not belong together, probabilities that are none, a stray
            point that is too far away for the bandwidths. The message begins with the argument's name.

    Source: equation (3) of Kraehenbuehl and Koltun 2011 with positions in space, as in SEGCloud (Tchapmi et al. 2017).

    >>> rng = np.random.default_rng(0)
    >>> positions = rng.uniform(0, 10, (500, 3)) + (412_345, 5_654_321, 112)
    >>> refine_points(positions, np.full((500, 4), 0.25), attributes=rng.uniform(0, 65535, 500)).shape
    (500, 4)
    """
    if (probabilities is None) == (logits is None):
        raise ValueError("probabilities: give either probabilities or logits, and not both")
    name, predictions = ("probabilities", probabilities) if logits is None else ("logits", logits)
    values = as_tensor(predictions, name)
    places, extra = _columns(positions, attributes, values.device)
    labels_first, planes = planes_of(values, places.shape[1], name)
    chosen = kernels_for(places, extra) if kernels is None else as_kernels(kernels)
    order = along_the_longest(places)[1]  # neighbours come near each other in memory, which takes half of the time
    guide = torch.cat([places, extra])[:, None, order]  # an image of one row
    forms = [on_points(kernel, len(places), len(extra)) for kernel in with_accuracy(chosen, accuracy)]
    check_extent(guide, forms)

    def give_back(q: Tensor) -> Any:
        """(L, 1, N) in the order and the form in which the predictions came."""
        rows = torch.empty_like(q[:, 0])
        rows[:, order] = q[:, 0]
        out = (rows if labels_first else rows.t()).reshape(values.shape)
        return out if isinstance(predictions, Tensor) else out.numpy()

    rows = planes[:, None, order]
    q = refine(
        guide,
        rows if logits is None else None,
        logits=None if logits is None else rows,
        kernels=forms,
        iterations=iterations,
        normalization=normalization,
        self_connection=self_connection,
        tolerance=tolerance,
        solver=solver,
        trace=None if trace is None else lambda moment: trace(moment._replace(marginals=give_back(moment.marginals))),
        temperature=temperature,
        class_weights=class_weights,
        took=took,
    )
    return give_back(q)


def point_kernels(positions: Array, attributes: Array | None = None) -> tuple[Bilateral | Spatial, ...]:
    """The kernels that `refine_points` takes by default: their bandwidths follow from the points themselves.

    Args:
        positions: (N, D); attributes: (N,) or (N, C).

    Returns:
        With attributes ``Bilateral(4 s, 1.5 d sqrt(C), weight=8)``, without ``Spatial(3 s, weight=8)``: s is the
        spacing of the points on their surfaces, d what each attribute differs by among neighbours
        (`filtering/points.py`). Change what you know better with `dataclasses.replace`.

    >>> grid = np.stack(np.meshgrid(np.arange(20), np.arange(20), [0]), axis=-1).reshape(-1, 3) * 0.1
    >>> point_kernels(grid)
    (Spatial(theta_gamma=0.266, weight=8.0, method='separable'),)
    """
    return kernels_for(*_columns(positions, attributes, None))


def _columns(positions: Any, attributes: Any, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """(D, N) and (C, N), float32, centred and finite; C is 0 without attributes."""
    places = as_tensor(positions, "positions")
    if places.dim() != 2 or 0 in places.shape or places.shape[1] > 3:
        raise ValueError(f"positions: shape {tuple(places.shape)}, expected (points, 3){_repair(places)}")
    if attributes is None:
        extra = places.new_empty(len(places), 0)
    else:
        extra = as_tensor(attributes, "attributes")
        extra = extra[:, None] if extra.dim() == 1 else extra
        if extra.dim() != 2 or len(extra) != len(places):
            shape, points = tuple(extra.shape), len(places)
            raise ValueError(f"attributes: shape {shape}, expected ({points},) or ({points}, channels)")
    columns = []
    for name, values in (("positions", places), ("attributes", extra)):
        broken = int((~values.isfinite().all(dim=1)).sum())
        if broken:
            raise ValueError(f"{name}: NaN or infinity at {broken} of {len(values)} points; leave these out")
        columns.append(centred(values.to(device or values.device).t()))
    return columns[0], columns[1]


def _repair(places: Tensor) -> str:
    """What to do about positions of a wrong shape."""
    if 0 in places.shape:
        return "; there are no points in it"
    if places.dim() == 2 and len(places) <= 3:
        return "; give positions.T"
    return "; further columns go to attributes=" if places.dim() == 2 else ""


def planes_of(values: Tensor, points: int, name: str) -> tuple[bool, Tensor]:
    """Whether labels come first in predictions for so many points, and these as (L, N), (1, N) of a foreground."""
    shape = tuple(values.shape)
    if shape == (points,):
        return True, values[None]
    if len(shape) == 2 and 0 not in shape:
        if shape[0] == points:
            return False, values.t().contiguous()
        if shape[1] == points:
            return True, values
    raise ValueError(f"{name}: shape {shape}, expected ({points}, labels), or ({points},) of a foreground alone")


def described(kernel: Kernel) -> str:
    """A kernel in words, with a bandwidth for each channel where there are several.

    >>> described(Bilateral(0.5, (100.0, 120.0), weight=8))
    'bilateral of 0.5 in position and 100, 120 in attributes, weight 8'
    """
    if isinstance(kernel, Bilateral):
        positions, attributes = _numbers(kernel.theta_alpha), _numbers(kernel.theta_beta)
        return f"bilateral of {positions} in position and {attributes} in attributes, weight {kernel.weight:g}"
    if isinstance(kernel, Spatial):
        return f"spatial of {_numbers(kernel.theta_gamma)} in position, weight {kernel.weight:g}"
    return type(kernel).__name__


def _numbers(theta: Bandwidth) -> str:
    return ", ".join(f"{float(number):g}" for number in (theta if isinstance(theta, tuple) else (theta,)))
