"""Shape and dtype rules shared by the op declarations."""

from __future__ import annotations

from typing import Any

from spiral.backend import Spec
from spiral.dtype import DEFAULT_FLOAT, DEFAULT_INT, DType, float32, promote, weak
from spiral.errors import ArgumentError, DTypeError, ShapeError, received
from spiral.op import F
from spiral.tensor_core import TensorCore


def is_number(x: Any) -> bool:
    return isinstance(x, (bool, int, float))


def result_dtype(*xs: Any) -> DType:
    """Promoted dtype of tensors (or specs) and weak Python numbers."""
    out: DType | None = None
    for x in xs:
        if not is_number(x):
            out = x.dtype if out is None else promote(out, x.dtype)
    if out is None:
        return DEFAULT_FLOAT if any(isinstance(x, float) for x in xs) else DEFAULT_INT
    for x in xs:
        if is_number(x):
            out = weak(x, out)
    return out


def broadcast(name: str, *xs: Any) -> tuple[int, ...]:
    """Common shape of operands.

    Raises:
        ShapeError: they do not broadcast.
    """
    shapes = [() if is_number(x) else x.shape for x in xs]
    n = max(len(s) for s in shapes)
    out = [1] * n
    for s in shapes:
        for i, d in enumerate(reversed(s), 1):
            if d != 1:
                if out[-i] not in (1, d):
                    raise ShapeError(
                        f"{name}: shapes must broadcast; received {' and '.join(map(str, shapes))} "
                        f"(axis {-i}: {out[-i]} against {d})."
                    )
                out[-i] = d
    return tuple(out)


def axes_of(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """Sorted non-negative axes; None means all.

    Raises:
        ArgumentError: an axis is out of range or repeated.
    """
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    out = []
    for a in given:
        if not isinstance(a, int) or isinstance(a, bool) or not -ndim <= a < ndim:
            raise ArgumentError(
                f"{name}: axis must be in [{-ndim}, {ndim - 1}] for {ndim} axes; received {received(a)}."
            )
        out.append(a % ndim)
    if len(set(out)) != len(out):
        raise ArgumentError(f"{name}: axes must differ; received {received(given)}.")
    return tuple(sorted(out))


def reduced(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """Shape after reducing ``axes``."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def need_float(name: str, **xs: Any) -> None:
    """Raises DTypeError unless every given tensor is floating."""
    for k, x in xs.items():
        if x is not None and not is_number(x) and x.dtype.kind != "float":
            raise DTypeError(f"{name}: {k} must be floating; received {x.dtype.name}. Cast it with .astype().")


def need_shape(name: str, what: str, x: Any, shape: tuple[int, ...], why: str) -> None:
    """Raises ShapeError unless ``x`` (if given) has this shape."""
    if x is not None and tuple(x.shape) != shape:
        raise ShapeError(f"{name}: {what} must be {shape}, {why}; received {tuple(x.shape)}.")


def like(g: Any, spec: Any) -> Any:
    """A gradient summed back to the shape, and cast to the dtype, of the input it belongs to."""
    shape = spec.shape
    if g.shape != shape:
        lead = g.ndim - len(shape)
        axes = (*range(lead), *(i + lead for i, d in enumerate(shape) if d == 1 and g.shape[i + lead] != 1))
        g = F.sum(g, axis=axes, keepdims=False)
        if g.shape != shape:
            g = F.reshape(g, shape)
    if g.dtype is not spec.dtype:
        g = F.astype(g, spec.dtype)
    return g


def statistics_dtype(dtype: DType) -> DType:
    """In what a row's mean, rstd or log-sum-exp is kept: 16 bits would round all of the row's gradient alike."""
    return float32 if dtype.storage_only else dtype


def widened(x: Any) -> Any:
    """A 16-bit tensor as float32, for decompositions: steps in between must neither overflow nor round."""
    return F.astype(x, float32) if x.dtype.storage_only else x


def narrowed(y: Any, dtype: DType) -> Any:
    """A result that was computed wide, rounded once to the dtype it shall have."""
    return y if y.dtype is dtype else F.astype(y, dtype)


def same(x: Any) -> Spec:
    return Spec(tuple(x.shape), x.dtype)


def need_array(name: str, **xs: Any) -> None:
    """Raises DTypeError unless every given argument is a tensor."""
    for k, x in xs.items():
        if not isinstance(x, TensorCore):
            raise DTypeError(
                f"{name}: {k} must be a Tensor; received {type(x).__name__}. Wrap it with spiral.asarray()."
            )
