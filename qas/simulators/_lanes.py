"""Vector registers as Numba values: typed pointers, and as many lanes as the processor has in one register.

A pointer is Numba's ``CPointer`` of float64 or float32, so one kernel serves both precisions. The operations are plain
LLVM vector operations and compile on any processor; a wider vector than the processor has is split by LLVM. The caller
keeps the arrays alive.
"""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

REGISTER_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32
_INDEX = ir.IntType(32)


class Lanes(types.Type):
    """One register of numbers."""

    def __init__(self, scalar) -> None:
        self.scalar = scalar
        self.width = REGISTER_BYTES * 8 // scalar.bitwidth
        super().__init__(name=f"{scalar}x{self.width}")


def _scalar(scalar):
    return ir.DoubleType() if scalar == types.float64 else ir.FloatType()


def _vector(scalar, width):
    return ir.VectorType(_scalar(scalar), width)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _vector(fe_type.scalar, fe_type.width))


def _is_pointer(kind) -> bool:
    return isinstance(kind, types.CPointer) and kind.dtype in (types.float64, types.float32)


def _need(condition: bool) -> None:
    if not condition:
        raise TypingError("lanes are made from pointers to float64 or float32")


def _at(builder, pointer, index):
    return builder.gep(pointer, [index])


def _constant(*values):
    return ir.Constant(ir.VectorType(_INDEX, len(values)), list(values))


def _load(builder, pointer, scalar, width):
    vector = builder.bitcast(pointer, _vector(scalar, width).as_pointer())
    return builder.load(vector, align=scalar.bitwidth // 8)


def _store(builder, value, pointer, scalar, width):
    vector = builder.bitcast(pointer, _vector(scalar, width).as_pointer())
    builder.store(value, vector, align=scalar.bitwidth // 8)


@intrinsic
def pointer(typingctx, array):
    """Address of the first element of a contiguous array."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.bitcast(data, context.get_value_type(signature.return_type))

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def at(typingctx, base, index):
    """Address of base[index]."""
    _need(isinstance(base, types.CPointer))

    def codegen(context, builder, signature, args):
        return _at(builder, *args)

    return base(base, types.intp), codegen


@intrinsic
def read(typingctx, base, index):
    """base[index]"""
    _need(isinstance(base, types.CPointer))

    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, *args))

    return base.dtype(base, types.intp), codegen


@intrinsic
def write(typingctx, base, index, value):
    """base[index] = value, rounded to what base holds"""
    _need(isinstance(base, types.CPointer))

    def codegen(context, builder, signature, args):
        number = context.cast(builder, args[2], signature.args[2], signature.args[0].dtype)
        builder.store(number, _at(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(base, types.intp, value), codegen


@intrinsic
def width(typingctx, base):
    """Numbers in one register."""
    _need(_is_pointer(base))
    count = Lanes(base.dtype).width

    def codegen(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), count)

    return types.intp(base), codegen


@intrinsic
def load(typingctx, base, index):
    """One register from base[index] on."""
    _need(_is_pointer(base))
    lanes = Lanes(base.dtype)

    def codegen(context, builder, signature, args):
        return _load(builder, _at(builder, *args), lanes.scalar, lanes.width)

    return lanes(base, types.intp), codegen


@intrinsic
def store(typingctx, base, index, value):
    """base[index…] = one register"""
    _need(_is_pointer(base) and isinstance(value, Lanes))

    def codegen(context, builder, signature, args):
        _store(builder, args[2], _at(builder, args[0], args[1]), value.scalar, value.width)
        return context.get_dummy_value()

    return types.void(base, types.intp, value), codegen


@intrinsic
def fetch(typingctx, base, index):
    """Ask for base[index] to come into the nearest cache."""
    _need(_is_pointer(base))

    def codegen(context, builder, signature, args):
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.bitcast(_at(builder, *args), byte)
        builder.call(function, [place, whole(0), whole(3), whole(1)])
        return context.get_dummy_value()

    return types.void(base, types.intp), codegen


@intrinsic
def splat(typingctx, base, index):
    """base[index] in every lane"""
    _need(_is_pointer(base))
    lanes = Lanes(base.dtype)

    def codegen(context, builder, signature, args):
        undefined = ir.Constant(_vector(lanes.scalar, lanes.width), ir.Undefined)
        number = builder.load(_at(builder, *args))
        start = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
        return builder.shuffle_vector(start, undefined, _constant(*[0] * lanes.width))

    return lanes(base, types.intp), codegen


@intrinsic
def times(typingctx, a, b):
    """a * b"""

    def codegen(context, builder, signature, args):
        return builder.fmul(args[0], args[1], flags=("contract",))

    return a(a, a), codegen


@intrinsic
def times_plus(typingctx, a, b, c):
    """a * b + c, fused where the processor can"""

    def codegen(context, builder, signature, args):
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return a(a, a, a), codegen


@intrinsic
def times_minus(typingctx, a, b, c):
    """c - a * b, fused where the processor can"""

    def codegen(context, builder, signature, args):
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fsub(args[2], product, flags=("contract",))

    return a(a, a, a), codegen


@intrinsic
def nothing(typingctx, base):
    """zero in every lane"""
    _need(_is_pointer(base))
    lanes = Lanes(base.dtype)

    def codegen(context, builder, signature, args):
        return ir.Constant(_vector(lanes.scalar, lanes.width), [0.0] * lanes.width)

    return lanes(base), codegen


@intrinsic
def total(typingctx, a):
    """Sum of the lanes, float64."""

    def codegen(context, builder, signature, args):
        value, count = args[0], a.width
        while count > 1:
            count //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            low = builder.shuffle_vector(value, undefined, _constant(*range(count)))
            high = builder.shuffle_vector(value, undefined, _constant(*range(count, 2 * count)))
            value = builder.fadd(low, high)
        number = builder.extract_element(value, ir.Constant(_INDEX, 0))
        return number if a.scalar == types.float64 else builder.fpext(number, ir.DoubleType())

    return types.float64(a), codegen


@intrinsic
def copy4(typingctx, source, target):
    """target[:4] = source[:4]"""
    _need(_is_pointer(source))

    def codegen(context, builder, signature, args):
        _store(builder, _load(builder, args[0], source.dtype, 4), args[1], source.dtype, 4)
        return context.get_dummy_value()

    return types.void(source, source), codegen


@intrinsic
def transpose4(typingctx, source, source_step, target, target_step):
    """target[a·target_step + u] = source[u·source_step + a] for a, u < 4"""
    _need(_is_pointer(source))

    def codegen(context, builder, signature, args):
        start, step, out, out_step = args
        rows = [
            _load(builder, _at(builder, start, builder.mul(step, ir.Constant(step.type, u))), source.dtype, 4)
            for u in range(4)
        ]
        both = _constant(*range(8))
        first, second = (builder.shuffle_vector(rows[u], rows[u + 1], both) for u in (0, 2))
        for pair in range(2):
            order = [8 * (u // 2) + 4 * (u % 2) + 2 * pair + a for a in range(2) for u in range(4)]
            turned = builder.shuffle_vector(first, second, _constant(*order))
            undefined = ir.Constant(turned.type, ir.Undefined)
            for a in range(2):
                part = builder.shuffle_vector(turned, undefined, _constant(*range(4 * a, 4 * a + 4)))
                place = _at(builder, out, builder.mul(out_step, ir.Constant(out_step.type, 2 * pair + a)))
                _store(builder, part, place, source.dtype, 4)
        return context.get_dummy_value()

    return types.void(source, types.intp, source, types.intp), codegen
