"""Elementwise ops: arithmetic, powers, exponentials, comparisons, selection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.dtype import DEFAULT_FLOAT, DType, bool_
from spiral.errors import DTypeError
from spiral.op import F, op
from spiral.ops.shapes import broadcast, is_number, like, need_float, result_dtype

_EDGE = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, -1e-40, 3e38, math.inf, -math.inf, math.nan, 88.0, -104.0)


class _Binary:
    """Promotes and broadcasts its operands; Python numbers are weak."""

    scalars = True

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        return Spec(broadcast("elementwise", x, y), result_dtype(x, y))

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7)
        yield s.normal(3, 1, 33), s.normal(4, 1)
        yield s.normal(17), 2.5
        yield s.normal(6, 8)[::2, ::-1], s.normal(8)
        yield s.normal(0, 4), s.normal(4)
        yield s.array(_EDGE), s.array(_EDGE[::-1])
        yield s.normal(), s.normal(1, 1)


@op("add(x, y) -> z")
class Add(_Binary):
    """Sum of two operands."""

    oracle = staticmethod(np.add)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, y_spec: Any) -> Any:
        return (like(g, x_spec) if need[0] else None, like(g, y_spec) if need[1] else None)


@op("subtract(x, y) -> z")
class Subtract(_Binary):
    """Difference of two operands."""

    @staticmethod
    def oracle(x: Any, y: Any) -> Any:
        return np.subtract(x, y)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, y_spec: Any) -> Any:
        return (like(g, x_spec) if need[0] else None, like(-g, y_spec) if need[1] else None)


@op("multiply(x, y) -> z")
class Multiply(_Binary):
    """Product of two operands."""

    oracle = staticmethod(np.multiply)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (like(g * y, x) if need[0] else None, like(g * x, y) if need[1] else None)


@op("divide(x, y) -> z")
class Divide(_Binary):
    """Quotient; integers are divided as floats."""

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        d = result_dtype(x, y)
        return Spec(broadcast("divide", x, y), d if d.kind == "float" else DEFAULT_FLOAT)

    oracle = staticmethod(np.divide)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any, y: Any, z: Any) -> Any:
        return (like(g / y, x_spec) if need[0] else None, like(-g * z / y, y) if need[1] else None)


@op("pow(x, y) -> z")
class Pow(_Binary):
    """x to the power y."""

    @staticmethod
    def oracle(x: Any, y: Any) -> Any:
        return np.power(x, y)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any, z: Any) -> Any:
        gx = like(g * y * F.pow(x, y - 1), x) if need[0] else None
        if not need[1]:
            return gx, None
        if is_number(x):
            return gx, like(g * z * (math.log(x) if x > 0 else math.nan), y)
        # x^y log x, which is 0 at x = 0 (y > 0)
        return gx, like(g * F.where(x == 0, 0.0, z * F.log(x)), y)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.uniform(5, 7, low=0.1, high=2.0), s.normal(7)
        yield s.normal(6), 2.0
        yield s.normal(6), 3
        yield s.uniform(6, low=0.1, high=2.0), -0.5
        yield s.uniform(6, low=0.1, high=2.0), 0.5
        yield 2.0, s.normal(4)


@op("maximum(x, y) -> z")
class Maximum(_Binary):
    """The larger operand; NaN wins. Equal operands share the gradient."""

    oracle = staticmethod(np.maximum)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        w = F.astype(x > y, g.dtype) + F.astype(x == y, g.dtype) * 0.5
        return (like(g * w, x) if need[0] else None, like(g * (1.0 - w), y) if need[1] else None)


@op("minimum(x, y) -> z")
class Minimum(_Binary):
    """The smaller operand; NaN wins. Equal operands share the gradient."""

    oracle = staticmethod(np.minimum)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        w = F.astype(x < y, g.dtype) + F.astype(x == y, g.dtype) * 0.5
        return (like(g * w, x) if need[0] else None, like(g * (1.0 - w), y) if need[1] else None)


class _Step(_Binary):
    """Piecewise constant: no gradient."""

    nondifferentiable = True


@op("floor_divide(x, y) -> z")
class FloorDivide(_Step):
    """Quotient rounded towards minus infinity."""

    oracle = staticmethod(np.floor_divide)


@op("remainder(x, y) -> z")
class Remainder(_Binary):
    """x - floor(x / y) * y; has the sign of the divisor."""

    oracle = staticmethod(np.remainder)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (like(g, x) if need[0] else None, like(-g * F.floor(x / y), y) if need[1] else None)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.uniform(7, low=4.5, high=5.0)
        yield s.normal(5, 7, scale=3.0), 2.5


class _Compare(_Binary):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        return Spec(broadcast("comparison", x, y), bool_)


@op("equal(x, y) -> z")
class Equal(_Compare):
    """x == y, element by element."""

    oracle = staticmethod(np.equal)


@op("not_equal(x, y) -> z")
class NotEqual(_Compare):
    """x != y, element by element."""

    oracle = staticmethod(np.not_equal)


@op("less(x, y) -> z")
class Less(_Compare):
    """x < y, element by element."""

    oracle = staticmethod(np.less)


@op("less_equal(x, y) -> z")
class LessEqual(_Compare):
    """x <= y, element by element."""

    oracle = staticmethod(np.less_equal)


@op("greater(x, y) -> z")
class Greater(_Compare):
    """x > y, element by element."""

    oracle = staticmethod(np.greater)


@op("greater_equal(x, y) -> z")
class GreaterEqual(_Compare):
    """x >= y, element by element."""

    oracle = staticmethod(np.greater_equal)


class _Bits(_Binary):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any, y: Any) -> Spec:
        d = result_dtype(x, y)
        if d.kind == "float":
            raise DTypeError(f"bitwise: expected bool or integer operands; received {d.name}.")
        return Spec(broadcast("bitwise", x, y), d)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.integers(-9, 9, 4, 5), s.integers(0, 5, 5)


@op("bitwise_and(x, y) -> z")
class BitwiseAnd(_Bits):
    """Bits set in both."""

    oracle = staticmethod(np.bitwise_and)


@op("bitwise_or(x, y) -> z")
class BitwiseOr(_Bits):
    """Bits set in either."""

    oracle = staticmethod(np.bitwise_or)


@op("bitwise_xor(x, y) -> z")
class BitwiseXor(_Bits):
    """Bits set in exactly one."""

    oracle = staticmethod(np.bitwise_xor)


@op("bitwise_left_shift(x, y) -> z")
class BitwiseLeftShift(_Bits):
    """x shifted left by y bits."""

    oracle = staticmethod(np.left_shift)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.integers(0, 9, 4, 5), s.integers(0, 5, 5)


@op("bitwise_right_shift(x, y) -> z")
class BitwiseRightShift(_Bits):
    """x shifted right by y bits, keeping the sign."""

    oracle = staticmethod(np.right_shift)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.integers(-90, 90, 4, 5), s.integers(0, 5, 5)


@op("where(condition, x, y) -> z")
class Where:
    """x where the condition holds, else y."""

    scalars = True

    @staticmethod
    def meta(condition: Any, x: Any, y: Any) -> Spec:
        return Spec(broadcast("where", condition, x, y), result_dtype(x, y))

    oracle = staticmethod(np.where)

    @staticmethod
    def vjp(need: Any, g: Any, condition: Any, x_spec: Any, y_spec: Any) -> Any:
        gx = like(F.where(condition, g, 0.0), x_spec) if need[1] else None
        gy = like(F.where(condition, 0.0, g), y_spec) if need[2] else None
        return None, gx, gy

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.booleans(4, 5), s.normal(4, 5), s.normal(5)
        yield s.booleans(3), s.normal(2, 3), 0.0


class _Unary:
    """Floating in, floating out; integers are taken as float32."""

    @staticmethod
    def meta(x: Any) -> Spec:
        return Spec(tuple(x.shape), x.dtype if x.dtype.kind == "float" else DEFAULT_FLOAT)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.normal(5, 7),)
        yield (s.normal(4, 6).T,)
        yield (s.normal(0),)
        yield (s.normal(1025),)
        yield (s.array(_EDGE),)
        yield (s.normal(),)


class _Keep(_Unary):
    """Keeps the dtype, integers included."""

    @staticmethod
    def meta(x: Any) -> Spec:
        return Spec(tuple(x.shape), x.dtype)


class _Positive(_Unary):
    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.uniform(5, 7, low=0.05, high=3.0),)
        yield (s.array([1e-38, 1.0, math.inf, 0.0, math.nan]),)


@op("negative(x) -> y")
class Negative(_Keep):
    """-x."""

    oracle = staticmethod(np.negative)

    @staticmethod
    def vjp(need: Any, g: Any) -> Any:
        return (-g,)


@op("identity(x) -> y")
class Identity(_Keep):
    """x itself, as a new node of the graph."""

    view = True

    @staticmethod
    def oracle(x: Any) -> Any:
        return x

    @staticmethod
    def vjp(need: Any, g: Any) -> Any:
        return (g,)


@op("abs(x) -> y")
class Abs(_Keep):
    """Magnitude; the gradient at 0 is 0."""

    oracle = staticmethod(np.abs)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * F.sign(x),)


@op("square(x) -> y")
class Square(_Keep):
    """x * x."""

    oracle = staticmethod(np.square)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * (x * 2.0),)


@op("exp(x) -> y")
class Exp(_Unary):
    """e to the x."""

    oracle = staticmethod(np.exp)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * y,)


@op("expm1(x) -> y")
class Expm1(_Unary):
    """exp(x) - 1, exact near 0."""

    oracle = staticmethod(np.expm1)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * (y + 1.0),)


@op("log(x) -> y")
class Log(_Positive):
    """Natural logarithm."""

    oracle = staticmethod(np.log)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / x,)


@op("log1p(x) -> y")
class Log1p(_Positive):
    """log(1 + x), exact near 0."""

    oracle = staticmethod(np.log1p)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x + 1.0),)


@op("log2(x) -> y")
class Log2(_Positive):
    """Logarithm to base 2."""

    oracle = staticmethod(np.log2)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x * math.log(2.0)),)


@op("log10(x) -> y")
class Log10(_Positive):
    """Logarithm to base 10."""

    oracle = staticmethod(np.log10)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g / (x * math.log(10.0)),)


@op("sqrt(x) -> y")
class Sqrt(_Positive):
    """Square root."""

    oracle = staticmethod(np.sqrt)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * 0.5 / y,)


@op("rsqrt(x) -> y")
class Rsqrt(_Positive):
    """1 / sqrt(x)."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return 1.0 / np.sqrt(x)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (g * -0.5 * y / x,)


@op("reciprocal(x) -> y")
class Reciprocal(_Positive):
    """1 / x."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return 1.0 / x

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (-g * y * y,)


@op("sin(x) -> y")
class Sin(_Unary):
    """Sine."""

    oracle = staticmethod(np.sin)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * F.cos(x),)


@op("cos(x) -> y")
class Cos(_Unary):
    """Cosine."""

    oracle = staticmethod(np.cos)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (-g * F.sin(x),)


@op("tan(x) -> y")
class Tan(_Unary):
    """Tangent."""

    oracle = staticmethod(np.tan)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * (y * y + 1.0),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.uniform(5, 7, low=-1.2, high=1.2),)
        yield (s.array([math.inf, math.nan, 0.0]),)


@op("tanh(x) -> y")
class Tanh(_Unary):
    """Hyperbolic tangent."""

    oracle = staticmethod(np.tanh)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * (1.0 - y * y),)


@op("sigmoid(x) -> y")
class Sigmoid(_Unary):
    """1 / (1 + exp(-x))."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return 0.5 * (1.0 + np.tanh(0.5 * x))

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * y * (1.0 - y),)


@op("erf(x) -> y")
class Erf(_Unary):
    """Error function."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return np.vectorize(math.erf, otypes=[np.float64])(x)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (g * (2.0 / math.sqrt(math.pi)) * F.exp(-(x * x)),)


@op("relu(x) -> y")
class Relu(_Keep):
    """max(x, 0); NaN stays NaN."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return np.where(x < 0, np.zeros((), x.dtype), x)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (F.relu_grad(g, y),)


@op("relu_grad(g, y) -> dx")
class ReluGrad:
    """g where y > 0, else 0."""

    internal = True

    @staticmethod
    def meta(g: Any, y: Any) -> Spec:
        return Spec(tuple(g.shape), g.dtype)

    @staticmethod
    def oracle(g: Any, y: Any) -> Any:
        return np.where(y > 0, g, np.zeros((), g.dtype))

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (F.relu_grad(g, y) if need[0] else None, None)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7)


class _StepUnary(_Keep):
    nondifferentiable = True


@op("sign(x) -> y")
class Sign(_StepUnary):
    """-1, 0 or 1."""

    oracle = staticmethod(np.sign)


@op("floor(x) -> y")
class Floor(_StepUnary):
    """Largest integer not above x."""

    oracle = staticmethod(np.floor)


@op("ceil(x) -> y")
class Ceil(_StepUnary):
    """Smallest integer not below x."""

    oracle = staticmethod(np.ceil)


@op("round(x) -> y")
class Round(_StepUnary):
    """Nearest integer, halves to even."""

    oracle = staticmethod(np.round)


@op("trunc(x) -> y")
class Trunc(_StepUnary):
    """Integer part."""

    oracle = staticmethod(np.trunc)


class _Test(_Unary):
    nondifferentiable = True

    @staticmethod
    def meta(x: Any) -> Spec:
        return Spec(tuple(x.shape), bool_)


@op("isnan(x) -> y")
class IsNaN(_Test):
    """Whether x is NaN."""

    oracle = staticmethod(np.isnan)


@op("isinf(x) -> y")
class IsInf(_Test):
    """Whether x is infinite."""

    oracle = staticmethod(np.isinf)


@op("isfinite(x) -> y")
class IsFinite(_Test):
    """Whether x is finite."""

    oracle = staticmethod(np.isfinite)


@op("logical_not(x) -> y")
class LogicalNot(_Test):
    """Whether x is zero."""

    oracle = staticmethod(np.logical_not)


@op("astype(x, *, dtype: DType) -> y")
class AsType:
    """x cast to another dtype; float to integer truncates."""

    @staticmethod
    def meta(x: Any, dtype: DType) -> Spec:
        return Spec(tuple(x.shape), dtype)

    @staticmethod
    def oracle(x: Any, dtype: DType) -> Any:
        return x.astype(dtype.numpy)

    @staticmethod
    def vjp(need: Any, g: Any, x_spec: Any) -> Any:
        return (F.astype(g, x_spec.dtype) if x_spec.dtype.kind == "float" else None,)

    @staticmethod
    def samples(s: Any) -> Any:
        from spiral import dtype

        yield s.normal(5, 7), dtype.float64
        yield s.normal(5, 7), dtype.float16
        yield s.normal(5, 7), dtype.bfloat16


@op("silu(x) -> y")
class Silu(_Unary):
    """x * sigmoid(x) (Hendrycks & Gimpel 2016; Elfwing et al. 2018)."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return x * (0.5 * (1.0 + np.tanh(0.5 * x)))

    @staticmethod
    def decompose(x: Any) -> Any:
        return x * F.sigmoid(x)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        return (F.silu_grad(g, x),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (s.normal(5, 7),)


@op("silu_grad(g, x) -> dx")
class SiluGrad:
    """Gradient of silu."""

    internal = True

    @staticmethod
    def meta(g: Any, x: Any) -> Spec:
        return Spec(tuple(g.shape), g.dtype)

    @staticmethod
    def oracle(g: Any, x: Any) -> Any:
        s = 0.5 * (1.0 + np.tanh(0.5 * x))
        return g * s * (1.0 + x * (1.0 - s))

    @staticmethod
    def decompose(g: Any, x: Any) -> Any:
        s = F.sigmoid(x)
        return g * s * (x * (1.0 - s) + 1.0)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7)


_ROOT_2_PI = math.sqrt(2.0 / math.pi)


@op("gelu(x, *, approximate: str = 'none') -> y")
class Gelu:
    """Gaussian error linear unit, x Phi(x), or its tanh approximation (Hendrycks & Gimpel 2016)."""

    @staticmethod
    def meta(x: Any, approximate: str) -> Spec:
        need_float("gelu", x=x)
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, approximate: str) -> Any:
        if approximate == "tanh":
            return 0.5 * x * (1.0 + np.tanh(_ROOT_2_PI * (x + 0.044715 * x**3)))
        return 0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2.0)))

    @staticmethod
    def decompose(x: Any, approximate: str) -> Any:
        if approximate == "tanh":
            return x * 0.5 * (F.tanh((x + x * x * x * 0.044715) * _ROOT_2_PI) + 1.0)
        return x * 0.5 * (F.erf(x * math.sqrt(0.5)) + 1.0)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, approximate: str) -> Any:
        return (F.gelu_grad(g, x, approximate=approximate),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), "none"
        yield s.normal(5, 7), "tanh"
        yield s.normal(129, scale=8.0), "none"


@op("gelu_grad(g, x, *, approximate: str = 'none') -> dx")
class GeluGrad:
    """Gradient of gelu."""

    internal = True

    @staticmethod
    def meta(g: Any, x: Any, approximate: str) -> Spec:
        return Spec(tuple(g.shape), g.dtype)

    @staticmethod
    def oracle(g: Any, x: Any, approximate: str) -> Any:
        if approximate == "tanh":
            t = np.tanh(_ROOT_2_PI * (x + 0.044715 * x**3))
            return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _ROOT_2_PI * (1 + 3 * 0.044715 * x * x))
        phi = 0.5 * (1.0 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2.0)))
        return g * (phi + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))

    @staticmethod
    def decompose(g: Any, x: Any, approximate: str) -> Any:
        if approximate == "tanh":
            t = F.tanh((x + x * x * x * 0.044715) * _ROOT_2_PI)
            inner = (x * x * (3 * 0.044715) + 1.0) * _ROOT_2_PI
            return g * ((t + 1.0) * 0.5 + x * 0.5 * (1.0 - t * t) * inner)
        phi = (F.erf(x * math.sqrt(0.5)) + 1.0) * 0.5
        return g * (phi + x * F.exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi)))

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7), "none"
        yield s.normal(5, 7), s.normal(5, 7), "tanh"


@op("swiglu(a, b) -> y")
class SwiGLU:
    """silu(a) * b (Shazeer 2020)."""

    @staticmethod
    def meta(a: Any, b: Any) -> Spec:
        need_float("swiglu", a=a, b=b)
        return Spec(broadcast("swiglu", a, b), result_dtype(a, b))

    @staticmethod
    def oracle(a: Any, b: Any) -> Any:
        return a * (0.5 * (1.0 + np.tanh(0.5 * a))) * b

    @staticmethod
    def decompose(a: Any, b: Any) -> Any:
        return F.silu(a) * b

    @staticmethod
    def vjp(need: Any, g: Any, a: Any, b: Any) -> Any:
        return F.swiglu_grad(g, a, b)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7)


@op("swiglu_grad(g, a, b) -> da, db")
class SwiGLUGrad:
    """Gradients of swiglu."""

    internal = True

    @staticmethod
    def meta(g: Any, a: Any, b: Any) -> tuple[Spec, Spec]:
        return Spec(tuple(a.shape), a.dtype), Spec(tuple(b.shape), b.dtype)

    @staticmethod
    def oracle(g: Any, a: Any, b: Any) -> Any:
        s = 0.5 * (1.0 + np.tanh(0.5 * a))
        return g * b * s * (1.0 + a * (1.0 - s)), g * a * s

    @staticmethod
    def decompose(g: Any, a: Any, b: Any) -> Any:
        s = F.sigmoid(a)
        return g * b * s * (a * (1.0 - s) + 1.0), g * a * s

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7), s.normal(5, 7)


@op("dropout(x, *, p: float, seed: int, stream: int) -> y")
class Dropout:
    """Zeroes elements with probability p and scales the rest by 1 / (1 - p).

    Element i is kept when word i of the Philox stream (seed, stream) is at least p * 2^32.
    """

    @staticmethod
    def meta(x: Any, p: float, seed: int, stream: int) -> Spec:
        from spiral.errors import ArgumentError

        need_float("dropout", x=x)
        if not 0.0 <= p < 1.0:
            raise ArgumentError(f"dropout: p must be in [0, 1); received {p}.")
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, p: float, seed: int, stream: int) -> Any:
        from spiral.philox import random_bits

        keep = random_bits(seed, stream, 0, x.size).reshape(x.shape) >= np.uint32(min(p * 2.0**32, 2.0**32 - 1))
        return np.where(keep, x / (1.0 - p), np.zeros((), x.dtype))

    @staticmethod
    def vjp(need: Any, g: Any, p: float, seed: int, stream: int) -> Any:
        return (F.dropout(g, p=p, seed=seed, stream=stream),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), 0.4, 3, 5
