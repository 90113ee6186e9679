"""Vectors of numbers for the operations in `rows.py`: a thin layer over llvmlite that emits their instructions."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, TypeVar

from llvmlite import ir
from numba import config, types
from numba.core import cgutils

Operation = TypeVar("Operation", bound=Callable[..., None])

LANES = 8  # numbers in one vector: 256 bits of float32
WIDEST = 32  # channels that are handled together; rows of more are several times as wide
CACHE_LINE = 64  # bytes
LOWEST = -60.0  # exp of anything smaller counts as exp of this, 9e-27: products with it stay normal floats
LOG2_E = 1.0 / math.log(2.0)
ROUNDING = 1.5 * 2.0**23  # added to a small float32, rounds it to a whole number
# exp(r) for |r| <= ln 2 / 2, highest power first: our minimax fit, relative error 7.5e-8
EXP_TERMS = (
    0.008297655014503243,
    0.04191538198867365,
    0.16667574729722726,
    0.499988948512528,
    0.9999996919912307,
    1.000000071654678,
)
MANTISSA = 23  # bits
SQRT_HALF = 0x3F3504F3  # the bits of the square root of 1/2
EXP2_TERMS = tuple(term * math.log(2.0) ** (5 - k) for k, term in enumerate(EXP_TERMS))


class Vectors:
    """Emits vector instructions: a thin layer over llvmlite, so that operations on rows read like arithmetic."""

    def __init__(self, context, builder, dtype, lanes=LANES):
        self.builder = builder
        self.lanes = lanes  # of one vector; shuffling and whole numbers are for `LANES` of them
        self.number = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.number, lanes)
        self.index = context.get_value_type(types.intp)
        self.align = dtype.bitwidth // 8
        self.suffix = f"v{lanes}f{dtype.bitwidth}"

    def at(self, offset):
        return ir.Constant(self.index, offset)

    def strides(self, array):
        """From one row of an array to the next, and from one column, in numbers."""
        size = self.at(self.align)
        steps = cgutils.unpack_tuple(self.builder, array.strides)
        return [self.builder.sdiv(step, size, flags=["exact"]) for step in steps]

    def place(self, array, row, column, offset=0):
        """Where array[row, column + offset] is, in numbers from its beginning; its columns are contiguous."""
        start = self.builder.mul(row, self.strides(array)[0])
        return self.builder.add(self.builder.add(start, column), self.at(offset))

    def constant(self, value):
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def pointer(self, base, offset):
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.vector.as_pointer())

    def load(self, base, offset):
        return self.builder.load(self.pointer(base, offset), align=self.align)

    def store(self, value, base, offset):
        self.builder.store(value, self.pointer(base, offset), align=self.align)

    def prefetch(self, base, offset, write=False):
        """Ask for the cache line that holds a number, ahead of its use."""
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(self.builder.module, form, "llvm.prefetch.p0")
        address = self.builder.bitcast(self.builder.gep(base, [offset]), byte)
        self.builder.call(function, [address, word(int(write)), word(3), word(1)])  # keep in all caches; it is data

    def spread(self, value):
        """One number in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        lane = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return self.permute(lane, [0] * self.lanes)

    def permute(self, value, order):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), order)
        return self.builder.shuffle_vector(value, ir.Constant(self.vector, ir.Undefined), mask)

    def merge(self, a, b, order):
        """Lanes of a (0 to LANES - 1) and of b (from LANES on) in this order."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order))

    def call(self, name, *values):
        signature = ir.FunctionType(self.vector, [self.vector] * len(values))
        function = cgutils.get_or_insert_function(self.builder.module, signature, f"llvm.{name}.{self.suffix}")
        return self.builder.call(function, values)

    def fma(self, a, b, c):
        return self.call("fmuladd", a, b, c)

    def add(self, a, b):
        return self.builder.fadd(a, b)

    def masked(self, value, condition):
        """The value, or zeros where the condition, a bit, is not met: without a branch that could be guessed wrong."""
        bits = ir.IntType(8 * self.align)
        mask = self.builder.sext(self.builder.trunc(condition, ir.IntType(1)), bits)
        integers = ir.VectorType(bits, self.lanes)
        undefined = ir.Constant(integers, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        order = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        masks = self.builder.shuffle_vector(self.builder.insert_element(undefined, mask, zero), undefined, order)
        return self.builder.bitcast(self.builder.and_(self.builder.bitcast(value, integers), masks), self.vector)

    def maximum(self, a, b):
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def across(self, operation, values):
        """Reduce each vector over its lanes; the result stands in every lane. Step by step for all of them."""
        for distance in (4, 2, 1):
            order = [lane ^ distance for lane in range(LANES)]
            partners = [self.permute(value, order) for value in values]
            values = [operation(value, other) for value, other in zip(values, partners, strict=True)]
        return values

    def pair(self, a, b, distance):
        """Two vectors, in blocks of `distance` lanes, exchange every second block of a with the first ones of b."""
        low = [j if not j & distance else LANES + j - distance for j in range(LANES)]
        high = [LANES + j if j & distance else j + distance for j in range(LANES)]
        return self.merge(a, b, low), self.merge(a, b, high)

    def transposed(self, lines):
        """A square block: `LANES` vectors to as many, whose lanes they are. Halves change places, then quarters, ..."""
        lines = list(lines)
        for distance in (4, 2, 1):
            for k in range(LANES):
                if not k & distance:
                    lines[k], lines[k + distance] = self.pair(lines[k], lines[k + distance], distance)
        return lines

    def each_reduced(self, operation, lines):
        """`LANES` vectors to one, whose lane k is vector k reduced over its lanes: half of them at a time."""
        for distance in (1, 2, 4):
            pairs = zip(lines[::2], lines[1::2], strict=True)
            lines = [operation(*self.pair(a, b, distance)) for a, b in pairs]
        return lines[0]

    def exp(self, values):
        """exp of float32 between LOWEST and 0: 2^n 2^r with n = round(x / ln 2), relative error below 3e-7 - 2e-8 x.

        Step by step for all of them: each step waits for the one before.
        """
        xs = [self.maximum(x, self.constant(LOWEST)) for x in values]
        shifted = [self.fma(x, self.constant(LOG2_E), self.constant(ROUNDING)) for x in xs]  # their last bits are n
        ns = [self.builder.fsub(shift, self.constant(ROUNDING)) for shift in shifted]
        rs = [self.fma(x, self.constant(LOG2_E), self.builder.fneg(n)) for x, n in zip(xs, ns, strict=True)]
        powers = [self.constant(EXP2_TERMS[0])] * len(rs)
        for term in EXP2_TERMS[1:]:
            powers = [self.fma(power, r, self.constant(term)) for power, r in zip(powers, rs, strict=True)]
        return [self._times_power_of_two(power, shift) for power, shift in zip(powers, shifted, strict=True)]

    def log(self, values):
        """log of positive normal float32: e ln 2 + log m with m from 0.7 to 1.4.

        log m = 2 artanh((m - 1) / (m + 1)), whose series is cut where its rest is below 3e-9 of it.
        """
        integers = ir.VectorType(ir.IntType(32), LANES)

        def number(value):
            return ir.Constant(integers, [value] * LANES)

        out = []
        for value in values:
            bits = self.builder.sub(self.builder.bitcast(value, integers), number(SQRT_HALF))
            exponent = self.builder.ashr(bits, number(MANTISSA))
            rest = self.builder.add(self.builder.and_(bits, number((1 << MANTISSA) - 1)), number(SQRT_HALF))
            m, e = self.builder.bitcast(rest, self.vector), self.builder.sitofp(exponent, self.vector)
            s = self.builder.fdiv(self.builder.fsub(m, self.constant(1)), self.builder.fadd(m, self.constant(1)))
            square, series = self.builder.fmul(s, s), self.constant(2 / 9)
            for term in (7, 5, 3):
                series = self.fma(series, square, self.constant(2 / term))
            inner = self.fma(self.builder.fmul(series, square), s, self.builder.fmul(s, self.constant(2)))
            out.append(self.fma(e, self.constant(math.log(2.0)), inner))
        return out

    def _times_power_of_two(self, value, shifted):
        integers = ir.VectorType(ir.IntType(32), LANES)
        exponent = self.builder.shl(self.builder.bitcast(shifted, integers), ir.Constant(integers, [23] * LANES))
        bits = self.builder.add(self.builder.bitcast(value, integers), exponent)
        return self.builder.bitcast(bits, self.vector)

    def blocks(self, channels, width):
        """Loop over the channels in steps of `width`."""
        return cgutils.for_range_slice(self.builder, self.at(0), channels, self.at(width))

    @contextmanager
    def vectors(self, channels):
        """Loop over the channels, one vector at a time."""
        with self.blocks(channels, LANES) as (at, _):
            yield at

    def variable(self, value):
        """A register that lives across the loop that follows."""
        slot = cgutils.alloca_once_value(self.builder, value)
        self.builder.store(value, slot)
        return slot


def arrays_of(context, builder, signature, args):
    """The arrays among the arguments of an intrinsic."""
    return [
        context.make_array(ty)(context, builder, arg)
        for ty, arg in zip(signature.args, args, strict=True)
        if isinstance(ty, types.Array)
    ]


def choose(plain: Operation, vector: Any) -> Operation:
    """The plain Python where the JIT is off."""
    return plain if getattr(config, "DISABLE_JIT", 0) else vector
