"""Runs kernels in Triton's interpreter on addresses of host memory: no torch, no copies.

Triton's own way into its interpreter copies the storages of torch tensors. This makes the interpreter's values from
addresses and numbers and their declared types, so that a kernel gets what it gets on a device, and a number has the
width it has there. Private API of ``triton/runtime/interpreter.py``, the same in 3.6 to 3.9; used here and by
`spiral.testing.triton_interpreter`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from spiral.errors import KernelError

_lock = threading.Lock()  # the interpreter has one program id per process


def _value(kind: str, value: Any) -> Any:
    """A number or address as the interpreter's tensor of a declared type."""
    dtype = tl.str_to_ty(kind, None)
    return tl.tensor(interpreter.TensorHandle(np.array([value], interpreter._get_np_dtype(dtype)), dtype), dtype)


def run(
    fn: Any, params: Mapping[str, str], constants: Mapping[str, Any], grid: Sequence[int], values: Sequence[Any]
) -> None:
    """Runs every program of the grid, one after the other.

    Raises:
        KernelError: the kernel fails; the message holds what the interpreter said.
    """
    body = fn.rewrite()
    args = {name: _value(kind, v) for (name, kind), v in zip(params.items(), values, strict=True)}
    builder = interpreter.interpreter_builder
    with _lock, np.errstate(all="ignore"):
        scope = interpreter._patch_lang(body)
        try:
            builder.set_grid_dim(*grid)
            for x in range(grid[0]):
                for y in range(grid[1]):
                    for z in range(grid[2]):
                        builder.set_grid_idx(x, y, z)
                        body(**args, **constants)
        except Exception as error:
            raise KernelError(
                f"{fn.__name__}: fails in Triton's interpreter: {type(error).__name__}: {error}"
            ) from error
        finally:
            scope.restore()
