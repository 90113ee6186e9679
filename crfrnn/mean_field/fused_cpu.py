"""T iterations on the CPU, fused: the fast twin of `iteration.py` inside `recurrence.py`, float32.

The values of an iteration stay point-major, (N, C); its pixel-wise steps are one pass (`numba_cpu.update`), and only
the last iteration writes (L, N) again. Weighting and compatibility are one matrix for each kernel, A_m = mu W_m,
made by autograd outside:

    Qu = U - sum_m A_m K_m Q

The backward pass filters the gradient g of Qu once for each kernel, h_m = K_m^T g, and everything follows from that,
with nothing stored but the marginals Q of each iteration:

    dL/dA_m = - h_m Q^T        dL/dQ = - sum_m A_m^T h_m        g <- softmax'(Q) dL/dQ
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering import layout, threads
from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.filtering.permutohedral.lattice_cpu import LatticeOperator, LatticeTensors, splat_and_blur
from crfrnn.filtering.permutohedral.numba_cpu import slice_points
from crfrnn.filtering.permutohedral.reference import gain
from crfrnn.filtering.separable.convolution_cpu import SeparableOperator, convolve_axes
from crfrnn.filtering.separable.numba_cpu import scale_points
from crfrnn.mean_field import numba_cpu

SMALLEST_RANGE = 2048  # points worth a thread of their own
LATTICE_TENSORS = len(LatticeTensors._fields)


def mean_field(
    logits: Tensor, filters: Sequence[GaussianFilter], kernel_weights: Tensor, compatibility: Tensor, iterations: int
) -> Tensor:
    """Same contract as `recurrence.recurrence`, for calls that `dispatch.fused` accepts and iterations > 0."""
    labels = logits.shape[1]
    weights = kernel_weights
    if weights.dim() == 2:
        weights = torch.diag_embed(weights.expand(-1, labels))
    transforms = compatibility @ weights  # A_m, (M, L, L)
    lattices: list[Tensor] = []
    axis_taps: list[Tensor] = []
    scales: list[Tensor] = []
    for gaussian in filters:
        if isinstance(gaussian.operator, LatticeOperator):
            lattices += gaussian.operator.lattices
            axis_taps += [logits.new_empty(0)] * len(gaussian.shape)
        else:
            assert isinstance(gaussian.operator, SeparableOperator)
            lattices += [logits.new_empty(0)] * LATTICE_TENSORS
            axis_taps += gaussian.operator.taps
        scales += [logits.new_empty(0) if s is None else s.flatten(1) for s in (gaussian.before, gaussian.after)]
    keep = torch.is_grad_enabled() and (logits.requires_grad or transforms.requires_grad)
    y, _ = _forward_op(
        logits.flatten(2), transforms, lattices, axis_taps, scales, list(logits.shape[2:]), iterations, keep
    )
    return y.reshape(logits.shape)


@dataclass
class _Kernel:
    """One kernel of one image: `filtered` applies K or its transpose between its two normalisations."""

    lattice: LatticeTensors | None
    taps: list[np.ndarray]
    before: np.ndarray | None  # (N,) each
    after: np.ndarray | None
    shape: tuple[int, ...]
    grouped: np.ndarray | None = None  # the splat's weights, `before` folded in

    def prepare(self, transposed: bool) -> None:
        """Fold what multiplies the input into the weights of the splat, once for all iterations."""
        if transposed:
            self.before, self.after = self.after, self.before
        if self.lattice is None:
            return
        self.grouped = self.lattice.grouped.numpy()
        if self.before is not None:
            plain, members, factor = self.grouped, self.lattice.points.numpy().view(np.uint32), self.before
            entries = self.lattice.vertices.numel()
            folded = np.empty_like(plain)
            threads.over_range(
                lambda a, b: numba_cpu.scale_entries(plain, factor, members, folded, a, b), entries, SMALLEST_RANGE
            )
            self.grouped = folded

    def output_factor(self, points: int) -> np.ndarray:
        """(N,), what multiplies the sums."""
        scale = 1.0 if self.lattice is None else gain(self.lattice.vertices.shape[1] - 1)
        return np.full(points, scale, np.float32) if self.after is None else np.float32(scale) * self.after

    def table(self, q: np.ndarray, lanes: tuple[int, ...], out: np.ndarray, spare: np.ndarray, transposed: bool):
        """Filter q (N, C) up to the slice: the blurred lattice (M, C), or the convolved values in `out` (N, C)."""
        if self.lattice is not None:
            assert self.grouped is not None
            return splat_and_blur(self.lattice, self.grouped, q, lanes, transposed)
        if self.before is not None:
            before, scaled = self.before, np.empty_like(q)
            threads.over_range(lambda a, b: scale_points(q, before, scaled, a, b), q.shape[0], SMALLEST_RANGE)
            q = scaled
        convolve_axes(q, self.shape, self.taps, spare, out)
        return out


def _kernels(
    image: int, lattices: list[Tensor], axis_taps: list[Tensor], scales: list[Tensor], shape: list[int], transposed: bool
) -> list[_Kernel]:
    def row(tensor: Tensor) -> np.ndarray | None:
        return tensor[min(image, tensor.shape[0] - 1)].numpy() if tensor.numel() else None

    kernels = []
    for m in range(len(scales) // 2):
        tensors = lattices[m * LATTICE_TENSORS : (m + 1) * LATTICE_TENSORS]
        lattice = LatticeTensors(*(tensor[image] for tensor in tensors)) if tensors[0].numel() else None
        weights = [t.numpy() for t in axis_taps[m * len(shape) : (m + 1) * len(shape)]]
        kernel = _Kernel(lattice, weights, row(scales[2 * m]), row(scales[2 * m + 1]), tuple(shape))
        kernel.prepare(transposed)
        kernels.append(kernel)
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
    axis_taps: list[Tensor],
    scales: list[Tensor],
    shape: list[int],
    iterations: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """logits (B, L, N) -> (Qu of the last iteration (B, L, N), marginals of all iterations (B, T, N, C) or empty)."""
    logits = logits.detach().contiguous()
    out, marginals = _forward_fake(logits, transforms, lattices, axis_taps, scales, shape, iterations, keep)
    for image in range(logits.shape[0]):
        kernels = _kernels(image, lattices, axis_taps, scales, shape, transposed=False)
        _infer(logits[image], transforms.detach(), kernels, iterations, marginals[image] if keep else None, out[image])
    return out, marginals


@_forward_op.register_fake
def _forward_fake(logits, transforms, lattices, axis_taps, scales, shape, iterations, keep):
    batch, labels, points = logits.shape
    kept = (batch, iterations, points, layout.padded(labels)) if keep else (0,)
    return torch.empty_like(logits, memory_format=torch.contiguous_format), logits.new_empty(kept)


def _infer(
    logits: Tensor,
    transforms: Tensor,
    kernels: list[_Kernel],
    iterations: int,
    kept: Tensor | None,
    out: Tensor,
) -> None:
    """One image: logits, out (L, N); kept (T, N, C) receives Q before each iteration."""
    planes = logits.numpy()
    labels, points = planes.shape
    channels, lanes = layout.padded(labels), layout.lanes(labels)
    structure = _structure(transforms.numpy(), channels)

    def over_points(kernel) -> None:
        threads.over_range(kernel, points, SMALLEST_RANGE)

    unary = np.empty((points, channels), np.float32)
    over_points(lambda a, b: numba_cpu.to_rows(planes, unary, numba_cpu.PADDING, a, b))
    q = np.empty_like(unary) if kept is None else kept[0].numpy()
    over_points(lambda a, b: numba_cpu.initialise(unary, q, np.empty((0, channels), np.float32), lanes, a, b))

    itself = np.arange(points, dtype=np.uint32)[:, None]
    ones = np.ones((points, 1), np.float32)
    sources = [
        (itself, ones)
        if kernel.lattice is None
        else (kernel.lattice.vertices.numpy().view(np.uint32), kernel.lattice.weights.numpy())
        for kernel in kernels
    ]
    corners, weights = (tuple(column) for column in zip(*sources, strict=True))
    factors = tuple(kernel.output_factor(points) for kernel in kernels)
    dense = [np.empty_like(unary) if kernel.lattice is None else unary[:0] for kernel in kernels]
    spare = np.empty_like(unary) if any(kernel.lattice is None for kernel in kernels) else unary[:0]

    for t in range(iterations):
        tables = tuple(kernel.table(q, lanes, room, spare, False) for kernel, room in zip(kernels, dense, strict=True))
        following = q if kept is None else kept[min(t + 1, iterations - 1)].numpy()
        if structure is None:
            mixed = _mix(tables, corners, weights, factors, transforms, channels, lanes)
            step = ((mixed,), (itself,), (ones,), (ones[:, 0],))
            common, diagonal = np.zeros((1, channels), np.float32), np.ones((1, channels), np.float32)
        else:
            step = (tables, corners, weights, factors)
            common, diagonal = structure
        if t + 1 < iterations:
            over_points(
                lambda a, b, s=step, e=diagonal, to=following: numba_cpu.update(unary, *s, e, to, lanes, a, b)
            )
            q = following
        else:
            result = out.numpy()
            over_points(
                lambda a, b, s=step, e=diagonal, c=common: numba_cpu.finish(planes, *s, e, c, result, lanes, a, b)
            )


def _mix(tables, corners, weights, factors, transforms: Tensor, channels: int, lanes) -> np.ndarray:
    """sum_m A_m Qm (N, C) for matrices without structure, by matrix products."""
    points, labels = corners[0].shape[0], transforms.shape[1]
    padded = torch.zeros(transforms.shape[0], channels, channels)
    padded[:, :labels, :labels] = transforms.transpose(1, 2)
    message = torch.empty(points, channels)
    total = torch.zeros(points, channels)
    for table, corner, weight, factor, matrix in zip(tables, corners, weights, factors, padded, strict=True):
        threads.over_range(
            lambda a, b, s=(table, corner, weight, factor): slice_points(*s, message.numpy(), lanes, a, b),
            points,
            SMALLEST_RANGE,
        )
        total.addmm_(message, matrix)
    return total.numpy()


@torch.library.custom_op("crfrnn::mean_field_backward", mutates_args=(), device_types="cpu")
def _backward_op(
    grad: Tensor,
    marginals: Tensor,
    transforms: Tensor,
    lattices: list[Tensor],
    axis_taps: list[Tensor],
    scales: list[Tensor],
    shape: list[int],
) -> tuple[Tensor, Tensor]:
    """Gradients of the logits (B, L, N) and of the transforms (M, L, L)."""
    grad = grad.contiguous()
    grad_logits, grad_transforms = torch.empty_like(grad), torch.zeros_like(transforms)
    for image in range(grad.shape[0]):
        kernels = _kernels(image, lattices, axis_taps, scales, shape, transposed=True)
        _differentiate(grad[image], marginals[image], transforms, kernels, grad_logits[image], grad_transforms)
    return grad_logits, grad_transforms


@_backward_op.register_fake
def _(grad, marginals, transforms, lattices, axis_taps, scales, shape):
    return torch.empty_like(grad, memory_format=torch.contiguous_format), torch.empty_like(transforms)


def _differentiate(
    grad: Tensor, marginals: Tensor, transforms: Tensor, kernels: list[_Kernel], grad_logits: Tensor, grad_transforms: Tensor
) -> None:
    """One image, from the last iteration to the first: g is the gradient of that iteration's Qu, (N, C)."""
    labels, points = grad.shape
    channels, lanes = marginals.shape[2], layout.lanes(labels)
    padded = torch.zeros(transforms.shape[0], channels, channels)
    padded[:, :labels, :labels] = transforms

    def over_points(kernel) -> None:
        threads.over_range(kernel, points, SMALLEST_RANGE)

    g, planes = np.empty((points, channels), np.float32), grad.numpy()
    over_points(lambda a, b: numba_cpu.to_rows(planes, g, np.float32(0), a, b))
    total = g.copy()
    h, grad_q = torch.empty(points, channels), torch.empty(points, channels)
    spare = np.empty_like(g)
    factors = [kernel.output_factor(points) for kernel in kernels]
    for q in reversed(marginals.unbind(0)):
        for m, (kernel, factor) in enumerate(zip(kernels, factors, strict=True)):
            message = h.numpy()
            table = kernel.table(g, lanes, message, spare, True)
            if kernel.lattice is not None:
                corners, weights = kernel.lattice.vertices.numpy().view(np.uint32), kernel.lattice.weights.numpy()
                over_points(
                    lambda a, b, s=(table, corners, weights, factor): slice_points(*s, message, lanes, a, b)
                )
            elif kernel.after is not None:
                over_points(lambda a, b, f=factor: scale_points(message, f, message, a, b))
            grad_transforms[m] -= (h.t() @ q)[:labels, :labels]
            torch.addmm(grad_q, h, padded[m], beta=0 if m == 0 else 1, alpha=-1, out=grad_q)
        over_points(
            lambda a, b, q=q.numpy(): numba_cpu.softmax_backward(q, grad_q.numpy(), g, total, a, b)
        )
    result = grad_logits.numpy()
    over_points(lambda a, b: numba_cpu.to_planes(total, result, a, b))


def _save(ctx, inputs, output) -> None:
    _, transforms, lattices, axis_taps, scales, ctx.shape, _, keep = inputs
    assert keep, "the marginals of a differentiated recurrence are kept"
    ctx.counts = len(lattices), len(axis_taps), len(scales)
    ctx.save_for_backward(output[1], transforms, *lattices, *axis_taps, *scales)


def _backward(ctx, grad: Tensor, _):
    marginals, transforms, *rest = ctx.saved_tensors
    lattices, taps, scales = ctx.counts
    parts = rest[:lattices], rest[lattices : lattices + taps], rest[lattices + taps :]
    grad_logits, grad_transforms = _backward_op(grad, marginals, transforms, *parts, ctx.shape)
    return grad_logits, grad_transforms, [None] * lattices, [None] * taps, [None] * scales, None, None, None


_forward_op.register_autograd(_backward, setup_context=_save)
