"""Four float64 lanes as one Numba value.

The Pauli vector keeps the four letters of qubit 0 next to each other, so every kernel works on whole groups of four.
LLVM does not find this by itself: a local 4x4 map touches four rows whose distance it does not know, and the aliasing
checks it would need exceed its limit. These intrinsics say it directly; they are plain LLVM vector operations and
compile on any processor.

Memory is named by its address, an integer: passing arrays between compiled functions costs atomic reference counts,
which for 16 amplitudes cost more than the physics. The caller keeps the arrays alive.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

_LANES = ir.VectorType(ir.DoubleType(), 4)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float64x4")


lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):  # type: ignore[no-untyped-def]
        super().__init__(dmm, fe_type, _LANES)


def _address(builder, base, index):  # type: ignore[no-untyped-def]
    return builder.gep(builder.inttoptr(base, ir.DoubleType().as_pointer()), [index])


def _splat(builder, value):  # type: ignore[no-untyped-def]
    start = builder.insert_element(ir.Constant(_LANES, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 0, 0, 0])
    return builder.shuffle_vector(start, ir.Constant(_LANES, ir.Undefined), zeros)


@intrinsic
def address(typingctx, array):  # type: ignore[no-untyped-def]
    """Address of the first element of a contiguous array, as an integer."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.intp(array), codegen


@intrinsic
def get(typingctx, base, index):  # type: ignore[no-untyped-def]
    """base[index]"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(_address(builder, args[0], args[1]))

    return types.float64(types.intp, types.intp), codegen


@intrinsic
def get_int(typingctx, base, index):  # type: ignore[no-untyped-def]
    """base[index] of 64-bit integers"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        integers = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(integers, [args[1]]))

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def odd(typingctx, value):  # type: ignore[no-untyped-def]
    """whether the number of bits set in a 64-bit integer is odd"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.trunc(builder.ctpop(args[0]), ir.IntType(1))

    return types.boolean(types.intp), codegen


SHORT = 1 << 12
"""States of at most so many numbers take a microsecond a gate: the flag is read once in a circuit, not at each gate."""


@intrinsic
def stopped(typingctx, flag):  # type: ignore[no-untyped-def]
    """Whether the 64-bit integer at this address is not zero; other threads set it (`qas.simulators.interrupt`)."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.icmp_signed("!=", builder.load_atomic(pointer, "monotonic", 8), ir.Constant(ir.IntType(64), 0))

    return types.boolean(types.intp), codegen


@intrinsic
def put(typingctx, base, index, value):  # type: ignore[no-untyped-def]
    """base[index] = value"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[2], _address(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float64), codegen


@intrinsic
def load4(typingctx, base, index):  # type: ignore[no-untyped-def]
    """base[index : index + 4]"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(builder, args[0], args[1])
        return builder.load(builder.bitcast(pointer, _LANES.as_pointer()), align=8)

    return lanes(types.intp, types.intp), codegen


@intrinsic
def load1(typingctx, base, index):  # type: ignore[no-untyped-def]
    """base[index] in all four lanes"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _splat(builder, builder.load(_address(builder, args[0], args[1])))

    return lanes(types.intp, types.intp), codegen


@intrinsic
def store4(typingctx, base, index, value):  # type: ignore[no-untyped-def]
    """base[index : index + 4] = value"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(builder, args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _LANES.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, lanes), codegen


@intrinsic
def mul(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a * b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fmul(args[0], args[1], flags=("contract",))

    return lanes(lanes, lanes), codegen


@intrinsic
def mul_add(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c, fused where the processor can"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return lanes(lanes, lanes, lanes), codegen


@intrinsic
def sub(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a - b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fsub(args[0], args[1], flags=("contract",))

    return lanes(lanes, lanes), codegen


@intrinsic
def add(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a + b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fadd(args[0], args[1], flags=("contract",))

    return lanes(lanes, lanes), codegen


@intrinsic
def zero4(typingctx):  # type: ignore[no-untyped-def]
    """four zeros"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_LANES, [ir.Constant(ir.DoubleType(), 0.0)] * 4)

    return lanes(), codegen


@intrinsic
def sum4(typingctx, a):  # type: ignore[no-untyped-def]
    """sum of the four lanes"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        parts = [builder.extract_element(args[0], ir.Constant(ir.IntType(32), i)) for i in range(4)]
        return builder.fadd(builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3]))

    return types.float64(lanes), codegen


def _permutation(name: str, order: tuple[int, int, int, int], doc: str):  # type: ignore[no-untyped-def]
    def permute(typingctx, a):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), 4), list(order))
            return builder.shuffle_vector(args[0], ir.Constant(_LANES, ir.Undefined), mask)

        return lanes(lanes), codegen

    permute.__name__ = name
    permute.__doc__ = doc
    return intrinsic(permute)


swap_parts = _permutation("swap_parts", (1, 0, 3, 2), "real and imaginary parts of two complex numbers exchanged")
swap_halves = _permutation("swap_halves", (2, 3, 0, 1), "two complex numbers exchanged")
reverse4 = _permutation("reverse4", (3, 2, 1, 0), "lanes in reverse order")


@intrinsic
def low_high(typingctx, a, b):  # type: ignore[no-untyped-def]
    """the first half of a beside the second half of b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 1, 6, 7])
        return builder.shuffle_vector(args[0], args[1], mask)

    return lanes(lanes, lanes), codegen


@intrinsic
def load2_twice(typingctx, base, index):  # type: ignore[no-untyped-def]
    """base[index], base[index], base[index + 1], base[index + 1]"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        two = ir.VectorType(ir.DoubleType(), 2)
        pointer = _address(builder, args[0], args[1])
        pair = builder.load(builder.bitcast(pointer, two.as_pointer()), align=8)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 0, 1, 1])
        return builder.shuffle_vector(pair, ir.Constant(two, ir.Undefined), mask)

    return lanes(types.intp, types.intp), codegen


@intrinsic
def make4(typingctx, a, b, c, d):  # type: ignore[no-untyped-def]
    """four numbers as lanes"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = ir.Constant(_LANES, ir.Undefined)
        for position, value in enumerate(args):
            vector = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), position))
        return vector

    return lanes(types.float64, types.float64, types.float64, types.float64), codegen
