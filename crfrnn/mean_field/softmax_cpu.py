"""Vector operations on rows of channels for the last steps of an iteration, (4.3) to (4.6), and their gradient.

Like `filtering/rows.py`, which says what a row and `lanes` are: each operation stands beside the plain Python that
says what it does.
"""

import functools

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from crfrnn.filtering.vectors import LANES, LOWEST, Vectors, arrays_of, choose

# rows that go through the softmax together: one waits for the largest of its channels, then for their sum, and its
# exponentials are a chain of a dozen operations, so a processor is idle most of the time with one row alone
TOGETHER = 4


def softmax_rows_python(out, unary, messages, weights, lanes):
    """out = softmax(unary - sum_m weights[m] * messages[:, m]), row by row, float32.

    out (n, C); unary (n or more, C); messages (n or more, M, C); weights (M, C).
    """
    del lanes
    count = out.shape[0]
    logits = unary[:count] - (weights * messages[:count]).sum(axis=1)
    e = np.exp(np.maximum(logits - logits.max(axis=1, keepdims=True), LOWEST))
    out[:] = e / e.sum(axis=1, keepdims=True)


def logits_row_python(out, unary, messages, diagonal, common, lanes):
    """out = unary - sum_m (diagonal[m] * messages[m] + <common[m], messages[m]>).

    out, unary (C,); messages, diagonal, common (M, C).
    """
    del lanes
    out[:] = unary - (diagonal * messages).sum(axis=0) - (common * messages).sum()


def softmax_backward_row_python(grad, total, q, messages, diagonal, common, lanes):
    """grad = q (d - <q, d>) with d = - sum_m (diagonal[m] * messages[m] + common[m] sum(messages[m])); total += grad.

    grad, total, q (C,); messages, diagonal, common (M, C).
    """
    del lanes
    d = -(diagonal * messages + common * messages.sum(axis=1, keepdims=True)).sum(axis=0)
    grad[:] = q * (d - (q * d).sum())
    total += grad


def _penalised(v, places, offsets, unary, messages, weights):
    """unary - sum_m weights[m] * messages[m] for one block of channels of several rows: a list of vectors for each.

    places: where the block begins in unary and in the messages of kernel 0, for each row, and in the weights.
    """
    builder = v.builder
    *_, kernels, channels = cgutils.unpack_tuple(builder, messages.shape)
    rows, block = places
    registers = [
        [v.variable(v.load(unary.data, builder.add(at, v.at(offset)))) for offset in offsets] for at, _ in rows
    ]
    with cgutils.for_range(builder, kernels) as loop:
        step = builder.mul(loop.index, channels)
        for k, offset in enumerate(offsets):
            here = builder.add(step, v.at(offset))
            weight = builder.fneg(v.load(weights.data, builder.add(block, here)))
            for (_, at), row in zip(rows, registers, strict=True):
                message = v.load(messages.data, builder.add(at, here))
                builder.store(v.fma(weight, message, builder.load(row[k])), row[k])
    return [[builder.load(register) for register in row] for row in registers]


def _in_registers(v, rows, offsets, result, inputs):
    """Rows (index each) of which every channel fits into registers; step by step for all of them."""
    builder, (_, messages, _) = v.builder, inputs
    *_, kernels, channels = cgutils.unpack_tuple(builder, messages.shape)
    starts = [builder.mul(row, channels) for row in rows]
    places = [(start, builder.mul(start, kernels)) for start in starts]
    every = _penalised(v, (places, v.at(0)), offsets, *inputs)
    tops = v.across(v.maximum, [functools.reduce(v.maximum, values) for values in every])
    every = [[builder.fsub(value, top) for value in values] for values, top in zip(every, tops, strict=True)]
    flat = v.exp([value for values in every for value in values])
    every = [flat[k : k + len(offsets)] for k in range(0, len(flat), len(offsets))]
    totals = v.across(v.add, [functools.reduce(v.add, values) for values in every])
    inverses = [builder.fdiv(v.constant(1), total) for total in totals]
    for start, values, inverse in zip(starts, every, inverses, strict=True):
        for value, offset in zip(values, offsets, strict=True):
            v.store(builder.fmul(value, inverse), result.data, builder.add(start, v.at(offset)))


def _in_memory(v, row, offsets, result, inputs):
    """One row that is longer than that."""
    builder, (_, messages, _) = v.builder, inputs
    *_, kernels, channels = cgutils.unpack_tuple(builder, messages.shape)
    start = builder.mul(row, channels)
    largest = v.variable(v.constant(-3.0e38))
    with v.blocks(channels, len(offsets) * LANES) as (block, _):
        at = builder.add(start, block), builder.add(builder.mul(start, kernels), block)
        (values,) = _penalised(v, ([at], block), offsets, *inputs)
        for value, offset in zip(values, offsets, strict=True):
            v.store(value, result.data, builder.add(at[0], v.at(offset)))
            builder.store(v.maximum(builder.load(largest), value), largest)
    (top,) = v.across(v.maximum, [builder.load(largest)])
    total = v.variable(v.constant(0))
    with v.vectors(channels) as at:
        here = builder.add(start, at)
        (value,) = v.exp([builder.fsub(v.load(result.data, here), top)])
        v.store(value, result.data, here)
        builder.store(v.add(builder.load(total), value), total)
    (total,) = v.across(v.add, [builder.load(total)])
    inverse = builder.fdiv(v.constant(1), total)
    with v.vectors(channels) as at:
        here = builder.add(start, at)
        v.store(builder.fmul(v.load(result.data, here), inverse), result.data, here)


@intrinsic
def _softmax_rows(typingctx, out, unary, messages, weights, lanes):
    signature = types.void(out, unary, messages, weights, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, *inputs = arrays_of(context, builder, signature, args)
        count, channels = cgutils.unpack_tuple(builder, result.shape)
        with builder.if_else(builder.icmp_signed("==", channels, v.at(len(lanes)))) as (short, long):
            with short:
                rest = builder.sub(count, builder.urem(count, v.at(TOGETHER)))
                with cgutils.for_range_slice(builder, v.at(0), rest, v.at(TOGETHER)) as (row, _):
                    rows = [builder.add(row, v.at(k)) for k in range(TOGETHER)]
                    _in_registers(v, rows, offsets, result, inputs)
                with cgutils.for_range_slice(builder, rest, count, v.at(1)) as (row, _):
                    _in_registers(v, [row], offsets, result, inputs)
            with long, cgutils.for_range_slice(builder, v.at(0), count, v.at(1)) as (row, _):
                _in_memory(v, row, offsets, result, inputs)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _logits_row(typingctx, out, unary, messages, diagonal, common, lanes):
    signature = types.void(out, unary, messages, diagonal, common, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, logits, passed, weights, shared = arrays_of(context, builder, signature, args)
        kernels, channels = cgutils.unpack_tuple(builder, passed.shape)
        total = v.variable(v.constant(0))
        with v.vectors(builder.mul(kernels, channels)) as at:
            term = v.fma(v.load(shared.data, at), v.load(passed.data, at), builder.load(total))
            builder.store(term, total)
        (same,) = v.across(v.add, [builder.load(total)])
        with v.blocks(channels, len(lanes)) as (block, _):
            (values,) = _penalised(v, ([(block, block)], block), offsets, logits, passed, weights)
            for value, offset in zip(values, offsets, strict=True):
                v.store(builder.fsub(value, same), result.data, builder.add(block, v.at(offset)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _softmax_backward_row(typingctx, grad, total, q, messages, diagonal, common, lanes):
    signature = types.void(grad, total, q, messages, diagonal, common, lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, q.dtype)
        result, sums, marginals, passed, weights, shared = arrays_of(context, builder, signature, args)
        kernels, channels = cgutils.unpack_tuple(builder, passed.shape)
        with v.vectors(channels) as at:
            v.store(v.constant(0), result.data, at)
        with cgutils.for_range(builder, kernels) as loop:
            start = builder.mul(loop.index, channels)
            mass = v.variable(v.constant(0))
            with v.vectors(channels) as at:
                term = v.load(passed.data, builder.add(start, at))
                builder.store(v.add(builder.load(mass), term), mass)
            (same,) = v.across(v.add, [builder.load(mass)])
            with v.vectors(channels) as at:
                here = builder.add(start, at)
                own = builder.fmul(v.load(weights.data, here), v.load(passed.data, here))
                both = v.fma(v.load(shared.data, here), same, own)
                v.store(builder.fsub(v.load(result.data, at), both), result.data, at)
        product = v.variable(v.constant(0))
        with v.vectors(channels) as at:
            term = v.fma(v.load(marginals.data, at), v.load(result.data, at), builder.load(product))
            builder.store(term, product)
        (mean,) = v.across(v.add, [builder.load(product)])
        with v.vectors(channels) as at:
            g = builder.fmul(v.load(marginals.data, at), builder.fsub(v.load(result.data, at), mean))
            v.store(g, result.data, at)
            v.store(v.add(v.load(sums.data, at), g), sums.data, at)
        return context.get_dummy_value()

    return signature, codegen


softmax_rows = choose(softmax_rows_python, _softmax_rows)
logits_row = choose(logits_row_python, _logits_row)
softmax_backward_row = choose(softmax_backward_row_python, _softmax_backward_row)
