"""Layers as functions, under the names that PyTorch's users know; axes are called ``axis``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spiral import ops
from spiral.errors import IndexingError, ShapeError, received
from spiral.nn.activation_functions import elu, leaky_relu, softplus
from spiral.nn.arguments import integer, integers, real, tensors
from spiral.nn.attention_function import scaled_dot_product_attention
from spiral.nn.class_losses import cross_entropy, linear_cross_entropy, nll_loss
from spiral.nn.dropout_function import dropout
from spiral.nn.loss_functions import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from spiral.nn.pool_functions import (
    Pair,
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
    pair,
)
from spiral.ops import gelu, linear, log_softmax, relu, sigmoid, silu, softmax, tanh
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


def embedding(indices: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """weight[indices]; row ``padding_idx`` gets no gradient.

    Args:
        indices: (...) integers.
        weight: (V, C).
    """
    if padding_idx is not None and padding_idx.__class__ is not int:
        padding_idx = integer("embedding", "padding_idx", padding_idx)
    try:
        rows = ops.embedding(weight, indices)
    except IndexError as error:  # a kernel in C knows no errors of ours
        raise IndexingError(str(error)) from None
    if padding_idx is None or not rows.requires_grad:
        return rows
    return ops.where(ops.expand_dims(indices == padding_idx, axis=-1), rows.detach(), rows)


def _normalized(name: str, x: Tensor, shape: int | Sequence[int], **affine: Tensor | None) -> int:
    if not isinstance(x, TensorCore):
        tensors(name, x=x)
    if shape.__class__ is not tuple:  # a layer's own is one, and compared below
        shape = integers(name, "normalized_shape", shape, 1)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"{name}: normalized_shape {received(shape)} must be the last axes of x; received x {x.shape}."
        )
    for what, tensor in affine.items():
        if tensor is not None and not isinstance(tensor, TensorCore):
            tensors(name, **{what: tensor})
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
    if eps.__class__ is not float or not 0.0 <= eps < math.inf:
        eps = real("layer_norm", "eps", eps, 0.0)
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
    if eps.__class__ is not float or not 0.0 <= eps < math.inf:
        eps = real("rms_norm", "eps", eps, 0.0)
    n = _normalized("rms_norm", x, normalized_shape, weight=weight)
    if n == 1:
        return ops.rms_norm(x, weight, eps=eps)
    y = ops.rms_norm(x.reshape(*x.shape[:-n], math.prod(x.shape[-n:])), eps=eps).reshape(x.shape)
    return y if weight is None else y * weight


def add_layer_norm(
    x: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Layer norm of x + residual, and that sum: what stands between the layers of a transformer, in one pass."""
    n = _normalized("add_layer_norm", x, normalized_shape, weight=weight, bias=bias)
    if n != 1:
        summed = x + residual
        return layer_norm(summed, normalized_shape, weight, bias, eps), summed
    if eps.__class__ is not float or not 0.0 <= eps < math.inf:
        eps = real("add_layer_norm", "eps", eps, 0.0)
    return ops.add_layer_norm(x, residual, weight, bias, eps=eps)


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """RMS norm of x + residual, and that sum: what stands between the layers of a transformer, in one pass."""
    n = _normalized("add_rms_norm", x, normalized_shape, weight=weight)
    if n != 1:
        summed = x + residual
        return rms_norm(summed, normalized_shape, weight, eps), summed
    if eps.__class__ is not float or not 0.0 <= eps < math.inf:
        eps = real("add_rms_norm", "eps", eps, 0.0)
    return ops.add_rms_norm(x, residual, weight, eps=eps)


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for x (N, C, ...), per sample and group of channels (Wu & He 2018).

    Args:
        x: (N, C, ...).
        num_groups: How many groups of neighbouring channels there are; it divides C.
        weight: (C,).
        bias: (C,).
        eps: Added to the variance.
    """
    tensors("group_norm", x=x)
    num_groups = integer("group_norm", "num_groups", num_groups, 1)
    return ops.group_norm(x, weight, bias, groups=num_groups, eps=real("group_norm", "eps", eps, 0.0))


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
        stride=pair("conv2d: stride", stride, 1),
        padding=pair("conv2d: padding", padding),
        dilation=pair("conv2d: dilation", dilation, 1),
        groups=groups if groups.__class__ is int else integer("conv2d", "groups", groups, 1),
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
    if not (isinstance(x, TensorCore) and isinstance(weight, TensorCore)):
        tensors("conv1d", x=x, weight=weight)
    if x.ndim != 3 or weight.ndim != 3:
        raise ShapeError(
            f"conv1d: expected x (N, C, L) and weight (O, C / groups, k); received {x.shape} and {weight.shape}."
        )
    y = ops.conv2d(
        ops.expand_dims(x, axis=2),
        ops.expand_dims(weight, axis=2),
        bias,
        stride=(1, integer("conv1d", "stride", stride, 1)),
        padding=(0, integer("conv1d", "padding", padding, 0)),
        dilation=(1, integer("conv1d", "dilation", dilation, 1)),
        groups=integer("conv1d", "groups", groups, 1),
    )
    return y.reshape(y.shape[0], y.shape[1], y.shape[3])


__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "add_layer_norm",
    "add_rms_norm",
    "avg_pool1d",
    "avg_pool2d",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pair",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]
