"""Activation functions of neural networks, with fused gradients, and dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral import philox
from spiral.backend import Spec
from spiral.errors import ArgumentError, received
from spiral.op import F, op
from spiral.ops.pointwise import Keep, Unary
from spiral.ops.shapes import broadcast, like, need_float, result_dtype


@op("sigmoid(x) -> y")
class Sigmoid(Unary):
    """1 / (1 + exp(-x))."""

    @staticmethod
    def oracle(x: Any) -> Any:
        return 0.5 * (1.0 + np.tanh(0.5 * x))

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (g * y * (1.0 - y),)


@op("relu(x) -> y")
class Relu(Keep):
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


@op("silu(x) -> y")
class Silu(Unary):
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
        if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
            raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh'; received {received(approximate)}.")
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
        if a.shape == b.shape and a.dtype is b.dtype:
            return F.swiglu_grad(g, a, b)
        da = like(F.silu_grad(g * b, F.broadcast_to(a, shape=g.shape)), a) if need[0] else None
        return da, like(g * F.silu(a), b) if need[1] else None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), s.normal(5, 7)
        yield s.normal(5, 1), s.normal(7)


@op("swiglu_grad(g, a, b) -> da, db")
class SwiGLUGrad:
    """Gradients of swiglu for a and b of one shape."""

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


@op("geglu(a, b, *, approximate: str = 'none') -> y")
class GeGLU:
    """gelu(a) * b (Shazeer 2020)."""

    @staticmethod
    def meta(a: Any, b: Any, approximate: str) -> Spec:
        need_float("geglu", a=a, b=b)
        if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
            raise ArgumentError(f"geglu: approximate must be 'none' or 'tanh'; received {received(approximate)}.")
        return Spec(broadcast("geglu", a, b), result_dtype(a, b))

    @staticmethod
    def oracle(a: Any, b: Any, approximate: str) -> Any:
        return Gelu.oracle(a, approximate) * b

    @staticmethod
    def decompose(a: Any, b: Any, approximate: str) -> Any:
        return F.gelu(a, approximate=approximate) * b

    @staticmethod
    def vjp(need: Any, g: Any, a: Any, b: Any, approximate: str) -> Any:
        if a.shape == b.shape and a.dtype is b.dtype:
            return F.geglu_grad(g, a, b, approximate=approximate)
        da = None
        if need[0]:  # gelu_grad takes operands of one shape
            da = like(F.gelu_grad(g * b, F.broadcast_to(a, shape=g.shape), approximate=approximate), a)
        return da, like(g * F.gelu(a, approximate=approximate), b) if need[1] else None

    @staticmethod
    def samples(s: Any) -> Any:
        for approximate in ("none", "tanh"):
            yield s.normal(5, 7), s.normal(5, 7), approximate
            yield s.normal(7, 5).T, s.normal(5, 7), approximate
            yield s.normal(129, scale=8.0), s.normal(129), approximate
        yield s.normal(5, 1), s.normal(7), "none"
        yield s.normal(0, 4), s.normal(0, 4), "tanh"


@op("geglu_grad(g, a, b, *, approximate: str = 'none') -> da, db")
class GeGLUGrad:
    """Gradients of geglu for a and b of one shape."""

    internal = True

    @staticmethod
    def meta(g: Any, a: Any, b: Any, approximate: str) -> tuple[Spec, Spec]:
        return Spec(tuple(a.shape), a.dtype), Spec(tuple(b.shape), b.dtype)

    @staticmethod
    def oracle(g: Any, a: Any, b: Any, approximate: str) -> Any:
        return GeluGrad.oracle(g * b, a, approximate), g * Gelu.oracle(a, approximate)

    @staticmethod
    def decompose(g: Any, a: Any, b: Any, approximate: str) -> Any:
        return F.gelu_grad(g * b, a, approximate=approximate), g * F.gelu(a, approximate=approximate)

    @staticmethod
    def samples(s: Any) -> Any:
        for approximate in ("none", "tanh"):
            yield s.normal(5, 7), s.normal(5, 7), s.normal(5, 7), approximate
            yield s.normal(129), s.normal(129, scale=8.0), s.normal(129), approximate


@op("dropout(x, *, p: float, seed: int, stream: int) -> y")
class Dropout:
    """Zeroes elements with probability p and scales the rest by 1 / (1 - p).

    Element i is kept when word i of the Philox stream (seed, stream) is at least p * 2^32, rounded to a whole number.
    """

    @staticmethod
    def meta(x: Any, p: float, seed: int, stream: int) -> Spec:
        need_float("dropout", x=x)
        if not 0.0 <= p < 1.0:
            raise ArgumentError(f"dropout: p must be in [0, 1); received {p}.")
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, p: float, seed: int, stream: int) -> Any:
        keep = philox.kept(seed, stream, x.size, p).reshape(x.shape)
        return np.where(keep, x / (1.0 - p), np.zeros((), x.dtype))

    @staticmethod
    def vjp(need: Any, g: Any, p: float, seed: int, stream: int) -> Any:
        return (F.dropout(g, p=p, seed=seed, stream=stream),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(5, 7), 0.4, 3, 5
        yield s.normal(5, 7), 0.0, 3, 5
        yield s.normal(0, 7), 0.5, 3, 5
        for part in (0.4, 0.5, 0.6):  # p * 2^32 between the word of an element and the next whole number
            yield s.normal(5, 7), (int(philox.random_bits(3, 5, 17, 1)[0]) + part) * 2.0**-32, 3, 5
        yield s.normal(5, 7), 1.0 - 2.0**-40, 3, 5  # rounds to 2^32, which no word reaches
