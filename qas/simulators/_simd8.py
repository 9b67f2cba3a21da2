"""Eight float64 lanes as one Numba value: four complex amplitudes, or eight real ones.

One register where the processor has AVX-512; elsewhere LLVM splits it into two. As in `_simd`, memory is named by its
address. Permutations and patterns are named by the bit of the lane's number that they follow: 1, 2 or 4.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

_COUNT = 8
_LANES = ir.VectorType(ir.DoubleType(), _COUNT)
_INDEX = ir.IntType(32)


class _Eight(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float64x8")


eight = _Eight()


@register_model(_Eight)
class _EightModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):  # type: ignore[no-untyped-def]
        super().__init__(dmm, fe_type, _LANES)


def _address(builder, base, index):  # type: ignore[no-untyped-def]
    return builder.gep(builder.inttoptr(base, ir.DoubleType().as_pointer()), [index])


def _order(lanes):  # type: ignore[no-untyped-def]
    return ir.Constant(ir.VectorType(_INDEX, len(lanes)), list(lanes))


def _splat(builder, value):  # type: ignore[no-untyped-def]
    undefined = ir.Constant(_LANES, ir.Undefined)
    start = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(start, undefined, _order([0] * _COUNT))


@intrinsic
def load8(typingctx, base, index):  # type: ignore[no-untyped-def]
    """base[index : index + 8]"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(builder, args[0], args[1])
        return builder.load(builder.bitcast(pointer, _LANES.as_pointer()), align=8)

    return eight(types.intp, types.intp), codegen


@intrinsic
def store8(typingctx, base, index, value):  # type: ignore[no-untyped-def]
    """base[index : index + 8] = value"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _address(builder, args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, _LANES.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, eight), codegen


@intrinsic
def splat8(typingctx, value):  # type: ignore[no-untyped-def]
    """one number in all lanes"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _splat(builder, args[0])

    return eight(types.float64), codegen


@intrinsic
def zero8(typingctx):  # type: ignore[no-untyped-def]
    """eight zeros"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_LANES, [0.0] * _COUNT)

    return eight(), codegen


@intrinsic
def mul8(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a * b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fmul(args[0], args[1], flags=("contract",))

    return eight(eight, eight), codegen


@intrinsic
def add8(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a + b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fadd(args[0], args[1], flags=("contract",))

    return eight(eight, eight), codegen


@intrinsic
def sub8(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a - b"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fsub(args[0], args[1], flags=("contract",))

    return eight(eight, eight), codegen


@intrinsic
def mul_add8(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c, fused where the processor can"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return eight(eight, eight, eight), codegen


@intrinsic
def sum8(typingctx, a):  # type: ignore[no-untyped-def]
    """sum of the lanes"""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        value, count = args[0], _COUNT
        while count > 1:
            count //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            low = builder.shuffle_vector(value, undefined, _order(range(count)))
            high = builder.shuffle_vector(value, undefined, _order(range(count, 2 * count)))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(_INDEX, 0))

    return types.float64(eight), codegen


def _one(name: str, order: list[int], doc: str):  # type: ignore[no-untyped-def]
    def permute(typingctx, a):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.shuffle_vector(args[0], ir.Constant(_LANES, ir.Undefined), _order(order))

        return eight(eight), codegen

    permute.__name__ = name
    permute.__doc__ = doc
    return intrinsic(permute)


def _flip(bit: int):  # type: ignore[no-untyped-def]
    return _one(f"flip{bit}", [i ^ bit for i in range(_COUNT)], f"lanes that differ in bit {bit} exchanged")


flip1, flip2, flip4 = _flip(1), _flip(2), _flip(4)
twice_low = _one("twice_low", [i // 2 for i in range(_COUNT)], "each of the first four lanes twice")
twice_high = _one("twice_high", [4 + i // 2 for i in range(_COUNT)], "each of the last four lanes twice")


def _blend(bit: int):  # type: ignore[no-untyped-def]
    def blend(typingctx, a, b):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            order = _order([i + _COUNT if i & bit else i for i in range(_COUNT)])
            return builder.shuffle_vector(args[0], args[1], order)

        return eight(eight, eight), codegen

    blend.__name__ = f"blend{bit}"
    blend.__doc__ = f"lanes of a where bit {bit} of their number is 0, of b where it is 1"
    return intrinsic(blend)


blend1, blend2, blend4 = _blend(1), _blend(2), _blend(4)
