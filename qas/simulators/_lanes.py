"""Vector registers as Numba values. Memory is named by its address: passing arrays between compiled functions costs
atomic reference counts, which for 16 amplitudes cost more than the physics. The caller keeps the arrays alive.

An address is a plain integer, and then names float64 numbers, or a typed pointer, Numba's ``CPointer`` of float64 or
float32, so that one kernel serves both precisions. Registers are as wide as the processor's, or of 4 or 8 numbers where
what lies beside each other has a meaning. The operations are plain LLVM vector operations and compile on any processor;
a wider vector than the processor has is split by LLVM, which by itself would not find them: a local map touches rows
whose distance it does not know, and the aliasing checks it would need exceed its limit.
"""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

REGISTER_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32
SHORT = 1 << 12
"""States of at most so many numbers take a microsecond a gate: the flag is read once in a circuit, not at each gate."""
_INDEX, _INTEGER = ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):
    """One register of numbers."""

    def __init__(self, scalar, width) -> None:
        self.scalar, self.width = scalar, width
        super().__init__(name=f"{scalar}x{width}")


def _register(base):
    """The register that the processor has for what lies at an address."""
    scalar = _holds(base)
    _need(scalar in (types.float64, types.float32))
    return Lanes(scalar, REGISTER_BYTES * 8 // scalar.bitwidth)


def _holds(base):
    """What lies at an address."""
    if isinstance(base, types.CPointer):
        return base.dtype
    _need(isinstance(base, types.Integer))
    return types.float64


def _need(condition: bool) -> None:
    if not condition:
        raise TypingError("lanes are made from addresses of float64 or float32")


def _scalar(scalar):
    return ir.DoubleType() if scalar == types.float64 else ir.FloatType()


def _vector(lanes):
    return ir.VectorType(_scalar(lanes.scalar), lanes.width)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _vector(fe_type))


def _at(builder, base, index):
    if isinstance(base.type, ir.IntType):
        base = builder.inttoptr(base, ir.DoubleType().as_pointer())
    return builder.gep(base, [index])


def _order(lanes):
    order = list(lanes)
    return ir.Constant(ir.VectorType(_INDEX, len(order)), order)


def _shuffle(builder, value, lanes):
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), _order(lanes))


def _splat(builder, number, lanes):
    start = builder.insert_element(ir.Constant(_vector(lanes), ir.Undefined), number, ir.Constant(_INDEX, 0))
    return _shuffle(builder, start, [0] * lanes.width)


def _zero(lanes):
    return ir.Constant(_vector(lanes), [0.0] * lanes.width)


def _load(builder, place, lanes):
    return builder.load(builder.bitcast(place, _vector(lanes).as_pointer()), align=lanes.scalar.bitwidth // 8)


def _store(builder, value, place, lanes):
    builder.store(value, builder.bitcast(place, _vector(lanes).as_pointer()), align=lanes.scalar.bitwidth // 8)


# ---------------------------------------------------------------------- single numbers
@intrinsic
def address(typingctx, array):
    """Address of the first element of a contiguous array, as an integer."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _INTEGER)

    return types.intp(array), codegen


@intrinsic
def pointer(typingctx, array):
    """Address of the first element of a contiguous array, as a typed pointer."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.bitcast(data, context.get_value_type(signature.return_type))

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def pointer_to(typingctx, where, kind):
    """An address as a pointer to numbers of a NumPy type."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind.dtype)(types.int64, kind), codegen


@intrinsic
def call(typingctx, function, table):
    """What the entry point at an address returns for the table at another."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.DoubleType(), [ir.IntType(64)])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return types.float64(types.int64, types.int64), codegen


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

    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, *args))

    return _holds(base)(base, types.intp), codegen


@intrinsic
def write(typingctx, base, index, value):
    """base[index] = value, rounded to what base holds"""
    kind = _holds(base)

    def codegen(context, builder, signature, args):
        number = context.cast(builder, args[2], signature.args[2], kind)
        builder.store(number, _at(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(base, types.intp, value), codegen


@intrinsic
def get_int(typingctx, base, index):
    """base[index] of 64-bit integers, base a plain integer"""

    def codegen(context, builder, signature, args):
        return builder.load(builder.gep(builder.inttoptr(args[0], _INTEGER.as_pointer()), [args[1]]))

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def odd(typingctx, value):
    """Whether the number of bits set in a 64-bit integer is odd."""

    def codegen(context, builder, signature, args):
        return builder.trunc(builder.ctpop(args[0]), ir.IntType(1))

    return types.boolean(types.intp), codegen


@intrinsic
def lowest_bit(typingctx, value):
    """Place of the lowest bit set in a 64-bit integer."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.intp(types.intp), codegen


@intrinsic
def stopped(typingctx, flag):
    """Whether the 64-bit integer at this address is not zero; other threads set it (`qas.simulators.interrupt`)."""

    def codegen(context, builder, signature, args):
        place = builder.inttoptr(args[0], _INTEGER.as_pointer())
        return builder.icmp_signed("!=", builder.load_atomic(place, "monotonic", 8), ir.Constant(_INTEGER, 0))

    return types.boolean(types.intp), codegen


# ---------------------------------------------------------------------- registers and memory
@intrinsic
def width(typingctx, base):
    """Numbers in one register."""
    count = _register(base).width

    def codegen(context, builder, signature, args):
        return ir.Constant(_INTEGER, count)

    return types.intp(base), codegen


def _loader(name: str, width: int | None, doc: str):
    def loader(typingctx, base, index):
        lanes = _register(base) if width is None else Lanes(_holds(base), width)

        def codegen(context, builder, signature, args):
            return _load(builder, _at(builder, *args), lanes)

        return lanes(base, types.intp), codegen

    loader.__name__, loader.__doc__ = name, doc
    return intrinsic(loader)


load = _loader("load", None, "One register from base[index] on.")
load4 = _loader("load4", 4, "base[index : index + 4]")
load8 = _loader("load8", 8, "base[index : index + 8]")


@intrinsic
def store(typingctx, base, index, value):
    """base[index…] = one register"""
    _need(isinstance(value, Lanes) and _holds(base) == value.scalar)

    def codegen(context, builder, signature, args):
        _store(builder, args[2], _at(builder, args[0], args[1]), value)
        return context.get_dummy_value()

    return types.void(base, types.intp, value), codegen


@intrinsic
def fetch(typingctx, base, index):
    """Ask for base[index] to come into the nearest cache."""
    _holds(base)

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
    lanes = _register(base)

    def codegen(context, builder, signature, args):
        return _splat(builder, builder.load(_at(builder, *args)), lanes)

    return lanes(base, types.intp), codegen


@intrinsic
def splat8(typingctx, number):
    """One number in eight lanes."""
    scalar = number if number == types.float32 else types.float64
    lanes = Lanes(scalar, 8)

    def codegen(context, builder, signature, args):
        return _splat(builder, args[0], lanes)

    return lanes(scalar), codegen


@intrinsic
def make4(typingctx, a, b, c, d):
    """Four numbers as lanes."""
    lanes = Lanes(types.float64, 4)

    def codegen(context, builder, signature, args):
        vector = ir.Constant(_vector(lanes), ir.Undefined)
        for position, value in enumerate(args):
            vector = builder.insert_element(vector, value, ir.Constant(_INDEX, position))
        return vector

    return lanes(types.float64, types.float64, types.float64, types.float64), codegen


@intrinsic
def nothing(typingctx, base):
    """zero in every lane"""
    lanes = _register(base)

    def codegen(context, builder, signature, args):
        return _zero(lanes)

    return lanes(base), codegen


def _zeros(name: str, width: int, doc: str):
    def zeros(typingctx):
        lanes = Lanes(types.float64, width)

        def codegen(context, builder, signature, args):
            return _zero(lanes)

        return lanes(), codegen

    zeros.__name__, zeros.__doc__ = name, doc
    return intrinsic(zeros)


zero4, zero8 = _zeros("zero4", 4, "Four zeros."), _zeros("zero8", 8, "Eight zeros.")


# ---------------------------------------------------------------------- arithmetic
@intrinsic
def plus(typingctx, a, b):
    """a + b"""

    def codegen(context, builder, signature, args):
        return builder.fadd(args[0], args[1], flags=("contract",))

    return a(a, a), codegen


@intrinsic
def minus(typingctx, a, b):
    """a - b"""

    def codegen(context, builder, signature, args):
        return builder.fsub(args[0], args[1], flags=("contract",))

    return a(a, a), codegen


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
def total(typingctx, a):
    """Sum of the lanes, float64."""

    def codegen(context, builder, signature, args):
        value, count = args[0], a.width
        while count > 1:
            count //= 2
            low, high = (_shuffle(builder, value, range(first, first + count)) for first in (0, count))
            value = builder.fadd(low, high)
        number = builder.extract_element(value, ir.Constant(_INDEX, 0))
        return number if a.scalar == types.float64 else builder.fpext(number, ir.DoubleType())

    return types.float64(a), codegen


# ---------------------------------------------------------------------- lanes moved, named by the bits of their numbers
def _moved(name: str, source, doc: str):
    def move(typingctx, a):
        def codegen(context, builder, signature, args):
            return _shuffle(builder, args[0], [source(i, a.width) for i in range(a.width)])

        return a(a), codegen

    move.__name__, move.__doc__ = name, doc
    return intrinsic(move)


def _flip(bits: int):
    return _moved(f"flip{bits}", lambda i, width: i ^ bits, f"Lanes that differ in the bits {bits} exchanged.")


flip1, flip2, flip3, flip4 = (_flip(bits) for bits in range(1, 5))
twice_low = _moved("twice_low", lambda i, width: i // 2, "Each of the lanes of the first half twice.")
twice_high = _moved("twice_high", lambda i, width: (width + i) // 2, "Each of the lanes of the second half twice.")


def _blend(bit: int):
    def blend(typingctx, a, b):
        def codegen(context, builder, signature, args):
            order = _order(i + a.width if i & bit else i for i in range(a.width))
            return builder.shuffle_vector(args[0], args[1], order)

        return a(a, a), codegen

    blend.__name__ = f"blend{bit}"
    blend.__doc__ = f"Lanes of a where bit {bit} of their number is 0, of b where it is 1."
    return intrinsic(blend)


blend1, blend2, blend4 = _blend(1), _blend(2), _blend(4)


@intrinsic
def copy4(typingctx, source, target):
    """target[:4] = source[:4]"""
    lanes = Lanes(_holds(source), 4)

    def codegen(context, builder, signature, args):
        _store(builder, _load(builder, args[0], lanes), args[1], lanes)
        return context.get_dummy_value()

    return types.void(source, source), codegen


@intrinsic
def transpose4(typingctx, source, source_step, target, target_step):
    """target[a·target_step + u] = source[u·source_step + a] for a, u < 4"""
    lanes = Lanes(_holds(source), 4)

    def codegen(context, builder, signature, args):
        start, step, out, out_step = args
        rows = [
            _load(builder, _at(builder, start, builder.mul(step, ir.Constant(step.type, u))), lanes) for u in range(4)
        ]
        first, second = (builder.shuffle_vector(rows[u], rows[u + 1], _order(range(8))) for u in (0, 2))
        for pair in range(2):
            order = [8 * (u // 2) + 4 * (u % 2) + 2 * pair + a for a in range(2) for u in range(4)]
            turned = builder.shuffle_vector(first, second, _order(order))
            for a in range(2):
                place = _at(builder, out, builder.mul(out_step, ir.Constant(out_step.type, 2 * pair + a)))
                _store(builder, _shuffle(builder, turned, range(4 * a, 4 * a + 4)), place, lanes)
        return context.get_dummy_value()

    return types.void(source, types.intp, source, types.intp), codegen
