"""The C++ backend: fused float32 kernels on one thread pool, GEMM and buffer pool of its own.

Kernels live in ``kernels/cpu``; this file is their table. A launcher adapts an op's attributes to the
kernel's argument list where the two differ.
"""

from __future__ import annotations

import ctypes
import glob
import os
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import numpy as np

from spiral.backend import Cap, DeviceInfo, Kernel, Unavailable, spans
from spiral.dtype import ALL, FLOATS, float32, int32, int64
from spiral.storage import native, native_reason

_ACTIVATION = {"none": 0, "relu": 1}
_REDUCTION = {"none": 0, "mean": 1, "sum": 2}

F32 = Cap(dtypes=(float32,))
F32_NUMBERS = Cap(dtypes=(float32,), scalars=True)
WITH_INDEX = Cap(dtypes=(float32,), integers=(int64,))

# integers may be the rows' positions and nothing else
EMBEDDING = Cap(
    dtypes=(float32,),
    integers=(int64,),
    where=lambda weight, indices: weight.itemsize == 4,
    where_text="takes a float32 weight",
)
DENSE_ROWS = Cap(
    dtypes=(float32,),
    where=lambda x, cos, sin, *attrs: x.strides[-1] == cos.strides[-1] == sin.strides[-1] == 4,
    where_text="takes rows without gaps",
)
WITH_SIZES = Cap(dtypes=(float32,), integers=(int32, int64))
WITH_POSITION = Cap(dtypes=(float32,), integers=(int32,))


def _last_axis(x: Any, *rest: Any) -> bool:
    return isinstance(rest[-1], int) and rest[-1] in (-1, x.ndim - 1)


LAST_AXIS = Cap(dtypes=(float32,), where=_last_axis, where_text="takes the last axis only")


def _same_shape(a: Any, b: Any, *attrs: Any) -> bool:
    return bool(a.shape == b.shape)


SAME_SHAPE = Cap(dtypes=(float32,), where=_same_shape, where_text="takes operands of one shape")


def _one_dtype(arrays: Any, axis: int) -> bool:
    first = arrays[0].dtype
    return all(a.dtype == first for a in arrays)


ONE_DTYPE = Cap(
    dtypes=FLOATS,
    integers=tuple(d for d in ALL if d.kind != "float"),
    where=_one_dtype,
    where_text="takes arrays of one dtype",
)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, int):
        return (axis % ndim,) if ndim else ()
    return tuple(sorted(a % ndim for a in axis))


def _bounds(sizes: Any) -> list[int]:
    """The first row of each group and the end of the last."""
    return list(accumulate(sizes.tolist(), initial=0))


def _one(x: Any, start: int, end: int) -> Any:
    """Tokens of x (T, H, D) as a batch of one, (1, H, L, D)."""
    return x[start:end].swapaxes(0, 1)[None]


# ---------------------------------------------------------------- launchers
def _launchers(n: Any) -> dict[str, Callable[..., Any]]:
    """Functions for ops whose attributes are not what the kernel takes; by op name."""

    def sum(x: Any, axis: Any, keepdims: bool, y: Any) -> None:
        n.sum(x, _axes(axis, x.ndim), y)

    def mean(x: Any, axis: Any, keepdims: bool, y: Any) -> None:
        n.mean(x, _axes(axis, x.ndim), y)

    def max(x: Any, axis: Any, keepdims: bool, y: Any) -> None:
        n.max(x, _axes(axis, x.ndim), y)

    def min(x: Any, axis: Any, keepdims: bool, y: Any) -> None:
        n.min(x, _axes(axis, x.ndim), y)

    def matmul(x: Any, y: Any, z: Any) -> None:
        n.matmul(x, y, False, False, z)

    def linear(x: Any, weight: Any, bias: Any, activation: str, y: Any) -> None:
        n.linear(x, weight, bias, _ACTIVATION[activation], y)

    def linear_grad(
        g: Any,
        x: Any,
        weight: Any,
        need_x: bool,
        need_weight: bool,
        need_bias: bool,
        dx: Any,
        dw: Any,
        db: Any,
    ) -> None:
        n.linear_grad(g, x, weight, dx if need_x else None, dw if need_weight else None, db if need_bias else None)

    def softmax(x: Any, axis: int, y: Any) -> None:
        n.softmax(x, y)

    def softmax_grad(g: Any, y: Any, axis: int, dx: Any) -> None:
        n.softmax_grad(g, y, dx)

    def log_softmax(x: Any, axis: int, y: Any) -> None:
        n.log_softmax(x, y)

    def log_softmax_grad(g: Any, y: Any, axis: int, dx: Any) -> None:
        n.log_softmax_grad(g, y, dx)

    def layer_norm_grad(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dw: Any, db: Any) -> None:
        n.layer_norm_grad(g, x, weight, mean, rstd, dx, dw, db)

    def cross_entropy(
        x: Any, t: Any, ignore: int, smoothing: float, z: float, reduction: str, loss: Any, lse: Any
    ) -> None:
        n.cross_entropy(x, t, ignore, smoothing, z, _REDUCTION[reduction], loss, lse)

    def cross_entropy_grad(
        g: Any, x: Any, t: Any, lse: Any, ignore: int, smoothing: float, z: float, reduction: str, dx: Any
    ) -> None:
        n.cross_entropy_grad(g, x, t, lse, ignore, smoothing, z, _REDUCTION[reduction], dx)

    def embedding_grad(g: Any, indices: Any, rows: int, dw: Any) -> None:
        n.embedding_grad(g, indices, dw)

    def gelu(x: Any, approximate: str, y: Any) -> None:
        n.gelu(x, approximate == "tanh", y)

    def gelu_grad(g: Any, x: Any, approximate: str, dx: Any) -> None:
        n.gelu_grad(g, x, approximate == "tanh", dx)

    def geglu(a: Any, b: Any, approximate: str, y: Any) -> None:
        n.geglu(a, b, approximate == "tanh", y)

    def geglu_grad(g: Any, a: Any, b: Any, approximate: str, da: Any, db: Any) -> None:
        n.geglu_grad(g, a, b, approximate == "tanh", da, db)

    def attention(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, window: int, y: Any, lse: Any) -> None:
        n.attention(q, k, v, mask, causal, window, scale, y, lse)

    def attention_grad(
        g: Any, q: Any, k: Any, v: Any, y: Any, lse: Any, mask: Any, scale: float, causal: bool, window: int,
        dq: Any, dk: Any, dv: Any,
    ) -> None:  # fmt: skip
        n.attention_grad(g, q, k, v, y, lse, mask, causal, window, scale, dq, dk, dv, None)

    def conv2d(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int, y: Any) -> None:
        n.conv2d(x, w, b, *stride, *padding, *dilation, groups, 0, y)

    def conv2d_grad(
        g: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, need_x: bool,
        need_weight: bool, need_bias: bool, dx: Any, dw: Any, db: Any,
    ) -> None:  # fmt: skip
        n.conv2d_grad(
            g, x, w, *stride, *padding, *dilation, groups, dx if need_x else None, dw if need_weight else None,
            db if need_bias else None,
        )  # fmt: skip

    def max_pool2d(x: Any, kernel: Any, stride: Any, padding: Any, y: Any, position: Any) -> None:
        n.max_pool2d(x, *kernel, *stride, *padding, y, position)

    def max_pool2d_grad(g: Any, position: Any, shape: Any, dx: Any) -> None:
        n.max_pool2d_grad(g, position, dx)

    def avg_pool2d(x: Any, kernel: Any, stride: Any, padding: Any, count_include_pad: bool, y: Any) -> None:
        n.avg_pool2d(x, *kernel, *stride, *padding, count_include_pad, y)

    def avg_pool2d_grad(
        g: Any, shape: Any, kernel: Any, stride: Any, padding: Any, count_include_pad: bool, dx: Any
    ) -> None:
        n.avg_pool2d_grad(g, *kernel, *stride, *padding, count_include_pad, dx)

    def dropout(x: Any, p: float, seed: int, stream: int, y: Any) -> None:
        n.dropout(x, p, seed, stream, y)

    def concat(arrays: Any, axis: int, y: Any) -> None:
        n.concat(arrays, axis, y)

    def grouped_matmul(x: Any, weight: Any, sizes: Any, y: Any) -> None:
        end = 0
        for i, start, end in spans("grouped_matmul", _bounds(sizes), len(x)):
            n.matmul(x[start:end], weight[i], False, False, y[start:end])
        y[end:] = 0.0

    def grouped_matmul_grad(g: Any, x: Any, sizes: Any, dw: Any) -> None:
        for i, start, end in spans("grouped_matmul_grad", _bounds(sizes), len(x)):
            n.matmul(x[start:end].T, g[start:end], False, False, dw[i])
        dw[sizes == 0] = 0.0

    def attention_varlen(
        q: Any, k: Any, v: Any, starts: Any, scale: float, causal: bool, window: int, y: Any, lse: Any
    ) -> None:
        outside = np.ones(len(q), bool)
        for _, start, end in spans("attention_varlen", starts.tolist(), len(q)):
            outside[start:end] = False
            qi, ki, vi, yi = (_one(a, start, end) for a in (q, k, v, y))
            one = np.empty((1, q.shape[1], end - start), np.float32)  # the kernel wants it dense
            n.attention(qi, ki, vi, None, causal, window, scale, yi, one)
            lse[:, start:end] = one[0]
        y[outside], lse[:, outside] = 0.0, -np.inf

    def attention_varlen_grad(
        g: Any, q: Any, k: Any, v: Any, starts: Any, y: Any, lse: Any, scale: float, causal: bool, window: int,
        dq: Any, dk: Any, dv: Any,
    ) -> None:  # fmt: skip
        outside = np.ones(len(q), bool)
        for _, start, end in spans("attention_varlen", starts.tolist(), len(q)):
            outside[start:end] = False
            gi, qi, ki, vi, yi, dqi, dki, dvi = (_one(a, start, end) for a in (g, q, k, v, y, dq, dk, dv))
            one = np.ascontiguousarray(lse[None, :, start:end])
            n.attention_grad(gi, qi, ki, vi, yi, one, None, causal, window, scale, dqi, dki, dvi, None)
        dq[outside] = dk[outside] = dv[outside] = 0.0

    def sgd(
        params: Any, grads: Any, buffers: Any, lr: float, momentum: float, dampening: float, weight_decay: float,
        nesterov: bool, first: bool,
    ) -> None:  # fmt: skip
        n.sgd(params, grads, buffers or None, lr, momentum, dampening, weight_decay, nesterov, first)

    def grad_norm(grads: Any, norm: Any) -> None:
        norm[...] = n.grad_norm(grads)

    found = dict(locals())
    del found["n"]
    return found


# op -> (capability, name in the extension when it differs)
_DIRECT: dict[str, Cap] = {
    "layer_norm": F32, "rms_norm": F32, "rms_norm_grad": F32, "silu": F32, "silu_grad": SAME_SHAPE,
    "relu_grad": SAME_SHAPE, "embedding": EMBEDDING, "rope": DENSE_ROWS, "adamw": F32, "lion": F32,
}  # fmt: skip
_SAME3 = Cap(
    dtypes=(float32,),
    where=lambda g, a, b, *attrs: a.shape == b.shape,
    where_text="takes operands of one shape",
)
_LAUNCHED: dict[str, Cap] = {
    "sum": F32, "mean": F32, "max": F32, "min": F32, "linear": F32, "linear_grad": F32,
    "softmax": LAST_AXIS, "softmax_grad": LAST_AXIS, "log_softmax": LAST_AXIS, "log_softmax_grad": LAST_AXIS,
    "layer_norm_grad": F32, "cross_entropy": WITH_INDEX, "cross_entropy_grad": WITH_INDEX,
    "embedding_grad": WITH_INDEX, "gelu": F32, "gelu_grad": SAME_SHAPE, "geglu": SAME_SHAPE, "geglu_grad": _SAME3,
    "attention": F32, "attention_grad": F32,
    "conv2d": F32, "conv2d_grad": F32, "max_pool2d": WITH_POSITION, "max_pool2d_grad": WITH_POSITION,
    "avg_pool2d": F32, "avg_pool2d_grad": F32,
    "grouped_matmul": WITH_SIZES, "grouped_matmul_grad": WITH_SIZES,
    "attention_varlen": WITH_SIZES, "attention_varlen_grad": WITH_SIZES,
    "dropout": F32, "sgd": F32, "grad_norm": F32, "concat": ONE_DTYPE,
    "matmul": Cap(dtypes=(float32,), where=lambda x, y: x.ndim > 1 and y.ndim > 1,
                  where_text="takes matrices, not vectors"),
}  # fmt: skip
_ALLOCATING = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "maximum": "maximum", "minimum": "minimum",
    "pow": "pow", "negative": "neg", "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "tanh": "tanh",
    "sigmoid": "sigmoid", "abs": "abs", "square": "square", "relu": "relu", "reciprocal": "reciprocal",
    "erf": "erf", "sin": "sin", "cos": "cos",
}  # fmt: skip


def find_openblas() -> tuple[Any, str, bool] | None:
    """Library, symbol prefix and whether its integers have 64 bits: scipy-openblas32's, else NumPy's own."""
    try:
        import scipy_openblas32
    except ImportError:
        pass  # optional: NumPy's bundled library follows
    else:
        folder = os.path.join(os.path.dirname(scipy_openblas32.__file__), "lib")
        for path in sorted(glob.glob(os.path.join(folder, "*openblas*"))):
            if ".so" in path or path.endswith((".dylib", ".dll")):
                return ctypes.CDLL(path), "scipy_", False
    root = os.path.dirname(os.path.dirname(np.__file__))
    for path in sorted(glob.glob(os.path.join(root, "numpy.libs", "*openblas64*"))):
        return ctypes.CDLL(path), "scipy_", True
    return None


class CpuBackend:
    """C++ kernels."""

    name = "cpu"
    device_type = "cpu"
    priority = 10

    def probe(self) -> list[DeviceInfo] | Unavailable:
        if native is None:
            return Unavailable(native_reason, "install a C++ compiler and run `pip install -e .` again")
        facts: dict[str, Any] = {"isa": native.isa}
        found = find_openblas()
        if found is not None:
            library, prefix, long_ints = found
            suffix = "64_" if long_ints else ""
            symbol = getattr(library, f"{prefix}cblas_sgemm{suffix}")
            if not long_ints:  # a copy of our own: one thread, since our pool brings the others
                library.scipy_openblas_set_num_threads(1)
                native.set_cblas(ctypes.cast(symbol, ctypes.c_void_p).value, long_ints)
                get = library.scipy_openblas_get_config
                get.restype = ctypes.c_char_p
                facts["openblas"] = get().decode()
        facts["gemm"] = native.gemm_kernel()
        return [DeviceInfo("cpu", 0, "CPU", facts)]

    def kernels(self) -> Iterable[Kernel]:
        launch = _launchers(native)
        for op, cap in _DIRECT.items():
            yield Kernel(op, getattr(native, op), cap)
        for op, cap in _LAUNCHED.items():
            yield Kernel(op, launch[op], cap)
        for op in ("swiglu", "swiglu_grad"):
            yield Kernel(op, getattr(native, op), SAME_SHAPE if op == "swiglu" else _SAME3)
        for op, name in _ALLOCATING.items():
            yield Kernel(op, getattr(native, name), F32_NUMBERS, allocates=True)
        yield Kernel("scale_", native.scale, F32)
        yield Kernel("ema_", native.ema, F32)


backend = CpuBackend()
