"""The permutohedral lattice in plain torch: readable, on any device, differentiable in the values and the features.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice" (Eurographics 2010):
splat the values to the corners of each point's simplex, blur along each of the d + 1 lattice directions, slice.
The mathematics is in this folder's README; `numba_cpu.py` is the fast twin and is tested equal to this file.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crfrnn.filtering.feature_gradient import DifferentiableSums
from crfrnn.filtering.permutohedral.own_weight import own_weight
from crfrnn.filtering.permutohedral.stencil import STENCILS, axis_scale, gain


class Corners(NamedTuple):
    """The simplex around each of N points: keys (N, d + 1, d) int64 and barycentric weights (N, d + 1)."""

    keys: Tensor
    weights: Tensor


def embed(features: Tensor, accuracy: int = 1) -> Corners:
    """features (d, N) -> the corners of the enclosing simplex of every point. float64 throughout."""
    dimensions = features.shape[0]
    corners = dimensions + 1
    scaled = features.double() * axis_scale(dimensions, accuracy).to(features.device).unsqueeze(1)

    # elevate: d features to d + 1 coordinates that sum to zero
    total = torch.zeros_like(scaled[0])
    elevated: list[Tensor] = [total] * corners
    for k in range(dimensions, 0, -1):
        elevated[k] = total - k * scaled[k - 1]
        total = total + scaled[k - 1]
    elevated[0] = total
    coordinates = torch.stack(elevated)  # (d + 1, N)

    # the nearest point all of whose coordinates are multiples of d + 1, before it is moved onto the hyperplane
    nearest = torch.ceil(coordinates * (1.0 / corners) - 0.5)
    excess = nearest.sum(dim=0)

    # rank 0 has the largest remainder; ties go to the later coordinate
    remainder = coordinates - nearest * corners
    rank = torch.zeros_like(nearest, dtype=torch.int64)
    for i in range(corners):
        for j in range(i + 1, corners):
            less = remainder[i] < remainder[j]
            rank[i] += less
            rank[j] += ~less
    rank = rank + excess.long()
    shift = (rank < 0).long() - (rank > dimensions).long()
    rank = rank + shift * corners
    nearest = nearest + shift

    # barycentric weights: differences of the remainders in the order of their ranks
    fraction = coordinates * (1.0 / corners) - nearest
    ordered = torch.empty_like(fraction).scatter_(0, rank, fraction)
    weights = torch.empty_like(ordered)
    weights[0] = ordered[dimensions] + (1.0 - ordered[0])
    for k in range(1, corners):
        weights[k] = ordered[dimensions - k] - ordered[corners - k]

    # corner r adds r to every coordinate, less d + 1 where the rank is above d - r; d coordinates identify it
    r = torch.arange(corners, device=features.device).view(-1, 1, 1)
    keys = nearest.long() * corners + r - corners * (rank > dimensions - r)
    return Corners(keys[:, :dimensions].permute(2, 0, 1).contiguous(), weights.t().contiguous())


def number(keys: Tensor) -> Tensor:
    """Number equal rows alike: (n, d) int64 -> (n,) int64 in 0..(distinct rows - 1), one column at a time."""
    ids = torch.zeros_like(keys[:, 0])
    for column in keys.unbind(1):
        _, column_ids = torch.unique(column, return_inverse=True)
        _, ids = torch.unique(ids * (column_ids.max() + 1) + column_ids, return_inverse=True)
    return ids


class Lattice:
    """The lattice of one set of points: features (d, N). Values are (N, C) outside and (M, C) on the vertices."""

    def __init__(self, features: Tensor, accuracy: int = 1):
        self.dimensions, self.points = features.shape
        self.accuracy = accuracy
        corners = self.dimensions + 1
        keys, weights = embed(features, accuracy)
        self.weights = weights.to(features.dtype)  # (N, d + 1)
        self.vertices = number(keys.reshape(-1, self.dimensions)).view(-1, corners)  # (N, d + 1)
        self.count = int(self.vertices.max()) + 1
        vertex_keys = keys.new_empty(self.count, self.dimensions)
        vertex_keys[self.vertices.flatten()] = keys.reshape(-1, self.dimensions)
        for neighbours in STENCILS[accuracy].rings:
            vertex_keys = self._surround(vertex_keys, neighbours)
        self.next = [self._neighbours(vertex_keys, axis, +1) for axis in range(corners)]
        self.previous = [self._neighbours(vertex_keys, axis, -1) for axis in range(corners)]

    def _surround(self, vertex_keys: Tensor, neighbours: int) -> Tensor:
        """Add the vertices that have at least so many neighbours among these, for the blur to pass through.

        keys (M, d) -> (M', d)
        """
        axes = range(self.dimensions + 1)
        around = [vertex_keys + sign * self._step(axis, vertex_keys) for axis in axes for sign in (+1, -1)]
        keys = torch.cat([vertex_keys, *around])
        ids = number(keys)
        keep = torch.bincount(ids[self.count :]) >= neighbours
        keep[ids[: self.count]] = True
        ids = torch.where(keep, keep.cumsum(0) - 1, -1)[ids]
        self.vertices = ids[self.vertices]
        self.count = int(keep.sum())
        return keys.new_empty(self.count, self.dimensions).index_copy_(0, ids[ids >= 0], keys[ids >= 0])

    def _step(self, axis: int, vertex_keys: Tensor) -> Tensor:
        """What one step along `axis` adds to a key, (d,)."""
        offset = torch.ones_like(vertex_keys[0])
        if axis < self.dimensions:
            offset[axis] = -self.dimensions
        return offset

    def _neighbours(self, vertex_keys: Tensor, axis: int, sign: int) -> Tensor:
        """The vertex one step along `axis`, (M,); M itself (a row of zeros) where there is none."""
        ids = number(torch.cat([vertex_keys, vertex_keys + sign * self._step(axis, vertex_keys)]))
        vertex_of = torch.full((2 * self.count,), self.count, device=vertex_keys.device)
        vertex_of[ids[: self.count]] = torch.arange(self.count, device=vertex_keys.device)
        return vertex_of[ids[self.count :]]

    def splat(self, values: Tensor) -> Tensor:
        spread = (self.weights.unsqueeze(2) * values.unsqueeze(1)).reshape(-1, values.shape[1])
        return values.new_zeros(self.count, values.shape[1]).index_add(0, self.vertices.flatten(), spread)

    def blur(self, lattice: Tensor, axis: int) -> Tensor:
        """The stencil along one axis; what is several steps away is reached through the vertices between."""
        centre, *sides = STENCILS[self.accuracy].taps
        padded = torch.cat([lattice, lattice.new_zeros(1, lattice.shape[1])])
        nothing = torch.full((1,), self.count, device=lattice.device)
        following, previous = torch.cat([self.next[axis], nothing]), torch.cat([self.previous[axis], nothing])
        ahead, behind = following[:-1], previous[:-1]
        out = centre * lattice
        for tap in sides:
            out = out + tap * (padded[ahead] + padded[behind])
            ahead, behind = following[ahead], previous[behind]
        return out

    def slice(self, lattice: Tensor) -> Tensor:
        return (self.weights.unsqueeze(2) * lattice[self.vertices]).sum(dim=1)

    def filter(self, values: Tensor, transposed: bool = False) -> Tensor:
        """S^T B_d ... B_0 S values; the transpose blurs in the reverse order."""
        lattice = self.splat(values)
        axes = range(self.dimensions, -1, -1) if transposed else range(self.dimensions + 1)
        for axis in axes:
            lattice = self.blur(lattice, axis)
        return gain(self.dimensions, self.accuracy) * self.slice(lattice)

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (N,)."""
        nothing = self.next[0].new_full((1,), self.count)
        following, previous = (
            torch.stack([torch.cat([table, nothing]) for table in tables]) for tables in (self.next, self.previous)
        )
        taps = STENCILS[self.accuracy].taps
        return gain(self.dimensions, self.accuracy) * own_weight(self.vertices, self.weights, following, previous, taps)

    def sums(self, values: Tensor, transposed: bool) -> Tensor:
        """`filter` for values (C, N)."""
        return self.filter(values.t(), transposed).t()


class LatticeOperator:
    """One lattice for each image of a batch: features (B, d, *S), N points in all.

    Differentiable in the values, by autograd; in the features, where they need it, by `feature_gradient`.
    """

    form = None

    def __init__(self, features: Tensor, accuracy: int = 1):
        flat = features.flatten(2)
        self.features = flat if flat.requires_grad and torch.is_grad_enabled() else None
        self.lattices = [Lattice(image, accuracy) for image in flat.detach() if image.numel()]

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        if values.numel() == 0:
            return torch.zeros_like(values)
        sums = [lattice.sums for lattice in self.lattices]
        if self.features is not None and torch.is_grad_enabled():
            out = DifferentiableSums.apply(values, self.features, sums, transposed)
            assert isinstance(out, Tensor)
            return out
        return torch.stack([k(image, transposed) for k, image in zip(sums, values, strict=True)])

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (B, 1, N)."""
        return torch.stack([lattice.diagonal() for lattice in self.lattices]).unsqueeze(1)
