"""What numba has no words for: the lanes of a tile as vectors.

LLVM makes of them what the processor has: sixteen float32 to an instruction with AVX-512, eight with AVX2, four with NEON.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic as numba_intrinsic

SIDE = 16
"""Pixels along a side of a tile: 64 bytes of float32, a line of the cache and a vector register."""

LANES = SIDE * SIDE
WORDS = LANES // 64
"""64-bit words of a mask."""

intrinsic: Any = numba_intrinsic
"""For type checkers, which would take the typing context of the decorated functions for an argument of theirs."""

FLOAT, BIT, BYTE, WORD32, WORD64 = ir.FloatType(), ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_F4, _U1, _U4 = (types.Array(t, 1, "C") for t in (types.float32, types.uint8, types.uint32))


def _vector_at(context, builder, array_type, array, index, element, n):
    """Return a pointer to `n` elements of an array from `index` on, as a vector."""
    start = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
    return builder.bitcast(start, ir.VectorType(element, n).as_pointer())


def _repeated(builder, value, element, n):
    """Return a vector of `n` equal elements."""
    kind = ir.VectorType(element, n)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(WORD32, 0))
    zeros = ir.Constant(ir.VectorType(WORD32, n), [0] * n)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


@intrinsic
def le(typingctx, values, at, threshold):
    """Return a word whose bit p is set iff values[at + p] ≤ threshold, for 64 lanes."""

    def build(context, builder, signature, arguments):
        values, at, threshold = arguments
        lanes = builder.load(_vector_at(context, builder, signature.args[0], values, at, FLOAT, 64), align=4)
        return builder.bitcast(builder.fcmp_ordered("<=", lanes, _repeated(builder, threshold, FLOAT, 64)), WORD64)

    return types.uint64(_F4, types.intp, types.float32), build


@intrinsic
def count(typingctx, counts, at, word):
    """Add bit p of the word to counts[at + p], for 64 lanes."""

    def build(context, builder, signature, arguments):
        counts, at, word = arguments
        place = _vector_at(context, builder, signature.args[0], counts, at, BYTE, 64)
        bits = builder.bitcast(word, ir.VectorType(BIT, 64))
        builder.store(
            builder.add(builder.load(place, align=1), builder.zext(bits, ir.VectorType(BYTE, 64))), place, align=1
        )
        return context.get_dummy_value()

    return types.void(_U1, types.intp, types.uint64), build


@intrinsic
def add(typingctx, sums, at, word, amount):
    """Add an amount to sums[at + p] where bit p of the word is set, for 64 lanes."""

    def build(context, builder, signature, arguments):
        sums, at, word, amount = arguments
        place = _vector_at(context, builder, signature.args[0], sums, at, WORD32, 64)
        bits = builder.bitcast(word, ir.VectorType(BIT, 64))
        nothing = ir.Constant(ir.VectorType(WORD32, 64), [0] * 64)
        amounts = builder.select(bits, _repeated(builder, amount, WORD32, 64), nothing)
        builder.store(builder.add(builder.load(place, align=4), amounts), place, align=4)
        return context.get_dummy_value()

    return types.void(_U4, types.intp, types.uint64, types.uint32), build


@intrinsic
def add_row(typingctx, target, to, source, at, factor):
    """Add factor · source[at + i] to target[to + i], for a row of 16 lanes."""

    def build(context, builder, signature, arguments):
        target, to, source, at, factor = arguments
        place = _vector_at(context, builder, signature.args[0], target, to, FLOAT, SIDE)
        row = builder.load(_vector_at(context, builder, signature.args[2], source, at, FLOAT, SIDE), align=4)
        scaled = builder.fmul(row, _repeated(builder, factor, FLOAT, SIDE))
        builder.store(builder.fadd(builder.load(place, align=4), scaled), place, align=4)
        return context.get_dummy_value()

    return types.void(_F4, types.intp, _F4, types.intp, types.float32), build


@intrinsic
def blend_rows(typingctx, target, to, source, first, second, first_weight, second_weight):
    """Write the weighted sum of source[first + i] and source[second + i] to target[to + i], for a row of 16 lanes."""

    def build(context, builder, signature, arguments):
        target, to, source, first, second, *weights = arguments
        place = _vector_at(context, builder, signature.args[0], target, to, FLOAT, SIDE)
        scaled = [
            builder.fmul(
                builder.load(_vector_at(context, builder, signature.args[2], source, at, FLOAT, SIDE), align=4),
                _repeated(builder, weight, FLOAT, SIDE),
            )
            for at, weight in zip((first, second), weights, strict=True)
        ]
        builder.store(builder.fadd(*scaled), place, align=4)
        return context.get_dummy_value()

    return types.void(_F4, types.intp, _F4, types.intp, types.intp, types.float32, types.float32), build
