"""Activation functions with their gradients, and gated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import BLOCK, LIMIT, NAMES, cast, cast_into, dense, grid, halves
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.pointwise import binary, group, unary
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, promote
from spiral.kernels.triton import activation as source
from spiral.kernels.triton.pointwise import two_gradients

_ARRAYS = Cap(ANY.dtypes, ANY.integers)
_FLOATING = {d: NAMES[d] for d in FLOATS}
_unary = group(source.of_one, source.UNARY, _FLOATING, 1)
_binary = group(source.of_two, source.BINARY, _FLOATING, 2)
_GATED = {
    d.numpy: TritonKernel(
        two_gradients,
        {p: f"*{name}" for p in ("g", "a", "b", "da", "db")} | {"n": "i32", "op": "i32"},
        {"FN": source.of_gated, "BLOCK": BLOCK},
    )
    for d, name in _FLOATING.items()
}

Launcher = Callable[..., None]


def _bind_unary(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    def bind(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        f = _unary[op][dtypes[0].numpy]

        def run(x: DeviceArray, y: DeviceArray) -> None:
            unary(f, x, y)

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
        wide = g.dtype if g.dtype == x.dtype else promote(as_dtype(g.dtype), as_dtype(x.dtype)).numpy
        binary(table[wide], g, x, dx)

    return run


def _by_approximation(op: str) -> Launcher:
    found = {a: _gradient(f"{op} {a}") for a in ("none", "tanh")}

    def run(g: DeviceArray, x: DeviceArray, approximate: str, dx: DeviceArray) -> None:
        found[approximate](g, x, dx)

    return run


def _bind_swiglu(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    f = _binary["swiglu"][dtypes[0].numpy]

    def run(a: DeviceArray, b: DeviceArray, y: DeviceArray) -> None:
        binary(f, a, b, y)

    return run


def _bind_geglu(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    found = {a: _binary[f"geglu {a}"][dtypes[0].numpy] for a in ("none", "tanh")}

    def run(a: DeviceArray, b: DeviceArray, approximate: str, y: DeviceArray) -> None:
        binary(found[approximate], a, b, y)

    return run


def _gated_gradient(op: str, g: DeviceArray, a: DeviceArray, b: DeviceArray, da: DeviceArray, db: DeviceArray) -> None:
    n = da.size
    if not n:
        return
    if n >= LIMIT:
        for (part, inputs), (other, _) in zip(halves(da, g, a, b), halves(db), strict=True):
            _gated_gradient(op, inputs[0], inputs[1], inputs[2], part, other)
        return
    wide = promote(promote(as_dtype(g.dtype), as_dtype(a.dtype)), as_dtype(b.dtype))
    g, a, b = [dense(cast(x, wide)) for x in (g, a, b)]
    outs = [x if x.dtype == wide.numpy else DeviceArray.empty(x.memory, x.shape, wide.numpy) for x in (da, db)]
    _GATED[wide.numpy](
        da.memory, grid(n), g.address, a.address, b.address, outs[0].address, outs[1].address, n,
        source.TWO_GRADIENTS.index(op),
    )  # fmt: skip
    for out, x in zip(outs, (da, db), strict=True):
        if out is not x:
            cast_into(out, x)


def _swiglu_gradient(g: DeviceArray, a: DeviceArray, b: DeviceArray, da: DeviceArray, db: DeviceArray) -> None:
    _gated_gradient("swiglu_grad", g, a, b, da, db)


def _geglu_gradient(
    g: DeviceArray, a: DeviceArray, b: DeviceArray, approximate: str, da: DeviceArray, db: DeviceArray
) -> None:
    _gated_gradient(f"geglu_grad {approximate}", g, a, b, da, db)


def _one_shape(g: Any, a: Any, b: Any, *_: Any) -> bool:
    return bool(a.shape == b.shape == g.shape)


def kernels() -> Iterator[Kernel]:
    """The family's table; relu is among the elementwise functions."""
    for op in ("sigmoid", "silu"):
        yield Kernel(op, _unbound, _ARRAYS, bind=_bind_unary(op))
    yield Kernel("gelu", _unbound, _ARRAYS, bind=_bind_gelu)
    yield Kernel("relu_grad", _gradient("relu_grad"), _ARRAYS)
    yield Kernel("silu_grad", _gradient("silu_grad"), _ARRAYS)
    yield Kernel("gelu_grad", _by_approximation("gelu_grad"), _ARRAYS)
    yield Kernel("swiglu", _unbound, _ARRAYS, bind=_bind_swiglu)
    yield Kernel("geglu", _unbound, _ARRAYS, bind=_bind_geglu)
    same = Cap(ANY.dtypes, where=_one_shape, where_text="takes operands of one shape")
    yield Kernel("swiglu_grad", _swiglu_gradient, same)
    yield Kernel("geglu_grad", _geglu_gradient, same)


def _unbound(*_: Any) -> None:
    raise AssertionError("this kernel is used through its bind")
