"""Elementwise kernels: each line of a table becomes an OpenCL kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spiral.backend import Cap, Kernel, UnifiedMemory
from spiral.dtype import bool_, float32
from spiral_opencl.device import Device, Program

AXES = 8

# inputs -> op -> its value as an expression of floats x, y and a condition c, named in the order of the op's inputs
VALUES = {
    "x": {
        "identity": "x", "copy": "x", "negative": "-x", "abs": "fabs(x)", "square": "x * x", "reciprocal": "1 / x",
        "exp": "exp(x)", "expm1": "expm1(x)", "log": "log(x)", "log1p": "log1p(x)", "sqrt": "sqrt(x)",
        "rsqrt": "1 / sqrt(x)", "erf": "erf(x)", "sin": "sin(x)", "cos": "cos(x)",
        "tanh": "fabs(x) < 0.5f ? tanh(x) : copysign(1 - 2 / (exp(2 * fabs(x)) + 1), x)",  # ends at 1
        "floor": "floor(x)", "ceil": "ceil(x)", "trunc": "trunc(x)", "round": "rint(x)", "relu": "x < 0 ? 0 : x",
        "sigmoid": "0.5f + 0.5f * tanh(0.5f * x)", "silu": "x * (0.5f + 0.5f * tanh(0.5f * x))",
    },
    "xy": {
        "add": "x + y", "subtract": "x - y", "multiply": "x * y", "divide": "x / y", "pow": "pow(x, y)",
        "maximum": "x >= y || isnan(x) ? x : y", "minimum": "x <= y || isnan(x) ? x : y", "hypot": "hypot(x, y)",
        "relu_grad": "y > 0 ? x : 0", "swiglu": "x * (0.5f + 0.5f * tanh(0.5f * x)) * y",
    },
    "cxy": {"where": "c ? x : y"},
}  # fmt: skip
TRUTHS = {
    "x": {"isnan": "isnan(x)", "isinf": "isinf(x)", "isfinite": "isfinite(x)"},
    "xy": {
        "equal": "x == y", "not_equal": "x != y", "less": "x < y", "less_equal": "x <= y", "greater": "x > y",
        "greater_equal": "x >= y",
    },
}  # fmt: skip
TABLES = [
    (name, inputs, expression, out)
    for out, table in (("float", VALUES), ("uchar", TRUTHS))
    for inputs, ops in table.items()
    for name, expression in ops.items()
]


def floats(condition: Any, x: Any, y: Any) -> bool:
    """Guard: the condition alone may be bool."""
    dtypes = [a.dtype for a in (x, y) if isinstance(a, np.ndarray)]
    return bool(dtypes) and all(dtype == np.float32 for dtype in dtypes)


WHERE = Cap((float32,), (bool_,), scalars=True, where=floats, where_text="takes float32 values")


def source(name: str, inputs: str, expression: str, out: str) -> str:
    """A kernel whose inputs have strides, 0 where they are broadcast, and whose output lies in one stretch."""
    types = {"c": "uchar", "x": "float", "y": "float"}
    parameters = [f"global const {types[i]} *{i}_block, long {i}_at, Axes {i}_by" for i in inputs]
    return f"""
kernel void op_{name}({", ".join(parameters)}, global {out} *block, long at, long n, long axes, Axes shape) {{
  const long item = get_global_id(0);
  if (item >= n) return;
  long rest = item;
  for (int a = axes - 1; a >= 0; rest /= shape.of[a--]) {{
    {" ".join(f"{i}_at += rest % shape.of[a] * {i}_by.of[a];" for i in inputs)}
  }}
  {" ".join(f"const {types[i]} {i} = {i}_block[{i}_at];" for i in inputs)}
  block[at + item] = {expression};
}}"""


def kernels(device: Device, memory: UnifiedMemory) -> Iterator[Kernel]:
    """A kernel for each line of the tables."""
    head = f"#pragma OPENCL FP_CONTRACT OFF\ntypedef struct {{ long of[{AXES}]; }} Axes;"
    program = Program(device, "\n".join([head, *(source(*row) for row in TABLES)]))

    def array(a: Any, shape: tuple[int, ...]) -> Any:
        a = a if isinstance(a, np.ndarray) else memory.from_host(np.asarray(a, np.float32))
        return np.broadcast_to(a, shape)

    def make(name: str) -> Callable[..., None]:
        def run(*args: Any) -> None:
            *inputs, out = args
            arrays = [array(a, out.shape) for a in inputs]
            if out.ndim > AXES:
                arrays = [memory.from_host(a) for a in arrays]
            if all(a.flags.c_contiguous for a in arrays):
                arrays, shape = [a.reshape(-1) for a in arrays], (out.size,)
            else:
                shape = out.shape
            rest = (0,) * (AXES - len(shape))
            pairs = [part for a in arrays for part in (a, (*[s // a.itemsize for s in a.strides], *rest))]
            program.launch(f"op_{name}", out.size, *pairs, out, out.size, len(shape), (*shape, *rest))

        return run

    for name, inputs, _, _ in TABLES:
        yield Kernel(name, make(name), WHERE if "c" in inputs else Cap((float32,), scalars=len(inputs) > 1))
