"""Matrix decompositions and what is computed through them, over the last two axes; on the CPU by LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, ShapeError
from spiral.op import F, op
from spiral.ops.shapes import broadcast, like, need_float, result_dtype


def _matrix(name: str, x: Any) -> None:
    need_float(name, x=x)
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected at least 2 axes; received shape {tuple(x.shape)}.")


def _square(name: str, x: Any) -> None:
    _matrix(name, x)
    if x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: the last two axes must have one length; received shape {tuple(x.shape)}.")


def _t(x: Any) -> Any:
    return F.matrix_transpose(x)


def _symmetric(x: Any) -> Any:
    half = x * x.dtype.type(0.5)  # halved first: the sum of two large numbers would overflow
    return half + np.swapaxes(half, -1, -2)


def _eye(x: Any) -> Any:
    return F.constant(np.eye(x.shape[-1], dtype=x.dtype.numpy), x)


def _well(s: Any, *lead: int, n: int = 4) -> Any:
    """Matrices with separated eigenvalues, far from singular."""
    return s.normal(*lead, n, n, scale=0.2) + np.diag(np.arange(1.0, n + 1))


class _Square:
    @staticmethod
    def samples(s: Any) -> Any:
        yield (_well(s),)
        yield (_well(s, 2, 3, n=3),)
        yield (s.uniform(1, 1, low=1.0, high=2.0),)


@op("cholesky(x, *, upper: bool = False) -> y")
class Cholesky:
    """The triangular factor of the symmetric positive-definite part of x: L with L L^T, or U with U^T U."""

    @staticmethod
    def meta(x: Any, upper: bool) -> Spec:
        _square("cholesky", x)
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, upper: bool) -> Any:
        lower = np.linalg.cholesky(_symmetric(x))
        return np.swapaxes(lower, -1, -2) if upper else lower

    @staticmethod
    def vjp(need: Any, g: Any, y: Any, upper: bool) -> Any:
        # Murray 2016, "Differentiation of the Cholesky decomposition", eq. 10
        lower, g = (_t(y), _t(g)) if upper else (y, g)
        inner = F.tril(F.matmul(_t(lower), g)) * F.constant(
            np.tril(np.ones((y.shape[-1],) * 2, y.dtype.numpy)) - 0.5 * np.eye(y.shape[-1], dtype=y.dtype.numpy), y
        )
        left = F.solve(_t(lower), inner)
        both = _t(F.solve(_t(lower), _t(left)))
        return ((both + _t(both)) * 0.5,)

    @staticmethod
    def samples(s: Any) -> Any:
        for upper in (False, True):
            a = s.normal(2, 4, 4)
            yield a @ np.swapaxes(a, -1, -2) + 4.0 * np.eye(4), upper


@op("inv(x) -> y")
class Inv(_Square):
    """The inverse matrix; a singular one is an error."""

    @staticmethod
    def meta(x: Any) -> Spec:
        _square("inv", x)
        return Spec(tuple(x.shape), x.dtype)

    oracle = staticmethod(np.linalg.inv)

    @staticmethod
    def vjp(need: Any, g: Any, y: Any) -> Any:
        return (-F.matmul(F.matmul(_t(y), g), _t(y)),)


@op("solve(a, b) -> x")
class Solve:
    """x with a x = b, where b is a vector (one axis) or columns; a singular a is an error."""

    @staticmethod
    def meta(a: Any, b: Any) -> Spec:
        _square("solve", a)
        need_float("solve", b=b)
        n = a.shape[-1]
        if b.ndim == 0 or b.shape[-2 if b.ndim > 1 else -1] != n:
            raise ShapeError(f"solve: b must be ({n},) or (…, {n}, k); received {tuple(b.shape)}.")
        columns = b.shape[-1:] if b.ndim > 1 else ()
        lead = broadcast("solve", Spec(tuple(a.shape[:-2]), a.dtype), Spec(tuple(b.shape[:-2]), a.dtype))
        return Spec((*lead, n, *columns), result_dtype(a, b))

    @staticmethod
    def oracle(a: Any, b: Any) -> Any:
        return np.linalg.solve(a, b[:, None])[..., 0] if b.ndim == 1 else np.linalg.solve(a, b)

    @staticmethod
    def vjp(need: Any, g: Any, a: Any, b_spec: Any, x: Any) -> Any:
        vector = len(b_spec.shape) == 1
        if vector:
            g, x = F.expand_dims(g, axis=-1), F.expand_dims(x, axis=-1)
        gb = F.solve(_t(a), g)
        ga = like(-F.matmul(gb, _t(x)), a) if need[0] else None
        if not need[1]:
            return ga, None
        return ga, like(F.squeeze(gb, -1) if vector else gb, b_spec)

    @staticmethod
    def samples(s: Any) -> Any:
        yield _well(s), s.normal(4)
        yield _well(s, 2, 1, n=3), s.normal(5, 3, 2)
        yield _well(s, 2, n=3), s.normal(3)


@op("det(x) -> y")
class Det(_Square):
    """Determinant. The gradient needs the inverse, so a singular matrix has none."""

    @staticmethod
    def meta(x: Any) -> Spec:
        _square("det", x)
        return Spec(tuple(x.shape[:-2]), x.dtype)

    oracle = staticmethod(np.linalg.det)

    @staticmethod
    def vjp(need: Any, g: Any, x: Any, y: Any) -> Any:
        return (F.expand_dims(F.expand_dims(g * y, axis=-1), axis=-1) * _t(F.inv(x)),)


@op("slogdet(x) -> sign, logabsdet")
class SLogDet(_Square):
    """Sign and logarithm of the magnitude of the determinant."""

    @staticmethod
    def meta(x: Any) -> tuple[Spec, Spec]:
        _square("slogdet", x)
        spec = Spec(tuple(x.shape[:-2]), x.dtype)
        return spec, spec

    @staticmethod
    def oracle(x: Any) -> Any:
        return tuple(np.linalg.slogdet(x))

    @staticmethod
    def vjp(need: Any, g: Any, x: Any) -> Any:
        if g[1] is None:  # the sign is piecewise constant
            return (None,)
        return (F.expand_dims(F.expand_dims(g[1], axis=-1), axis=-1) * _t(F.inv(x)),)


@op("eigh(x) -> eigenvalues, eigenvectors")
class Eigh:
    """Eigenvalues (rising) and eigenvectors (columns) of the symmetric part of x.

    The gradient of eigenvectors is infinite where eigenvalues coincide.
    """

    @staticmethod
    def meta(x: Any) -> tuple[Spec, Spec]:
        _square("eigh", x)
        return Spec(tuple(x.shape[:-1]), x.dtype), Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any) -> Any:
        return tuple(np.linalg.eigh(_symmetric(x)))

    @staticmethod
    def vjp(need: Any, g: Any, eigenvalues: Any, eigenvectors: Any) -> Any:
        # Giles 2008, "An extended collection of matrix derivative results", section 3.1
        w, v = eigenvalues, eigenvectors
        inner = None
        if g[0] is not None:
            inner = F.expand_dims(g[0], axis=-1) * _eye(v)
        if g[1] is not None:
            gap = F.expand_dims(w, axis=-2) - F.expand_dims(w, axis=-1)
            eye = _eye(v)
            turned = F.matmul(_t(v), g[1]) * ((1.0 - eye) / (gap + eye))
            inner = turned if inner is None else inner + turned
        if inner is None:
            return (None,)
        out = F.matmul(F.matmul(v, inner), _t(v))
        return ((out + _t(out)) * 0.5,)

    @staticmethod
    def samples(s: Any) -> Any:
        yield (_well(s),)
        yield (_well(s, 2, n=3),)


@op("qr(x, *, mode: str = 'reduced') -> q, r")
class QR:
    """Orthonormal columns q and upper triangular r with q r = x."""

    nondifferentiable = True

    @staticmethod
    def meta(x: Any, mode: str) -> tuple[Spec, Spec]:
        _matrix("qr", x)
        QR.check(mode)
        *lead, m, n = x.shape
        k = m if mode == "complete" else min(m, n)
        return Spec((*lead, m, k), x.dtype), Spec((*lead, k, n), x.dtype)

    @staticmethod
    def oracle(x: Any, mode: str) -> Any:
        QR.check(mode)  # NumPy knows more modes, with other results
        q, r = np.linalg.qr(x, "complete" if mode == "complete" else "reduced")
        return q, r

    @staticmethod
    def check(mode: str) -> None:
        if mode not in ("reduced", "complete"):
            raise ArgumentError(f"qr: mode must be 'reduced' or 'complete'; received {mode!r}.")

    @staticmethod
    def samples(s: Any) -> Any:
        yield _well(s), "reduced"
        yield s.normal(2, 5, 3), "complete"


@op("svd(x, *, full_matrices: bool = True) -> u, s, vh")
class SVD:
    """u, s, vh with u diag(s) vh = x; singular values falling."""

    nondifferentiable = True

    @staticmethod
    def meta(x: Any, full_matrices: bool) -> tuple[Spec, Spec, Spec]:
        _matrix("svd", x)
        *lead, m, n = x.shape
        k = min(m, n)
        u, v = (m, n) if full_matrices else (k, k)
        return Spec((*lead, m, u), x.dtype), Spec((*lead, k), x.dtype), Spec((*lead, v, n), x.dtype)

    @staticmethod
    def oracle(x: Any, full_matrices: bool) -> Any:
        return tuple(np.linalg.svd(x, full_matrices))

    @staticmethod
    def samples(s: Any) -> Any:
        yield _well(s), True
        yield s.normal(2, 4, 3), False


@op("svdvals(x) -> s")
class SVDVals(_Square):
    """Singular values, falling."""

    nondifferentiable = True

    @staticmethod
    def meta(x: Any) -> Spec:
        _matrix("svdvals", x)
        return Spec((*x.shape[:-2], min(x.shape[-2:])), x.dtype)

    @staticmethod
    def oracle(x: Any) -> Any:
        return np.linalg.svd(x, compute_uv=False)


@op("pinv(x, rtol) -> y")
class PInv:
    """Moore-Penrose inverse; singular values up to rtol times the largest count as 0."""

    nondifferentiable = True
    scalars = True

    @staticmethod
    def meta(x: Any, rtol: Any) -> Spec:
        _matrix("pinv", x)
        return Spec((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)

    @staticmethod
    def oracle(x: Any, rtol: Any) -> Any:
        return np.linalg.pinv(x, rtol)

    @staticmethod
    def samples(s: Any) -> Any:
        yield _well(s), 1e-6
        yield s.normal(2, 5, 3), 1e-6
