"""Vector operations on rows of channels, for the CPU kernels.

A row is short, 8 to a few dozen channels. The compiler's vectoriser plans for long loops: on a row of 24 it spends
its time in remainders, and a sum of rows goes through memory once for each term. So the few operations that
everything else is made of are spelled out in vectors here, each beside the plain Python that says what it does
(and that runs when the JIT is off). Everything else is ordinary Numba. What a vector can do is in `vectors.py`.

Rows are contiguous and a multiple of `LANES` long. `lanes` is a tuple whose *length* is the number of channels that
are kept in registers together; as a length is part of the type, the compiler knows it. C is a multiple of it.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from crfrnn.filtering.vectors import LANES, LOWEST, Vectors

Operation = TypeVar("Operation", bound=Callable[..., None])

CACHE_LINE = 64  # bytes
UNROLL = 2  # terms of a sum in one round of its loop: counting costs as much as adding a row of three vectors
OUTER = 4  # rows of a product of matrices that are summed together: with three vectors each, they fill the registers


def weighted_rows_python(out, table, rows, weights, begin, end, factor, lanes):
    """out[c] = factor * sum over begin <= k < end of weights[k] * table[rows[k], c].

    out (C,); table (n, C), whose rows may stand apart; rows (unsigned) and weights hold one entry for each term.
    Slicing is this sum for each point, a banded matrix for each of its rows.
    """
    del lanes
    out[:] = 0
    for k in range(begin, end):
        out += weights[k] * table[rows[k]]
    out *= factor


def scatter_row_python(table, row, rows, weights, factor, lanes):
    """table[rows[k]] += factor * weights[k] * row for every k, its transpose: splatting, for each point.

    table (n, C); row (C,); rows (unsigned) and weights hold one entry for each term.
    """
    del lanes
    scaled = factor * row
    for k in range(rows.size):
        table[rows[k]] += weights[k] * scaled


def add_products_python(sums, left, right, size, lanes):
    """sums[k, c] += sum over p < size of left[p, k] * right[p, c]; sums (K, C), left (P, K), right (P, C)."""
    del lanes
    sums += left[:size].T @ right[:size]


def blur_row_python(row, before, after, lanes):
    """row, before = row + (before + after) / 2, row; all (C,)."""
    del lanes
    old = row.copy()
    row += row.dtype.type(0.5) * (before + after)
    before[:] = old


def prefetch_row_python(table, row):
    """Ask for table[row] (n, C) ahead of its use, where rows are visited in an order that the processor can't guess."""


def softmax_row_python(out, unary, messages, weights, lanes):
    """out = softmax(unary - sum_m weights[m] * messages[m]); out, unary (C,), messages, weights (M, C), float32."""
    del lanes
    logits = unary - (weights * messages).sum(axis=0)
    e = np.exp(np.maximum(logits - logits.max(), LOWEST))
    out[:] = e / e.sum()


def logits_row_python(out, unary, messages, diagonal, common, lanes):
    """out = unary - sum_m (diagonal[m] * messages[m] + <common[m], messages[m]>); shapes as in `softmax_row`."""
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


def _arrays(context, builder, signature, args):
    return [
        context.make_array(ty)(context, builder, arg)
        for ty, arg in zip(signature.args, args, strict=True)
        if isinstance(ty, types.Array)
    ]


@intrinsic
def _weighted_rows(typingctx, out, table, rows, weights, begin, end, factor, lanes):
    signature = types.void(out, table, rows, weights, types.intp, types.intp, table.dtype, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype)
        sums, values, indices, terms = _arrays(context, builder, signature, args)
        begin, end, factor = args[4:7]
        channels = cgutils.unpack_tuple(builder, values.shape)[1]
        size = v.at(table.dtype.bitwidth // 8)
        stride = builder.sdiv(cgutils.unpack_tuple(builder, values.strides)[0], size)
        with v.blocks(channels, len(lanes)) as (block, _):
            registers = [v.variable(v.constant(0)) for _ in offsets]

            def add(k):
                row = builder.zext(builder.load(builder.gep(indices.data, [k])), v.index)
                start = builder.add(builder.mul(row, stride), block)
                weight = v.spread(builder.load(builder.gep(terms.data, [k])))
                for offset, register in zip(offsets, registers, strict=True):
                    term = v.load(values.data, builder.add(start, v.at(offset)))
                    builder.store(v.fma(weight, term, builder.load(register)), register)

            rest = builder.sub(end, builder.urem(builder.sub(end, begin), v.at(UNROLL)))
            with cgutils.for_range_slice(builder, begin, rest, v.at(UNROLL)) as (k, _):
                for later in range(UNROLL):
                    add(builder.add(k, v.at(later)))
            with cgutils.for_range_slice(builder, rest, end, v.at(1)) as (k, _):
                add(k)
            for offset, register in zip(offsets, registers, strict=True):
                scaled = builder.fmul(v.spread(factor), builder.load(register))
                v.store(scaled, sums.data, builder.add(block, v.at(offset)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _scatter_row(typingctx, table, row, rows, weights, factor, lanes):
    signature = types.void(table, row, rows, weights, table.dtype, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype)
        sums, source, indices, terms = _arrays(context, builder, signature, args)
        channels = cgutils.unpack_tuple(builder, sums.shape)[1]
        count = cgutils.unpack_tuple(builder, indices.shape)[0]
        with v.blocks(channels, len(lanes)) as (block, _):
            factor = v.spread(args[4])
            scaled = [builder.fmul(factor, v.load(source.data, builder.add(block, v.at(at)))) for at in offsets]
            with cgutils.for_range_slice(builder, v.at(0), count, v.at(1)) as (k, _):
                row = builder.zext(builder.load(builder.gep(indices.data, [k])), v.index)
                start = builder.add(builder.mul(row, channels), block)
                weight = v.spread(builder.load(builder.gep(terms.data, [k])))
                for offset, value in zip(offsets, scaled, strict=True):
                    at = builder.add(start, v.at(offset))
                    v.store(v.fma(weight, value, v.load(sums.data, at)), sums.data, at)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _add_products(typingctx, sums, left, right, size, lanes):
    signature = types.void(sums, left, right, types.intp, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, sums.dtype)
        products, first, second = _arrays(context, builder, signature, args)
        rows, channels = cgutils.unpack_tuple(builder, products.shape)
        with (
            cgutils.for_range_slice(builder, v.at(0), rows, v.at(OUTER)) as (row, _),
            v.blocks(channels, len(lanes)) as (block, _),
        ):
            places = [
                builder.add(builder.add(builder.mul(builder.add(row, v.at(k)), channels), block), v.at(offset))
                for k in range(OUTER)
                for offset in offsets
            ]
            registers = [v.variable(v.load(products.data, place)) for place in places]
            with cgutils.for_range_slice(builder, v.at(0), args[3], v.at(1)) as (p, _):
                start = builder.add(builder.mul(p, channels), block)
                values = [v.load(second.data, builder.add(start, v.at(offset))) for offset in offsets]
                column = builder.add(builder.mul(p, rows), row)
                for k in range(OUTER):
                    one = v.spread(builder.load(builder.gep(first.data, [builder.add(column, v.at(k))])))
                    for value, register in zip(values, registers[k * len(offsets) :], strict=False):
                        builder.store(v.fma(one, value, builder.load(register)), register)
            for place, register in zip(places, registers, strict=True):
                v.store(builder.load(register), products.data, place)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _blur_row(typingctx, row, before, after, lanes):
    signature = types.void(row, before, after, lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, row.dtype)
        here, previous, following = _arrays(context, builder, signature, args)
        channels = cgutils.unpack_tuple(builder, previous.shape)[0]
        with v.blocks(channels, len(lanes)) as (block, _):
            for offset in range(0, len(lanes), LANES):
                at = builder.add(block, v.at(offset))
                old = v.load(here.data, at)
                sides = v.add(v.load(previous.data, at), v.load(following.data, at))
                v.store(v.fma(v.constant(0.5), sides, old), here.data, at)
                v.store(old, previous.data, at)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _prefetch_row(typingctx, table, row):
    signature = types.void(table, types.intp)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype)
        (rows,) = _arrays(context, builder, signature, args)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        channels = cgutils.unpack_tuple(builder, rows.shape)[1]
        start = builder.mul(args[1], channels)
        with v.blocks(channels, CACHE_LINE // (table.dtype.bitwidth // 8)) as (block, _):
            address = builder.bitcast(builder.gep(rows.data, [builder.add(start, block)]), byte)
            builder.call(function, [address, word(1), word(3), word(1)])  # to write, keep in all caches, data
        return context.get_dummy_value()

    return signature, codegen


def _penalised(v, block, offsets, unary, messages, weights):
    """unary - sum_m weights[m] * messages[m] for one block of channels: a list of vectors."""
    builder = v.builder
    kernels, channels = cgutils.unpack_tuple(builder, messages.shape)
    registers = [v.variable(v.load(unary.data, builder.add(block, v.at(offset)))) for offset in offsets]
    with cgutils.for_range(builder, kernels) as loop:
        start = builder.add(builder.mul(loop.index, channels), block)
        for offset, register in zip(offsets, registers, strict=True):
            at = builder.add(start, v.at(offset))
            weight = builder.fneg(v.load(weights.data, at))
            builder.store(v.fma(weight, v.load(messages.data, at), builder.load(register)), register)
    return [builder.load(register) for register in registers]


@intrinsic
def _softmax_row(typingctx, out, unary, messages, weights, lanes):
    signature = types.void(out, unary, messages, weights, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, *inputs = _arrays(context, builder, signature, args)
        channels = cgutils.unpack_tuple(builder, result.shape)[0]
        with builder.if_else(builder.icmp_signed("==", channels, v.at(len(lanes)))) as (short, long):
            with short:  # the whole row stays in registers
                values = _penalised(v, v.at(0), offsets, *inputs)
                top = v.across(v.maximum, functools.reduce(v.maximum, values))
                values = [v.exp(builder.fsub(value, top)) for value in values]
                inverse = builder.fdiv(v.constant(1), v.across(v.add, functools.reduce(v.add, values)))
                for value, offset in zip(values, offsets, strict=True):
                    v.store(builder.fmul(value, inverse), result.data, v.at(offset))
            with long:
                largest = v.variable(v.constant(-3.0e38))
                with v.blocks(channels, len(lanes)) as (block, _):
                    for value, offset in zip(_penalised(v, block, offsets, *inputs), offsets, strict=True):
                        v.store(value, result.data, builder.add(block, v.at(offset)))
                        builder.store(v.maximum(builder.load(largest), value), largest)
                top = v.across(v.maximum, builder.load(largest))
                total = v.variable(v.constant(0))
                with v.vectors(channels) as at:
                    value = v.exp(builder.fsub(v.load(result.data, at), top))
                    v.store(value, result.data, at)
                    builder.store(v.add(builder.load(total), value), total)
                inverse = builder.fdiv(v.constant(1), v.across(v.add, builder.load(total)))
                with v.vectors(channels) as at:
                    v.store(builder.fmul(v.load(result.data, at), inverse), result.data, at)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _logits_row(typingctx, out, unary, messages, diagonal, common, lanes):
    signature = types.void(out, unary, messages, diagonal, common, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, out.dtype)
        result, logits, passed, weights, shared = _arrays(context, builder, signature, args)
        kernels, channels = cgutils.unpack_tuple(builder, passed.shape)
        total = v.variable(v.constant(0))
        with v.vectors(builder.mul(kernels, channels)) as at:
            term = v.fma(v.load(shared.data, at), v.load(passed.data, at), builder.load(total))
            builder.store(term, total)
        same = v.across(v.add, builder.load(total))
        with v.blocks(channels, len(lanes)) as (block, _):
            for value, offset in zip(_penalised(v, block, offsets, logits, passed, weights), offsets, strict=True):
                v.store(builder.fsub(value, same), result.data, builder.add(block, v.at(offset)))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _softmax_backward_row(typingctx, grad, total, q, messages, diagonal, common, lanes):
    signature = types.void(grad, total, q, messages, diagonal, common, lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, q.dtype)
        result, sums, marginals, passed, weights, shared = _arrays(context, builder, signature, args)
        kernels, channels = cgutils.unpack_tuple(builder, passed.shape)
        with v.vectors(channels) as at:
            v.store(v.constant(0), result.data, at)
        with cgutils.for_range(builder, kernels) as loop:
            start = builder.mul(loop.index, channels)
            mass = v.variable(v.constant(0))
            with v.vectors(channels) as at:
                term = v.load(passed.data, builder.add(start, at))
                builder.store(v.add(builder.load(mass), term), mass)
            same = v.across(v.add, builder.load(mass))
            with v.vectors(channels) as at:
                here = builder.add(start, at)
                own = builder.fmul(v.load(weights.data, here), v.load(passed.data, here))
                both = v.fma(v.load(shared.data, here), same, own)
                v.store(builder.fsub(v.load(result.data, at), both), result.data, at)
        product = v.variable(v.constant(0))
        with v.vectors(channels) as at:
            term = v.fma(v.load(marginals.data, at), v.load(result.data, at), builder.load(product))
            builder.store(term, product)
        mean = v.across(v.add, builder.load(product))
        with v.vectors(channels) as at:
            g = builder.fmul(v.load(marginals.data, at), builder.fsub(v.load(result.data, at), mean))
            v.store(g, result.data, at)
            v.store(v.add(v.load(sums.data, at), g), sums.data, at)
        return context.get_dummy_value()

    return signature, codegen


def _choose(plain: Operation, vector: Any) -> Operation:
    return plain if getattr(config, "DISABLE_JIT", 0) else vector


weighted_rows = _choose(weighted_rows_python, _weighted_rows)
scatter_row = _choose(scatter_row_python, _scatter_row)
add_products = _choose(add_products_python, _add_products)
blur_row = _choose(blur_row_python, _blur_row)
prefetch_row = _choose(prefetch_row_python, _prefetch_row)
softmax_row = _choose(softmax_row_python, _softmax_row)
logits_row = _choose(logits_row_python, _logits_row)
softmax_backward_row = _choose(softmax_backward_row_python, _softmax_backward_row)
