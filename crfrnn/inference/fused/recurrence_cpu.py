"""T iterations on the CPU, fused: the fast twin of `iteration.py` inside `recurrence.py`, float32.

Between the first and the last step everything is point-major, (N, C). An iteration is one pass over the pixels
(`numba_cpu.update`) and what happens on the vertices and coarse grids of the kernels (`passing_cpu.py`). Weighting and
compatibility are one matrix for each kernel, A_m = mu W_m, made by autograd outside:

    Qu = U - sum_m A_m K_m Q

The backward pass filters the gradient g of Qu once for each kernel, h_m = K_m^T g, and everything follows from that,
with nothing stored but the marginals Q of each iteration:

    dL/dA_m = - h_m Q^T        dL/dQ = - sum_m A_m^T h_m        g <- softmax'(Q) dL/dQ
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from crfrnn.inference.fused import numba_cpu
from crfrnn.inference.fused.kernel_tensors import KernelTensors, kernel_tensors
from crfrnn.inference.fused.passing_cpu import LATTICE_TENSORS, MessagePassing
from crfrnn.inference.iteration import label_transforms
from crfrnn.inference.problem import Problem
from crfrnn.runtime import layout, memory
from crfrnn.runtime.custom_ops import CustomOp


def mean_field(problem: Problem, iterations: int, normalize: bool = False) -> Tensor:
    """Same contract as `recurrence.recurrence`, for problems that `choice.fused` accepts and iterations > 0.

    With `normalize` the softmax of the result, which costs nothing more here; it is not differentiable.
    """
    scores = problem.scores.to(torch.float32)
    transforms = label_transforms(problem.kernel_weights, problem.compatibility)
    kernels = kernel_tensors(problem, LATTICE_TENSORS)
    keep = torch.is_grad_enabled() and not normalize and (scores.requires_grad or transforms.requires_grad)
    y, _ = _infer(scores.flatten(2), transforms, *kernels, iterations, keep, normalize, problem.floor)
    return y.reshape(scores.shape)


def trajectory(problem: Problem, iterations: int) -> Iterator[Tensor]:
    """Same contract as `recurrence.trajectory`, for problems that `choice.fused` accepts and iterations > 0.

    Two copies of Q are written in turn: what was yielded last but one is overwritten.
    """
    logits = problem.unary
    transforms = label_transforms(problem.kernel_weights, problem.compatibility)
    kernels = kernel_tensors(problem, LATTICE_TENSORS)
    images = [
        _steps(planes, transforms, MessagePassing(image, kernels, logits.shape[1]), iterations)
        for image, planes in enumerate(logits.flatten(2).contiguous())
    ]
    for q in zip(*images, strict=True):
        yield q[0].reshape(logits.shape) if len(q) == 1 else torch.stack(q).reshape(logits.shape)


def _steps(logits: Tensor, transforms: Tensor, passing: MessagePassing, iterations: int) -> Iterator[Tensor]:
    """One image: logits (L, N) -> Q(0), ..., Q(T), (L, N) each; see `_infer_image`, which does it in less memory."""
    (labels, points), channels = logits.shape, layout.padded(logits.shape[0])
    transform = Transform(transforms[passing.order], channels, transposed=False)
    unary, *q = (memory.empty((points, channels)) for _ in range(3))
    nothing = np.float32(0)
    passing.over_pixels(numba_cpu.initialise, logits.numpy(), nothing, unary, q[0], mixing=transform.mixing)
    for t in range(1, iterations):
        yield torch.from_numpy(q[(t - 1) % 2])[:, :labels].t()
        passing.exchange()
        passing.over_pixels(numba_cpu.update, unary, transform.diagonal, q[t % 2], mixing=transform.mixing)
    yield torch.from_numpy(q[(iterations - 1) % 2])[:, :labels].t()
    passing.exchange()
    out = torch.empty_like(logits)
    arguments = unary, transform.diagonal, transform.common, True, out.numpy()
    passing.over_pixels(numba_cpu.finish, *arguments, mixing=transform.mixing)
    yield out


class Transform:
    """The matrices A_m (M, L, L) of one pass, or transposed ones, in the form that `numba_cpu.py` takes."""

    def __init__(self, matrices: Tensor, channels: int, transposed: bool):
        structure = _structure(matrices.numpy(), channels)
        if structure is None:
            padding = channels - matrices.shape[1]
            rows = matrices if transposed else matrices.transpose(1, 2)
            mixing = torch.nn.functional.pad(rows, (0, padding, 0, padding)).flatten(0, 1)
            self.mixing = mixing.contiguous().numpy()  # a view of the transposed matrix where nothing was padded
            structure = np.zeros((1, channels), np.float32), np.ones((1, channels), np.float32)
        else:
            self.mixing = np.empty((0, channels), np.float32)
        self.common, self.diagonal = structure


def _structure(matrices: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """c and e (M, C) with A_m = 1 c_m^T + diag(e_m), or None: the Potts model with any weights is of this form."""
    kernels, labels, _ = matrices.shape
    common, diagonal = np.zeros((2, kernels, channels), np.float32)
    for m, matrix in enumerate(matrices):
        column = matrix[(np.arange(labels) + 1) % labels, np.arange(labels)]  # one entry off the diagonal of each
        rest = matrix - column
        np.fill_diagonal(rest, 0)
        if rest.any():
            return None
        common[m, :labels] = column
        diagonal[m, :labels] = np.diagonal(matrix) - column
    return common, diagonal


def infer(
    logits: Tensor,
    transforms: Tensor,
    lattices: list[Tensor],
    thetas: list[float],
    scales: list[Tensor],
    shape: list[int],
    iterations: int,
    keep: bool,
    normalize: bool,
    smallest: float,
) -> tuple[Tensor, Tensor]:
    """logits (B, L, N) -> (Qu of the last iteration, or with `normalize` its softmax, (B, L, N);
    marginals before each iteration, (B, T, N, C) with `keep`, else empty)."""
    logits, transforms = logits.detach(), transforms.detach()
    out = memory.empty(tuple(logits.shape))
    kept_shape = (logits.shape[0], iterations, logits.shape[2], layout.padded(logits.shape[1])) if keep else (0,)
    marginals = torch.from_numpy(memory.empty(kept_shape))
    kernels = KernelTensors(lattices, thetas, scales, shape)
    for image, planes in enumerate(logits):
        passing = MessagePassing(image, kernels, logits.shape[1])
        kept = marginals[image] if keep else None
        _infer_image(planes, smallest, transforms, passing, iterations, kept, normalize, out[image])
    return torch.from_numpy(out), marginals


def _infer_fake(logits, transforms, lattices, thetas, scales, shape, iterations, keep, normalize, smallest):
    batch, labels, points = logits.shape
    kept = (batch, iterations, points, layout.padded(labels)) if keep else (0,)
    return torch.empty_like(logits, memory_format=torch.contiguous_format), logits.new_empty(kept)


def _infer_image(
    logits: Tensor,
    smallest: float,
    transforms: Tensor,
    passing: MessagePassing,
    iterations: int,
    kept: Tensor | None,
    normalize: bool,
    out: np.ndarray,
) -> None:
    """One image: logits, out (L, N); kept (T, N, C) receives Q before each iteration."""
    channels = layout.padded(logits.shape[0])
    transform = Transform(transforms[passing.order], channels, transposed=False)
    unary = memory.empty((logits.shape[1], channels))
    q = [unary[:0]] * iterations if kept is None else list(kept.numpy())
    planes = logits.contiguous().numpy()
    passing.over_pixels(numba_cpu.initialise, planes, np.float32(smallest), unary, q[0], mixing=transform.mixing)
    del planes  # which may be a copy
    iterate(passing, transform, unary, q, normalize, out)


def iterate(
    passing: MessagePassing,
    transform: Transform,
    unary: np.ndarray,
    q: list[np.ndarray],
    normalize: bool,
    out: np.ndarray,
) -> None:
    """As many iterations as there are arrays in q, from what has been splatted.

    unary (N, C); q, but for the first, receives Q before each, (N, C), or is empty; out (L, N).
    """
    passing.exchange()
    for kept in q[1:]:
        passing.over_pixels(numba_cpu.update, unary, transform.diagonal, kept, mixing=transform.mixing)
        passing.exchange()
    passing.give_back()
    arguments = unary, transform.diagonal, transform.common, normalize, out
    passing.over_pixels(numba_cpu.finish, *arguments, mixing=transform.mixing)


def differentiate(
    grad: Tensor,
    marginals: Tensor,
    transforms: Tensor,
    lattices: list[Tensor],
    thetas: list[float],
    scales: list[Tensor],
    shape: list[int],
    learned: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the logits (B, L, N) and, with `learned`, of the transforms (M, L, L), else zeros."""
    grad, kernels = grad.contiguous(), KernelTensors(lattices, thetas, scales, shape)
    grad_logits, grad_transforms = torch.empty_like(grad), torch.zeros_like(transforms)
    for image in range(grad.shape[0]):
        passing = MessagePassing(image, kernels, grad.shape[1], transposed=True)
        into = grad_transforms if learned else None
        _differentiate_image(grad[image], marginals[image], transforms, passing, grad_logits[image], into)
    return grad_logits, grad_transforms


def _differentiate_image(
    grad: Tensor,
    marginals: Tensor,
    transforms: Tensor,
    passing: MessagePassing,
    grad_logits: Tensor,
    grad_transforms: Tensor | None,
) -> None:
    """One image, from the last iteration to the first: g is the gradient of that iteration's Qu. Adds to the last."""
    labels, points = grad.shape
    iterations, channels = marginals.shape[0], marginals.shape[2]
    transform = Transform(transforms[passing.order], channels, transposed=True)
    total, planes = memory.empty((points, channels)), grad_logits.numpy()
    parts = 0 if grad_transforms is None else passing.parts
    products = np.zeros((parts, len(passing.order) * channels, channels), np.float32)
    passing.over_pixels(numba_cpu.start_gradient, grad.numpy(), total, mixing=transform.mixing)
    for t in reversed(range(iterations)):
        passing.exchange()
        q, into = marginals[t].numpy(), planes[:0] if t else planes
        # what c_m is multiplied by, the sum of h_m over the labels, is 0 once g has come through a softmax
        common = transform.common if t == iterations - 1 else transform.common[:0]
        arguments = q, transform.diagonal, common, total, products, into
        passing.over_pixels(numba_cpu.update_gradient, *arguments, mixing=transform.mixing)
    if grad_transforms is not None:
        summed = torch.from_numpy(products.sum(axis=0)).view(-1, channels, channels)[:, :labels, :labels]
        grad_transforms[passing.order] -= summed


def _differentiate_fake(grad, marginals, transforms, *_):
    return torch.empty_like(grad, memory_format=torch.contiguous_format), torch.empty_like(transforms)


def _save(ctx, inputs, output) -> None:
    _, transforms, lattices, ctx.thetas, scales, ctx.shape, _, keep, *_ = inputs
    assert keep, "the marginals of a differentiated recurrence are kept"
    ctx.lattices = len(lattices)
    ctx.set_materialize_grads(False)  # the marginals get no gradient: make no zeros for it
    ctx.save_for_backward(output[1], transforms, *lattices, *scales)


def _backward(ctx, grad: Tensor, _):
    marginals, transforms, *rest = ctx.saved_tensors
    lattices, scales = rest[: ctx.lattices], rest[ctx.lattices :]
    learned = ctx.needs_input_grad[1]
    gradients = _differentiate.op(grad, marginals, transforms, lattices, ctx.thetas, scales, ctx.shape, learned)
    return *gradients, [None] * len(lattices), None, [None] * len(scales), *[None] * 5


_infer = CustomOp("mean_field_forward", infer, fake=_infer_fake, device_types="cpu", backward=_backward, save=_save)
_differentiate = CustomOp("mean_field_backward", differentiate, fake=_differentiate_fake, device_types="cpu")
