"""Compiled kernels: products of Pauli rotations on the rows of real matrices, and their reverse-mode gradient.

Every operation mixes pairs of rows, ``a' = c a + s b`` and ``b' = c b - s a``. A *string* (x, z) is the real matrix
X^x Z^z, which sends basis vector i to (-1)^|i & z| times basis vector i ^ x; it is antisymmetric where |x & z| is odd,
and then exp(φ/2 X^x Z^z) mixes the rows i and i ^ x. Row index = level * 2**n + bits; a *level* operation mixes two
levels of the odd axis instead, with a symmetric string on the bits.

Rows are `LANES` columns wide or a multiple of it. The two intrinsics say in one piece what LLVM does not find: that
two rows of one array never overlap.
"""

# mypy: disallow-untyped-defs=False, check-untyped-defs=False

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from qas.simulators._compile import compiled

LANES = 8


def _pointers(context, builder, signature, args, which):
    array_type = signature.args[which]
    data = context.make_array(array_type)(context, builder, args[which]).data
    scalar = context.get_data_type(array_type.dtype)
    lanes = ir.VectorType(scalar, LANES)
    bytes_ = scalar.get_abi_size(context.target_data)
    return data, lanes, bytes_


def _load(builder, data, offset, lanes, align):
    pointer = builder.bitcast(builder.gep(data, [offset]), lanes.as_pointer())
    return pointer, builder.load(pointer, align=align)


def _splat(builder, value, lanes):
    undefined = ir.Constant(lanes, ir.Undefined)
    start = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(start, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@intrinsic
def _mix(typingctx, values, first, second, c, s):
    """Mix `LANES` values at two places of a flat array."""

    def codegen(context, builder, signature, args):
        data, lanes, align = _pointers(context, builder, signature, args, 0)
        at_a, a = _load(builder, data, args[1], lanes, align)
        at_b, b = _load(builder, data, args[2], lanes, align)
        c, s = _splat(builder, args[3], lanes), _splat(builder, args[4], lanes)
        builder.store(builder.fadd(builder.fmul(c, a), builder.fmul(s, b)), at_a, align=align)
        builder.store(builder.fsub(builder.fmul(c, b), builder.fmul(s, a)), at_b, align=align)
        return context.get_dummy_value()

    return types.void(values, types.intp, types.intp, values.dtype, values.dtype), codegen


@intrinsic
def _unmix(typingctx, values, cotangents, first, second, c, s):
    """Undo `_mix` on values and cotangents; returns Σ (da b - db a) at the output."""

    def codegen(context, builder, signature, args):
        data, lanes, align = _pointers(context, builder, signature, args, 0)
        ddata, _, _ = _pointers(context, builder, signature, args, 1)
        at_a, a = _load(builder, data, args[2], lanes, align)
        at_b, b = _load(builder, data, args[3], lanes, align)
        at_da, da = _load(builder, ddata, args[2], lanes, align)
        at_db, db = _load(builder, ddata, args[3], lanes, align)
        c, s = _splat(builder, args[4], lanes), _splat(builder, args[5], lanes)
        total = builder.fsub(builder.fmul(da, b), builder.fmul(db, a))
        builder.store(builder.fsub(builder.fmul(c, a), builder.fmul(s, b)), at_a, align=align)
        builder.store(builder.fadd(builder.fmul(c, b), builder.fmul(s, a)), at_b, align=align)
        builder.store(builder.fsub(builder.fmul(c, da), builder.fmul(s, db)), at_da, align=align)
        builder.store(builder.fadd(builder.fmul(c, db), builder.fmul(s, da)), at_db, align=align)
        width = LANES
        while width > 1:
            width //= 2
            half = ir.VectorType(ir.IntType(32), width)
            low = builder.shuffle_vector(total, total, ir.Constant(half, list(range(width))))
            high = builder.shuffle_vector(total, total, ir.Constant(half, list(range(width, 2 * width))))
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return values.dtype(values, cotangents, types.intp, types.intp, values.dtype, values.dtype), codegen


@intrinsic
def _odd(typingctx, value):
    """Whether the number of set bits is odd."""

    def codegen(context, builder, signature, args):
        return builder.trunc(builder.ctpop(args[0]), ir.IntType(1))

    return types.boolean(types.int64), codegen


@compiled(inline=True)
def _top(x):
    """Highest set bit."""
    top = 1
    while 2 * top <= x:
        top *= 2
    return top


@compiled()
def rotate(ops, n_bits, cosines, sines, state, n_rows, columns):
    """Apply all operations in order to `state`, in place.

    ops: int64 (n_ops, 7), rows (level_a, level_b, x, z, parity, rows, levels): level_a < 0 for a string, `parity` 1 if
    it changes sign on odd levels; bits from `rows` on, and levels from `levels` on, are still zero.
    cosines, sines: (batch, n_ops) of half the angle, sign of the string in the sine. state: flat, of
    (batch, n_rows, columns).
    """
    size = 1 << n_bits
    for batch in range(cosines.shape[0]):
        start = batch * n_rows
        for k in range(ops.shape[0]):
            c = cosines[batch, k]
            s = sines[batch, k]
            x = ops[k, 2]
            z = ops[k, 3]
            limit = ops[k, 5]
            if ops[k, 0] < 0:
                top = _top(x)
                for level in range(ops[k, 6]):
                    base = start + level * size
                    t = -s if ops[k, 4] and level & 1 else s
                    for high in range(0, limit, 2 * top):
                        for i in range(high, high + top):
                            p = i ^ x
                            g = -t if _odd(p & z) else t
                            a = (base + i) * columns
                            b = (base + p) * columns
                            for lane in range(0, columns, LANES):
                                _mix(state, a + lane, b + lane, c, g)
            else:
                for i in range(limit):
                    g = s if _odd(i & z) else -s
                    a = (start + ops[k, 0] * size + i) * columns
                    b = (start + ops[k, 1] * size + (i ^ x)) * columns
                    for lane in range(0, columns, LANES):
                        _mix(state, a + lane, b + lane, c, g)


@compiled()
def rotate_back(ops, n_bits, cosines, sines, state, cotangent, n_rows, columns, gradient):
    """Reverse sweep: undoes `rotate` on `state` and carries `cotangent` back, both in place.

    gradient: float64 (batch, n_ops), set to the derivative in the angle of each operation, sign of the string left out.
    """
    size = 1 << n_bits
    one = cosines.dtype.type(1)
    for batch in range(cosines.shape[0]):
        start = batch * n_rows
        for k in range(ops.shape[0] - 1, -1, -1):
            c = cosines[batch, k]
            s = sines[batch, k]
            x = ops[k, 2]
            z = ops[k, 3]
            limit = ops[k, 5]
            total = 0.0
            if ops[k, 0] < 0:
                top = _top(x)
                for level in range(ops[k, 6]):
                    base = start + level * size
                    sign = -one if ops[k, 4] and level & 1 else one
                    for high in range(0, limit, 2 * top):
                        for i in range(high, high + top):
                            p = i ^ x
                            h = -sign if _odd(p & z) else sign
                            a = (base + i) * columns
                            b = (base + p) * columns
                            for lane in range(0, columns, LANES):
                                total += h * _unmix(state, cotangent, a + lane, b + lane, c, s * h)
            else:
                for i in range(limit):
                    h = one if _odd(i & z) else -one
                    a = (start + ops[k, 0] * size + i) * columns
                    b = (start + ops[k, 1] * size + (i ^ x)) * columns
                    for lane in range(0, columns, LANES):
                        total += h * _unmix(state, cotangent, a + lane, b + lane, c, s * h)
            gradient[batch, k] = 0.5 * total
