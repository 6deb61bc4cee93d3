"""Elements of tensors whose dtypes are named at the launch: 0 float16, 1 bfloat16, 2 float32, 3 float64.

UNIFORM: every tensor of the launch is float32, which no branch asks for. ALIGNED: addresses and the positions where
blocks begin allow accesses of 16 bytes.
"""

import triton
import triton.language as tl


@triton.jit
def pointer(address, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """An address, an integer, as a pointer."""
    p = address.to(tl.pointer_type(TYPE))
    if ALIGNED:
        p = tl.multiple_of(p, 16)
    return p


@triton.jit
def load_one(
    address, kind, i, inside, WIDE: tl.constexpr, UNIFORM: tl.constexpr, ALIGNED: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """Elements i in WIDE, 0 where they are not inside; WHOLE: all are."""
    if UNIFORM:
        p = pointer(address, tl.float32, ALIGNED) + i
        if WHOLE:
            v = tl.load(p)
        else:
            v = tl.load(p, mask=inside, other=0.0)
        v = v.to(WIDE)
    elif kind == 0:
        v = tl.load(pointer(address, tl.float16, ALIGNED) + i, mask=inside, other=0.0).to(tl.float32).to(WIDE)
    elif kind == 1:
        v = tl.load(pointer(address, tl.bfloat16, ALIGNED) + i, mask=inside, other=0.0).to(tl.float32).to(WIDE)
    elif kind == 2:
        v = tl.load(pointer(address, tl.float32, ALIGNED) + i, mask=inside, other=0.0).to(WIDE)
    else:
        v = tl.load(pointer(address, tl.float64, ALIGNED) + i, mask=inside, other=0.0).to(WIDE)
    return v


@triton.jit
def store_one(
    address, kind, i, v, inside, UNIFORM: tl.constexpr, ALIGNED: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """Writes elements i, rounded once."""
    if UNIFORM:
        p = pointer(address, tl.float32, ALIGNED) + i
        if WHOLE:
            tl.store(p, v.to(tl.float32))
        else:
            tl.store(p, v.to(tl.float32), mask=inside)
    elif kind == 0:
        tl.store(pointer(address, tl.float16, ALIGNED) + i, v.to(tl.float32).to(tl.float16), mask=inside)
    elif kind == 1:
        tl.store(pointer(address, tl.bfloat16, ALIGNED) + i, v.to(tl.float32).to(tl.bfloat16), mask=inside)
    elif kind == 2:
        tl.store(pointer(address, tl.float32, ALIGNED) + i, v.to(tl.float32), mask=inside)
    else:
        tl.store(pointer(address, tl.float64, ALIGNED) + i, v.to(tl.float64), mask=inside)


@triton.jit
def rounded(v, kind):
    """v as it is read again after it was stored as a kind."""
    if kind == 0:
        w = v.to(tl.float32).to(tl.float16).to(tl.float32).to(v.dtype)
    elif kind == 1:
        w = v.to(tl.float32).to(tl.bfloat16).to(tl.float32).to(v.dtype)
    elif kind == 2:
        w = v.to(tl.float32).to(v.dtype)
    else:
        w = v
    return w


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
