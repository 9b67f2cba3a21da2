"""Four float64 lanes as one Numba value.

The Pauli vector keeps the four letters of qubit 0 next to each other, so every kernel works on whole groups of four.
LLVM does not find this by itself: a local 4x4 map touches four rows whose distance it does not know, and the aliasing
checks it would need exceed its limit. These intrinsics say it directly; they are plain LLVM vector operations and
compile on any processor.
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


def _address(context, builder, array_type, array, index):  # type: ignore[no-untyped-def]
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _splat(builder, value):  # type: ignore[no-untyped-def]
    start = builder.insert_element(ir.Constant(_LANES, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), 4), [0, 0, 0, 0])
    return builder.shuffle_vector(start, ir.Constant(_LANES, ir.Undefined), zeros)


@intrinsic
def load4(typingctx, array, index):  # type: ignore[no-untyped-def]
    """array[index : index + 4]"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], args[0], args[1])
        return builder.load(builder.bitcast(pointer, _LANES.as_pointer()), align=8)

    return lanes(array, types.intp), codegen


@intrinsic
def load1(typingctx, array, index):  # type: ignore[no-untyped-def]
    """array[index] in all four lanes"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _splat(builder, builder.load(_address(context, builder, signature.args[0], args[0], args[1])))

    return lanes(array, types.intp), codegen


@intrinsic
def store4(typingctx, array, index, value):  # type: ignore[no-untyped-def]
    """array[index : index + 4] = value"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _LANES.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


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
