"""`spiral.linalg`: the array API standard's linear algebra extension.

Decompositions are ops of the family ``decomposition`` (docs/ops.md says which have gradients); the rest
is made of ops.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from spiral.dtype import bool_, finfo
from spiral.errors import ArgumentError, ShapeError
from spiral.op import F
from spiral.ops import generated as _ops
from spiral.ops.composite import tensordot, vecdot
from spiral.ops.generated import matmul
from spiral.ops.rearrange import matrix_transpose
from spiral.ops.shapes import axes_of, need_array, need_float
from spiral.ops.standard import sum as _sum
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore

__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power",
    "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot",
    "trace", "vecdot", "vector_norm",
]  # fmt: skip

cholesky = _ops.cholesky
det = _ops.det
inv = _ops.inv
solve = _ops.solve
svdvals = _ops.svdvals


class EighResult(NamedTuple):
    """Result of `eigh`."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """Result of `qr`."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """Result of `slogdet`."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """Result of `svd`."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def eigh(x: Tensor, /) -> EighResult:
    """Eigenvalues (rising) and eigenvectors (columns) of symmetric matrices."""
    return EighResult(*_ops.eigh(x))


def eigvalsh(x: Tensor, /) -> Tensor:
    """Eigenvalues of symmetric matrices, rising."""
    return _ops.eigh(x)[0]


def qr(x: Tensor, /, *, mode: str = "reduced") -> QRResult:
    """Orthonormal columns Q and upper triangular R with Q R = x."""
    return QRResult(*_ops.qr(x, mode=mode))


def slogdet(x: Tensor, /) -> SlogdetResult:
    """Sign and logarithm of the magnitude of determinants."""
    return SlogdetResult(*_ops.slogdet(x))


def svd(x: Tensor, /, *, full_matrices: bool = True) -> SVDResult:
    """U, S, Vh with U diag(S) Vh = x; singular values S falling."""
    return SVDResult(*_ops.svd(x, full_matrices=full_matrices))


def _default_rtol(x: Tensor) -> float:
    return float(max(x.shape[-2:]) * finfo(x.dtype).eps)


def pinv(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """Moore-Penrose inverse.

    Args:
        rtol: singular values up to rtol times the largest count as 0; None: max(M, N) * eps.
    """
    need_array("pinv", x=x)
    need_float("pinv", x=x)
    return _ops.pinv(x, _default_rtol(x) if rtol is None else rtol)


def matrix_rank(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """How many singular values exceed rtol (None: max(M, N) * eps) times the largest."""
    values = _ops.svdvals(x)
    if values.shape[-1] == 0:
        return F.sum(F.astype(values, bool_), axis=-1)  # type: ignore[no-any-return]
    factor: Any = _default_rtol(x) if rtol is None else rtol
    if isinstance(factor, TensorCore):
        factor = F.expand_dims(factor, axis=-1)
    return F.sum(values > F.max(values, axis=-1, keepdims=True) * factor, axis=-1)  # type: ignore[no-any-return]


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """x multiplied n times with itself; negative n takes the inverse."""
    need_array("matrix_power", x=x)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power: the last two axes must have one length; received shape {x.shape}.")
    if n == 0:
        eye = F.constant(np.eye(x.shape[-1], dtype=x.dtype.numpy), x)
        return F.broadcast_to(eye, x.shape)  # type: ignore[no-any-return]
    if n < 0:
        x, n = _ops.inv(x), -n
    result: Any = None
    while n:
        if n & 1:
            result = x if result is None else F.matmul(result, x)
        n >>= 1
        if n:
            x = F.matmul(x, x)
    return result  # type: ignore[no-any-return]


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The elements of a diagonal of the last two axes, as the last axis."""
    need_array("diagonal", x=x)
    if x.ndim < 2:
        raise ShapeError(f"diagonal: expected at least 2 axes; received shape {x.shape}.")
    rows, columns = x.shape[-2:]
    row, column = min(rows, max(0, -offset)), min(columns, max(0, offset))
    steps = np.arange(min(rows - row, columns - column))
    return F.getitem(x, index=(Ellipsis, steps + row, steps + column))  # type: ignore[no-any-return]


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """Sum along a diagonal of the last two axes; dtype as for `spiral.sum`."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)  # type: ignore[no-any-return]


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """(M, N) products of the elements of two vectors."""
    need_array("outer", x1=x1, x2=x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ShapeError(f"outer: expected two vectors; received shapes {x1.shape} and {x2.shape}.")
    return F.expand_dims(x1, axis=1) * F.expand_dims(x2, axis=0)  # type: ignore[no-any-return]


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Cross product along an axis of length 3; the other axes broadcast."""
    need_array("cross", x1=x1, x2=x2)
    a, b = F.broadcast_arrays(x1, x2)
    (k,) = axes_of("cross", axis, a.ndim)
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ShapeError(f"cross: axis {axis} must have length 3; received shapes {x1.shape} and {x2.shape}.")
    (a0, a1, a2), (b0, b1, b2) = F.unstack(a, axis=k), F.unstack(b, axis=k)
    return F.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=k)  # type: ignore[no-any-return]


def vector_norm(
    x: Tensor, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ord: int | float = 2
) -> Tensor:
    """The p-norm over axes: (sum |x|^p)^(1/p); for inf and -inf the largest and smallest magnitude, for 0 a count."""
    need_array("vector_norm", x=x)
    need_float("vector_norm", x=x)
    if ord == 2:
        return F.sqrt(F.sum(x * x, axis=axis, keepdims=keepdims))  # type: ignore[no-any-return]
    if ord == 0:
        return F.astype(F.count_nonzero(x, axis=axis, keepdims=keepdims), x.dtype)  # type: ignore[no-any-return]
    size = F.abs(x)
    if ord == 1:
        return F.sum(size, axis=axis, keepdims=keepdims)  # type: ignore[no-any-return]
    if math.isinf(ord):
        return (F.max if ord > 0 else F.min)(size, axis=axis, keepdims=keepdims)  # type: ignore[no-any-return]
    return F.pow(F.sum(F.pow(size, ord), axis=axis, keepdims=keepdims), 1.0 / ord)  # type: ignore[no-any-return]


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: int | float | str | None = "fro") -> Tensor:
    """A norm of the last two axes.

    Args:
        ord: ``"fro"`` (or None) Frobenius, ``"nuc"`` nuclear, 1 and -1 column sums, inf and -inf row sums, 2 and -2
            singular values: the largest for positive ones, the smallest for negative ones.
    """
    need_array("matrix_norm", x=x)
    need_float("matrix_norm", x=x)
    if x.ndim < 2:
        raise ShapeError(f"matrix_norm: expected at least 2 axes; received shape {x.shape}.")
    if ord is None or ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in ("nuc", 2, -2):
        values = _ops.svdvals(x)
        y = (F.sum if ord == "nuc" else F.max if ord == 2 else F.min)(values, axis=-1)
    elif ord in (1, -1, math.inf, -math.inf):
        sums = F.sum(F.abs(x), axis=-2 if abs(ord) == 1 else -1)
        y = (F.max if ord > 0 else F.min)(sums, axis=-1)
    else:
        raise ArgumentError(f"matrix_norm: ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf; received {ord!r}.")
    return F.expand_dims(F.expand_dims(y, axis=-1), axis=-1) if keepdims else y  # type: ignore[no-any-return]
