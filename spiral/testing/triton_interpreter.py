"""Makes Triton's interpreter as exact as a GPU where kernels of this project rely on it; for tests.

`patch` changes the interpreter of this process (TRITON_INTERPRET=1 at its start):

- float32 → bfloat16 rounds to the nearest, ties to even, as GPUs do; the interpreter truncates, so that half of all
  values differ in the last bit; and bfloat16 → float32 keeps denormals, which the interpreter gives other values;
- arithmetic on bfloat16 raises: the interpreter would work on the raw bit patterns. Kernels widen right after
  ``tl.load``;
- ``tl.dot`` of 16-bit operands sums products in float32, as tensor cores do; the interpreter multiplies bit patterns of
  bfloat16;
- a comparison gives int1 where the interpreter's handle keeps the operands' type, so that a mask and-ed with a scalar
  condition became an array of integers that loads refuse;
- ``tl.sort`` is NumPy's: the interpreter takes seconds for the network of a few hundred elements;
- functions of ``triton.language.extra.libdevice``, which the interpreter refuses, are computed by NumPy in float64 and
  rounded; so are products, ``tl.reduce`` with a function ``multiply``, for which it calls Python for each element;
- a function that a kernel calls is not prepared again at each call, which cost a millisecond, but once in a launch;
- a scalar counts a loop, ``range(0, n, BLOCK)``, with every NumPy: Triton 3.6 converts an array of one axis, which
  NumPy 2.4 refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter

_ARITHMETIC = ("binary_op", "unary_op", "create_fma", "create_fabs")
_LIBDEVICE: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "log2": np.log2, "log10": np.log10,
    "erf": np.vectorize(math.erf, otypes=[np.float64]), "pow": np.power, "fmod": np.fmod, "hypot": np.hypot,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "atan2": np.arctan2, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint,
}  # fmt: skip
_done = False


def round_to_bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bit patterns of float32 values rounded to bfloat16, to the nearest, ties to even; NaN stays NaN."""
    u = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((u + (0x7FFF + ((u >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where((u & 0x7FFFFFFF) > 0x7F800000, ((u >> 16) | 0x40).astype(np.uint16), rounded).reshape(values.shape)


def patch() -> None:
    """Changes the interpreter of this process; once."""
    global _done
    if _done:
        return
    _done = True
    convert = interpreter._convert_float

    def convert_float(values: Any, source: Any, to: Any, rounding_mode: Any) -> Any:
        if source == tl.float32 and to == tl.bfloat16 and rounding_mode in (None, interpreter._ir.ROUNDING_MODE.RTNE):
            return round_to_bfloat16(values)
        if source == tl.bfloat16 and to == tl.float32:
            return np.left_shift(values.view(np.uint16), 16, dtype=np.uint32)
        return convert(values, source, to, rounding_mode)

    interpreter._convert_float = convert_float
    patch_tensor = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patch_lang_tensor
    for name in _ARITHMETIC:
        setattr(interpreter.InterpreterBuilder, name, _refusing(name, getattr(interpreter.InterpreterBuilder, name)))
    interpreter.InterpreterBuilder.create_dot = _create_dot
    tl.sort = _sort
    prepare = interpreter._patch_lang
    prepared: set[int] = set()  # by their modules' globals

    def patch_lang(fn: Any) -> Any:
        prepared.clear()
        prepared.add(id(fn.__globals__))
        return prepare(fn)

    def call(self: Any, *args: Any, **named: Any) -> Any:
        if id(self.fn.__globals__) not in prepared:
            prepare(self.fn)
            prepared.add(id(self.fn.__globals__))
        return self.rewrite()(*args, **named)

    interpreter._patch_lang = patch_lang
    interpreter.InterpretedFunction.__call__ = call
    for name in dir(interpreter.InterpreterBuilder):
        if name.startswith(("create_icmp", "create_fcmp")):
            setattr(interpreter.InterpreterBuilder, name, _comparing(getattr(interpreter.InterpreterBuilder, name)))
    reduce = interpreter.ReduceOps.apply_impl

    def apply_impl(self: Any, values: Any) -> Any:
        if self.combine_fn.fn.__name__ != "multiply":
            return reduce(self, values)
        found = np.multiply.reduce(values[0].handle.data, axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(found, values[0].dtype)

    interpreter.ReduceOps.apply_impl = apply_impl
    for name, function in _LIBDEVICE.items():
        setattr(libdevice, name, _of_libdevice(name, function))


def _sort(x: Any) -> Any:
    """x, integers in a row, in order."""
    return tl.tensor(interpreter.TensorHandle(np.sort(x.handle.data), x.handle.dtype), x.type)


def _create_dot(
    self: Any, a: Any, b: Any, d: Any, input_precision: Any = None, max_num_imprecise_acc: Any = None
) -> Any:  # fmt: skip
    """a b + d in the type of d."""
    x, y = [_wide(operand) for operand in (a, b)]
    return interpreter.TensorHandle(np.matmul(x, y, dtype=d.data.dtype) + d.data, d.dtype.scalar)


def _wide(operand: Any) -> Any:
    """The values of 16-bit floats in float32, others as they are."""
    if operand.dtype.scalar == tl.bfloat16:
        return (operand.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return operand.data.astype(np.float32) if operand.dtype.scalar == tl.float16 else operand.data


def _of_libdevice(name: str, function: Callable[..., Any]) -> Any:
    """A function as kernels call it: floating operands of one type, which is the result's."""

    def run(*operands: Any) -> Any:
        first = operands[0]
        if any(o.dtype != first.dtype for o in operands) or first.dtype not in (tl.float32, tl.float64):
            raise TypeError(f"libdevice.{name}: expected float32 or float64; received {[o.dtype for o in operands]}")
        values = function(*[o.handle.data.astype(np.float64) for o in operands]).astype(first.handle.data.dtype)
        return tl.tensor(interpreter.TensorHandle(values, first.dtype), first.type)

    return run


def _comparing(method: Any) -> Any:
    def run(self: Any, left: Any, right: Any) -> Any:
        return interpreter.TensorHandle(np.asarray(method(self, left, right).data, np.bool_), tl.int1)

    return run


def _refusing(name: str, method: Any) -> Any:
    def run(self: Any, *operands: Any, **named: Any) -> Any:
        if any(isinstance(o, interpreter.TensorHandle) and o.dtype.scalar == tl.bfloat16 for o in operands):
            raise TypeError(f"{name} on bfloat16, which the interpreter cannot do; widen right after tl.load")
        return method(self, *operands, **named)

    return run


def host_driver() -> Any:
    """A driver of host memory for the interpreter, made exact."""
    from spiral.testing.recording import RecordingDriver

    patch()
    return RecordingDriver(on_processor=True)
