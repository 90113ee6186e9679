"""Vector operations on rows of channels for the last steps of an iteration, (4.3) to (4.6), and their gradient.

Like `runtime/rows.py`, which says what a row and `lanes` are: each operation stands beside the plain Python that
says what it does.

A row of a softmax waits for the largest of its channels, then for its exponentials, then for their sum. So each of
these steps is done for all rows of a tile before the next one: a processor works on the next rows while one waits.
What a step leaves for the next one, a number for each row, is in `scratch` (2, TILE or more, LANES): first a vector
that is not yet summed over its lanes, then, for eight rows at a time, the sums.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from crfrnn.runtime.vectors import CACHE_LINE, LANES, LOWEST, WIDEST, Vectors, arrays_of, choose

TILE = 128  # rows of one call, at the most; a multiple of LANES
NO_LABEL = -1e29  # logits below belong to channels in the padding
TOGETHER = 4  # rows that use a weight while it is in a register
LOWEST_LOGIT = -3.0e38


def softmax_rows_python(out, unary, messages, weights, scratch, lanes):
    """out = softmax(unary - sum_m weights[m] * messages[:, m]), row by row, float32.

    out (n, C); unary (n or more, C); messages (n or more, M, C); weights (M, C).
    """
    del scratch, lanes
    count = out.shape[0]
    logits = unary[:count] - (weights * messages[:count]).sum(axis=1)
    e = np.exp(np.maximum(logits - logits.max(axis=1, keepdims=True), LOWEST))
    out[:] = e / e.sum(axis=1, keepdims=True)


def logits_rows_python(out, unary, messages, diagonal, common, scratch, lanes):
    """out = unary - sum_m (diagonal[m] * messages[:, m] + <common[m], messages[:, m]>).

    out (n, C); unary (n or more, C); messages (n or more, M, C); diagonal, common (M, C).
    """
    del scratch, lanes
    passed = messages[: out.shape[0]]
    out[:] = unary[: out.shape[0]] - (diagonal * passed).sum(axis=1) - (common * passed).sum(axis=(1, 2))[:, None]


def softmax_backward_rows_python(grad, total, q, messages, diagonal, common, scratch, lanes):
    """grad = q (d - <q, d>) with d = - sum_m (diagonal[m] * messages[m] + common[m] sum(messages[m])); total += grad.

    grad, total, q (n, C); messages (n or more, M, C); diagonal, common (M, C); no common (0, C) counts as zeros.
    """
    del scratch, lanes
    passed = messages[: grad.shape[0]]
    d = -(diagonal * passed).sum(axis=1)
    if common.size:
        d -= (common * passed.sum(axis=2, keepdims=True)).sum(axis=1)
    grad[:] = q * (d - (q * d).sum(axis=1, keepdims=True))
    total += grad


def probability_rows_python(out, rows, smallest, scratch, lanes):
    """rows, p = log p, and out = softmax of that, which is p over the sum of all p, with p = max(rows, smallest).

    out, rows (n, C) float32; smallest is at least the smallest normal number. In rows the logits of channels that are
    no labels stay as they are, and NaN.
    """
    del scratch, lanes
    labels, p = ~(rows < NO_LABEL), np.maximum(rows, smallest)
    shares = np.where(labels, np.maximum(p, np.float32(np.exp(LOWEST))), 0)
    out[:] = shares / shares.sum(axis=1, keepdims=True)
    rows[:] = np.where(labels, np.log(p), rows)


class _Room:
    """The number that each row passes on from one step to the next."""

    def __init__(self, v: Vectors, array):
        rows = cgutils.unpack_tuple(v.builder, array.shape)[1]
        self.v, self.lines = v, array.data
        self.sums = v.builder.gep(array.data, [v.builder.mul(rows, v.at(LANES))])

    def put(self, row, value) -> None:
        """A vector, to be reduced over its lanes."""
        self.v.store(value, self.lines, self.v.builder.mul(row, self.v.at(LANES)))

    def reduce(self, count, operation: Callable, finish: Callable = lambda value: value) -> None:
        """Over the lanes of each row; what `finish` makes of it is what `get` returns."""
        v = self.v
        with cgutils.for_range_slice(v.builder, v.at(0), count, v.at(LANES)) as (row, _):
            start = v.builder.mul(row, v.at(LANES))
            lines = [v.load(self.lines, v.builder.add(start, v.at(k * LANES))) for k in range(LANES)]
            v.store(finish(v.each_reduced(operation, lines)), self.sums, row)

    def get(self, row):
        """That of a row, in every lane."""
        return self.v.spread(self.v.builder.load(self.v.builder.gep(self.sums, [row])))


def _every_row(v: Vectors, count, emit: Callable) -> None:
    """``emit(rows)`` for some rows at a time."""
    rest = v.builder.sub(count, v.builder.urem(count, v.at(TOGETHER)))
    with cgutils.for_range_slice(v.builder, v.at(0), rest, v.at(TOGETHER)) as (row, _):
        emit([v.builder.add(row, v.at(k)) for k in range(TOGETHER)])
    with cgutils.for_range_slice(v.builder, rest, count, v.at(1)) as (row, _):
        emit([row])


def _by_width(v: Vectors, channels, width: int, emit: Callable) -> None:
    """``emit(channels)``, and for rows of this width once more: there the compiler knows where everything is.

    Only the widest blocks of channels may be several in a row.
    """
    if width < WIDEST:
        emit(v.at(width))
        return
    with v.builder.if_else(v.builder.icmp_signed("==", channels, v.at(width))) as (short, long):
        with short:
            emit(v.at(width))
        with long:
            emit(channels)


def _penalised(v: Vectors, starts, block, offsets, channels, messages, weights, unary=None):
    """unary - sum_m weights[m] * messages[:, m], or without the first, for one block of channels of rows.

    starts: where they begin, in numbers. Returns a list of vectors for each row.
    """
    builder = v.builder
    kernels = cgutils.unpack_tuple(builder, messages.shape)[1]
    zero = v.constant(0)

    def here(start, offset):
        return builder.add(builder.add(start, block), v.at(offset))

    registers = [
        [v.variable(zero if unary is None else v.load(unary.data, here(start, offset))) for offset in offsets]
        for start in starts
    ]
    first = [builder.mul(start, kernels) for start in starts]
    with cgutils.for_range(builder, kernels) as loop:
        step = builder.mul(loop.index, channels)
        for k, offset in enumerate(offsets):
            weight = builder.fneg(v.load(weights.data, here(step, offset)))
            for start, row in zip(first, registers, strict=True):
                message = v.load(messages.data, here(builder.add(start, step), offset))
                builder.store(v.fma(weight, message, builder.load(row[k])), row[k])
    return [[builder.load(register) for register in row] for row in registers]


@intrinsic
def _probability_rows(typingctx, out, rows, smallest, scratch, lanes):
    signature = types.void(out, rows, smallest, scratch, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, array, numbers = arrays_of(context, builder, signature, args)
        count, width = cgutils.unpack_tuple(builder, result.shape)
        least, kept = v.spread(args[2]), _Room(v, numbers)

        def of_width(channels) -> None:
            with cgutils.for_range(builder, count) as loop:
                start, total = builder.mul(loop.index, channels), v.variable(v.constant(0))
                next_tile = builder.mul(count, channels)
                with v.blocks(channels, len(lanes)) as (block, _):
                    places = [builder.add(builder.add(start, block), v.at(offset)) for offset in offsets]
                    for place in places[:: CACHE_LINE // 4 // LANES]:  # the next tile is about to be written
                        v.prefetch(array.data, builder.add(place, next_tile), write=True)
                    values = [v.load(array.data, place) for place in places]
                    ps = [v.maximum(value, least) for value in values]
                    for value, p, logarithm, place in zip(values, ps, v.log(ps), places, strict=True):
                        padding = builder.fcmp_ordered("<", value, v.constant(NO_LABEL))
                        stays = builder.or_(padding, builder.fcmp_unordered("uno", value, value))
                        v.store(builder.select(stays, value, logarithm), array.data, place)
                        share = v.maximum(p, v.constant(math.exp(LOWEST)))
                        share = builder.select(padding, v.constant(0), share)
                        v.store(share, result.data, place)
                        builder.store(v.add(builder.load(total), share), total)
                kept.put(loop.index, builder.load(total))
            _divided(v, result, channels, count, kept)

        _by_width(v, width, len(lanes), of_width)
        return context.get_dummy_value()

    return signature, codegen


def _divided(v: Vectors, result, channels, count, kept: _Room) -> None:
    """Each row by what was put for it."""
    kept.reduce(count, v.add, lambda total: v.builder.fdiv(v.constant(1), total))
    with cgutils.for_range(v.builder, count) as loop:
        start, inverse = v.builder.mul(loop.index, channels), kept.get(loop.index)
        with v.vectors(channels) as at:
            place = v.builder.add(start, at)
            v.store(v.builder.fmul(v.load(result.data, place), inverse), result.data, place)


@intrinsic
def _softmax_rows(typingctx, out, unary, messages, weights, scratch, lanes):
    signature = types.void(out, unary, messages, weights, scratch, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, logits, passed, diagonal, numbers = arrays_of(context, builder, signature, args)
        count, width = cgutils.unpack_tuple(builder, result.shape)
        kept = _Room(v, numbers)

        def softmax(channels) -> None:
            def penalise(rows) -> None:
                starts = [builder.mul(row, channels) for row in rows]
                largest = [v.variable(v.constant(LOWEST_LOGIT)) for _ in rows]
                with v.blocks(channels, len(lanes)) as (block, _):
                    every = _penalised(v, starts, block, offsets, channels, passed, diagonal, logits)
                    for start, values, most in zip(starts, every, largest, strict=True):
                        builder.store(functools.reduce(v.maximum, [builder.load(most), *values]), most)
                        for value, offset in zip(values, offsets, strict=True):
                            place = builder.add(builder.add(start, block), v.at(offset))
                            v.store(value, result.data, place)
                for row, most in zip(rows, largest, strict=True):
                    kept.put(row, builder.load(most))

            _every_row(v, count, penalise)
            kept.reduce(count, v.maximum)
            with cgutils.for_range(builder, count) as loop:
                start, top = builder.mul(loop.index, channels), kept.get(loop.index)
                total, next_tile = v.variable(v.constant(0)), builder.mul(count, channels)
                with v.blocks(channels, len(lanes)) as (block, _):
                    places = [builder.add(builder.add(start, block), v.at(offset)) for offset in offsets]
                    for place in places[:: CACHE_LINE // 4 // LANES]:
                        v.prefetch(logits.data, builder.add(place, next_tile))
                    values = v.exp([builder.fsub(v.load(result.data, place), top) for place in places])
                    for value, place in zip(values, places, strict=True):
                        v.store(value, result.data, place)
                    builder.store(functools.reduce(v.add, [builder.load(total), *values]), total)
                kept.put(loop.index, builder.load(total))
            _divided(v, result, channels, count, kept)

        _by_width(v, width, len(lanes), softmax)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _logits_rows(typingctx, out, unary, messages, diagonal, common, scratch, lanes):
    signature = types.void(out, unary, messages, diagonal, common, scratch, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, logits, passed, weights, shared, numbers = arrays_of(context, builder, signature, args)
        count, channels = cgutils.unpack_tuple(builder, result.shape)
        each = builder.mul(*cgutils.unpack_tuple(builder, passed.shape)[1:])
        kept = _Room(v, numbers)
        with cgutils.for_range(builder, count) as loop:
            total, start = v.variable(v.constant(0)), builder.mul(loop.index, each)
            with v.vectors(each) as at:
                message = v.load(passed.data, builder.add(start, at))
                builder.store(v.fma(v.load(shared.data, at), message, builder.load(total)), total)
            kept.put(loop.index, builder.load(total))
        kept.reduce(count, v.add)

        def penalise(rows) -> None:
            starts = [builder.mul(row, channels) for row in rows]
            with v.blocks(channels, len(lanes)) as (block, _):
                every = _penalised(v, starts, block, offsets, channels, passed, weights, logits)
                for row, start, values in zip(rows, starts, every, strict=True):
                    for value, offset in zip(values, offsets, strict=True):
                        place = builder.add(builder.add(start, block), v.at(offset))
                        v.store(builder.fsub(value, kept.get(row)), result.data, place)

        _every_row(v, count, penalise)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _softmax_backward_rows(typingctx, grad, total, q, messages, diagonal, common, scratch, lanes):
    signature = types.void(grad, total, q, messages, diagonal, common, scratch, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, q.dtype)
        result, sums, marginals, passed, weights, shared, numbers = arrays_of(context, builder, signature, args)
        count, width = cgutils.unpack_tuple(builder, result.shape)
        kernels = cgutils.unpack_tuple(builder, passed.shape)[1]
        in_common = cgutils.unpack_tuple(builder, shared.shape)[0]
        kept = _Room(v, numbers)

        def with_common(start, block, channels, values):
            """values - sum_m common[m] sum(messages[m]) for one row."""
            registers = [v.variable(value) for value in values]
            with cgutils.for_range(builder, in_common) as loop:
                step, mass = builder.mul(loop.index, channels), v.variable(v.constant(0))
                with v.vectors(channels) as at:
                    place = builder.add(builder.add(builder.mul(start, kernels), step), at)
                    builder.store(v.add(builder.load(mass), v.load(passed.data, place)), mass)
                (same,) = v.across(v.add, [builder.load(mass)])
                for register, offset in zip(registers, offsets, strict=True):
                    own = v.load(shared.data, builder.add(builder.add(step, block), v.at(offset)))
                    builder.store(v.fma(builder.fneg(own), same, builder.load(register)), register)
            return [builder.load(register) for register in registers]

        def backward(channels) -> None:
            def penalise(rows) -> None:
                starts = [builder.mul(row, channels) for row in rows]
                products = [v.variable(v.constant(0)) for _ in rows]
                with v.blocks(channels, len(lanes)) as (block, _):
                    every = _penalised(v, starts, block, offsets, channels, passed, weights)
                    for start, values, product in zip(starts, every, products, strict=True):
                        ds = with_common(start, block, channels, values)
                        for d, offset in zip(ds, offsets, strict=True):
                            place = builder.add(builder.add(start, block), v.at(offset))
                            own = v.load(marginals.data, place)
                            builder.store(v.fma(own, d, builder.load(product)), product)
                            v.store(d, result.data, place)
                for row, product in zip(rows, products, strict=True):
                    kept.put(row, builder.load(product))

            _every_row(v, count, penalise)
            kept.reduce(count, v.add)
            with cgutils.for_range(builder, count) as loop:
                start, mean = builder.mul(loop.index, channels), kept.get(loop.index)
                with v.vectors(channels) as at:
                    place = builder.add(start, at)
                    d = builder.fsub(v.load(result.data, place), mean)
                    g = builder.fmul(v.load(marginals.data, place), d)
                    v.store(g, result.data, place)
                    v.store(v.add(v.load(sums.data, place), g), sums.data, place)

        _by_width(v, width, len(lanes), backward)
        return context.get_dummy_value()

    return signature, codegen


probability_rows = choose(probability_rows_python, _probability_rows)
softmax_rows = choose(softmax_rows_python, _softmax_rows)
logits_rows = choose(logits_rows_python, _logits_rows)
softmax_backward_rows = choose(softmax_backward_rows_python, _softmax_backward_rows)
