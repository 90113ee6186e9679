"""Mean-field inference as a recurrent network (section 5.1 of Zheng et al. 2015).

    H1(t) = softmax(U)  for t = 0,   H2(t - 1)  for 0 < t <= T
    H2(t) = f_theta(U, H1(t), I)
    Y     = H2(T)

The recurrence returns the logits of Y, the last Qu, so that a cross-entropy loss is applied to them as to the
logits of any network. Its parameters theta are shared by all iterations: the kernel weights and the compatibility.
"""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import SupportsIndex

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.alike import merged
from crfrnn.inference.fused import choice
from crfrnn.inference.iteration import iteration, normalization
from crfrnn.inference.problem import Problem
from crfrnn.inference.settled import MOST_ITERATIONS, SETTLED, Iterations, check_inference, settled, while_moving
from crfrnn.inference.solvers import Iterate, MeanField, Solver


def mean_field(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: Iterations = 10,
    solver: Solver | None = None,
    tolerance: float = 1e-3,
    took: Callable[[int], object] | None = None,
) -> Tensor:
    """T iterations of mean-field inference in a fully connected CRF.

    Args:
        logits: U (B, L, *S), the negative unary energy; log-probabilities do.
        filters: M prepared kernels, ``kernel.prepare(guide)``.
        kernel_weights: w, (M, L, L), (M, L) or (M, 1).
        compatibility: mu (L, L), subtracted; Potts is ``1 - torch.eye(L)``.
        iterations: T; with 0 the logits are returned as they are. "settled", for inference, are as many as each image
            of the batch needs until none of its marginals moves by more than `tolerance`, at most 100.
        solver: what an iteration does, such as ``crfrnn.solvers.DampedMeanField(0.5)``; None is the paper's, the
            fastest.
        tolerance: see "settled"; it changes nothing else.
        took: called with T for each image, in order.

    Returns:
        (B, L, *S), the logits of the marginals after T iterations; their softmax over dim 1 are the marginals.

    Differentiable in the logits, the kernel weights and the compatibility. Arithmetic is float32, or float64 where
    the logits are; autocast is switched off inside, as bfloat16 labels would be decided by rounding.

    Source: Algorithm 1 and section 5.1 of Zheng et al. 2015.

    >>> from crfrnn import Spatial
    >>> logits, image = torch.randn(1, 3, 8, 9), torch.rand(1, 3, 8, 9)
    >>> mean_field(logits, [Spatial(2).prepare(image)], torch.full((1, 1), 3.0), 1 - torch.eye(3)).shape
    torch.Size([1, 3, 8, 9])
    """
    problem = Problem(logits, filters, kernel_weights, compatibility)
    iterations = as_iterations(iterations)
    if iterations == SETTLED:
        check_inference(problem)
        with torch.no_grad():
            y, counts = _settled(problem, solver, tolerance)
    else:
        y, counts = _run(problem, iterations, solver), iterations
    return _told(took, counts, y).to(_result_dtype(logits))


def marginals(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: Iterations = 10,
    floor: float = 0.0,
    solver: Solver | None = None,
    tolerance: float = 0.0,
    took: Callable[[int], object] | None = None,
) -> Tensor:
    """softmax of `mean_field` over the labels, (B, L, *S), for inference: without gradients, and in less memory.

    Labels that nothing tells apart are computed once (`alike.py`). With `tolerance` above 0 those that vanish in the
    first iteration take no further part (`fused/vanishing_cpu.py`, which says what it means). It is also what "settled"
    means, as in `mean_field`.

    With `floor` above 0 the logits are probabilities; see `Problem`.
    """
    with torch.no_grad():
        problem = Problem(logits, filters, kernel_weights, compatibility, floor)
        few = merged(problem) if solver is None else None
        q, counts = _marginals(problem if few is None else few.problem, as_iterations(iterations), solver, tolerance)
        return _told(took, counts, q if few is None else few.marginals(q)).to(_result_dtype(logits))


def _marginals(
    problem: Problem, iterations: Iterations, solver: Solver | None, tolerance: float
) -> tuple[Tensor, list[int] | int]:
    fused = solver is None and choice.fused(problem) is None
    two_labels = choice.load_two_labels(problem) if fused else None
    if two_labels is not None and iterations != SETTLED and iterations:
        return two_labels(problem, iterations), iterations
    vanishing = choice.load_vanishing(problem) if fused else None
    if vanishing is not None and iterations:
        return vanishing(problem, iterations, tolerance)
    if iterations == SETTLED:
        return _settled(problem, solver, tolerance, normalize=True)
    return _run(problem, iterations, solver, normalize=True), iterations


def _settled(
    problem: Problem, solver: Solver | None, tolerance: float, normalize: bool = False
) -> tuple[Tensor, list[int]]:
    """As `_run`, until each image has settled, and how many iterations each took."""
    check_solver(solver)
    fused = choice.load_settled(problem) if solver is None and choice.fused(problem) is None else None
    with torch.autocast(problem.scores.device.type, enabled=False):
        if fused is not None:
            return fused(problem, tolerance, normalize)
        steps = _steps(problem, MOST_ITERATIONS, solver or MeanField())
        return settled(steps, lambda now: now.q if normalize else now.logits, tolerance)


def _told(took: Callable[[int], object] | None, counts: list[int] | int, result: Tensor) -> Tensor:
    """The result (B, ...); T of all images, or of each, is told where somebody asks: a compiler may not know B."""
    if took is not None:
        for count in [counts] * len(result) if isinstance(counts, int) else counts:
            took(count)
    return result


def iterates(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: Iterations = 10,
    solver: Solver | None = None,
    tolerance: float = 1e-3,
) -> Iterator[Iterate]:
    """The same run step by step, without gradients: yields the iterates t = 0..T as they are computed.

    An iterate has ``q``, the marginals (B, L, *S), ``energy``, ``free_energy`` and ``solver.objective(iterate)``, each
    (B,). Energies take what the next step needs anyway, so that those of T steps cost one filtering more. With
    iterations "settled" the last one is that with which no image moves any more, as in `mean_field`.

    >>> from crfrnn import Spatial
    >>> logits = torch.randn(1, 3, 8, 9)
    >>> arguments = logits, [Spatial(2).prepare(logits)], torch.full((1, 1), 3.0), 1 - torch.eye(3)
    >>> [now.t for now in iterates(*arguments, iterations=3)]
    [0, 1, 2, 3]
    """
    iterations = as_iterations(iterations)
    check_solver(solver)
    problem = Problem(logits, filters, kernel_weights, compatibility).detached()
    if iterations == SETTLED:
        steps = _steps(problem, MOST_ITERATIONS, solver or MeanField())
        return torch.no_grad()(while_moving)(steps, tolerance)
    return torch.no_grad()(_steps)(problem, iterations, solver or MeanField())


def _steps(problem: Problem, iterations: int, solver: Solver) -> Iterator[Iterate]:
    """The recurrence with any last step, through the same filters, differentiated by autograd."""
    problem = problem.bounded()
    yield (now := Iterate(problem, 0, logits=problem.unary))
    for _ in range(iterations):
        yield (now := solver(now))


def trajectory(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int = 10,
) -> Iterator[Tensor]:
    """The marginals of all iterations from one run: Q(0) = softmax(U), ..., Q(T), each (B, L, *S). No gradients.

    The arguments are those of `mean_field`; the last one is `marginals`. Each stays as it is until the next but one
    is asked for: copy what is to be kept.

    >>> from crfrnn import Spatial
    >>> logits, image = torch.randn(1, 3, 8, 9), torch.rand(1, 3, 8, 9)
    >>> run = trajectory(logits, [Spatial(2).prepare(image)], torch.full((1, 1), 3.0), 1 - torch.eye(3), iterations=2)
    >>> [tuple(q.shape) for q in run]
    [(1, 3, 8, 9), (1, 3, 8, 9), (1, 3, 8, 9)]
    """
    iterations = check_iterations(iterations)
    problem = Problem(logits, filters, kernel_weights, compatibility).detached()
    fused = choice.load_trajectory(problem) if iterations and choice.fused(problem) is None else None
    if fused is not None:
        return fused(problem, iterations)
    return (now.q for now in torch.no_grad()(_steps)(problem, iterations, MeanField()))


def _run(problem: Problem, iterations: int, solver: Solver | None, normalize: bool = False) -> Tensor:
    """Qu of the last iteration, or with `normalize` its softmax: fused, as it is written, or by another solver."""
    iterations = check_iterations(iterations)
    check_solver(solver)
    with torch.autocast(problem.scores.device.type, enabled=False):
        if not iterations:
            y = problem.unary
        elif not (solver is None or type(solver) is MeanField):
            for now in _steps(problem, iterations, solver):  # each goes before the next but one is made
                last = now
            return last.q if normalize else last.logits
        elif choice.fused(problem) is None:
            return choice.load(problem)(problem, iterations, normalize)
        else:
            arguments = problem.filters, problem.kernel_weights, problem.compatibility
            y = recurrence(problem.unary, *arguments, iterations)
        return normalization(y) if normalize else y


def _result_dtype(logits: Tensor) -> torch.dtype:
    return logits.dtype if logits.is_floating_point() else torch.float32


def recurrence(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int,
) -> Tensor:
    """The recurrence as it is written, differentiated by autograd: the reference for the fused ones."""
    h2 = logits
    for _ in range(iterations):
        h1 = normalization(h2)
        h2 = iteration(logits, h1, filters, kernel_weights, compatibility)
    return h2


def check_iterations(iterations: SupportsIndex, name: str = "iterations", least: int = 0) -> int:
    """T as Python's own number, of NumPy's too; ValueError where it is not a whole number of at least `least`.

    >>> check_iterations(torch.arange(6).numpy()[5])
    5
    """
    whole = isinstance(iterations, Integral) and not isinstance(iterations, bool)
    if not whole or int(iterations) < least:
        raise ValueError(f"{name}: must be a whole number of at least {least}, got {iterations!r}")
    return int(iterations)


def as_iterations(iterations: Iterations | SupportsIndex, name: str = "iterations") -> Iterations:
    """The same, or "settled"; ValueError for anything else.

    >>> as_iterations(5), as_iterations("settled")
    (5, 'settled')
    """
    if not isinstance(iterations, str):
        return check_iterations(iterations, name)
    if iterations != SETTLED:
        raise ValueError(f"{name}: must be a whole number of at least 0 or {SETTLED}, got {iterations!r}")
    return SETTLED


def check_solver(solver: Solver | None) -> None:
    """ValueError where it is neither a solver nor None."""
    if solver is not None and not isinstance(solver, Solver):
        raise ValueError(f"solver: expected a crfrnn.solvers.Solver or None, got {type(solver).__name__}")
