"""Marginals without the labels that vanish in the first iteration: a photograph has few classes, its predictions many.

On a network's outputs most labels are a little probable somewhere, and after one iteration nearly all of these have
been outvoted everywhere: 17 labels of 21 become 5. So those that hold together at most a share r of the best label's
marginal at every pixel go on as one, the *rest*. Its unary is theirs together, log sum_{l in D} exp U(l), so that it
takes from the others what they would take; it gets no messages. The other iterations are those of few labels.

*How exact that is.* Only the messages among D are left out. With w the sum of the kernels' weights and normalised
kernels they are at most w r, so the mass of the rest is off by a factor of at most exp(w r), and all marginals together
by at most r (exp(w r) - 1), in the first order w r^2 in each iteration: that is `tolerance`, for

    r = sqrt(tolerance / w).

It holds as long as the rest stays as small. Whether it did is known at the end: a label that a later iteration would
have brought back is in the rest, whose unary does not forget it. Where its share is above `GROWN` r at some pixel, the
run is done again with all labels. Else each label of D gets its part of the rest, as it is theirs by exp U(l), where
that is more than `NOTHING` times `tolerance` in all, and elsewhere 0.
"""

from functools import partial
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from crfrnn.inference.fused import numba_cpu
from crfrnn.inference.fused import vanishing_pixels_cpu as pixels
from crfrnn.inference.fused.kernel_tensors import KernelTensors, kernel_tensors
from crfrnn.inference.fused.passing_cpu import LATTICE_TENSORS, MessagePassing
from crfrnn.inference.fused.recurrence_cpu import Transform, iterate, mean_field
from crfrnn.inference.fused.settling_cpu import settle, settled
from crfrnn.inference.iteration import label_transforms
from crfrnn.inference.problem import Problem
from crfrnn.inference.settled import MOST_ITERATIONS, SETTLED, Iterations
from crfrnn.runtime import layout, memory, threads

FEWEST_ITERATIONS = 3
GROWN = 2.0  # times r: what the rest may come to
NOTHING = 0.1  # times the tolerance: a rest that is not divided
TOGETHER = 1 << 15  # pixels whose rest is divided at a time


def marginals(problem: Problem, iterations: Iterations, tolerance: float) -> tuple[Tensor, list[int]]:
    """softmax of Qu after T > 0 iterations, (B, L, *S), and T of each image, for problems that `choice.fused` accepts;
    no gradients."""
    if not _may_vanish(problem, iterations, tolerance):
        return _with_all(problem, iterations, tolerance)
    scores = problem.scores.to(torch.float32)
    kernels = kernel_tensors(problem, LATTICE_TENSORS)
    weights = problem.kernel_weights.expand(-1, scores.shape[1])
    out = torch.from_numpy(memory.zeros(tuple(scores.flatten(2).shape)))
    counts = []
    for image, planes in enumerate(scores.flatten(2)):
        counts.append(_image(planes, problem.floor, weights, kernels, image, iterations, tolerance, out[image]))
        if not counts[-1]:
            return _with_all(problem, iterations, tolerance)
    return out.reshape(scores.shape), counts


def _with_all(problem: Problem, iterations: Iterations, tolerance: float) -> tuple[Tensor, list[int]]:
    if iterations == SETTLED:
        return settled(problem, tolerance, normalize=True)
    return mean_field(problem, iterations, normalize=True), [iterations] * len(problem.scores)


def _may_vanish(problem: Problem, iterations: Iterations, tolerance: float) -> bool:
    """Whether it is worth a look: for the Potts model with weights of at least 0, and normalised kernels."""
    labels, weights = problem.scores.shape[1], problem.kernel_weights
    most = MOST_ITERATIONS if iterations == SETTLED else iterations
    if not tolerance or most < FEWEST_ITERATIONS or weights.dim() != 2:
        return False
    if layout.padded(labels) == layout.padded(1) or bool((weights < 0).any()):
        return False
    potts = torch.equal(problem.compatibility, 1 - torch.eye(labels, dtype=weights.dtype))
    return potts and all(gaussian.normalized for gaussian in problem.filters)


def _potts(weights: Tensor, passing: MessagePassing) -> Transform:
    """Of kernel weights (M, K)."""
    labels = weights.shape[1]
    transforms = label_transforms(weights, 1 - torch.eye(labels, dtype=weights.dtype))
    return Transform(transforms[passing.order], layout.padded(labels), transposed=False)


def _image(
    planes: Tensor,
    smallest: float,
    weights: Tensor,
    kernels: KernelTensors,
    image: int,
    iterations: Iterations,
    tolerance: float,
    out: Tensor,
) -> int:
    """One image, planes (L, N) as in `numba_cpu.initialise`, out (L, N) zeros; T, or 0 where a label came back."""
    count, points = planes.shape
    passing = MessagePassing(image, kernels, count)
    transform, channels = _potts(weights, passing), layout.padded(count)
    source, nothing = (planes.contiguous().numpy(), np.float32(smallest)), memory.empty((0, channels))
    passing.over_pixels(numba_cpu.initialise, *source, nothing, nothing, mixing=transform.mixing)
    passing.exchange()
    peaks = np.zeros((passing.parts, channels), np.float32)
    passing.over_pixels(pixels.survey, *source, transform.diagonal, peaks, mixing=transform.mixing)
    share = sqrt(tolerance / max(tolerance, float(weights.amax(dim=1).sum())))
    labels = _left(peaks.max(axis=0)[:count], share)
    few_channels = layout.padded(len(labels) + 1)
    if few_channels >= channels:
        unary, q = _room(points, channels, iterations)
        passing.over_pixels(pixels.go_on, *source, unary, q, transform.diagonal, mixing=transform.mixing)
        return _further(passing, transform, unary, q, iterations, tolerance, out)
    few = MessagePassing(image, kernels, len(labels) + 1)
    few_transform = _potts(torch.cat([weights[:, labels], weights.new_zeros(len(weights), 1)], dim=1), few)
    unary, q = _room(points, few_channels, iterations)
    both = zip(passing.last_arguments(transform.mixing), few.last_arguments(few_transform.mixing), strict=True)
    first = partial(pixels.leave_out, *source, transform.diagonal, labels, unary, q)
    threads.together([partial(first, *these, *those) for these, those in both])
    del passing, both, first
    count = _further(few, few_transform, unary, q, iterations, tolerance, out[: len(labels) + 1])
    del few, unary, q
    if float(out[len(labels)].max()) > GROWN * share:
        return 0
    _among_all(out, labels, planes, smallest, NOTHING * tolerance)
    return count


def _room(points: int, channels: int, iterations: Iterations) -> tuple[np.ndarray, np.ndarray]:
    """For U and, where somebody compares them, the marginals, (N, C)."""
    return memory.empty((points, channels)), memory.empty((points if iterations == SETTLED else 0, channels))


def _further(
    passing: MessagePassing,
    transform: Transform,
    unary: np.ndarray,
    q: np.ndarray,
    iterations: Iterations,
    tolerance: float,
    out: Tensor,
) -> int:
    """The iterations after the first one; returns T."""
    if iterations == SETTLED:
        return settle(passing, transform, unary, q, 2, tolerance, True, out.numpy())
    iterate(passing, transform, unary, [q] * (iterations - 1), True, out.numpy())
    return iterations


def _among_all(out: Tensor, labels: np.ndarray, planes: Tensor, smallest: float, nothing: float) -> None:
    """The marginals of K labels and of the rest, the first planes of out (L, N), to where they belong.

    The other planes are zeros; planes (L, N), smallest as in `_image`.
    """
    gone = np.setdiff1d(np.arange(len(out)), labels)
    emptied = [label for label in range(len(labels) + 1) if label in gone]
    for begin in range(0, out.shape[1], TOGETHER):
        given, here = planes[:, begin : begin + TOGETHER], out[:, begin : begin + TOGETHER]
        rest = here[len(labels)].clone()
        some = (rest > nothing).nonzero()[:, 0]
        whole = 1 - rest
        whole[some] = 1
        for k in reversed(range(len(labels))):  # no label stands before its place, so that none is overwritten
            torch.div(here[k], whole, out=here[labels[k]])
        here[emptied] = 0
        # in NumPy, as how torch's threads divide an exponential decides its last bit
        theirs = torch.stack([given[label, some] for label in gone]).numpy()
        shares = np.maximum(theirs, smallest) if smallest else np.exp(theirs - theirs.max(axis=0))
        shares *= rest[some].numpy() / shares.sum(axis=0)
        for label, share in zip(gone, shares, strict=True):
            here[label, some] = torch.from_numpy(share)


def _left(peaks: np.ndarray, share: float) -> np.ndarray:
    """The labels that go on, at least one, in order; peaks (L,), the largest share of the best marginal of each."""
    order = np.argsort(peaks, kind="stable")
    gone = min(int(np.searchsorted(np.cumsum(peaks[order]), share, side="right")), len(peaks) - 1)
    return np.sort(order[gone:])
