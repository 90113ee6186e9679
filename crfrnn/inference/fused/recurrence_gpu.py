"""T iterations on a GPU, fused: the twin of `recurrence_cpu.py` in Triton, for float32, bfloat16 and float16.

An iteration is one pass over the pixels (`triton_gpu.py`) and what happens on the vertices and coarse grids of the
kernels (`passing_gpu.py`). Nothing waits for the device between the first launch and the last. Logits of half precision
keep the marginals in half precision between the passes; all arithmetic and every sum is float32.

Weighting and compatibility are one matrix for each kernel, A_m = mu W_m, made by autograd outside. The backward pass
follows `recurrence_cpu.py`: h_m = K_m^T g, and with nothing stored but the marginals Q of each iteration,

    dL/dA_m = - h_m Q^T        dL/dQ = - sum_m A_m^T h_m        g <- softmax'(Q) dL/dQ
"""

from typing import Any

import torch
from torch import Tensor

from crfrnn.inference.fused import triton_gpu
from crfrnn.inference.fused.kernel_tensors import KernelTensors, kernel_tensors
from crfrnn.inference.fused.passing_gpu import LATTICE_TENSORS, MessagePassing
from crfrnn.inference.iteration import label_transforms
from crfrnn.inference.problem import Problem
from crfrnn.runtime import layout_gpu
from crfrnn.runtime.custom_ops import CustomOp


def mean_field(problem: Problem, iterations: int, normalize: bool = False) -> Tensor:
    """Same contract as `recurrence.recurrence`, for problems that `choice.fused` accepts and iterations > 0.

    With `normalize` the softmax of the result, which costs nothing more here; it is not differentiable. The result is
    float32.
    """
    logits = problem.unary if problem.floor else problem.scores
    weights, mu = problem.kernel_weights, problem.compatibility
    shares = logits.new_empty(0, dtype=torch.float32)
    if weights.dim() == 2:  # one product with the compatibility is enough, after weighting by class
        shares = weights.detach().expand(-1, logits.shape[1]).contiguous()
    transforms = label_transforms(weights, mu)
    kernels = kernel_tensors(problem, LATTICE_TENSORS)
    keep = torch.is_grad_enabled() and not normalize and (logits.requires_grad or transforms.requires_grad)
    y, _ = _infer(logits.flatten(2), transforms, mu.detach(), shares, *kernels, iterations, keep, normalize)
    return y.reshape(logits.shape)


@layout_gpu.on_its_device
def infer(
    logits: Tensor,
    transforms: Tensor,
    compatibility: Tensor,
    shares: Tensor,
    lattices: list[Tensor],
    thetas: list[float],
    scales: list[Tensor],
    shape: list[int],
    iterations: int,
    keep: bool,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """logits (B, L, N) -> (Qu of the last iteration, or with `normalize` its softmax, (B, L, N) float32;
    marginals before each iteration, (T, B N, C) with `keep`, else empty).

    Where weights are by class, `shares` (M, L) and `compatibility` (L, L) are what `transforms` is the product of.
    """
    logits, batch, labels = logits.detach().contiguous(), logits.shape[0], logits.shape[1]
    rows = (iterations if keep else 1) * layout_gpu.padded(labels) * logits.dtype.itemsize + 4 * labels
    layout_gpu.demand("logits", batch * logits.shape[2] * rows, logits.device)
    kernels = KernelTensors(lattices, thetas, scales, shape)
    passing = MessagePassing(kernels, batch, labels, logits.device)
    matrices = passing.matrices(compatibility[None] if shares.numel() else transforms.detach(), shares, False)
    kept = torch.empty(
        iterations if keep else 1, batch * passing.points, passing.channels, dtype=logits.dtype, device=logits.device
    )
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    passing.over_pixels(triton_gpu.update, (logits, kept[0]), None, SOFTMAX=True, PLANES=False)
    last = len(passing.pairs) - 1
    for t in range(1, iterations + 1):
        passing.exchange(kept[t - 1 if keep else 0])
        source = logits
        for pair in range(last):  # further kernels: what they subtract is kept in the memory of the result
            passing.over_pixels(triton_gpu.update, (source, out), pair, matrices[pair], SOFTMAX=False, PLANES=True)
            source = out
        end = t == iterations
        into = out if end else kept[t if keep else 0]
        flags: dict[str, Any] = {"SOFTMAX": normalize or not end, "PLANES": end}
        passing.over_pixels(triton_gpu.update, (source, into), last, matrices[last], **flags)
    return out, kept if keep else kept[:0, 0, 0].clone()


def _infer_fake(
    logits, transforms, compatibility, shares, lattices, thetas, scales, shape, iterations, keep, normalize
):
    batch, labels, points = logits.shape
    kept = (iterations, batch * points, layout_gpu.padded(labels)) if keep else (0,)
    return logits.new_empty(logits.shape, dtype=torch.float32), logits.new_empty(kept)


@layout_gpu.on_its_device
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
    """Gradients of the logits (B, L, N) float32 and, with `learned`, of the transforms (M, L, L), else zeros."""
    batch, labels, _ = grad.shape
    kernels = KernelTensors(lattices, thetas, scales, shape)
    passing = MessagePassing(kernels, batch, labels, grad.device, transposed=True)
    matrices = passing.matrices(transforms, transforms.new_empty(0), transposed=True)
    total = grad.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    grad_transforms = torch.zeros_like(transforms)
    g = layout_gpu.to_rows(grad, marginals.dtype)
    saved = torch.empty(2, *g.shape, device=g.device) if learned else None
    partial = torch.empty_like(total) if len(passing.pairs) > 1 else total
    last = len(passing.pairs) - 1
    for t in reversed(range(len(marginals))):
        q = marginals[t]
        passing.exchange(g)
        if last:
            partial.zero_()
        for pair, both in enumerate(matrices):
            if pair < last:
                flags: dict[str, Any] = {"SOFTMAX": False, "PLANES": True}
                passing.over_pixels(triton_gpu.update, (partial, partial), pair, both, saved, **flags)
            else:
                arguments = q, partial, total, g
                passing.over_pixels(triton_gpu.update_gradient, arguments, pair, both, saved, CHAINED=last > 0)
            if saved is not None:
                for kernel, message in zip(passing.pairs[pair], saved, strict=True):
                    if kernel is not None:
                        grad_transforms[kernel[0]] -= message[:, :labels].t() @ q[:, :labels].float()
    return total, grad_transforms


def _differentiate_fake(grad, marginals, transforms, *_):
    return grad.new_empty(grad.shape, dtype=torch.float32), torch.empty_like(transforms)


def _save(ctx, inputs, output) -> None:
    logits, transforms, _, _, lattices, ctx.thetas, scales, ctx.shape, _, keep, _ = inputs
    assert keep, "the marginals of a differentiated recurrence are kept"
    ctx.lattices, ctx.dtype = len(lattices), logits.dtype
    ctx.set_materialize_grads(False)  # the marginals get no gradient: make no zeros for it
    ctx.save_for_backward(output[1], transforms, *lattices, *scales)


def _backward(ctx, grad: Tensor, _):
    marginals, transforms, *rest = ctx.saved_tensors
    lattices, scales = rest[: ctx.lattices], rest[ctx.lattices :]
    learned = ctx.needs_input_grad[1]
    of_logits, of_transforms = _differentiate.op(
        grad, marginals, transforms, lattices, ctx.thetas, scales, ctx.shape, learned
    )
    first = of_logits.to(ctx.dtype), of_transforms, None, None
    return *first, [None] * len(lattices), None, [None] * len(scales), None, None, None, None


_infer = CustomOp(
    "mean_field_forward_gpu",
    infer,
    fake=_infer_fake,
    device_types=layout_gpu.devices(),
    backward=_backward,
    save=_save,
)
_differentiate = CustomOp(
    "mean_field_backward_gpu", differentiate, fake=_differentiate_fake, device_types=layout_gpu.devices()
)
