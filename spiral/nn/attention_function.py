"""Scaled dot-product attention as a function; `spiral.nn.functional` exports it."""

from __future__ import annotations

import math

from spiral import ops
from spiral.creation import zeros
from spiral.dtype import bool_
from spiral.errors import ShapeError
from spiral.nn.arguments import flag, integer, real, tensors
from spiral.nn.dropout_function import dropout
from spiral.ops.attention import probabilities, repeat_heads
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore

_NAME = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    window: int = 0,
) -> Tensor:
    """softmax(q k^T * scale + mask) v.

    A query that sees nothing, because the mask or the window leaves it no key, gives 0 and its
    gradients are 0.

    Args:
        q: (..., H, T, D); other axes before H, also none, are batches.
        k: (..., Hk, S, D), where Hk divides H: query head h uses key head h // (H / Hk).
        v: (..., Hk, S, Dv).
        attn_mask: Broadcasts to (..., H, T, S). Booleans mark the pairs that may see each other; numbers are added.
        dropout_p: Probability with which an attention weight is dropped; the T x S matrix is stored then.
        is_causal: Whether query t sees keys up to t + S - T only. (PyTorch's stops at t; they agree for S = T.)
        scale: Factor of the scores, by default 1 / sqrt(D).
        window: If positive, how many keys back a query sees.

    Returns:
        (..., H, T, Dv).

    Raises:
        ShapeError: the shapes do not fit.
        DTypeError: the mask holds integers.

    Example:
        >>> import spiral as sp
        >>> q, kv = sp.ones((1, 4, 3, 8)), sp.ones((1, 2, 3, 8))  # 4 query heads share 2 key heads
        >>> scaled_dot_product_attention(q, kv, kv, is_causal=True).shape
        (1, 4, 3, 8)
    """
    if not (isinstance(q, TensorCore) and isinstance(k, TensorCore) and isinstance(v, TensorCore)):
        tensors(_NAME, q=q, k=k, v=v)
    if attn_mask is not None:
        tensors(_NAME, attn_mask=attn_mask)
    if window.__class__ is not int or window < 0:
        window = integer(_NAME, "window", window, 0)
    if is_causal.__class__ is not bool:
        is_causal = flag(_NAME, "is_causal", is_causal)
    if scale is not None:
        scale = real(_NAME, "scale", scale)
    if attn_mask is not None and attn_mask.dtype is bool_:
        attn_mask = ops.where(attn_mask, 0.0, -math.inf).astype(q.dtype, copy=False)
    if q.ndim != 4:
        return _batches_merged(q, k, v, attn_mask, dropout_p, is_causal, scale, window)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if dropout_p != 0.0:
        dropout_p = real(_NAME, "dropout_p", dropout_p, 0.0, 1.0)
        p = probabilities(q, k, attn_mask, scale, is_causal, window)
        return dropout(p, dropout_p) @ repeat_heads(v, q.shape[1])  # type: ignore[no-any-return]
    if v.ndim == 4 and v.shape[3] != q.shape[3]:
        return _widths_made_equal(q, k, v, attn_mask, is_causal, scale, window)
    return ops.attention(q, k, v, attn_mask, scale=scale, causal=is_causal, window=window)


def _batches_merged(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    window: int,
) -> Tensor:
    """For other than four axes: those before the heads as one."""
    if q.ndim < 2 or k.ndim != q.ndim or v.ndim != q.ndim:
        raise ShapeError(
            f"scaled_dot_product_attention: q, k and v must have the same number of axes, at least 2; received "
            f"{q.shape}, {k.shape} and {v.shape}."
        )
    lead = q.shape[:-3]
    if k.shape[:-3] != lead or v.shape[:-3] != lead:
        raise ShapeError(
            f"scaled_dot_product_attention: q, k and v must have the same batch axes; received {lead}, "
            f"{k.shape[:-3]} and {v.shape[:-3]}."
        )
    count = math.prod(lead)

    def four(x: Tensor) -> Tensor:
        return x.reshape(count, x.shape[-3] if x.ndim > 2 else 1, *x.shape[-2:])

    if mask is not None and mask.ndim > 3:
        mask = four(ops.broadcast_to(mask, (*lead, *mask.shape[-3:])))
    y = scaled_dot_product_attention(four(q), four(k), four(v), mask, dropout_p, is_causal, scale, window)
    return y.reshape(*q.shape[:-1], v.shape[-1])


def _widths_made_equal(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float, window: int
) -> Tensor:
    """For Dv other than D: zeros appended to the narrower change neither scores nor values."""
    width = max(q.shape[3], v.shape[3])

    def wide(x: Tensor) -> Tensor:
        missing = width - x.shape[3]
        if not missing:
            return x
        return ops.concat([x, zeros((*x.shape[:3], missing), dtype=x.dtype, device=x.device)], axis=-1)

    y = ops.attention(wide(q), wide(k), wide(v), mask, scale=scale, causal=is_causal, window=window)
    return y[..., : v.shape[3]]
