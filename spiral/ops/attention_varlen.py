"""Attention of sequences of different lengths that are packed one behind the other, without padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.backend import Spec, spans
from spiral.errors import ArgumentError, DTypeError, ShapeError
from spiral.op import F, op
from spiral.ops.attention import Attention, AttentionGrad
from spiral.ops.shapes import need_float, statistics_dtype
from spiral.placement import host_copy


def _check(q: Any, k: Any, v: Any, starts: Any, window: int) -> None:
    if q.ndim != 3 or k.ndim != 3 or tuple(k.shape) != tuple(v.shape):
        raise ShapeError(
            f"attention_varlen: expected q (T, H, D) and k, v (T, Hk, D); received {tuple(q.shape)}, "
            f"{tuple(k.shape)} and {tuple(v.shape)}."
        )
    if q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2] or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ShapeError(
            "attention_varlen: k must have q's tokens and head size, and a number of heads that divides q's; "
            f"received q {tuple(q.shape)}, k {tuple(k.shape)}."
        )
    if starts.ndim != 1 or starts.shape[0] == 0:
        raise ShapeError(
            "attention_varlen: starts must be (B + 1,), the first token of each sequence and the end of the last; "
            f"received {tuple(starts.shape)}."
        )
    if window < 0:
        raise ArgumentError(f"attention_varlen: window must be 0 (none) or positive; received {window}.")


def _batch(x: Any, start: int, end: int) -> Any:
    """Tokens of x (T, H, D) as a batch of one, (1, H, L, D): an array's view."""
    return x[start:end].swapaxes(0, 1)[None]


@op("attention_varlen(q, k, v, starts, *, scale: float, causal: bool = False, window: int = 0) -> y, lse:hidden")
class AttentionVarlen:
    """Attention within each of B packed sequences: q (T, H, D), k and v (T, Hk, D), starts (B + 1).

    Sequence b is tokens starts[b] to starts[b + 1] (which may be none); tokens outside of all sequences give 0. Heads,
    ``scale``, ``causal`` and ``window`` are as in `attention`, within the sequence. The hidden lse is (H, T), -inf
    outside. Devices other than the CPU do not check that starts rise within [0, T].
    """

    constants = ("starts",)

    @staticmethod
    def meta(q: Any, k: Any, v: Any, starts: Any, scale: float, causal: bool, window: int) -> tuple[Spec, Spec]:
        need_float("attention_varlen", q=q, k=k, v=v)
        if starts.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"attention_varlen: starts must be integers; received {starts.dtype.name}.")
        _check(q, k, v, starts, window)
        return Spec(tuple(q.shape), q.dtype), Spec((q.shape[1], q.shape[0]), statistics_dtype(q.dtype))

    @staticmethod
    def oracle(q: Any, k: Any, v: Any, starts: Any, scale: float, causal: bool, window: int) -> Any:
        _check(q, k, v, starts, window)  # slices of other shapes would be taken as they are
        y, lse = np.zeros_like(q), np.full((q.shape[1], q.shape[0]), -np.inf, q.dtype)
        for _, start, end in spans("attention_varlen", starts.tolist(), q.shape[0]):
            qi, ki, vi = (_batch(x, start, end) for x in (q, k, v))
            yi, li = Attention.oracle(qi, ki, vi, None, scale, causal, window)
            y[start:end], lse[:, start:end] = yi[0].swapaxes(0, 1), li[0]
        return y, lse

    @staticmethod
    def decompose(q: Any, k: Any, v: Any, starts: Any, scale: float, causal: bool, window: int) -> Any:
        # sequence by sequence: one attention with a mask would store T x T numbers and compute them all
        def one(x: Any, start: int, end: int) -> Any:
            return F.expand_dims(F.permute_dims(F.getitem(x, index=(slice(start, end),)), (1, 0, 2)), axis=0)

        _check(q, k, v, starts, window)
        parts, last = [], 0
        for _, start, end in spans("attention_varlen", host_copy(starts).tolist(), q.shape[0]):
            if last < start:
                parts.append(F.zeros_of(q, (start - last, *q.shape[1:])))
            qi, ki, vi = (one(x, start, end) for x in (q, k, v))
            y = F.attention(qi, ki, vi, None, scale=scale, causal=causal, window=window)
            parts.append(F.permute_dims(F.reshape(y, y.shape[1:]), (1, 0, 2)))
            last = end
        if last < q.shape[0] or not parts:
            parts.append(F.zeros_of(q, (q.shape[0] - last, *q.shape[1:])))
        return F.concat(parts, axis=0) if len(parts) > 1 else parts[0]

    @staticmethod
    def vjp(
        need: Any,
        g: Any,
        q: Any,
        k: Any,
        v: Any,
        starts: Any,
        y: Any,
        lse: Any,
        scale: float,
        causal: bool,
        window: int,
    ) -> Any:
        dq, dk, dv = F.attention_varlen_grad(g, q, k, v, starts, y, lse, scale=scale, causal=causal, window=window)
        return dq, dk, dv, None

    @staticmethod
    def samples(s: Any) -> Any:
        q, k, v = s.normal(12, 4, 8), s.normal(12, 2, 8), s.normal(12, 2, 8)
        yield q, k, v, np.array([0, 5, 12]), 0.3, False, 0
        yield q, k, v, np.array([0, 1, 1, 8, 12]), 0.3, True, 0  # a single token, and a sequence of none
        yield q, k, v, np.array([2, 6, 11]), 0.3, True, 3  # tokens before the first and after the last
        yield s.normal(70, 2, 16), s.normal(70, 2, 16), s.normal(70, 2, 16), np.array([0, 65, 70]), 0.25, True, 0
        yield *(s.normal(9, 3, 2, 5)[:, i] for i in range(3)), np.array([0, 4, 9]), 0.5, False, 2
        yield q, k, v, np.array([0]), 0.3, False, 0
        yield s.normal(0, 2, 4), s.normal(0, 2, 4), s.normal(0, 2, 4), np.array([0, 0]), 0.3, True, 0


@op(
    "attention_varlen_grad(g, q, k, v, starts, y, lse, *, scale: float, causal: bool = False, window: int = 0) "
    "-> dq, dk, dv"
)
class AttentionVarlenGrad:
    """Gradients of attention_varlen with respect to q, k and v; 0 outside of all sequences."""

    internal = True
    nondifferentiable = True  # second derivatives go through attention_varlen's decomposition

    @staticmethod
    def meta(g: Any, q: Any, k: Any, v: Any, *rest: Any) -> tuple[Spec, Spec, Spec]:
        kv = Spec(tuple(k.shape), k.dtype)
        return Spec(tuple(q.shape), q.dtype), kv, kv

    @staticmethod
    def oracle(
        g: Any, q: Any, k: Any, v: Any, starts: Any, y: Any, lse: Any, scale: float, causal: bool, window: int
    ) -> Any:
        found = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for _, start, end in spans("attention_varlen", starts.tolist(), q.shape[0]):
            gi, qi, ki, vi, yi = (_batch(x, start, end) for x in (g, q, k, v, y))
            each = AttentionGrad.oracle(gi, qi, ki, vi, yi, lse[None, :, start:end], None, scale, causal, window)
            for whole, part in zip(found, each, strict=True):
                whole[start:end] = part[0].swapaxes(0, 1)
        return found

    @staticmethod
    def samples(s: Any) -> Any:
        for starts, causal, window in (([0, 5, 12], False, 0), ([0, 1, 1, 8, 12], True, 0), ([2, 6, 11], True, 3)):
            q, k, v = s.normal(12, 4, 8), s.normal(12, 2, 8), s.normal(12, 2, 8)
            y, lse = AttentionVarlen.oracle(q, k, v, np.array(starts), 0.3, causal, window)
            lse = lse.astype(np.float32)
            yield s.normal(12, 4, 8), q, k, v, np.array(starts), y, lse, 0.3, causal, window
