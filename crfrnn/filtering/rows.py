"""Vector operations on rows of channels, for the CPU kernels.

A row is short, 8 to a few dozen channels. The compiler's vectoriser plans for long loops: on a row of 24 it spends
its time in remainders, and a sum of rows goes through memory once for each term. So the few operations that
everything else is made of are spelled out in vectors here, each beside the plain Python that says what it does
(and that runs when the JIT is off). Everything else is ordinary Numba. What a vector can do is in `vectors.py`.

Rows are contiguous and a multiple of `LANES` long. `lanes` is a tuple whose *length* is the number of channels that
are kept in registers together; as a length is part of the type, the compiler knows it. C is a multiple of it.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from crfrnn.filtering.vectors import LANES, Vectors, arrays_of, choose

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


def transpose_python(out, row, column, source, source_row, source_column):
    """out[row + i, column + k] = source[source_row + k, source_column + i] for i and k below `LANES`."""
    block = source[source_row : source_row + LANES, source_column : source_column + LANES]
    out[row : row + LANES, column : column + LANES] = block.T


def prefetch_row_python(table, row):
    """Ask for table[row] (n, C) ahead of its use, where rows are visited in an order that the processor can't guess."""


@intrinsic
def _weighted_rows(typingctx, out, table, rows, weights, begin, end, factor, lanes):
    signature = types.void(out, table, rows, weights, types.intp, types.intp, table.dtype, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype)
        sums, values, indices, terms = arrays_of(context, builder, signature, args)
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
        sums, source, indices, terms = arrays_of(context, builder, signature, args)
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
        products, first, second = arrays_of(context, builder, signature, args)
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
        here, previous, following = arrays_of(context, builder, signature, args)
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
def _transpose(typingctx, out, row, column, source, source_row, source_column):
    signature = types.void(out, types.intp, types.intp, source, types.intp, types.intp)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, source.dtype)
        into, values = arrays_of(context, builder, signature, args)
        _, row, column, _, source_row, source_column = args

        def place(array, first, at, k):
            return builder.add(
                builder.mul(builder.add(first, v.at(k)), cgutils.unpack_tuple(builder, array.shape)[1]), at
            )

        lines = [v.load(values.data, place(values, source_row, source_column, k)) for k in range(LANES)]
        for k, line in enumerate(v.transposed(lines)):
            v.store(line, into.data, place(into, row, column, k))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _prefetch_row(typingctx, table, row):
    signature = types.void(table, types.intp)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype)
        (rows,) = arrays_of(context, builder, signature, args)
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


weighted_rows = choose(weighted_rows_python, _weighted_rows)
scatter_row = choose(scatter_row_python, _scatter_row)
add_products = choose(add_products_python, _add_products)
blur_row = choose(blur_row_python, _blur_row)
transpose = choose(transpose_python, _transpose)
prefetch_row = choose(prefetch_row_python, _prefetch_row)
