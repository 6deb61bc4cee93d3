"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.errors import ArgumentError, ShapeError
from spiral.op import F, op
from spiral.ops.shapes import like, need_float, statistics_dtype


def _allowed(t: int, s: int, causal: bool, window: int) -> Any:
    """(T, S) bool: which keys a query sees. Query t stands at position t + S - T."""
    q, k = np.arange(t)[:, None] + (s - t), np.arange(s)[None, :]
    ok = np.ones((t, s), bool)
    if causal:
        ok &= k <= q
    if window:
        ok &= k > q - window
    return ok


def _repeat(x: Any, groups: int) -> Any:
    b, h, s, d = x.shape
    return np.broadcast_to(x[:, :, None], (b, h, groups, s, d)).reshape(b, h * groups, s, d)


def repeat_heads(x: Any, n_head: int) -> Any:
    """x (B, Hk, S, D) with every head repeated, so that there are n_head; x itself where there are already."""
    b, hk, n, d = x.shape
    if hk == n_head:
        return x
    wide = F.broadcast_to(F.expand_dims(x, axis=2), shape=(b, hk, n_head // hk, n, d))
    return F.reshape(wide, (b, n_head, n, d))


def probabilities(q: Any, k: Any, mask: Any, scale: float, causal: bool, window: int) -> Any:
    """softmax(q k^T * scale + mask) (B, H, T, S), in ops; rows that see nothing are 0."""
    s = F.matmul(q, F.permute_dims(repeat_heads(k, q.shape[1]), (0, 1, 3, 2))) * scale
    if mask is not None:
        s = s + mask
    s = F.where(F.constant(_allowed(q.shape[2], k.shape[2], causal, window), q), s, -math.inf)
    some = F.max(s.detach(), axis=-1, keepdims=True) > -math.inf
    return F.where(some, F.softmax(F.where(some, s, 0.0), axis=-1), 0.0)


@op("attention(q, k, v, mask?, *, scale: float, causal: bool = False, window: int = 0) -> y, lse:hidden")
class Attention:
    """softmax(q k^T * scale + mask) v for q (B, H, T, D), k and v (B, Hk, S, D).

    H is a multiple of Hk: query head h uses key head h // (H / Hk) (Ainslie et al. 2023). With
    ``causal`` query t sees keys up to t + S - T; ``window`` > 0 limits it to the last ``window`` of
    them. A row that sees nothing gives 0. The mask is additive and broadcasts to (B, H, T, S).
    Tiled over queries without storing the T x S matrix (Dao 2023).
    """

    @staticmethod
    def meta(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, window: int) -> tuple[Spec, Spec]:
        need_float("attention", q=q, k=k, v=v, mask=mask)
        if q.ndim != 4 or k.ndim != 4 or tuple(k.shape) != tuple(v.shape):
            raise ShapeError(
                f"attention: expected q (B, H, T, D) and k, v (B, Hk, S, D); received {tuple(q.shape)}, "
                f"{tuple(k.shape)} and {tuple(v.shape)}."
            )
        if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
            raise ShapeError(
                f"attention: k must have q's batch and head size, and a number of heads that divides q's; received "
                f"q {tuple(q.shape)}, k {tuple(k.shape)}."
            )
        if window < 0:
            raise ArgumentError(f"attention: window must be 0 (none) or positive; received {window}.")
        b, h, t, d = q.shape
        if mask is not None:
            full = (b, h, t, k.shape[2])
            short = (1,) * (4 - mask.ndim) + tuple(mask.shape)
            if mask.ndim > 4 or any(m not in (1, f) for m, f in zip(short, full, strict=True)):
                raise ShapeError(f"attention: mask must broadcast to {full}; received {tuple(mask.shape)}.")
        return Spec((b, h, t, d), q.dtype, order=(0, 2, 1, 3)), Spec((b, h, t), statistics_dtype(q.dtype))

    @staticmethod
    def oracle(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, window: int) -> Any:
        groups = q.shape[1] // k.shape[1]
        s = q @ np.swapaxes(_repeat(k, groups), -1, -2) * scale
        if mask is not None:
            s = s + mask
        s = np.where(_allowed(q.shape[2], k.shape[2], causal, window), s, -np.inf)
        top = s.max(-1, keepdims=True, initial=-np.inf)
        with np.errstate(invalid="ignore", divide="ignore"):
            e = np.exp(s - np.where(np.isinf(top) & (top < 0), 0.0, top))
            total = e.sum(-1, keepdims=True)
            p = np.where(total == 0, 0.0, e / total).astype(q.dtype)
            lse = np.log(total)[..., 0] + np.where(np.isinf(top) & (top < 0), 0.0, top)[..., 0]
        return p @ _repeat(v, groups), lse.astype(q.dtype)

    @staticmethod
    def decompose(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, window: int) -> Any:
        return F.matmul(probabilities(q, k, mask, scale, causal, window), repeat_heads(v, q.shape[1]))

    @staticmethod
    def vjp(
        need: Any,
        g: Any,
        q: Any,
        k: Any,
        v: Any,
        mask: Any,
        y: Any,
        lse: Any,
        scale: float,
        causal: bool,
        window: int,
    ) -> Any:
        dq, dk, dv = F.attention_grad(g, q, k, v, y, lse, mask, scale=scale, causal=causal, window=window)
        dmask = None
        if need[3]:
            dmask = _mask_gradient(g, q, k, v, y, lse, mask, scale, causal, window)
        return dq, dk, dv, dmask

    @staticmethod
    def samples(s: Any) -> Any:
        q, k, v = s.normal(2, 4, 5, 8), s.normal(2, 2, 7, 8), s.normal(2, 2, 7, 8)
        yield q, k, v, None, 0.3, False, 0
        yield q, k, v, None, 0.3, True, 0
        yield q, k, v, None, 0.3, True, 3
        yield q, k, v, s.normal(1, 4, 5, 7), 0.3, False, 0
        holes = s.normal(1, 1, 5, 7)
        holes[..., 1, :] = -np.inf  # a row that sees nothing
        holes[..., 2, 3:] = -np.inf
        yield q, k, v, holes, 0.3, False, 0
        x = s.normal(2, 65, 3, 2, 16)
        yield *(x[:, :, i].transpose(0, 2, 1, 3) for i in range(3)), None, 0.25, True, 0


def _mask_gradient(
    g: Any, q: Any, k: Any, v: Any, y: Any, lse: Any, mask: Any, scale: float, causal: bool, window: int
) -> Any:
    """Gradient of an additive mask: p * (g v^T - sum(g y)); needs the T x S matrix once."""
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    s = F.matmul(q, F.permute_dims(k, (0, 1, 3, 2))) * scale + mask
    lse = F.expand_dims(lse, axis=-1)
    ok = F.constant(_allowed(q.shape[2], k.shape[2], causal, window), q)
    # a row that sees nothing has lse = -inf, and -inf - -inf is NaN
    p = F.where(F.bitwise_and(ok, lse > -math.inf), F.exp(s - lse), 0.0)
    delta = F.sum(g * y, axis=-1, keepdims=True)
    return like(p * (F.matmul(g, F.permute_dims(v, (0, 1, 3, 2))) - delta), mask.spec)


@op("attention_grad(g, q, k, v, y, lse, mask?, *, scale: float, causal: bool = False, window: int = 0) -> dq, dk, dv")
class AttentionGrad:
    """Gradients of attention with respect to q, k and v (FlashAttention-2's backward, Dao 2023, algorithm 2)."""

    internal = True
    nondifferentiable = True  # second derivatives go through attention's decomposition

    @staticmethod
    def meta(g: Any, q: Any, k: Any, v: Any, *rest: Any) -> tuple[Spec, Spec, Spec]:
        order = (0, 2, 1, 3)
        kv = Spec(tuple(k.shape), k.dtype, order=order)
        return Spec(tuple(q.shape), q.dtype, order=order), kv, kv

    @staticmethod
    def oracle(
        g: Any, q: Any, k: Any, v: Any, y: Any, lse: Any, mask: Any, scale: float, causal: bool, window: int
    ) -> Any:
        b, h, t, d = q.shape
        hk, n = k.shape[1], k.shape[2]
        kr, vr = _repeat(k, h // hk), _repeat(v, h // hk)
        s = q @ np.swapaxes(kr, -1, -2) * scale
        s = s if mask is None else s + mask
        with np.errstate(invalid="ignore"):
            p = np.where(_allowed(t, n, causal, window), np.exp(s - lse[..., None]), 0.0)
        p = np.where(np.isneginf(lse)[..., None], 0.0, p).astype(q.dtype)
        ds = p * (g @ np.swapaxes(vr, -1, -2) - (g * y).sum(-1, keepdims=True)) * scale

        def fold(x: Any) -> Any:
            return x.reshape(b, hk, h // hk, n, d).sum(2)

        return ds @ kr, fold(np.swapaxes(ds, -1, -2) @ q), fold(np.swapaxes(p, -1, -2) @ g)

    @staticmethod
    def samples(s: Any) -> Any:
        for causal, window in ((False, 0), (True, 0), (True, 3)):
            q, k, v = s.normal(2, 4, 5, 8), s.normal(2, 2, 7, 8), s.normal(2, 2, 7, 8)
            y, lse = Attention.oracle(q, k, v, None, 0.3, causal, window)
            yield s.normal(2, 4, 5, 8), q, k, v, y, lse.astype(np.float32), None, 0.3, causal, window
