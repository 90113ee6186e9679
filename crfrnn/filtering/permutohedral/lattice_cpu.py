"""The lattice on the CPU: allocation, threads, custom ops around the kernels of `vertices_cpu.py` and `numba_cpu.py`.

A lattice is a handful of tensors, so that it can be the output of one op and the input of others: it is built
once for each image and shared by all iterations, forward and backward. How many vertices there are is known
only after counting, but an op's output shape may not depend on data under `torch.compile`, so vertex tables have
room for the most there can be, N (d + 1). Memory that is never touched is never taken from the system.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crfrnn.filtering.feature_gradient import feature_gradient
from crfrnn.filtering.operator import Lattice
from crfrnn.filtering.permutohedral import numba_cpu, vertices_cpu
from crfrnn.filtering.permutohedral.keys import KEY_BITS, check_reach, scattered_strides
from crfrnn.filtering.permutohedral.lattice_tensors import Blur, LatticeTensors, lattice_gain
from crfrnn.filtering.permutohedral.own_weight import own_weight
from crfrnn.filtering.permutohedral.stencil import STENCILS, axis_scale
from crfrnn.runtime import layout, memory, threads
from crfrnn.runtime.custom_ops import CustomOp, each_a_tensor, like_the_first, plain_call

NUMPY = {torch.int32: np.int32, torch.int64: np.int64, torch.float32: np.float32, torch.float64: np.float64}
SIZED = "ghosts", "owners", "chains"  # whose sizes depend on the data
SCHEMA = f"{each_a_tensor(LatticeTensors._fields)}, SymInt line, bool transposed"  # the end of the ops that filter
BITS_OF_SET = 32  # for each vertex at least, in the set of those that there are
MOST_KEYS = 1  # for each corner of a point, where a table has an entry for every key: as much memory as the corners
SMALLEST_TABLE = 1 << 14  # hashed
MOST_ENTRIES = 2**31  # vertices and corners are numbered in 32 bits
SMALLEST_RANGE = 2048  # points worth a thread of their own


class Numbering(NamedTuple):
    """How keys are made of coordinates; see `keys.py`."""

    strides: np.ndarray  # (words, d + 1) int64, with zeros for a coordinate that follows from the others
    lowest: np.ndarray  # (words,) int64, taken away, so that a number of mixed radix begins at 0
    size: int  # all keys are below it; 0 where there are several words


def key_numbering(low: np.ndarray, high: np.ndarray, rings: int = 0) -> Numbering:
    """Of every lattice point within reach of the features.

    low, high (d,): the range of each scaled feature; rings: of vertices around those that points have.
    """
    dimensions = low.size
    corners = dimensions + 1
    check_reach(float(max(np.abs(low).max(), np.abs(high).max())), dimensions)
    # the range of each coordinate, as `embed` makes them of features, in whole cells of d + 1 with some on each side
    margin = 2 + rings
    least = np.array([low[k:].sum() - k * (high[k - 1] if k else 0.0) for k in range(corners)])
    most = np.array([high[k:].sum() - k * (low[k - 1] if k else 0.0) for k in range(corners)])
    first = np.floor(least / corners) - margin
    cells = np.ceil(most / corners) + margin + 1 - first
    cells = np.ceil(cells / corners) * corners  # so that the strides but for the first are multiples of d + 1
    words: list[list[int]] = [[]]
    used = np.log2(corners)
    for k in np.sort(np.argsort(-cells, kind="stable")[1:]).tolist():  # all but the longest
        if used + np.log2(cells[k]) > KEY_BITS:
            words.append([])
            used = np.log2(corners)
        words[-1].append(k)
        used += np.log2(cells[k])
    if len(words) > 2:
        return Numbering(np.pad(scattered_strides(dimensions), ((0, 0), (0, 1))), np.zeros(2, np.int64), 0)
    strides = np.zeros((len(words), corners), np.int64)
    for word, coordinates in enumerate(words):
        stride = 1
        for k in coordinates:
            strides[word, k] = stride
            stride *= int(cells[k])
    lowest = strides @ (first * corners).astype(np.int64)
    # the remainder of a vertex, up to d, comes on top of each of its digits
    return Numbering(strides, lowest, corners * stride + dimensions * int(strides.sum()) if len(words) == 1 else 0)


def _most_vertices(points: int, corners: int, accuracy: int) -> int:
    """The most vertices there can be: all corners differ, and none shares its neighbours with another."""
    most = points * corners
    for neighbours in STENCILS[accuracy].rings:
        most += most * 2 * corners // neighbours
    return most


def _build(features: Tensor, line: int, accuracy: int, into: LatticeTensors, tight: bool) -> LatticeTensors:
    """One image: features (d, N), float32 or float64, into row views of the batch's tensors.

    Returns them. With `tight` the `SIZED` ones are new, and as large as they must be.
    """
    dimensions, points = features.shape
    corners = dimensions + 1
    if points * corners >= MOST_ENTRIES:
        raise ValueError(
            f"features: {points} points in {dimensions} dimensions are too many for one lattice (at most"
            f" {MOST_ENTRIES // corners - 1}); split the image into overlapping tiles"
        )
    f = features.numpy()
    scale = axis_scale(dimensions, accuracy).numpy()
    low, high = f.min(axis=1).astype(np.float64), f.max(axis=1).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("features: NaN or infinity; clean the guide or check the bandwidths")
    rings = STENCILS[accuracy].rings
    numbering = key_numbering(low * scale, high * scale, len(rings))
    strides = numbering.strides
    box = numbering.size if numbering.size <= MOST_KEYS * points * corners else 0

    vertices, weights = into.vertices.numpy().view(np.uint32), into.weights.numpy()
    strips = list(pairwise(layout.strips(points, line)))
    vertex_keys = memory.empty((strides.shape[0], points * corners), np.int64)
    tables: list[np.ndarray] = []

    def number(start: int, stop: int) -> int:
        try:
            table = tables.pop()
        except IndexError:
            table = _table(box, SMALLEST_TABLE)
        out = vertices_cpu.number_vertices(f, scale, *numbering[:2], vertices, weights, vertex_keys, table, start, stop)
        if box:
            tables.append(table)  # for the next strip: it is empty again, and its memory has come
        return out

    rows = into.rows.numpy()
    rows[0] = 0
    rows[1 : 1 + len(strips)] = np.cumsum(threads.together([partial(number, *strip) for strip in strips]))
    rows[1 + len(strips) :] = rows[len(strips)]

    if tight:
        shape = (int(rows[-1] - rows[1]),)  # the first strip has none
        into = into._replace(ghosts=_new(shape), owners=_new(shape))
    ghosts, owners = into.ghosts.numpy().view(np.uint32), into.owners.numpy().view(np.uint32)
    row_keys = memory.empty((strides.shape[0], int(rows[-1])), np.int64)
    places = np.array([start * corners for start, _ in strips])
    table = tables.pop() if tables else _table(box, _power_of_two(2 * len(row_keys[0])))
    tables.clear()
    count = vertices_cpu.merge_strips(vertex_keys, places, rows, row_keys, ghosts, owners, table)

    sizes = into.sizes.numpy()
    sizes[0], sizes[-1] = count, accuracy
    offsets = strides.sum(axis=1, keepdims=True) - corners * strides
    for least in rings:
        row_keys, table = vertices_cpu.surround(row_keys, ghosts[:count], table, offsets, least)
    vertex_count = row_keys.shape[1]
    rows[len(strips) :] = vertex_count  # the last strip clears what was added around all of them

    owned = memory.empty((vertex_count - count,), np.uint32)
    occupied = memory.empty((0 if box else _power_of_two(vertex_count * BITS_OF_SET // 64),), np.uint64)
    vertices_cpu.note_keys(row_keys, ghosts[:count], owned, occupied)

    if tight:
        into = into._replace(chains=_new((corners, vertex_count)))

    def link(axis: int, chain: np.ndarray) -> None:
        along = offsets[:, axis].copy()
        sizes[1 + axis] = vertices_cpu.link_chain(row_keys, owned, occupied, table, along, chain)

    tasks = [partial(link, axis, chain) for axis, chain in enumerate(into.chains.numpy())]
    for k in range(1, len(strips)):
        tasks.append(partial(vertices_cpu.move_vertices, vertices, np.uint32(rows[k]), *strips[k]))
    threads.together(tasks)
    return into


def _new(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(memory.empty(shape, np.int32))


def _table(box: int, size: int) -> np.ndarray:
    """That finds vertices by their keys, see `vertices_cpu.py`: for all keys of a box, or hashed, of this size."""
    return np.zeros(box, np.uint32) if box else memory.zeros((size,), np.uint64)


def _power_of_two(least: int) -> int:
    return 1 << least.bit_length()


def build(features: Tensor, line: int, accuracy: int, tight: bool) -> list[Tensor]:
    """The `LatticeTensors` of features (B, d, N). With `tight` the `SIZED` ones have no more room than they need.

    Otherwise all is zeros where nothing is written, as the output of an op may not differ from call to call.
    """
    tight = tight and features.numel() > 0
    shapes = _empty(features.to("meta"), line, accuracy, tight)
    make = memory.empty if tight else np.zeros
    lattices = LatticeTensors(*(torch.from_numpy(make(tuple(t.shape), NUMPY[t.dtype])) for t in shapes))
    features = features.detach().contiguous()
    images = threads.for_each(
        lambda image: _build(features[image], line, accuracy, _image(lattices, image), tight),
        features.shape[0] if features.shape[2] else 0,
    )
    if tight:
        lattices = lattices._replace(**{name: _batch([getattr(i, name) for i in images]) for name in SIZED})
    return list(lattices)


def _batch(tensors: list[Tensor]) -> Tensor:
    """Of several images, side by side."""
    if len(tensors) == 1:
        return tensors[0][None]
    longest = max(t.shape[-1] for t in tensors)
    return torch.stack([torch.nn.functional.pad(t, (0, longest - t.shape[-1])) for t in tensors])


def _empty(features: Tensor, line: int, accuracy: int, tight: bool) -> list[Tensor]:
    del line
    batch, dimensions, points = features.shape
    corners = dimensions + 1
    most, vertices = (0, 0) if tight else (points * corners, _most_vertices(points, corners, accuracy))
    return [
        features.new_empty((batch, points, corners), dtype=torch.int32),
        features.new_empty((batch, points, corners)),
        features.new_empty((batch, most), dtype=torch.int32),
        features.new_empty((batch, most), dtype=torch.int32),
        features.new_empty((batch, corners, vertices), dtype=torch.int32),
        features.new_empty((batch, layout.MOST_STRIPS + 1), dtype=torch.int64),
        features.new_empty((batch, corners + 2), dtype=torch.int64),
    ]


_build_batch = CustomOp("permutohedral_build", build, fake=_empty, device_types="cpu")


def _image(lattices: Sequence[Tensor], number: int) -> LatticeTensors:
    """One image of a batch."""
    return LatticeTensors(*(tensor[number] for tensor in lattices))


def filter_points(values: Tensor, features: Tensor | None, *lattices_and: Any) -> Tensor:
    """(B, C, N) -> (B, C, N), see `SCHEMA`.

    `features` (B, d, N), where they need a gradient, are there for autograd to see.
    """
    *lattices, line, transposed = lattices_and
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    threads.for_each(
        lambda image: _filter_image(values[image], _image(lattices, image), line, transposed, out[image]),
        values.shape[0] if values.shape[2] else 0,
    )
    return out


def _filter_image(values: Tensor, lattice: LatticeTensors, line: int, transposed: bool, out: Tensor) -> None:
    """values, out (C, N)."""
    channels, points = values.shape
    if channels == 1:  # what normalises: numbers that need no vectors
        lanes, inside, result = (0,), values.contiguous().view(points, 1).numpy(), out.view(points, 1).numpy()
    else:
        lanes, inside = layout.lanes(channels), layout.to_point_major(values).numpy()
        result = inside
    corners, weights = lattice.vertices.numpy().view(np.uint32), lattice.weights.numpy()
    rows = lattice.rows.tolist()
    table = memory.empty((rows[-1], inside.shape[1]), inside.dtype)
    splat = partial(numba_cpu.splat, inside, corners, weights, table, lanes)
    ranges = zip(pairwise(rows), pairwise(layout.strips(points, line)), strict=False)
    threads.together([partial(splat, *own, *strip) for own, strip in ranges])
    Blur(lattice, inside.dtype, lanes, transposed)(table)
    factor = np.full(points, lattice_gain(lattice), inside.dtype)
    read = partial(numba_cpu.slice_points, table, corners, weights, factor, result, lanes)
    threads.over_range(read, points, SMALLEST_RANGE)
    if channels > 1:
        layout.to_channel_major(torch.from_numpy(result), channels, out)


def features_gradient(values: Tensor, grad: Tensor, features: Tensor, *lattices_and: Any) -> Tensor:
    """values, the gradient of their sums (B, C, N), features (B, d, N) -> the gradient of the features."""
    *lattices, line, transposed = lattices_and
    out = torch.zeros_like(features, memory_format=torch.contiguous_format)

    def of_image(image: int) -> None:
        lattice = _image(lattices, image)

        def sums(v: Tensor, turned: bool) -> Tensor:
            result = torch.empty_like(v, memory_format=torch.contiguous_format)
            _filter_image(v, lattice, line, turned != transposed, result)
            return result

        out[image] = feature_gradient(sums, features[image], values[image], grad[image])

    threads.for_each(of_image, values.shape[0] if values.shape[2] else 0)
    return out


_features_gradient = CustomOp(
    "permutohedral_feature_gradient",
    features_gradient,
    schema=f"(Tensor values, Tensor grad, Tensor features, {SCHEMA}) -> Tensor",
    fake=lambda values, grad, features, *_: like_the_first(features),
    device_types="cpu",
)


def _save(ctx, inputs, output) -> None:
    values, features, *lattices, ctx.line, ctx.transposed = inputs
    ctx.save_for_backward(*lattices, *([] if features is None else [values, features]))


def _backward(ctx, grad: Tensor):
    count, saved = len(LatticeTensors._fields), ctx.saved_tensors  # read once: gradient checkpointing gives them once
    lattices, rest = saved[:count], saved[count:]
    of_values, of_features = None, None
    if ctx.needs_input_grad[0]:
        of_values = _filter.op(grad, None, *lattices, ctx.line, not ctx.transposed)
    if ctx.needs_input_grad[1]:
        values, features = rest
        of_features = _features_gradient.op(values, grad, features, *lattices, ctx.line, ctx.transposed)
    return of_values, of_features, *[None] * (count + 2)


_filter = CustomOp(
    "permutohedral_filter",
    filter_points,
    schema=f"(Tensor values, Tensor? features, {SCHEMA}) -> Tensor",
    fake=like_the_first,
    device_types="cpu",
    backward=_backward,
    save=_save,
)


def own_weights(lattices: list[Tensor]) -> Tensor:
    """The diagonal of the whole filter, (B, 1, N); see `own_weight.py`."""
    out = _own_weights_fake(lattices).zero_()
    for image in range(out.shape[0] if out.numel() else 0):
        lattice = _image(lattices, image)
        count, *lengths, accuracy = lattice.sizes.tolist()
        nothing = int(lattice.rows[-1])
        owner_of = torch.arange(nothing)
        owner_of[lattice.ghosts[:count].long()] = lattice.owners[:count].long()
        following, previous = torch.full((2, len(lengths), nothing + 1), nothing)
        for axis, length in enumerate(lengths):
            chain = lattice.chains[axis, :length].long()
            row, inside = torch.where(chain < 0, ~chain, chain), chain[:-1] >= 0
            following[axis, row[:-1][inside]] = row[1:][inside]
            previous[axis, row[1:][inside]] = row[:-1][inside]
        corners = owner_of[lattice.vertices.long()]
        taps = STENCILS[accuracy].taps
        out[image, 0] = lattice_gain(lattice) * own_weight(corners, lattice.weights, following, previous, taps)
    return out


def _own_weights_fake(lattices: list[Tensor]) -> Tensor:
    weights = LatticeTensors(*lattices).weights
    return weights.new_empty(weights.shape[0], 1, weights.shape[1])


_own_weights = CustomOp("permutohedral_own_weights", own_weights, fake=_own_weights_fake, device_types="cpu")


class LatticeOperator:
    """One lattice for each image of a batch: features (B, d, *S). Same interface as `reference.LatticeOperator`."""

    def __init__(self, features: Tensor, accuracy: int = 1):
        self.line = layout.line(tuple(features.shape[2:]))
        flat = features.flatten(2)
        self.features = flat if flat.requires_grad and torch.is_grad_enabled() else None
        flat = flat.detach()
        tight = plain_call(flat)  # then shapes may depend on the data
        self.lattices = LatticeTensors(*_build_batch(flat, self.line, accuracy, tight))
        self.form = Lattice("numba", self.lattices)

    def apply(self, values: Tensor, transposed: bool = False) -> Tensor:
        """(B, C, N) -> (B, C, N)."""
        return _filter(values, self.features, *self.lattices, self.line, transposed)

    def diagonal(self) -> Tensor:
        """What each point gets of its own value, (B, 1, N)."""
        return _own_weights(list(self.lattices))
