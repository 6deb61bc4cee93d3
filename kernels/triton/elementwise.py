"""Arithmetic, comparisons, exponentials, logic, rounding, trigonometry.

The functions run in the kernels of `spiral.kernels.triton.pointwise`. Each takes an operation's number, its place in
the tuple that its text names, then operands of one type: float32, float64, or an integer type. Functions of libdevice
are its precise ones (at most 4 ulp in float32, 2 in float64); quotients and roots are rounded to the nearest. Floating
edge cases are NumPy's, integer ones too: x // 0 and x % 0 are 0, MIN // -1 is MIN, shifts by more than the width leave
no bit of x.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from spiral.kernels.triton.pointwise import binary, unary  # noqa: F401  (the kernels that these run in)
from spiral.kernels.triton.strided import store_block

ARITHMETIC = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
SPECIAL = ("floor_divide", "remainder", "hypot", "atan2", "logaddexp")
POWER = ("pow",)
NEXT = ("nextafter",)
COMPARE = ("equal", "not_equal", "less", "less_equal", "logical_and", "logical_or", "logical_xor")
SIMPLE = ("square", "cube", "reciprocal", "sign", "floor", "ceil", "round", "trunc", "sqrt", "rsqrt",
          "power_half", "relu")  # fmt: skip
EXPONENTIAL = ("exp", "expm1", "log", "log1p", "log2", "log10", "erf")
CIRCULAR = ("sin", "cos", "tan", "asin", "acos", "atan")
HYPERBOLIC = ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
TEST = ("isnan", "isinf", "isfinite", "logical_not")
WHOLE = ("add", "subtract", "multiply", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor",
         "bitwise_left_shift", "bitwise_right_shift", "copysign")  # fmt: skip
WHOLE_QUOTIENT = ("floor_divide", "remainder", "pow")
WHOLE_UNARY = ("negative", "abs", "square", "sign", "bitwise_invert", "relu")
MIXED = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


# ---------------------------------------------------------------- floating numbers
@triton.jit
def quotient(x, y):
    """x / y to the nearest."""
    if x.dtype == tl.float64:
        z = x / y
    else:
        z = tl.div_rn(x, y)
    return z


@triton.jit
def root(x):
    """The square root to the nearest."""
    if x.dtype == tl.float64:
        z = tl.sqrt(x)
    else:
        z = tl.sqrt_rn(x)
    return z


@triton.jit
def bits_of(x):
    """A floating value as an integer of the same bits."""
    if x.dtype == tl.float64:
        u = x.to(tl.int64, bitcast=True)
    else:
        u = x.to(tl.int32, bitcast=True)
    return u


@triton.jit
def with_sign(x, y):
    """The magnitude of x with the sign of y."""
    u, v = bits_of(x), bits_of(y)
    least: tl.constexpr = -(2**63) if x.dtype == tl.float64 else -(2**31)
    most: tl.constexpr = 2**63 - 1 if x.dtype == tl.float64 else 2**31 - 1
    return ((u & most) | (v & least)).to(x.dtype, bitcast=True)


@triton.jit
def arithmetic(op, x, y):
    """`ARITHMETIC`."""
    if op == 0:
        z = x + y
    elif op == 1:
        z = x - y
    elif op == 2:
        z = x * y
    elif op == 3:
        z = quotient(x, y)
    elif op == 4:
        z = tl.where((x >= y) | (x != x), x, y)
    else:
        z = tl.where((x <= y) | (x != x), x, y)
    return z


@triton.jit
def floor_quotient(x, y):
    """floor(x / y), exact where the quotient rounds to a whole number from below: through the remainder."""
    r = libdevice.fmod(x, y)
    q = quotient(x - r, y)
    q = tl.where((r != 0) & ((r < 0) != (y < 0)), q - 1, q)
    whole = libdevice.floor(q)
    whole = tl.where(q - whole > 0.5, whole + 1, whole)
    direct = quotient(x, y)
    whole = tl.where(q == 0, with_sign(q * 0, direct), whole)
    return tl.where((y == 0) | (x - x != 0) | (y - y != 0), libdevice.floor(direct), whole)


@triton.jit
def remainder(x, y):
    """x - floor(x / y) * y, with the sign of y, also where it is zero."""
    r = libdevice.fmod(x, y)
    z = tl.where((r < 0) != (y < 0), r + y, r)
    z = tl.where(r == 0, with_sign(r, y), z)
    return tl.where(y == 0, r, z)


@triton.jit
def log_of_sum(x, y):
    """log(e^x + e^y) = max + log(1 + e^-|x - y|); equal infinite operands: themselves."""
    d = x - y
    z = tl.where(x > y, x, y) + libdevice.log1p(libdevice.exp(-tl.abs(d)))
    return tl.where(d == d, z, tl.where(x == y, x, d))


@triton.jit
def special(op, x, y):
    """`SPECIAL`."""
    if op == 0:
        z = floor_quotient(x, y)
    elif op == 1:
        z = remainder(x, y)
    elif op == 2:
        z = libdevice.hypot(x, y)
    elif op == 3:
        z = libdevice.atan2(x, y)
    else:
        z = log_of_sum(x, y)
    return z


@triton.jit
def power(op, x, y):
    """`POWER`."""
    return libdevice.pow(x, y)


@triton.jit
def next_number(op, x, y):
    """`NEXT`: the bits of floats of one sign are in the order of their magnitudes."""
    u = bits_of(x)
    least: tl.constexpr = -(2**63) if x.dtype == tl.float64 else -(2**31)
    away = (x < y) == (x > 0)
    z = tl.where(away, u + 1, u - 1)
    z = tl.where(x == 0, (bits_of(y) & least) | 1, z)
    z = tl.where(x == y, bits_of(y), z).to(x.dtype, bitcast=True)
    return tl.where((x != x) | (y != y), x + y, z)


@triton.jit
def compare(op, x, y):
    """`COMPARE`, for numbers of any kind."""
    if op == 0:
        z = x == y
    elif op == 1:
        z = x != y
    elif op == 2:
        z = x < y
    elif op == 3:
        z = x <= y
    elif op == 4:
        z = (x != 0) & (y != 0)
    elif op == 5:
        z = (x != 0) | (y != 0)
    else:
        z = (x != 0) != (y != 0)
    return z


@triton.jit
def simple(op, x):
    """`SIMPLE`."""
    if op == 0:
        y = x * x
    elif op == 1:
        y = x * x * x
    elif op == 2:
        y = quotient(tl.full(x.shape, 1, x.dtype), x)
    elif op == 3:
        y = tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x * x)).to(x.dtype)
    elif op == 4:
        y = libdevice.floor(x)
    elif op == 5:
        y = libdevice.ceil(x)
    elif op == 6:
        y = libdevice.rint(x)
    elif op == 7:
        y = libdevice.trunc(x)
    elif op == 8:
        y = root(x)
    elif op == 9:
        y = quotient(tl.full(x.shape, 1, x.dtype), root(x))
    elif op == 10:
        y = tl.where((x - x != 0) & (x == x), tl.abs(x), root(x + 0.0))
    else:
        y = tl.where(x < 0, 0.0, x).to(x.dtype)
    return y


@triton.jit
def exponential(op, x):
    """`EXPONENTIAL`."""
    if op == 0:
        y = libdevice.exp(x)
    elif op == 1:
        y = libdevice.expm1(x)
    elif op == 2:
        y = libdevice.log(x)
    elif op == 3:
        y = libdevice.log1p(x)
    elif op == 4:
        y = libdevice.log2(x)
    elif op == 5:
        y = libdevice.log10(x)
    else:
        y = libdevice.erf(x)
    return y


@triton.jit
def circular(op, x):
    """`CIRCULAR`."""
    if op == 0:
        y = libdevice.sin(x)
    elif op == 1:
        y = libdevice.cos(x)
    elif op == 2:
        y = libdevice.tan(x)
    elif op == 3:
        y = libdevice.asin(x)
    elif op == 4:
        y = libdevice.acos(x)
    else:
        y = libdevice.atan(x)
    return y


@triton.jit
def hyperbolic(op, x):
    """`HYPERBOLIC`."""
    if op == 0:
        y = libdevice.sinh(x)
    elif op == 1:
        y = libdevice.cosh(x)
    elif op == 2:
        y = libdevice.tanh(x)
    elif op == 3:
        y = libdevice.asinh(x)
    elif op == 4:
        y = libdevice.acosh(x)
    else:
        y = libdevice.atanh(x)
    return y


@triton.jit
def test(op, x):
    """`TEST`."""
    if op == 0:
        y = x != x
    elif op == 1:
        y = (x - x != 0) & (x == x)
    elif op == 2:
        y = x - x == 0
    else:
        y = x == 0
    return y


# ---------------------------------------------------------------- integers
@triton.jit
def whole(op, x, y):
    """`WHOLE`."""
    width: tl.constexpr = x.dtype.primitive_bitwidth
    if op == 0:
        z = x + y
    elif op == 1:
        z = x - y
    elif op == 2:
        z = x * y
    elif op == 3:
        z = tl.where(x > y, x, y)
    elif op == 4:
        z = tl.where(x < y, x, y)
    elif op == 5:
        z = x & y
    elif op == 6:
        z = x | y
    elif op == 7:
        z = x ^ y
    elif op == 8:
        fits = (y >= 0) & (y < width)
        z = tl.where(fits, x << tl.where(fits, y, 0).to(x.dtype), x * 0)
    elif op == 9:
        within = (y >= 0) & (y < width)
        z = x >> tl.where(within, y, width - 1).to(x.dtype)
        if x.dtype.is_int_unsigned():
            z = tl.where(within, z, x * 0)
    else:  # of floating values, given by their bits
        top = (x * 0 + 1) << (width - 1)
        z = (x & ~top) | (y & top)
    return z


@triton.jit
def whole_power(x, y):
    """x^y by squaring; to a negative power 1 / x^-y, cut to an integer."""
    result = x * 0 + 1
    square = x
    left = tl.where(y > 0, y, y * 0)
    while tl.max((left != 0).to(tl.int32), 0) != 0:
        result = tl.where((left & 1) != 0, result * square, result)
        square = square * square
        left = left >> 1
    if x.dtype.is_int_signed():
        sign = tl.where((y & 1) != 0, x, x * x)
        result = tl.where(y < 0, tl.where((x == 1) | (x == -1), sign, x * 0), result)
    return result


@triton.jit
def whole_quotient(op, x, y):
    """`WHOLE_QUOTIENT`."""
    if op == 2:
        z = whole_power(x, y)
    else:
        one = x * 0 + 1
        bad = y == 0
        if x.dtype.is_int_signed():
            bad = bad | (y == -1)
        d = tl.where(bad, one, y)
        q = x // d
        r = x - q * d
        if x.dtype.is_int_signed():
            down = (r != 0) & ((r < 0) != (d < 0))
            q = tl.where(down, q - 1, q)
            r = tl.where(down, r + d, r)
        if op == 0:
            z = tl.where(y == 0, x * 0, q)
            if x.dtype.is_int_signed():
                z = tl.where(y == -1, -x, z)
        else:
            z = tl.where(bad, x * 0, r)
    return z


@triton.jit
def whole_unary(op, x):
    """`WHOLE_UNARY`."""
    zero = x * 0
    if op == 0:
        y = zero - x
    elif op == 1:
        y = tl.where(x < 0, zero - x, x)
    elif op == 2:
        y = x * x
    elif op == 3:
        y = tl.where(x > 0, zero + 1, tl.where(x < 0, zero - 1, zero))
    elif op == 4:
        y = ~x
    else:
        y = tl.where(x < 0, zero, x)
    return y


@triton.jit
def mixed(op, x, y):
    """`MIXED`: a signed x with an unsigned y, which is given by its bits, both of 64 bits."""
    u, v = x.to(tl.uint64, bitcast=True), y.to(tl.uint64, bitcast=True)
    if op == 0:
        z = (x >= 0) & (u == v)
    elif op == 1:
        z = (x < 0) | (u != v)
    elif op == 2:
        z = (x < 0) | (u < v)
    elif op == 3:
        z = (x < 0) | (u <= v)
    elif op == 4:
        z = (x >= 0) & (u > v)
    else:
        z = (x >= 0) & (u >= v)
    return z


# ---------------------------------------------------------------- triangles
@triton.jit
def band(x, y, n, rows, columns, low, high, BLOCK: tl.constexpr):
    """y = x where column - row is from low to high, else 0; dense matrices, elements moved as they are.

    Overwrites y. Moves at most 2 * n elements: what becomes 0 is not read.
    """
    start = tl.program_id(0) * BLOCK
    i = (start + tl.arange(0, BLOCK)).to(tl.uint32)
    line = i // columns.to(tl.uint32)
    column = (i - line * columns.to(tl.uint32)).to(tl.int32)
    d = column - (line % rows.to(tl.uint32)).to(tl.int32)
    v = tl.load(x + i, mask=(i < n) & (d >= low) & (d <= high), other=0)
    store_block(y, start, n, v, BLOCK)
