"""Activation functions of neural networks, gated ones, and their gradients.

They run in the kernels of `spiral.kernels.triton.pointwise`. The gradient of a gated function reads g, a and b and
writes two gradients: 5 elements moved per element, as few as can be.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from spiral.kernels.triton.elementwise import quotient
from spiral.kernels.triton.pointwise import binary, two_gradients, unary  # noqa: F401  (the kernels these run in)

UNARY = ("sigmoid", "silu", "gelu none", "gelu tanh")
BINARY = ("relu_grad", "silu_grad", "gelu_grad none", "gelu_grad tanh", "swiglu", "geglu none", "geglu tanh")
TWO_GRADIENTS = ("swiglu_grad", "geglu_grad none", "geglu_grad tanh")


@triton.jit
def constant(x, value: tl.constexpr):
    """A number in the type of x: a literal beside a float64 tensor would be rounded to float32."""
    return tl.full(x.shape, value, x.dtype)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    one = constant(x, 1.0)
    return quotient(one, one + libdevice.exp(-x))


@triton.jit
def silu(x):
    """x * sigmoid(x) (Elfwing et al. 2018)."""
    return quotient(x, 1.0 + libdevice.exp(-x))


@triton.jit
def normal_below(x):
    """The probability that a standard normal number is below x."""
    return 0.5 * (1.0 + libdevice.erf(x * constant(x, 0.7071067811865476)))


@triton.jit
def tanh_argument(x):
    """sqrt(2 / pi) * (x + 0.044715 x^3) (Hendrycks & Gimpel 2016)."""
    return constant(x, 0.7978845608028654) * (x + constant(x, 0.044715) * x * x * x)


@triton.jit
def gelu(x):
    """x * Phi(x)."""
    return x * normal_below(x)


@triton.jit
def gelu_tanh(x):
    """The approximation of gelu by tanh."""
    return 0.5 * x * (1.0 + libdevice.tanh(tanh_argument(x)))


@triton.jit
def silu_slope(x):
    """The derivative of silu."""
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@triton.jit
def gelu_slope(x):
    """The derivative of gelu."""
    return normal_below(x) + x * libdevice.exp(-0.5 * x * x) * constant(x, 0.3989422804014327)


@triton.jit
def gelu_tanh_slope(x):
    """The derivative of gelu's approximation."""
    t = libdevice.tanh(tanh_argument(x))
    inner = constant(x, 0.7978845608028654) * (1.0 + constant(x, 0.134145) * x * x)
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner


@triton.jit
def of_one(op, x):
    """`UNARY`."""
    if op == 0:
        y = sigmoid(x)
    elif op == 1:
        y = silu(x)
    elif op == 2:
        y = gelu(x)
    else:
        y = gelu_tanh(x)
    return y


@triton.jit
def of_two(op, x, y):
    """`BINARY`: gradients take g and x, gated functions a and b."""
    if op == 0:
        z = tl.where(y > 0, x, 0.0).to(x.dtype)
    elif op == 1:
        z = x * silu_slope(y)
    elif op == 2:
        z = x * gelu_slope(y)
    elif op == 3:
        z = x * gelu_tanh_slope(y)
    elif op == 4:
        z = silu(x) * y
    elif op == 5:
        z = gelu(x) * y
    else:
        z = gelu_tanh(x) * y
    return z


@triton.jit
def of_gated(op, g, a, b):
    """`TWO_GRADIENTS`."""
    if op == 0:
        s = sigmoid(a)
        da = g * b * s * (1.0 + a * (1.0 - s))
        db = g * a * s
    elif op == 1:
        da = g * b * gelu_slope(a)
        db = g * gelu(a)
    else:
        da = g * b * gelu_tanh_slope(a)
        db = g * gelu_tanh(a)
    return da, db
