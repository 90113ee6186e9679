"""What a point gets back of its own value through the lattice: the diagonal of S^T B S, exactly.

Splatted to the d + 1 corners of its simplex, a value returns by every way that leads from one corner to another with
some number of steps along axis 0, then along axis 1, and so on. Corner r + 1 of a simplex is one step along one axis
from corner r, each time another axis, and one step along every axis leads back to where it began; so between two
corners there are as many ways as steps t around that circle fit into the stencil.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 1 << 15  # points at a time


def own_weight(vertices: Tensor, weights: Tensor, following: Tensor, previous: Tensor, taps: Sequence[float]) -> Tensor:
    """sum over the corners r, s of a point of weights[r] weights[s] B[r, s], without the gain.

    Args:
        vertices: (N, d + 1), the corners' rows.
        weights: (N, d + 1), barycentric.
        following, previous: (d + 1, M + 1), the row one step along each axis; M where there is none, and of M.
        taps: the stencil, of a vertex itself, one step away, ...

    Returns:
        (N,)
    """
    chunks = zip(vertices.split(CHUNK), weights.split(CHUNK), strict=True)
    parts = [_own_weight(v, w, following, previous, taps) for v, w in chunks]
    return torch.cat(parts) if parts else weights.new_zeros(0)


def _own_weight(v: Tensor, w: Tensor, following: Tensor, previous: Tensor, taps: Sequence[float]) -> Tensor:
    axes, radius = len(following), len(taps) - 1
    one_step = following[:, v[:, :-1]] == v[:, 1:]  # (d + 1, N, d): along which axis the next corner is
    place = torch.nn.functional.pad(one_step.long().cumsum(dim=2), (1, 0))  # steps from corner 0, (d + 1, N, d + 1)
    weight_of = w.new_tensor([*taps, 0.0])
    out = torch.zeros_like(w[:, 0])
    for s in range(axes):
        for r in range(axes):
            for t in range(-radius - 1, radius + 2):
                steps = place[:, :, r] - place[:, :, s] + t  # (d + 1, N)
                product = weight_of[steps.abs().clamp(max=radius + 1)].prod(dim=0)
                if not product.any():
                    continue
                at = v[:, s]
                for axis in range(axes):
                    for k in range(radius):
                        at = torch.where(steps[axis] > k, following[axis, at], at)
                        at = torch.where(steps[axis] < -k, previous[axis, at], at)
                out += torch.where(at == v[:, r], product * w[:, r] * w[:, s], 0)
    return out
