"""eval_shape: the shapes and dtypes that a function returns, without computing or allocating anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from spiral import abstract, dispatch
from spiral.autograd import map_tensors, no_grad
from spiral.backend import ANY, Kernel, Spec
from spiral.device import meta
from spiral.dtype import as_dtype, float32
from spiral.errors import ArgumentError, NoValueError, received
from spiral.op import Op
from spiral.tensor_core import make_key, wrap


def eval_shape(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What ``fn(*args, **kwargs)`` would return, with the shape and dtype of each tensor in its place.

    The function runs, but its ops only derive shapes (each op's ``meta``): no kernel is launched, no memory is
    taken, no random number is drawn, and nothing that it overwrites changes. Python code in it runs as ever.

    Args:
        fn: a function or a module.
        *args: a tuple of integers stands for a float32 tensor of this shape, a `Spec` for one of its dtype;
            everything else, tensors too, is handed over as it is.
        **kwargs: the same, by name.

    Returns:
        The result, with a `Spec` in place of each tensor.

    Raises:
        ShapeError: the shapes do not fit; also whatever else the function raises.
        NoValueError: the function asks for a tensor's value.

    Example:
        >>> import spiral as sp
        >>> eval_shape(sp.nn.Linear(784, 10), (64, 784))
        float32[64, 10]
        >>> eval_shape(lambda n: sp.nn.Linear(10**6, 10**6)(sp.ones((n, 10**6))), 7)  # 4 TB that nobody allocates
        float32[7, 1000000]
    """
    if not callable(fn):
        raise ArgumentError(f"eval_shape: expected a function or a module; received {received(fn)}.")
    with shapes_only():
        result = fn(*map(_stand_in, args), **{name: _stand_in(value) for name, value in kwargs.items()})
        return map_tensors(result, lambda t: t.spec)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within the block, tensors that are made have no values, and ops derive shapes.

    They are good for nothing outside: they live on the device ``meta``, where no kernel runs.
    """
    token = dispatch._policy.set(_POLICY)
    try:
        with no_grad():
            yield
    finally:
        dispatch._policy.reset(token)


def _stand_in(value: Any) -> Any:
    if isinstance(value, Spec):
        return abstract.valueless(value.shape, value.dtype)
    if isinstance(value, tuple) and all(type(n) is int for n in value):
        return abstract.valueless(value, float32)
    return value


def _choose(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> dispatch.Entry:
    """Instead of a kernel: what gives outputs without values, from the op's ``meta``."""
    if op.dynamic:
        raise NoValueError(f"eval_shape: the shape that {op.name} returns depends on values, which are not known.")
    keys = tuple(make_key(meta, spec.dtype) for spec in dispatch.call_meta(op, args, attrs))
    n = len(op.inputs)

    def run(*flat: Any) -> tuple[Any, ...]:
        specs = dispatch.call_meta(op, tuple(map(_tensor, flat[:n])), flat[n:])
        return tuple([abstract.array(spec.shape, spec.dtype) for spec in specs])

    return dispatch.Entry("meta", Kernel(op.name, run, ANY, allocates=True), run, keys)


def _tensor(buffer: Any) -> Any:
    """The buffer of an input as the tensor that ``meta`` looks at."""
    if isinstance(buffer, np.ndarray):
        return wrap(buffer, make_key(meta, as_dtype(buffer.dtype)))
    return [_tensor(b) for b in buffer] if isinstance(buffer, list) else buffer


_POLICY = dispatch.Policy(choose=_choose)
