"""T iterations on the CPU, fused: the fast twin of `iteration.py` inside `recurrence.py`, float32.

The values of an iteration stay point-major, (N, C); its pixel-wise steps are one pass (`numba_cpu.update`), and only
the last iteration writes (L, N) again. Weighting and compatibility are one matrix for each kernel, A_m = mu W_m,
made by autograd outside:

    Qu = U - sum_m A_m K_m Q

The backward pass filters the gradient g of Qu once for each kernel, h_m = K_m^T g, and everything follows from that,
with nothing stored but the marginals Q of each iteration:

    dL/dA_m = - h_m Q^T        dL/dQ = - sum_m A_m^T h_m        g <- softmax'(Q) dL/dQ
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering import layout, threads
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS, GaussianFilter
from crfrnn.filtering.permutohedral.lattice_cpu import LatticeOperator, LatticeTensors, splat_and_blur
from crfrnn.filtering.permutohedral.reference import gain
from crfrnn.filtering.separable.grid_cpu import Pass, SeparableOperator, passes, run_passes
from crfrnn.mean_field import numba_cpu

SMALLEST_RANGE = 2048  # points worth a thread of their own
MOST_CORNERS = 8  # terms that are cheaper to sum while reading than in a pass of their own
LATTICE_TENSORS = len(LatticeTensors._fields)


def mean_field(
    logits: Tensor,
    filters: Sequence[GaussianFilter],
    kernel_weights: Tensor,
    compatibility: Tensor,
    iterations: int,
    normalize: bool = False,
) -> Tensor:
    """Same contract as `recurrence.recurrence`, for calls that `dispatch.fused` accepts and iterations > 0.

    With `normalize` the softmax of the result, which costs nothing more here; it is not differentiable.
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
    y, _ = _forward_op(
        logits.flatten(2), transforms, lattices, thetas, scales, list(logits.shape[2:]), iterations, keep, normalize
    )
    return y.reshape(logits.shape)


class Source(NamedTuple):
    """Where the messages of one kernel are read: out[p] = factor[p] * sum_k weights[p, k] table[corners[p, k]]."""

    table: np.ndarray  # (n, C)
    corners: np.ndarray  # (N, K) uint32
    weights: np.ndarray  # (N, K)
    factor: np.ndarray  # (N,)


class _LatticeKernel:
    """A lattice of one image between its normalisations; what multiplies the input is folded into the splat."""

    def __init__(self, lattice: LatticeTensors, before: np.ndarray | None, after: np.ndarray | None, transposed: bool):
        if transposed:
            before, after = after, before
        self.lattice, self.transposed = lattice, transposed
        self.corners, self.weights = lattice.vertices.numpy().view(np.uint32), lattice.weights.numpy()
        points, corners = self.corners.shape
        scale = np.float32(gain(corners - 1))
        self.factor = np.full(points, scale) if after is None else scale * after
        plain = self.grouped = lattice.grouped.numpy()
        if before is not None:
            members, folded = lattice.points.numpy().view(np.uint32), np.empty_like(plain)
            over_points(plain.size, partial(numba_cpu.scale_entries, plain, before, members, folded))
            self.grouped = folded

    def __call__(self, q: np.ndarray, lanes: tuple[int, ...]) -> Source:
        table = splat_and_blur(self.lattice, self.grouped, q, lanes, self.transposed)
        return Source(table, self.corners, self.weights, self.factor)


class _GridKernel:
    """A separable kernel; where its last pass refines the last axis, that is left to whoever reads the table."""

    def __init__(self, shape: tuple[int, ...], todo: tuple[Pass, ...]):
        points = math.prod(shape)
        last = todo[-1]
        if last.inner == 1 and last.columns.shape[1] <= MOST_CORNERS:
            self.todo = todo[:-1]
            starts = np.arange(last.outer, dtype=np.uint32)[:, None, None] * np.uint32(_samples(todo, shape))
            self.corners = (starts + last.columns).reshape(points, -1)
            self.weights = np.tile(last.weights, (last.outer, 1))
        else:
            self.todo = todo
            self.corners, self.weights = np.arange(points, dtype=np.uint32)[:, None], np.ones((points, 1), np.float32)
        self.factor = np.ones(points, np.float32)

    def __call__(self, q: np.ndarray, lanes: tuple[int, ...]) -> Source:
        return Source(run_passes(q, self.todo, lanes), self.corners, self.weights, self.factor)


def _samples(todo: tuple[Pass, ...], shape: tuple[int, ...]) -> int:
    """Samples along the last axis when the last pass begins."""
    before = [step for step in todo[:-1] if step.inner == 1]
    return before[-1].rows if before else shape[-1]


def _kernels(
    image: int, lattices: list[Tensor], thetas: list[float], scales: list[Tensor], shape: list[int], transposed: bool
) -> list[_LatticeKernel | _GridKernel]:
    def row(tensor: Tensor) -> np.ndarray | None:
        return tensor[image].numpy() if tensor.numel() else None

    kernels: list[_LatticeKernel | _GridKernel] = []
    for m in range(len(scales) // 2):
        tensors = lattices[m * LATTICE_TENSORS : (m + 1) * LATTICE_TENSORS]
        *widths, normalization = thetas[m * (len(shape) + 1) : (m + 1) * (len(shape) + 1)]
        if tensors[0].numel():
            lattice = LatticeTensors(*(tensor[image] for tensor in tensors))
            kernels.append(_LatticeKernel(lattice, row(scales[2 * m]), row(scales[2 * m + 1]), transposed))
        else:
            name = NORMALIZATIONS[int(normalization)]
            kernels.append(_GridKernel(tuple(shape), passes(tuple(shape), tuple(widths), name, transposed, "float32")))
    return kernels


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


@torch.library.custom_op("crfrnn::mean_field_forward", mutates_args=(), device_types="cpu")
def _forward_op(
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
    kept = (logits.shape[0], iterations, logits.shape[2], layout.padded(logits.shape[1])) if keep else (0,)
    marginals = torch.from_numpy(layout.empty(kept))
    for image in range(logits.shape[0]):
        kernels = _kernels(image, lattices, thetas, scales, shape, transposed=False)
        kept = marginals[image] if keep else None
        _infer(logits[image], transforms.detach(), kernels, iterations, kept, normalize, out[image])
    return out, marginals


@_forward_op.register_fake
def _forward_fake(logits, transforms, lattices, thetas, scales, shape, iterations, keep, normalize):
    batch, labels, points = logits.shape
    kept = (batch, iterations, points, layout.padded(labels)) if keep else (0,)
    return torch.empty_like(logits, memory_format=torch.contiguous_format), logits.new_empty(kept)


def _infer(
    logits: Tensor,
    transforms: Tensor,
    kernels: Sequence[_LatticeKernel | _GridKernel],
    iterations: int,
    kept: Tensor | None,
    normalize: bool,
    out: Tensor,
) -> None:
    """One image: logits, out (L, N); kept (T, N, C) receives Q before each iteration."""
    planes, result = logits.numpy(), out.numpy()
    labels, points = planes.shape
    channels, lanes = layout.padded(labels), layout.lanes(labels)
    structure = _structure(transforms.numpy(), channels)

    unary = layout.empty((points, channels))
    q = layout.empty(unary.shape) if kept is None else kept[0].numpy()
    over_points(points, partial(numba_cpu.initialise, planes, unary, q, lanes))
    for t in range(iterations):
        sources = _filter(kernels, q, lanes)
        if structure is None:
            sources = [_mix(sources, transforms, lanes)]
        common, diagonal = _no_structure(channels) if structure is None else structure
        read: Any = (*zip(*sources, strict=True), diagonal)
        if t + 1 == iterations:
            over_points(points, partial(numba_cpu.finish, unary, *read, common, normalize, result, lanes))
        else:
            q = q if kept is None else kept[t + 1].numpy()
            over_points(points, partial(numba_cpu.update, unary, *read, q, lanes))


def _filter(kernels: Sequence[_LatticeKernel | _GridKernel], q: np.ndarray, lanes: tuple[int, ...]) -> list[Source]:
    """Every kernel's table for the values q (N, C), side by side where there are threads for it."""
    return threads.concurrently([partial(kernel, q, lanes) for kernel in kernels])


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


def over_points(points: int, kernel: Callable[[int, int], object]) -> None:
    """A kernel over all points, on several threads."""
    threads.over_range(kernel, points, SMALLEST_RANGE)


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
        kernels = _kernels(image, lattices, thetas, scales, shape, transposed=True)
        _differentiate(grad[image], marginals[image], transforms, kernels, grad_logits[image], grad_transforms)
    return grad_logits, grad_transforms


@_backward_op.register_fake
def _(grad, marginals, transforms, lattices, thetas, scales, shape):
    return torch.empty_like(grad, memory_format=torch.contiguous_format), torch.empty_like(transforms)


def _differentiate(
    grad: Tensor,
    marginals: Tensor,
    transforms: Tensor,
    kernels: Sequence[_LatticeKernel | _GridKernel],
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
