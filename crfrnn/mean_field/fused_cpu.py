"""T iterations on the CPU, fused: the fast twin of `iteration.py` inside `recurrence.py`, float32.

The values of an iteration stay point-major, (N, C); its pixel-wise steps are one pass (`numba_cpu.update`), and only
the last iteration writes (L, N) again. Weighting and compatibility are one matrix for each kernel, A_m = mu W_m,
made by autograd outside:

    Qu = U - sum_m A_m K_m Q

The backward pass filters the gradient g of Qu once for each kernel, h_m = K_m^T g, and everything follows from that,
with nothing stored but the marginals Q of each iteration:

    dL/dA_m = - h_m Q^T        dL/dQ = - sum_m A_m^T h_m        g <- softmax'(Q) dL/dQ
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering import layout, threads
from crfrnn.filtering.dispatch import plain_call
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS, GaussianFilter
from crfrnn.filtering.permutohedral.lattice_cpu import LatticeOperator
from crfrnn.filtering.separable.grid_cpu import SeparableOperator, run_passes
from crfrnn.mean_field import numba_cpu
from crfrnn.mean_field.sources_cpu import (
    LATTICE_TENSORS,
    GridKernel,
    LatticeKernel,
    Source,
    kernels_of,
    over_points,
    row_passes,
)


def mean_field(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    normalize: bool = False,
    overwrite: bool = False,
) -> Tensor:
    """Same contract as `recurrence.recurrence`, for calls that `dispatch.fused` accepts and iterations > 0.

    With `normalize` the softmax of the result, which costs nothing more here; it is not differentiable. With
    `overwrite` the result takes the place of the logits where that can be done.
    """
    labels = logits.shape[1]
    weights = kernel_weights
    if weights.dim() == 2:
        weights = torch.diag_embed(weights.expand(-1, labels))
    transforms = compatibility @ weights  # A_m, (M, L, L)
    lattices: list[Tensor] = []
    scales: list[Tensor] = []
    thetas: list[float] = []  # a row of one for each axis and the number of the normalization; zeros for a lattice
    axes = len(logits.shape) - 2
    for gaussian in filters:
        operator = gaussian.operator
        if isinstance(operator, LatticeOperator):
            lattices += operator.lattices
            thetas += [0.0] * (axes + 1)
        else:
            assert isinstance(operator, SeparableOperator)
            lattices += [logits.new_empty(0)] * LATTICE_TENSORS
            thetas += [*operator.thetas, float(NORMALIZATIONS.index(operator.normalization))]
        scales += [logits.new_empty(0) if s is None else s.flatten(1) for s in (gaussian.before, gaussian.after)]
    keep = torch.is_grad_enabled() and not normalize and (logits.requires_grad or transforms.requires_grad)
    shape = list(logits.shape[2:])
    flat = logits.flatten(2)
    if not plain_call(logits, transforms):
        y, _ = _forward_op(flat, transforms, lattices, thetas, scales, shape, iterations, keep, normalize)
    elif overwrite and flat.is_contiguous():
        _infer(flat, transforms, lattices, thetas, scales, shape, iterations, flat.new_empty(0), normalize, y := flat)
    else:
        y, _ = infer(flat, transforms, lattices, thetas, scales, shape, iterations, keep, normalize)
    return y.reshape(logits.shape)


def _structure(transforms: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """c and e (M, C) with A_m = 1 c_m^T + diag(e_m), or None: the Potts model with any weights is of this form."""
    kernels, labels, _ = transforms.shape
    common, diagonal = np.zeros((2, kernels, channels), np.float32)
    for m, matrix in enumerate(transforms):
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
) -> tuple[Tensor, Tensor]:
    """logits (B, L, N) -> (Qu of the last iteration, or with `normalize` its softmax, (B, L, N);
    marginals before each iteration, (B, T, N, C) with `keep`, else empty)."""
    logits = logits.detach().contiguous()
    out = torch.empty_like(logits)
    room = (logits.shape[0], iterations, logits.shape[2], layout.padded(logits.shape[1])) if keep else (0,)
    marginals = torch.from_numpy(layout.empty(room))
    _infer(logits, transforms.detach(), lattices, thetas, scales, shape, iterations, marginals, normalize, out)
    return out, marginals


def _infer(
    logits: Tensor,
    transforms: Tensor,
    lattices: list[Tensor],
    thetas: list[float],
    scales: list[Tensor],
    shape: list[int],
    iterations: int,
    marginals: Tensor,
    normalize: bool,
    out: Tensor,
) -> None:
    """`infer` into memory that is given; `out` may be the logits themselves."""
    for image in range(logits.shape[0]):
        kernels = kernels_of(image, lattices, thetas, scales, shape, transposed=False)
        kept = marginals[image] if marginals.numel() else None
        _infer_image(logits[image], transforms, kernels, iterations, kept, normalize, out[image])


_forward_op = torch.library.custom_op("crfrnn::mean_field_forward", infer, mutates_args=(), device_types="cpu")


@_forward_op.register_fake
def _forward_fake(logits, transforms, lattices, thetas, scales, shape, iterations, keep, normalize):
    batch, labels, points = logits.shape
    kept = (batch, iterations, points, layout.padded(labels)) if keep else (0,)
    return torch.empty_like(logits, memory_format=torch.contiguous_format), logits.new_empty(kept)


def _infer_image(
    logits: Tensor,
    transforms: Tensor,
    kernels: Sequence[LatticeKernel | GridKernel],
    iterations: int,
    kept: Tensor | None,
    normalize: bool,
    out: Tensor,
) -> None:
    """One image: logits, out (L, N); kept (T, N, C) receives Q before each iteration."""
    labels, points = logits.shape
    channels, lanes = layout.padded(labels), layout.lanes(labels)
    structure = _structure(transforms.numpy(), channels)

    unary = layout.empty((points, channels))
    q = layout.empty(unary.shape) if kept is None else kept[0].numpy()
    # through DLPack, as a tensor whose NumPy view was handed out could not lend its memory
    over_points(points, partial(numba_cpu.initialise, np.from_dlpack(logits), unary, q, lanes))
    give_back = _lend(logits, out)
    common, diagonal = _no_structure(channels) if structure is None else structure
    grid = _by_rows(kernels) if structure is not None else None
    gathered = None
    for t in range(1, iterations):
        into = q if kept is None else kept[t].numpy()
        if grid is None:
            sources: Any = zip(*_messages_of(q, kernels, transforms, structure, lanes), strict=True)
            over_points(points, partial(numba_cpu.update, unary, *sources, diagonal, into, lanes))
        else:
            gathered = _update_by_rows(unary, q, kernels, grid, diagonal, gathered, into, lanes)
        q = into
    del gathered
    sources = zip(*_messages_of(q, kernels, transforms, structure, lanes), strict=True)
    give_back()
    over_points(points, partial(numba_cpu.finish, unary, *sources, diagonal, common, normalize, out.numpy(), lanes))


def _lend(logits: Tensor, out: Tensor) -> Callable[[], object]:
    """Give the logits' memory back to the system while nothing reads it, where it is also the result's and ours.

    Returns the function that takes it again.
    """
    storage = logits.untyped_storage()
    size = storage.nbytes()
    same = out.data_ptr() == logits.data_ptr() and size == logits.nbytes
    if not same or not storage.resizable():
        return lambda: None
    storage.resize_(0)
    return lambda: storage.resize_(size)


def _messages_of(
    q: np.ndarray,
    kernels: Sequence[LatticeKernel | GridKernel],
    transforms: Tensor,
    structure: object | None,
    lanes: tuple[int, ...],
) -> list[Source]:
    """The messages of every kernel, or without structure of all of them, transformed and summed."""
    sources = _filter(kernels, q, lanes)
    return sources if structure is not None else [_mix(sources, transforms, lanes)]


def _by_rows(kernels: Sequence[LatticeKernel | GridKernel]) -> int | None:
    """The kernel whose first and last passes go along with the rows of pixels, where there is one beside others."""
    numbers = [m for m, kernel in enumerate(kernels) if row_passes(kernel) is not None]
    return numbers[0] if numbers and len(kernels) > 1 else None


def _update_by_rows(
    unary: np.ndarray,
    q: np.ndarray,
    kernels: Sequence[LatticeKernel | GridKernel],
    grid: int,
    diagonal: np.ndarray,
    gathered: np.ndarray | None,
    into: np.ndarray,
    lanes: tuple[int, ...],
) -> np.ndarray:
    """One iteration, row of pixels by row, which takes every row through memory once: marginals q -> `into`.

    `gathered` is what the last call returned, the first pass of kernel `grid` over q, or None before the first call.
    """
    steps = row_passes(kernels[grid])
    assert steps is not None
    others = [m for m in range(len(kernels)) if m != grid]
    first, todo = (q, (steps.gather, *steps.middle)) if gathered is None else (gathered, steps.middle)
    tasks: list[Callable[[], Any]] = [partial(kernels[m], q, lanes) for m in others]
    *sources, coarse = threads.together([*tasks, partial(run_passes, first, todo, lanes)])
    read: Any = (*zip(*sources, strict=True), np.ascontiguousarray(diagonal[[*others, grid]]), coarse)
    if gathered is None:
        gathered = layout.empty((steps.gather.outer * steps.gather.rows, q.shape[1]))
    bands = [array for step in (steps.spread, steps.refine, steps.gather) for array in (step.columns, step.weights)]
    kernel = partial(numba_cpu.update_rows, unary, *read, *bands, into, gathered, lanes)
    threads.over_range(kernel, steps.gather.outer)
    return gathered


def _filter(kernels: Sequence[LatticeKernel | GridKernel], q: np.ndarray, lanes: tuple[int, ...]) -> list[Source]:
    """Every kernel's table for the values q (N, C), side by side where there are threads for it."""
    return threads.together([partial(kernel, q, lanes) for kernel in kernels])


def _mix(sources: Sequence[Source], transforms: Tensor, lanes: tuple[int, ...]) -> Source:
    """sum_m A_m Qm (N, C) by one matrix product, for matrices without structure."""
    messages = _messages(sources, lanes)
    points, channels = messages.shape[0], messages.shape[2]
    mixed = messages.flatten(1) @ _padded(transforms.transpose(1, 2), channels).flatten(0, 1)
    itself, ones = np.arange(points, dtype=np.uint32)[:, None], np.ones((points, 1), np.float32)
    return Source(mixed.numpy(), itself, ones, ones[:, 0])


def _messages(sources: Sequence[Source], lanes: tuple[int, ...]) -> Tensor:
    """Qm of all kernels at every point, (N, M, C)."""
    first = sources[0]
    arrays: Any = zip(*sources, strict=True)
    tables, corners, weights, factors = arrays
    out = layout.empty((first.factor.size, len(sources), first.table.shape[1]))
    over_points(out.shape[0], partial(numba_cpu.read_messages, tables, corners, weights, factors, out, lanes))
    return torch.from_numpy(out)


def _padded(matrices: Tensor, channels: int) -> Tensor:
    """(M, L, L) -> (M, C, C)."""
    room = channels - matrices.shape[1]
    return torch.nn.functional.pad(matrices, (0, room, 0, room))


def _no_structure(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """c and e for messages that are already A_m Qm, summed."""
    return np.zeros((1, channels), np.float32), np.ones((1, channels), np.float32)


@torch.library.custom_op("crfrnn::mean_field_backward", mutates_args=(), device_types="cpu")
def _backward_op(
    grad: Tensor,
    marginals: Tensor,
    transforms: Tensor,
    lattices: list[Tensor],
    thetas: list[float],
    scales: list[Tensor],
    shape: list[int],
) -> tuple[Tensor, Tensor]:
    """Gradients of the logits (B, L, N) and of the transforms (M, L, L)."""
    grad = grad.contiguous()
    grad_logits, grad_transforms = torch.empty_like(grad), torch.zeros_like(transforms)
    for image in range(grad.shape[0]):
        kernels = kernels_of(image, lattices, thetas, scales, shape, transposed=True)
        _differentiate(grad[image], marginals[image], transforms, kernels, grad_logits[image], grad_transforms)
    return grad_logits, grad_transforms


@_backward_op.register_fake
def _(grad, marginals, transforms, lattices, thetas, scales, shape):
    return torch.empty_like(grad, memory_format=torch.contiguous_format), torch.empty_like(transforms)


def _differentiate(
    grad: Tensor,
    marginals: Tensor,
    transforms: Tensor,
    kernels: Sequence[LatticeKernel | GridKernel],
    grad_logits: Tensor,
    grad_transforms: Tensor,
) -> None:
    """One image, from the last iteration to the first: g is the gradient of that iteration's Qu, (N, C)."""
    planes, result = grad.numpy(), grad_logits.numpy()
    labels, points = planes.shape
    channels, lanes = marginals.shape[2], layout.lanes(labels)
    structure = _structure(transforms.numpy(), channels)
    stacked = _padded(transforms, channels).flatten(0, 1)  # (M C, C)

    g, total = layout.empty((points, channels)), layout.empty((points, channels))
    over_points(points, partial(numba_cpu.to_rows, planes, g, np.float32(0)))
    total[:] = g
    for q in reversed(marginals.unbind(0)):
        h = _messages(_filter(kernels, g, lanes), lanes)  # K_m^T g, (N, M, C)
        products = (h.flatten(1).t() @ q).view(len(kernels), channels, channels)
        grad_transforms -= products[:, :labels, :labels]
        if structure is None:
            h = (h.flatten(1) @ stacked).unsqueeze(1)
        common, diagonal = _no_structure(channels) if structure is None else structure
        arrays = q.numpy(), h.numpy(), diagonal, common
        over_points(points, partial(numba_cpu.update_gradient, *arrays, g, total, lanes))
    over_points(points, partial(numba_cpu.to_planes, total, result))


def _save(ctx, inputs, output) -> None:
    _, transforms, lattices, ctx.thetas, scales, ctx.shape, _, keep, _ = inputs
    assert keep, "the marginals of a differentiated recurrence are kept"
    ctx.lattices = len(lattices)
    ctx.set_materialize_grads(False)  # the marginals get no gradient: make no zeros for it
    ctx.save_for_backward(output[1], transforms, *lattices, *scales)


def _backward(ctx, grad: Tensor, _):
    marginals, transforms, *rest = ctx.saved_tensors
    lattices, scales = rest[: ctx.lattices], rest[ctx.lattices :]
    gradients = _backward_op(grad, marginals, transforms, lattices, ctx.thetas, scales, ctx.shape)
    return *gradients, [None] * len(lattices), None, [None] * len(scales), None, None, None, None


_forward_op.register_autograd(_backward, setup_context=_save)
