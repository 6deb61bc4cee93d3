"""Layers as functions, under the names that PyTorch's users know; axes are called ``axis``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spiral import ops, random
from spiral.dtype import bool_
from spiral.errors import ArgumentError, ShapeError
from spiral.nn.loss_functions import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
)
from spiral.ops import gelu, linear, log_softmax, relu, sigmoid, silu, softmax, tanh
from spiral.tensor import Tensor

Pair = int | tuple[int, int]


def pair(name: str, value: Pair) -> tuple[int, int]:
    """A length for each of two axes, from one or two integers."""
    if isinstance(value, int):
        return value, value
    if len(value) != 2:
        raise ArgumentError(f"{name}: expected an integer or two; received {value!r}.")
    return int(value[0]), int(value[1])


def embedding(indices: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """weight[indices]; row ``padding_idx`` gets no gradient.

    Args:
        indices: (...) integers.
        weight: (V, C).
    """
    rows = ops.embedding(weight, indices)
    if padding_idx is None or not rows.requires_grad:
        return rows
    return ops.where(ops.expand_dims(indices == padding_idx, axis=-1), rows.detach(), rows)


def _normalized(name: str, x: Tensor, shape: int | Sequence[int], **affine: Tensor | None) -> int:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name}: normalized_shape {shape} must be the last axes of x; received x {x.shape}.")
    for what, tensor in affine.items():
        if tensor is not None and tensor.shape != shape:
            raise ShapeError(f"{name}: {what} must be {shape}, the normalized shape; received {tensor.shape}.")
    return len(shape)


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes (Ba et al. 2016)."""
    n = _normalized("layer_norm", x, normalized_shape, weight=weight, bias=bias)
    if n == 1 and (bias is None or weight is not None):
        return ops.layer_norm(x, weight, bias, eps=eps)
    y = ops.layer_norm(x.reshape(*x.shape[:-n], math.prod(x.shape[-n:])), eps=eps).reshape(x.shape)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(
    x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float = 1e-6
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes (Zhang & Sennrich 2019)."""
    n = _normalized("rms_norm", x, normalized_shape, weight=weight)
    if n == 1:
        return ops.rms_norm(x, weight, eps=eps)
    y = ops.rms_norm(x.reshape(*x.shape[:-n], math.prod(x.shape[-n:])), eps=eps).reshape(x.shape)
    return y if weight is None else y * weight


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Zeroes elements with probability p and scales the rest, when training."""
    if not training or p == 0.0:
        return x
    seed, stream = random.next_stream()
    return ops.dropout(x, p=p, seed=seed, stream=stream)


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

    Args:
        q: (B, H, T, D).
        k: (B, Hk, S, D), where Hk divides H: query head h uses key head h // (H / Hk).
        v: (B, Hk, S, D).
        attn_mask: Broadcasts to (B, H, T, S). Booleans mark the pairs that may see each other; numbers are added.
        dropout_p: Must be 0.
        is_causal: Whether query t sees keys up to t + S - T only. (PyTorch's stops at t; they agree for S = T.)
        scale: Factor of the scores, by default 1 / sqrt(D).
        window: If positive, how many keys back a query sees.

    Returns:
        (B, H, T, D).

    Raises:
        ArgumentError: ``dropout_p`` is not 0.
    """
    if dropout_p != 0.0:
        raise ArgumentError(
            f"scaled_dot_product_attention: dropout_p must be 0; received {dropout_p}. Apply dropout to the output."
        )
    if attn_mask is not None and attn_mask.dtype is bool_:
        attn_mask = ops.where(attn_mask, 0.0, -math.inf).astype(q.dtype, copy=False)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    return ops.attention(q, k, v, attn_mask, scale=scale, causal=is_causal, window=window)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of x (N, C, H, W) with weight (O, C / groups, kh, kw)."""
    return ops.conv2d(
        x,
        weight,
        bias,
        stride=pair("conv2d: stride", stride),
        padding=pair("conv2d: padding", padding),
        dilation=pair("conv2d: dilation", dilation),
        groups=groups,
    )


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of x (N, C, L) with weight (O, C / groups, k)."""
    if x.ndim != 3 or weight.ndim != 3:
        raise ShapeError(
            f"conv1d: expected x (N, C, L) and weight (O, C / groups, k); received {x.shape} and {weight.shape}."
        )
    y = ops.conv2d(
        ops.expand_dims(x, axis=2),
        ops.expand_dims(weight, axis=2),
        bias,
        stride=(1, stride),
        padding=(0, padding),
        dilation=(1, dilation),
        groups=groups,
    )
    return y.reshape(y.shape[0], y.shape[1], y.shape[3])


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Largest value of each window of x (N, C, H, W); the stride is the window's size by default."""
    kernel = pair("max_pool2d: kernel_size", kernel_size)
    stride = kernel if stride is None else pair("max_pool2d: stride", stride)
    return ops.max_pool2d(x, kernel=kernel, stride=stride, padding=pair("max_pool2d: padding", padding))


def avg_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True
) -> Tensor:
    """Mean of each window of x (N, C, H, W); the stride is the window's size by default."""
    kernel = pair("avg_pool2d: kernel_size", kernel_size)
    return ops.avg_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d: stride", stride),
        padding=pair("avg_pool2d: padding", padding),
        count_include_pad=count_include_pad,
    )


__all__ = [
    "avg_pool2d",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pair",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]
