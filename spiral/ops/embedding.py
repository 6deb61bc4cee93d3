"""Rows of a table by index, and rotary position embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import DTypeError, IndexingError, ShapeError
from spiral.op import F, op


@op("embedding(weight, indices) -> y")
class Embedding:
    """weight[indices]: weight (V, C), indices (...) integers, result (..., C)."""

    @staticmethod
    def meta(weight: Any, indices: Any) -> Spec:
        if weight.ndim != 2:
            raise ShapeError(f"embedding: weight must be (V, C); received {tuple(weight.shape)}.")
        if indices.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"embedding: indices must be integers; received {indices.dtype.name}.")
        return Spec((*indices.shape, weight.shape[1]), weight.dtype)

    @staticmethod
    def oracle(weight: Any, indices: Any) -> Any:
        if indices.size and (indices.min() < 0 or indices.max() >= len(weight)):
            bad = int(indices.min()) if indices.min() < 0 else int(indices.max())
            raise IndexingError(f"embedding: index {bad} is not in [0, {len(weight)}).")
        return weight[indices]

    @staticmethod
    def vjp(need: Any, g: Any, weight_spec: Any, indices: Any) -> Any:
        return F.embedding_grad(g, indices, rows=weight_spec.shape[0]), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(11, 5), s.integers(0, 11, 3, 4)
        yield s.normal(3, 17), s.integers(0, 3, 9)
        yield s.normal(3, 4), s.integers(0, 3, 0)


@op("embedding_grad(g, indices, *, rows: int) -> dw")
class EmbeddingGrad:
    """Rows of g summed by index into a (rows, C) table."""

    internal = True

    @staticmethod
    def meta(g: Any, indices: Any, rows: int) -> Spec:
        return Spec((rows, g.shape[-1]), g.dtype)

    @staticmethod
    def oracle(g: Any, indices: Any, rows: int) -> Any:
        out = np.zeros((rows, g.shape[-1]), g.dtype)
        np.add.at(out, indices.reshape(-1), g.reshape(-1, g.shape[-1]))
        return out

    @staticmethod
    def vjp(need: Any, g: Any, indices: Any) -> Any:
        return F.embedding(g, indices), None

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(3, 4, 5), s.integers(0, 11, 3, 4), 11


def _rotate(np_or_f: Any, x: Any, cos: Any, sin: Any, offset: int, interleaved: bool, join: Any) -> Any:
    t, half = x.shape[2], cos.shape[1]
    c, s = cos[offset : offset + t], sin[offset : offset + t]
    if interleaved:
        a, b = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
    else:
        a, b = x[..., :half], x[..., half : 2 * half]
    return join(a * c - b * s, b * c + a * s, x[..., 2 * half :])


@op("rope(x, cos, sin, *, offset: int = 0, interleaved: bool = False, inverse: bool = False) -> y")
class Rope:
    """Rotary position embedding (Su et al. 2021): rotates pairs of x (B, H, T, D) by the angles of row offset + t.

    cos and sin are (positions, D/2). Pairs are the two halves of D (Hugging Face), or interleaved
    (2i, 2i + 1) (the paper, llama.cpp). Columns beyond twice the table's are copied.
    """

    constants = ("cos", "sin")

    @staticmethod
    def meta(x: Any, cos: Any, sin: Any, offset: int, interleaved: bool, inverse: bool) -> Spec:
        if x.ndim != 4:
            raise ShapeError(f"rope: x must be (B, H, T, D); received {tuple(x.shape)}.")
        if tuple(cos.shape) != tuple(sin.shape) or cos.ndim != 2 or 2 * cos.shape[1] > x.shape[3]:
            raise ShapeError(
                f"rope: cos and sin must be (positions, at most {x.shape[3] // 2}); received {tuple(cos.shape)} and "
                f"{tuple(sin.shape)}."
            )
        if offset < 0 or offset + x.shape[2] > cos.shape[0]:
            raise ShapeError(
                f"rope: positions {offset} to {offset + x.shape[2]} need a table of that length; it has {cos.shape[0]}."
            )
        return Spec(tuple(x.shape), x.dtype, order=(0, 2, 1, 3))

    @staticmethod
    def oracle(x: Any, cos: Any, sin: Any, offset: int, interleaved: bool, inverse: bool) -> Any:
        half = cos.shape[1]

        def join(a: Any, b: Any, rest: Any) -> Any:
            y = np.stack([a, b], -1).reshape(*a.shape[:-1], 2 * half) if interleaved else np.concatenate([a, b], -1)
            return np.concatenate([y, rest], -1)

        return _rotate(np, x, cos, -sin if inverse else sin, offset, interleaved, join)

    @staticmethod
    def decompose(x: Any, cos: Any, sin: Any, offset: int, interleaved: bool, inverse: bool) -> Any:
        half = cos.shape[1]

        def join(a: Any, b: Any, rest: Any) -> Any:
            if interleaved:
                y = F.reshape(F.stack([a, b], axis=-1), (*a.shape[:-1], 2 * half))
            else:
                y = F.concat([a, b], axis=-1)
            return F.concat([y, rest], axis=-1)

        return _rotate(F, x, cos, -sin if inverse else sin, offset, interleaved, join)

    @staticmethod
    def vjp(need: Any, g: Any, cos: Any, sin: Any, offset: int, interleaved: bool, inverse: bool) -> Any:
        # a rotation's transpose is the rotation back; the tables are constants
        return F.rope(g, cos, sin, offset=offset, interleaved=interleaved, inverse=not inverse), None, None

    @staticmethod
    def samples(s: Any) -> Any:
        angle = s.normal(9, 4)
        for interleaved in (False, True):
            yield s.normal(2, 3, 5, 8), np.cos(angle), np.sin(angle), 2, interleaved, False
            yield (
                s.normal(2, 5, 3, 10).transpose(0, 2, 1, 3),
                np.cos(angle),
                np.sin(angle),
                0,
                interleaved,
                True,
            )
