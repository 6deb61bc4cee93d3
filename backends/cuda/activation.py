"""Activation functions with their gradients, and gated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import THREADS, cast, cast_into, copy_into
from spiral.backends.cuda.broadcast import (
    BLOCK,
    FLOATING,
    LIMIT,
    ROUNDS,
    SIGNED,
    Function,
    binary,
    by,
    halves,
    instances,
    packed_format,
    packed_layout,
    run_length,
    spread,
    unary,
)
from spiral.backends.cuda.launching import Source
from spiral.device_array import DeviceArray
from spiral.dtype import DType, as_dtype, promote

_SOURCE = Source("activation.cu")
_ARRAYS = Cap(ANY.dtypes, ANY.integers)

_UNARY: dict[str, dict[DType, Function]] = {
    "sigmoid": by("Sigmoid", FLOATING),
    "relu": by("Relu", FLOATING | SIGNED),
    "silu": by("Silu", FLOATING),
    "gelu none": by("Gelu", FLOATING),
    "gelu tanh": by("GeluTanh", FLOATING),
}
_BINARY: dict[str, dict[DType, Function]] = {
    "relu_grad": by("ReluGrad", FLOATING),
    "silu_grad": by("Gradient<spiral::Silu>", FLOATING),
    "gelu_grad none": by("Gradient<spiral::Gelu>", FLOATING),
    "gelu_grad tanh": by("Gradient<spiral::GeluTanh>", FLOATING),
    "swiglu": by("Gated<spiral::Silu>", FLOATING),
    "geglu none": by("Gated<spiral::Gelu>", FLOATING),
    "geglu tanh": by("Gated<spiral::GeluTanh>", FLOATING),
}
_unary = instances(_SOURCE, 1, _UNARY)
_binary = instances(_SOURCE, 2, _BINARY)
_gated_grad = {
    op: {d.numpy: _SOURCE.kernel(f"spiral::gated_grad<{f}, {t}>", *"PPPPPI", packed_format(3))
         for d, t in FLOATING.items()}
    for op, f in (
        ("swiglu", "spiral::Silu"), ("geglu none", "spiral::Gelu"), ("geglu tanh", "spiral::GeluTanh")
    )
}  # fmt: skip

Launcher = Callable[..., None]


def _bind_unary(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    def bind(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        e = _unary[op].get(dtypes[0].numpy)
        if e is None:
            return copy_into  # relu of what has no sign

        def run(x: DeviceArray, y: DeviceArray) -> None:
            unary(e, x, y)

        return run

    return bind


def _bind_gelu(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    found = {a: _unary[f"gelu {a}"][dtypes[0].numpy] for a in ("none", "tanh")}

    def run(x: DeviceArray, approximate: str, y: DeviceArray) -> None:
        unary(found[approximate], x, y)

    return run


def _gradient(op: str) -> Launcher:
    """A gradient has its own dtype; where the argument's is wider the kernel runs in that."""
    table = _binary[op]

    def run(g: DeviceArray, x: DeviceArray, dx: DeviceArray) -> None:
        if g.dtype == x.dtype:
            binary(table[g.dtype], g, x, dx)
            return
        wide = promote(as_dtype(g.dtype), as_dtype(x.dtype))
        out = dx if dx.dtype == wide.numpy else DeviceArray.empty(dx.memory, dx.shape, wide.numpy)
        binary(table[wide.numpy], g, x, out)
        if out is not dx:
            cast_into(out, dx)

    return run


def _gelu_gradient() -> Launcher:
    found = {a: _gradient(f"gelu_grad {a}") for a in ("none", "tanh")}

    def run(g: DeviceArray, x: DeviceArray, approximate: str, dx: DeviceArray) -> None:
        found[approximate](g, x, dx)

    return run


def _bind_swiglu(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    e = _binary["swiglu"][dtypes[0].numpy]

    def run(a: DeviceArray, b: DeviceArray, y: DeviceArray) -> None:
        binary(e, a, b, y)

    return run


def _bind_geglu(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    found = {a: _binary[f"geglu {a}"][dtypes[0].numpy] for a in ("none", "tanh")}

    def run(a: DeviceArray, b: DeviceArray, approximate: str, y: DeviceArray) -> None:
        binary(found[approximate], a, b, y)

    return run


def _swiglu_gradient(g: DeviceArray, a: DeviceArray, b: DeviceArray, da: DeviceArray, db: DeviceArray) -> None:
    _gated_gradient("swiglu", g, a, b, da, db)


def _geglu_gradient(
    g: DeviceArray, a: DeviceArray, b: DeviceArray, approximate: str, da: DeviceArray, db: DeviceArray
) -> None:
    _gated_gradient(f"geglu {approximate}", g, a, b, da, db)


def _gated_gradient(op: str, g: DeviceArray, a: DeviceArray, b: DeviceArray, da: DeviceArray, db: DeviceArray) -> None:
    n = da.size
    if not n:
        return
    if not g.dtype == a.dtype == b.dtype:
        wide = promote(promote(as_dtype(g.dtype), as_dtype(a.dtype)), as_dtype(b.dtype))
        outs = [x if x.dtype == wide.numpy else DeviceArray.empty(x.memory, x.shape, wide.numpy) for x in (da, db)]
        _gated_gradient(op, cast(g, wide), cast(a, wide), cast(b, wide), outs[0], outs[1])
        for out, x in zip(outs, (da, db), strict=True):
            if out is not x:
                cast_into(out, x)
        return
    if n >= LIMIT:
        for (part, inputs), (other, _) in zip(halves(da, g, a, b), halves(db), strict=True):
            _gated_gradient(op, inputs[0], inputs[1], inputs[2], part, other)
        return
    where = packed_layout(da.shape, g.shape, g.strides, a.shape, a.strides, b.shape, b.strides)
    if where is None:
        _gated_gradient(op, spread(g, da), spread(a, da), spread(b, da), da, db)
        return
    grid = (-(-n // (THREADS * ROUNDS * run_length(da.dtype.itemsize))), 1, 1)
    _gated_grad[op][g.dtype](
        da.memory, grid, BLOCK, g.address, a.address, b.address, da.address, db.address, n, where
    )  # fmt: skip


def _one_shape(g: Any, a: Any, b: Any, approximate: str = "none") -> bool:
    return bool(a.shape == b.shape == g.shape)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    for op in ("sigmoid", "relu", "silu"):
        yield Kernel(op, _unbound, _ARRAYS, bind=_bind_unary(op))
    yield Kernel("gelu", _unbound, _ARRAYS, bind=_bind_gelu)
    yield Kernel("relu_grad", _gradient("relu_grad"), _ARRAYS)
    yield Kernel("silu_grad", _gradient("silu_grad"), _ARRAYS)
    yield Kernel("gelu_grad", _gelu_gradient(), _ARRAYS)
    yield Kernel("swiglu", _unbound, _ARRAYS, bind=_bind_swiglu)
    same = Cap(ANY.dtypes, where=_one_shape, where_text="takes operands of one shape")
    yield Kernel("swiglu_grad", _swiglu_gradient, same)
    yield Kernel("geglu", _unbound, _ARRAYS, bind=_bind_geglu)
    yield Kernel("geglu_grad", _geglu_gradient, same)


def _unbound(*_: Any) -> None:
    raise AssertionError("this kernel is used through its bind")
