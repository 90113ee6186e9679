"""Vector operations on rows of channels, for the CPU kernels.

A row is short, 8 to a few dozen channels. The compiler's vectoriser plans for long loops: on a row of 24 it spends
its time in remainders, and a sum of rows goes through memory once for each term. So the few operations that
everything else is made of are spelled out in vectors here, each beside the plain Python that says what it does
(and that runs when the JIT is off). Everything else is ordinary Numba. What a vector can do is in `vectors.py`.

An operation works on many rows at a time, so that what is the same for all of them is looked up once. Rows are
contiguous and a multiple of `LANES` long; those of a table may stand apart. `lanes` is a tuple whose *length* is the
number of channels that are kept in registers together; as a length is part of the type, the compiler knows it. C is a
multiple of it. What a lattice does may also be done to rows of one number, with one lane.
"""

from collections.abc import Callable

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from crfrnn.runtime.vectors import CACHE_LINE, LANES, Vectors, arrays_of, choose

# sums of so many terms have code of their own, without a loop: over the corners around a point in a lattice of colours
# and positions, and over the lines around a node, or a line, of a separable filter of theta 3
CORNERS, LINES = (6,), (4, 7)
PAIR = 2  # rows of a banded matrix that are summed together
OUTER = 4  # rows of a product of matrices that are summed together: with three vectors each, they fill the registers


def sum_rows_python(out, table, rows, weights, factors, lanes):
    """out[i] = factors[i] * sum over k of weights[i, k] * table[rows[i, k]]: a sparse matrix times a dense one.

    out (n, C); table (R, C); rows (unsigned) and weights (n, K); factors (n,), or None for ones. Slicing is such a
    product.
    """
    del lanes
    out[:] = 0
    for k in range(rows.shape[1]):
        out += weights[:, k, None] * table[rows[:, k]]
    if factors is not None:
        out *= factors[:, None]


def scatter_rows_python(table, values, rows, weights, factors, lanes):
    """table[rows[i, k]] += factors[i] * weights[i, k] * values[i] for all i and k, its transpose: splatting.

    table (R, C); values (n, C); rows (unsigned) and weights (n, K); factors (n,), or None for ones.
    """
    del lanes
    for i in range(rows.shape[0]):
        scaled = values[i] if factors is None else factors[i] * values[i]
        for k in range(rows.shape[1]):
            table[rows[i, k]] += weights[i, k] * scaled


def band_rows_python(out, table, starts, weights, lanes):
    """out[PAIR i + j] = sum over k of weights[i, k, j] * table[starts[i] + k]: a banded matrix times a dense one.

    out (n, C); table (R, C); starts (n / PAIR,), weights (n / PAIR, K, PAIR), and for an odd n what the last ones say
    of a row more is left undone. Neighbours are sums of nearly the same rows, which are fetched once for both.
    """
    del lanes
    sums = np.einsum("ikj,ikc->ijc", weights, table[starts[:, None] + np.arange(weights.shape[1])])
    out[:] = sums.reshape(-1, out.shape[1])[: len(out)]


def add_product_python(sums, left, right, lanes):
    """sums += left @ right; sums (K, C), left (K, P) in any order of memory, right (P, C); K a multiple of `OUTER`."""
    del lanes
    sums += left @ right


def blur_row_python(row, before, after, inside, lanes):
    """row, before = row + (before + after) / 2, row; all (C,). Not `inside`, after and the new before are zeros."""
    del lanes
    old = row.copy()
    row += row.dtype.type(0.5) * (before + (after if inside else 0))
    before[:] = old if inside else 0


def transpose_python(out, row, column, source, source_row, source_column):
    """out[row + i, column + k] = source[source_row + k, source_column + i] for i and k below `LANES`."""
    block = source[source_row : source_row + LANES, source_column : source_column + LANES]
    out[row : row + LANES, column : column + LANES] = block.T


def prefetch_row_python(table, row):
    """Ask for table[row] (n, C) ahead of its use, where rows are visited in an order that the processor can't guess."""


class _Sparse:
    """A sparse matrix with K entries in each row, in registers: where they are and how much they weigh."""

    def __init__(self, v: Vectors, rows, weights, factors):
        self.v, self.rows, self.weights, self.factors = v, rows, weights, factors
        self.size, self.count = cgutils.unpack_tuple(v.builder, rows.shape)

    def by_count(self, emit: Callable[[int | None], None], known: tuple[int, ...]) -> None:
        """Code for each of the numbers K that are known, ``emit(K)``, and for any other, ``emit(None)``."""
        if not known:
            emit(None)
            return
        builder = self.v.builder
        with builder.if_else(builder.icmp_signed("==", self.count, self.v.at(known[0]))) as (this, other):
            with this:
                emit(known[0])
            with other:
                self.by_count(emit, known[1:])

    def entries(self, i, known: int | None, emit: Callable) -> None:
        """``emit(row, weight)`` for the entries of row i: a row of the table, and a vector."""
        v, builder = self.v, self.v.builder
        first = builder.mul(i, self.count if known is None else v.at(known))

        def entry(k) -> None:
            at = builder.add(first, k)
            row = builder.zext(builder.load(builder.gep(self.rows.data, [at])), v.index)
            emit(row, v.spread(builder.load(builder.gep(self.weights.data, [at]))))

        if known is None:
            with cgutils.for_range(builder, self.count) as loop:
                entry(loop.index)
        else:
            for k in range(known):
                entry(v.at(k))

    def scaled(self, i, values):
        """Vectors times the factor of row i."""
        if self.factors is None:
            return values
        factor = self.v.spread(self.v.builder.load(self.v.builder.gep(self.factors.data, [i])))
        return [self.v.builder.fmul(factor, value) for value in values]


def _division(lanes) -> tuple[range, int]:
    """Where the vectors of a block of channels begin, and how long each is."""
    size = min(LANES, len(lanes))
    return range(0, len(lanes), size), size


@intrinsic
def _sum_rows(typingctx, out, table, rows, weights, factors, lanes):
    signature = types.void(out, table, rows, weights, factors, lanes)
    offsets, lanes_of_one = _division(lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype, lanes_of_one)
        sums, values, *matrix = arrays_of(context, builder, signature, args)
        sparse = _Sparse(v, *matrix, *[None] * (3 - len(matrix)))
        channels = cgutils.unpack_tuple(builder, values.shape)[1]

        def every_row(known):
            with cgutils.for_range(builder, sparse.size) as loop, v.blocks(channels, len(lanes)) as (block, _):
                registers = [v.variable(v.constant(0)) for _ in offsets]

                def add(row, weight):
                    for offset, register in zip(offsets, registers, strict=True):
                        term = v.load(values.data, v.place(values, row, block, offset))
                        builder.store(v.fma(weight, term, builder.load(register)), register)

                sparse.entries(loop.index, known, add)
                totals = sparse.scaled(loop.index, [builder.load(register) for register in registers])
                for offset, total in zip(offsets, totals, strict=True):
                    v.store(total, sums.data, v.place(sums, loop.index, block, offset))

        # only a lattice has factors
        sparse.by_count(every_row, LINES if sparse.factors is None else CORNERS)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _scatter_rows(typingctx, table, values, rows, weights, factors, lanes):
    signature = types.void(table, values, rows, weights, factors, lanes)
    offsets, lanes_of_one = _division(lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype, lanes_of_one)
        sums, source, *matrix = arrays_of(context, builder, signature, args)
        sparse = _Sparse(v, *matrix, *[None] * (3 - len(matrix)))
        channels = cgutils.unpack_tuple(builder, sums.shape)[1]

        def every_row(known):
            with v.blocks(channels, len(lanes)) as (block, _), cgutils.for_range(builder, sparse.size) as loop:
                places = [v.place(source, loop.index, block, offset) for offset in offsets]
                scaled = sparse.scaled(loop.index, [v.load(source.data, at) for at in places])

                def add(row, weight):
                    for offset, value in zip(offsets, scaled, strict=True):
                        at = v.place(sums, row, block, offset)
                        v.store(v.fma(weight, value, v.load(sums.data, at)), sums.data, at)

                sparse.entries(loop.index, known, add)

        sparse.by_count(every_row, CORNERS)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _band_rows(typingctx, out, table, starts, weights, lanes):
    signature = types.void(out, table, starts, weights, lanes)
    offsets, lanes_of_one = _division(lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, table.dtype, lanes_of_one)
        sums, values, first, matrix = arrays_of(context, builder, signature, args)
        rows, channels = cgutils.unpack_tuple(builder, sums.shape)
        reach = cgutils.unpack_tuple(builder, matrix.shape)[1]

        def together(i, count: int) -> None:
            """The first `count` of the rows that entry i is about."""
            start, step = builder.load(builder.gep(first.data, [i])), builder.mul(i, reach)
            into = [builder.add(builder.mul(i, v.at(PAIR)), v.at(j)) for j in range(count)]
            with v.blocks(channels, len(lanes)) as (block, _):
                registers = [[v.variable(v.constant(0)) for _ in offsets] for _ in into]
                with cgutils.for_range(builder, reach) as loop:
                    here = builder.add(start, loop.index)
                    terms = [v.load(values.data, v.place(values, here, block, offset)) for offset in offsets]
                    entry = builder.mul(builder.add(step, loop.index), v.at(PAIR))
                    for j, row in enumerate(registers):
                        at = builder.gep(matrix.data, [builder.add(entry, v.at(j))])
                        weight = v.spread(builder.load(at))
                        for term, register in zip(terms, row, strict=True):
                            builder.store(v.fma(weight, term, builder.load(register)), register)
                for place, row in zip(into, registers, strict=True):
                    for offset, register in zip(offsets, row, strict=True):
                        v.store(builder.load(register), sums.data, v.place(sums, place, block, offset))

        whole = builder.udiv(rows, v.at(PAIR))
        with cgutils.for_range(builder, whole) as loop:
            together(loop.index, PAIR)
        with builder.if_then(builder.icmp_signed("!=", builder.mul(whole, v.at(PAIR)), rows)):
            together(whole, 1)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _add_product(typingctx, sums, left, right, lanes):
    signature = types.void(sums, left, right, lanes)
    offsets = range(0, len(lanes), LANES)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, sums.dtype)
        products, first, second = arrays_of(context, builder, signature, args)
        size, count = cgutils.unpack_tuple(builder, first.shape)
        along, down = v.strides(first)
        channels = cgutils.unpack_tuple(builder, products.shape)[1]
        with (
            cgutils.for_range_slice(builder, v.at(0), size, v.at(OUTER)) as (row, _),
            v.blocks(channels, len(lanes)) as (block, _),
        ):
            rows = [builder.add(row, v.at(k)) for k in range(OUTER)]
            starts = [builder.mul(k, along) for k in rows]
            places = [v.place(products, k, block, offset) for k in rows for offset in offsets]
            registers = [v.variable(v.load(products.data, place)) for place in places]
            with cgutils.for_range(builder, count) as loop:
                values = [v.load(second.data, v.place(second, loop.index, block, offset)) for offset in offsets]
                step = builder.mul(loop.index, down)
                for k, start in enumerate(starts):
                    one = v.spread(builder.load(builder.gep(first.data, [builder.add(start, step)])))
                    for value, register in zip(values, registers[k * len(offsets) :], strict=False):
                        builder.store(v.fma(one, value, builder.load(register)), register)
            for place, register in zip(places, registers, strict=True):
                v.store(builder.load(register), products.data, place)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _blur_row(typingctx, row, before, after, inside, lanes):
    signature = types.void(row, before, after, inside, lanes)
    offsets, lanes_of_one = _division(lanes)

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, row.dtype, lanes_of_one)
        here, previous, following = arrays_of(context, builder, signature, args)
        channels = cgutils.unpack_tuple(builder, previous.shape)[0]
        with v.blocks(channels, len(lanes)) as (block, _):
            for offset in offsets:
                at = builder.add(block, v.at(offset))
                old = v.load(here.data, at)
                next_one = v.masked(v.load(following.data, at), args[3])
                sides = v.add(v.load(previous.data, at), next_one)
                v.store(v.fma(v.constant(0.5), sides, old), here.data, at)
                v.store(v.masked(old, args[3]), previous.data, at)
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
        channels = cgutils.unpack_tuple(builder, rows.shape)[1]
        with v.blocks(channels, CACHE_LINE // v.align) as (block, _):
            v.prefetch(rows.data, builder.add(builder.mul(args[1], channels), block), write=True)
        return context.get_dummy_value()

    return signature, codegen


sum_rows = choose(sum_rows_python, _sum_rows)
scatter_rows = choose(scatter_rows_python, _scatter_rows)
band_rows = choose(band_rows_python, _band_rows)
add_product = choose(add_product_python, _add_product)
blur_row = choose(blur_row_python, _blur_row)
transpose = choose(transpose_python, _transpose)
prefetch_row = choose(prefetch_row_python, _prefetch_row)
