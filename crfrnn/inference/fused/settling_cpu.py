"""Iterations until nothing moves, on the CPU: the fast twin of `inference/settled.py`."""

import numpy as np
import torch
from torch import Tensor

from crfrnn.inference.fused import numba_cpu
from crfrnn.inference.fused import settling_pixels_cpu as pixels
from crfrnn.inference.fused.kernel_tensors import kernel_tensors
from crfrnn.inference.fused.passing_cpu import LATTICE_TENSORS, MessagePassing
from crfrnn.inference.fused.recurrence_cpu import Transform
from crfrnn.inference.iteration import label_transforms
from crfrnn.inference.problem import Problem
from crfrnn.inference.settled import MOST_ITERATIONS
from crfrnn.runtime import layout, memory


def settled(problem: Problem, tolerance: float, normalize: bool) -> tuple[Tensor, list[int]]:
    """Same contract as `recurrence._settled`, for problems that `choice.fused` accepts."""
    scores = problem.scores.to(torch.float32)
    transforms = label_transforms(problem.kernel_weights, problem.compatibility)
    kernels, channels = kernel_tensors(problem, LATTICE_TENSORS), layout.padded(scores.shape[1])
    out, counts = memory.empty(tuple(scores.flatten(2).shape)), []
    for image, planes in enumerate(scores.flatten(2)):
        passing = MessagePassing(image, kernels, len(planes))
        transform = Transform(transforms[passing.order], channels, transposed=False)
        unary, q = (memory.empty((planes.shape[1], channels)) for _ in range(2))
        source = planes.contiguous().numpy(), np.float32(problem.floor)
        passing.over_pixels(numba_cpu.initialise, *source, unary, q, mixing=transform.mixing)
        counts.append(settle(passing, transform, unary, q, 1, tolerance, normalize, out[image]))
    return torch.from_numpy(out).reshape(scores.shape), counts


def settle(
    passing: MessagePassing,
    transform: Transform,
    unary: np.ndarray,
    q: np.ndarray,
    t: int,
    tolerance: float,
    normalize: bool,
    out: np.ndarray,
) -> int:
    """The iterations from number t on, until no marginal moves by more than the tolerance; returns the last one's.

    What was splatted is q (N, C); unary (N, C); out (L, N).
    """
    moved = np.zeros(passing.parts, np.float32)
    while True:
        passing.exchange()
        passing.over_pixels(pixels.update_and_compare, unary, transform.diagonal, q, moved, mixing=transform.mixing)
        if moved.max() <= tolerance or t == MOST_ITERATIONS:
            break
        t += 1
    passing.give_back()
    arguments = unary, transform.diagonal, transform.common, normalize, out
    passing.over_pixels(numba_cpu.finish, *arguments, mixing=transform.mixing)
    return t
