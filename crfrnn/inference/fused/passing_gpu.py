"""Message passing of all kernels of a batch (4.2) on a GPU, cut in two halves so that the pixels are passed over once.

A pass over the pixels (`triton_gpu.py`) reads the messages of one iteration and writes the marginals of the next; what
is in between happens on the vertices of the lattices and the coarse grids of the separable kernels.
"""

import math
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from crfrnn.filtering.permutohedral.lattice_gpu import LatticeTensors, splat_and_blur, tables
from crfrnn.filtering.separable.grid_gpu import passes, run_passes
from crfrnn.inference.fused import triton_gpu
from crfrnn.inference.fused.kernel_tensors import KernelTensors
from crfrnn.runtime.layout_gpu import padded, power_of_two

LATTICE_TENSORS = len(LatticeTensors._fields)
BLOCK = 32  # channels that are gathered together: a cache line of float32


def _tile(labels: int) -> tuple[int, int]:
    """Points and warps of a program of the pass over the pixels, for a power of two of labels.

    The sums stay in registers; these are the largest tiles that compile for Hopper without spilling them.
    """
    if labels <= 128:
        return 64, 4 if labels <= 32 else 8
    return (32, 8) if labels <= 256 else (16, 8)


class _Lattice:
    """A lattice between its normalisations, and its two tables, one of which other lattices use as well."""

    def __init__(self, lattice: LatticeTensors, scales: list[Tensor], transposed: bool, two: tuple[Tensor, Tensor]):
        before, after = reversed(scales) if transposed else scales
        self.lattice, self.transposed, self.two = lattice, transposed, two
        self.weights = lattice.weights * after.reshape(-1, 1) if after.numel() else lattice.weights
        points = lattice.points
        self.splat_weights = lattice.sorted_weights
        if before.numel():
            self.splat_weights = self.splat_weights * before.flatten().index_select(0, points)

    def exchange(self, rows: Tensor) -> None:
        self.table = splat_and_blur(self.lattice, rows, self.splat_weights, self.two, self.transposed)


class _Grid:
    """A separable kernel: all of its passes but the last."""

    def __init__(
        self,
        shape: list[int],
        thetas: tuple[float, ...],
        name: str,
        transposed: bool,
        batch: int,
        device: torch.device,
    ):
        *self.passes, self.last = passes(tuple(shape), thetas, name, transposed, torch.float32, device)
        self.batch = batch

    def exchange(self, rows: Tensor) -> None:
        # on a line with a single band nothing is left to do, but the pixels overwrite `rows` while they read this
        self.coarse = run_passes(rows, self.batch, tuple(self.passes)) if self.passes else rows.clone()


class MessagePassing:
    """All kernels of a batch, in pairs of a lattice and a separable kernel, one of which may be missing."""

    def __init__(self, kernels: KernelTensors, batch: int, labels: int, device: torch.device, transposed: bool = False):
        self.kernels, self.batch, self.labels = kernels, batch, labels
        self.points, self.width = math.prod(kernels.shape), kernels.shape[-1]
        self.channels, self.all = padded(labels), max(16, power_of_two(labels))
        lattices: list[tuple[int, _Lattice]] = []
        grids: list[tuple[int, _Grid]] = []
        scratch: Tensor | None = None
        for m in range(kernels.count):
            tensors = kernels.tensors(m)
            if tensors[0].numel():
                lattice = LatticeTensors(*tensors)
                enough = scratch is not None and scratch.shape[0] >= lattice.points.numel()
                own, *second = tables(lattice, self.channels, torch.float32, 1 if enough else 2)
                scratch = second[0] if scratch is None or not enough else scratch
                # the last of the d + 1 passes of the blur ends in its own table
                two = (own, scratch) if lattice.vertices.shape[1] % 2 == 0 else (scratch, own)
                lattices.append((m, _Lattice(lattice, kernels.scaled_by(m), transposed, two)))
            else:
                grids.append((m, _Grid(kernels.shape, *kernels.separable(m), transposed, batch, device)))
        self.pairs = list(zip_longest(lattices, grids))
        # Hopper and Ampere multiply float32 as three products of shorter numbers, with the error of one of float32
        modern = device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) >= (8, 0)
        self.precision = "tf32x3" if modern else "ieee"

    def exchange(self, rows: Tensor) -> None:
        """From marginals, or a gradient, (B N, C) to the messages that the pixels read next."""
        for pair in self.pairs:
            for kernel in pair:
                if kernel is not None:
                    kernel[1].exchange(rows)

    def matrices(self, transforms: Tensor, shares: Tensor, transposed: bool) -> list[tuple[Tensor, Tensor]]:
        """The arguments `shares` and `mixing` of each pair of kernels.

        transforms A (M, L, L) and no shares; or the compatibility (1, L, L) and shares (M, L) for weights by class.
        """
        block = min(BLOCK, self.all)
        padding = -(-self.channels // block) * block - self.labels
        rows = transforms if transposed else transforms.transpose(1, 2)
        rows = torch.nn.functional.pad(rows, (0, self.all - self.labels, 0, padding))
        columns = torch.nn.functional.pad(shares, (0, padding)) if shares.numel() else shares
        out = []
        for pair in self.pairs:
            numbers = [0 if kernel is None else kernel[0] for kernel in pair]
            picked = torch.stack([(columns if shares.numel() else rows)[m] for m in numbers])
            out.append((picked, rows) if shares.numel() else (shares, picked))
        return out

    def over_pixels(
        self,
        kernel: Any,
        arguments: tuple[Tensor, ...],
        pair: int | None,
        matrices: tuple[Tensor, Tensor] | None = None,
        saved: Tensor | None = None,
        **flags: Any,
    ) -> None:
        """One pass with the messages of a pair of kernels, or of none; `arguments` are the kernel's own."""
        nothing = arguments[0]
        lattice, grid = (None, None) if pair is None else self.pairs[pair]
        shares, mixing = (nothing, nothing) if matrices is None else matrices
        none: dict[str, Any] = dict.fromkeys(triton_gpu.Messages._fields, nothing)
        none |= {"count": 1, "nodes": 1, "width": self.width}
        messages = triton_gpu.Messages(**none)._replace(shares=shares, mixing=mixing)
        if lattice is not None:
            own = lattice[1]
            messages = messages._replace(vertices=own.lattice.vertices, corner_weights=own.weights, table=own.table)
        if grid is not None:
            band, coarse = grid[1].last, grid[1].coarse
            messages = messages._replace(columns=band.columns, taps=band.weights, count=band.columns.shape[1])
            messages = messages._replace(coarse=coarse, nodes=band.size)
        if saved is not None:
            messages = messages._replace(saved=saved)
        corners = 0 if lattice is None else messages.vertices.shape[1]
        height, warps = _tile(self.all)
        sizes = {"POINTS": height, "C": self.channels, "ALL": self.all, "BLOCK": min(BLOCK, self.all)}
        kinds = {"CORNERS": corners, "GRID": grid is not None, "SHARED": shares is not nothing and shares.numel() > 0}
        kernel[(-(-self.points // height), self.batch)](
            *arguments, self.labels, self.points, messages,
            **sizes, **kinds, **flags, SAVE=saved is not None, PRECISION=self.precision,
            num_warps=warps,
        )  # fmt: skip
