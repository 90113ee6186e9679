"""Mean-field inference as a recurrent network (section 5.1 of Zheng et al. 2015).

    H1(t) = softmax(U)  for t = 0,   H2(t - 1)  for 0 < t <= T
    H2(t) = f_theta(U, H1(t), I)
    Y     = H2(T)

The recurrence returns the logits of Y, the last Qu, so that a cross-entropy loss is applied to them as to the
logits of any network. Its parameters theta are shared by all iterations: the kernel weights and the compatibility.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.inference.fused import choice
from crfrnn.inference.iteration import iteration, normalization
from crfrnn.inference.solvers import Iterate, MeanField, Problem, Solver


def mean_field(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int = 10,
    solver: Solver | None = None,
) -> Tensor:
    """T iterations of mean-field inference in a fully connected CRF.

    Args:
        logits: U (B, L, *S), the negative unary energy; log-probabilities do.
        filters: M prepared kernels, ``kernel.prepare(guide)``.
        kernel_weights: w, (M, L, L), (M, L) or (M, 1).
        compatibility: mu (L, L), subtracted; Potts is ``1 - torch.eye(L)``.
        iterations: T; with 0 the logits are returned as they are.
        solver: what an iteration does, such as ``crfrnn.solvers.DampedMeanField(0.5)``; None is the paper's, the
            fastest.

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
    return _run(logits, filters, kernel_weights, compatibility, iterations, solver)


def marginals(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int = 10,
    smallest: float = 0.0,
    solver: Solver | None = None,
) -> Tensor:
    """softmax of `mean_field` over the labels, (B, L, *S), for inference: without gradients, and in less memory.

    With `smallest` above 0 the logits are probabilities, and U is their logarithm, or that of `smallest` where they are
    below: the CPU takes it while it passes over the pixels.
    """
    with torch.no_grad():
        return _run(logits, filters, kernel_weights, compatibility, iterations, solver, True, smallest)


def iterates(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int = 10,
    solver: Solver | None = None,
) -> Iterator[Iterate]:
    """The same run step by step, without gradients: yields the iterates t = 0..T as they are computed.

    An iterate has ``q``, the marginals (B, L, *S), ``energy``, ``free_energy`` and ``solver.objective(iterate)``, each
    (B,). Energies take what the next step needs anyway, so that those of T steps cost one filtering more.

    >>> from crfrnn import Spatial
    >>> logits = torch.randn(1, 3, 8, 9)
    >>> arguments = logits, [Spatial(2).prepare(logits)], torch.full((1, 1), 3.0), 1 - torch.eye(3)
    >>> [now.t for now in iterates(*arguments, iterations=3)]
    [0, 1, 2, 3]
    """
    _check(logits, filters, kernel_weights, compatibility, iterations, solver)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    unary, weights, mu = (t.detach().to(dtype) for t in (logits, kernel_weights, compatibility))
    return _steps(Problem(unary, filters, weights, mu), iterations, solver or MeanField())


@torch.no_grad()
def _steps(problem: Problem, iterations: int, solver: Solver) -> Iterator[Iterate]:
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
    _check(logits, filters, kernel_weights, compatibility, iterations, None)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    unary, weights, mu = (given.detach().to(dtype) for given in (logits, kernel_weights, compatibility))
    fused = choice.load_trajectory(filters) if choice.fused(unary, filters) is None else None
    if fused is not None and iterations and logits.numel():
        return fused(unary, filters, weights, mu, iterations)
    return (now.q for now in _steps(Problem(unary, filters, weights, mu), iterations, MeanField()))


def _run(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    solver: Solver | None = None,
    normalize: bool = False,
    smallest: float = 0.0,
) -> Tensor:
    """Checks, dtypes, and the choice between the fused recurrence, the one below, and another solver."""
    _check(logits, filters, kernel_weights, compatibility, iterations, solver)
    given = logits.dtype if logits.is_floating_point() else torch.float32
    other = None if type(solver) is MeanField else solver
    plain = other is None and iterations > 0 and logits.numel() > 0
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        logits = logits.to(dtype) if smallest else logits
        half = logits.dtype in choice.HALVES and choice.fused(logits, filters) is None
        unary, weights, mu = logits if half else logits.to(dtype), kernel_weights.to(dtype), compatibility.to(dtype)
        fused, more = plain and choice.fused(unary, filters) is None, {}
        if smallest:
            smallest = max(smallest, torch.finfo(dtype).tiny)
            if fused and choice.takes_probabilities(filters):
                more["smallest"] = smallest
            else:
                unary = unary.clamp(min=smallest).log()
        if other is not None:
            y = _solve(unary.to(dtype), filters, weights, mu, iterations, other, normalize)
        elif fused:
            y = choice.load(filters)(unary, filters, weights, mu, iterations, normalize, **more)
        else:
            y = recurrence(unary, filters, weights, mu, iterations)
            y = normalization(y) if normalize else y
    return y.to(given)


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


def _solve(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    solver: Solver,
    normalize: bool,
) -> Tensor:
    """The recurrence with another last step, through the same filters, differentiated by autograd."""
    if not iterations:
        return normalization(logits) if normalize else logits
    problem = Problem(logits, filters, kernel_weights, compatibility)
    now = Iterate(problem, 0, logits=problem.unary)
    for _ in range(iterations):
        now = solver(now)
    return now.q if normalize else now.logits


def _check(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    solver: Solver | None,
) -> None:
    if solver is not None and not isinstance(solver, Solver):
        raise ValueError(f"solver: expected a crfrnn.solvers.Solver or None, got {type(solver).__name__}")
    if logits.dim() < 3:
        raise ValueError(f"logits: expected (batch, labels, *sizes), got {tuple(logits.shape)}")
    if logits.is_complex():
        raise ValueError("logits: complex numbers")
    if not filters:
        raise ValueError("filters: give at least one prepared kernel")
    labels = logits.shape[1]
    shapes = [(len(filters), labels, labels), (len(filters), labels), (len(filters), 1)]
    if tuple(kernel_weights.shape) not in shapes:
        raise ValueError(
            f"kernel_weights: expected one of {shapes} for {len(filters)} kernels and {labels} labels,"
            f" got {tuple(kernel_weights.shape)}"
        )
    if tuple(compatibility.shape) != (labels, labels):
        raise ValueError(f"compatibility: expected ({labels}, {labels}), got {tuple(compatibility.shape)}")
    for gaussian in filters:
        if gaussian.batch not in (None, logits.shape[0]):
            raise ValueError(f"logits: a batch of {logits.shape[0]}, but the guide has {gaussian.batch} images")
        if gaussian.shape != tuple(logits.shape[2:]):
            raise ValueError(f"logits: size {tuple(logits.shape[2:])}, but the guide's is {gaussian.shape}")
        if gaussian.device not in (None, logits.device):
            raise ValueError(f"logits: on {logits.device}, but the guide is on {gaussian.device}; move one of them")
    for name, parameter in (("kernel_weights", kernel_weights), ("compatibility", compatibility)):
        if parameter.device != logits.device:
            raise ValueError(f"{name}: on {parameter.device}, but the logits are on {logits.device}; move one of them")
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations: must be a whole number of at least 0, got {iterations!r}")
