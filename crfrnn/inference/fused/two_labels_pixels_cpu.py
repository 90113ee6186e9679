"""The passes over the pixels for two labels, on one number for each; see `two_labels_cpu.py`.

Shapes are those of `numba_cpu.py`, with C = 1. A field is the logit of label 1 minus that of label 0, a spin
s = Q(1) - Q(0) = tanh(field / 2).
"""

from collections.abc import Callable

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from crfrnn.inference.fused.numba_cpu import clear, read, write
from crfrnn.inference.fused.softmax_cpu import TILE
from crfrnn.runtime.compiled import kernel_on_views, part_on_views
from crfrnn.runtime.vectors import LOWEST, Vectors, arrays_of, choose


def decay_python(x):
    """x = exp(-|x|), at least exp of `LOWEST`; x (n,) float32, n a multiple of `LANES`.

    It is at most 1, and 1 for 0: labels that are as probable as each other stay so, whatever the iterations enlarge.
    """
    x[:] = np.exp(np.maximum(-np.abs(x), np.float32(LOWEST)))


def logarithm_python(x):
    """x = log x of positive normal numbers; x (n,) float32, n a multiple of `LANES`."""
    x[:] = np.log(x)


def _in_place(emit: Callable):
    """An operation on x (n,), ``emit(v, vector)`` for each of its vectors."""

    @intrinsic
    def operation(typingctx, x):
        def codegen(context, builder, signature, args):
            v = Vectors(context, builder, x.dtype)
            (array,) = arrays_of(context, builder, signature, args)
            with v.vectors(cgutils.unpack_tuple(builder, array.shape)[0]) as at:
                v.store(emit(v, v.load(array.data, at)), array.data, at)
            return context.get_dummy_value()

        return types.void(x), codegen

    return operation


def _decay(v: Vectors, x):
    (value,), one = v.exp([v.builder.fneg(v.call("fabs", x))]), v.constant(1)
    return v.builder.select(v.builder.fcmp_ordered("<", value, one), value, one)


decay = choose(decay_python, _in_place(_decay))
logarithm = choose(logarithm_python, _in_place(lambda v, x: v.log([x])[0]))


@part_on_views
def _tile(scratch):
    """Two rows of TILE numbers that nobody else uses meanwhile."""
    room = scratch.sums.reshape(scratch.sums.size)
    return room[:TILE], room[TILE : 2 * TILE]


@part_on_views
def _fields(unary, messages, weights, out):
    """out = unary + sum_m weights[m] * messages[:, m]; out, unary (n,), messages (TILE, M, 1), weights (M,)."""
    for p in range(unary.size):
        out[p] = unary[p]
    for m in range(weights.size):
        for p in range(unary.size):
            out[p] += weights[m] * messages[p, m, 0]


@part_on_views
def _decays(field, out):
    """out = exp(-|field|), both (TILE,): odds of the label that is less probable."""
    for p in range(out.size):
        out[p] = field[p]
    decay(out)


@part_on_views
def _spins(field, room, out):
    """out (n, 1) = tanh(field / 2); field and room (TILE,)."""
    _decays(field, room)
    for p in range(out.shape[0]):
        size = (1 - room[p]) / (1 + room[p])
        out[p, 0] = size if field[p] >= 0 else -size


@kernel_on_views
def initialise(planes, smallest, unary, kernels, part):
    """The fields of the unary (N,), and their spins, splatted; planes (2, N) and `smallest` as in `numba_cpu.py`."""
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    field, room = _tile(scratch)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            room[:], field[:] = 1, 1
            for p in range(end - begin):
                room[p], field[p] = planes[0, first + begin + p], planes[1, first + begin + p]
            if smallest > 0:
                for p in range(TILE):
                    room[p], field[p] = max(room[p], smallest), max(field[p], smallest)
                logarithm(room)
                logarithm(field)
            for p in range(end - begin):
                field[p] -= room[p]
                unary[first + begin + p] = field[p]
            _spins(field, room, scratch.line[begin:end])
            write(kernels, scratch.line[:size], scratch, lanes, first, begin, end, y)


@kernel_on_views
def update(unary, weights, kernels, part):
    """The spins of field = unary + sum_m weights[m] * messages of kernel m, splatted; unary (N,), weights (M,)."""
    scratch, lanes, width, strip, after, start, stop = part
    clear(kernels.lattices, strip, after)
    field, room = _tile(scratch)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            read(kernels, scratch, lanes, first, begin, end, y)
            _fields(unary[first + begin : first + end], scratch.messages, weights, field)
            _spins(field, room, scratch.line[begin:end])
            write(kernels, scratch.line[:size], scratch, lanes, first, begin, end, y)


@kernel_on_views
def finish(unary, weights, out, kernels, part):
    """The last iteration: the marginals (2, N) of both labels; the rest as in `update`."""
    scratch, lanes, width, _, _, start, stop = part
    field, room = _tile(scratch)
    for first in range(start, stop, width):
        size, y = min(width, stop - first), first // width
        for begin in range(0, size, TILE):
            end = min(begin + TILE, size)
            read(kernels, scratch, lanes, first, begin, end, y)
            _fields(unary[first + begin : first + end], scratch.messages, weights, field)
            _decays(field, room)
            for p in range(end - begin):
                most, least = 1 / (1 + room[p]), room[p] / (1 + room[p])
                out[0, first + begin + p] = least if field[p] >= 0 else most
                out[1, first + begin + p] = most if field[p] >= 0 else least
