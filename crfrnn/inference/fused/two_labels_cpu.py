"""Marginals of two labels on one channel: what one of them has, the other has not.

With the spin s = Q(1) - Q(0), both marginals are (1 -+ s) / 2, and filters are linear, so that of A_m = mu W_m

    field  =  Qu(1) - Qu(0)  =  U(1) - U(0) - sum_m h_m K_m 1 + sum_m c_m K_m s        s <- tanh(field / 2)

    c_m = (A_m(0, 1) + A_m(1, 0) - A_m(0, 0) - A_m(1, 1)) / 2        h_m = (sum of row 1 - sum of row 0 of A_m) / 2

This is exact, for any weights and compatibility. In the Potts model with the same weight w_m for both labels c_m is w_m
and h_m is 0: the mean field of an Ising model. Elsewhere K_m 1, by the same filter, is needed once.

Rows of one number in place of eight take an eighth of the memory in the tables of the kernels and between the passes.
"""

import numpy as np
import torch
from torch import Tensor

from crfrnn.inference.fused import two_labels_pixels_cpu as pixels
from crfrnn.inference.fused.kernel_tensors import kernel_tensors
from crfrnn.inference.fused.passing_cpu import LATTICE_TENSORS, MessagePassing
from crfrnn.inference.iteration import label_transforms
from crfrnn.inference.problem import Problem
from crfrnn.runtime import memory

NOTHING = np.empty((0, 1), np.float32)


def marginals(problem: Problem, iterations: int) -> Tensor:
    """softmax of Qu after T > 0 iterations, (B, 2, *S), for problems of two labels that `choice.fused` accepts;
    no gradients."""
    scores = problem.scores.to(torch.float32)
    kernels = kernel_tensors(problem, LATTICE_TENSORS)
    a = label_transforms(problem.kernel_weights, problem.compatibility).double()
    weights = (a[:, 0, 1] + a[:, 1, 0] - a[:, 0, 0] - a[:, 1, 1]) / 2
    common = (a[:, 1].sum(dim=1) - a[:, 0].sum(dim=1)) / 2
    shift = _of_ones(problem, common) if bool((common != 0).any()) else None
    out = memory.empty(tuple(scores.flatten(2).shape))
    for image, planes in enumerate(scores.flatten(2)):
        passing = MessagePassing(image, kernels, 2, together=True)
        unary, each = memory.empty((planes.shape[1],)), weights[passing.order].float().numpy()
        source = planes.contiguous().numpy(), np.float32(problem.floor)
        passing.over_pixels(pixels.initialise, *source, unary, mixing=NOTHING)
        if shift is not None:
            unary -= shift[image].numpy()
        passing.exchange()
        for _ in range(iterations - 1):
            passing.over_pixels(pixels.update, unary, each, mixing=NOTHING)
            passing.exchange()
        passing.give_back()
        passing.over_pixels(pixels.finish, unary, each, out[image], mixing=NOTHING)
    return torch.from_numpy(out).reshape(scores.shape)


def _of_ones(problem: Problem, common: Tensor) -> Tensor:
    """sum_m h_m K_m 1, (B, N)."""
    ones = problem.scores.new_ones((len(problem.scores), 1, *problem.scores.shape[2:]), dtype=torch.float32)
    sums = [float(h) * gaussian(ones) for h, gaussian in zip(common, problem.filters, strict=True) if h]
    return torch.stack(sums).sum(dim=0).flatten(1)
