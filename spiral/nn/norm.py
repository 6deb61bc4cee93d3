"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence

from spiral import ops
from spiral.autograd import no_grad
from spiral.creation import asarray, ones, zeros
from spiral.errors import ArgumentError, ShapeError
from spiral.nn import functional
from spiral.nn.arguments import NotNegative, Probability, Size, flag, integer, integers, real, tensors
from spiral.nn.module import Module
from spiral.nn.parameter import Parameter
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes (Ba et al. 2016).

    Args:
        normalized_shape: The last axes of x, or the length of the last one.
        eps: Added to the variance.
        elementwise_affine: Whether there are weight and bias.
        bias: Whether there is a bias.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: Size | Sequence[Size],
        eps: NotNegative = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.normalized_shape = integers("LayerNorm", "normalized_shape", normalized_shape, 1)
        self.eps = real("LayerNorm", "eps", eps, 0.0)
        elementwise_affine = flag("LayerNorm", "elementwise_affine", elementwise_affine)
        bias = flag("LayerNorm", "bias", bias)
        self.register_parameter("weight", Parameter(ones(self.normalized_shape)) if elementwise_affine else None)
        with_bias = elementwise_affine and bias
        self.register_parameter("bias", Parameter(zeros(self.normalized_shape)) if with_bias else None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """The norm of x; with a residual the norm of their sum, and the sum, in one pass where there is a kernel."""
        if residual is None:
            return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return functional.add_layer_norm(x, residual, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axes (Zhang & Sennrich 2019)."""

    weight: Parameter | None

    def __init__(
        self, normalized_shape: Size | Sequence[Size], eps: NotNegative = 1e-6, elementwise_affine: bool = True
    ) -> None:
        super().__init__()
        self.normalized_shape = integers("RMSNorm", "normalized_shape", normalized_shape, 1)
        self.eps = real("RMSNorm", "eps", eps, 0.0)
        elementwise_affine = flag("RMSNorm", "elementwise_affine", elementwise_affine)
        self.register_parameter("weight", Parameter(ones(self.normalized_shape)) if elementwise_affine else None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """The norm of x; with a residual the norm of their sum, and the sum, in one pass where there is a kernel."""
        if residual is None:
            return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)
        return functional.add_rms_norm(x, residual, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(Module):
    """Normalises groups of channels of x (N, C, ...) per sample (Wu & He 2018)."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: Size, num_channels: Size, eps: NotNegative = 1e-5, affine: bool = True) -> None:
        super().__init__()
        num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        num_channels = integer("GroupNorm", "num_channels", num_channels, 1)
        affine = flag("GroupNorm", "affine", affine)
        if num_channels % num_groups:
            raise ArgumentError(
                f"GroupNorm: num_groups must divide num_channels={num_channels}; received {num_groups}."
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = real("GroupNorm", "eps", eps, 0.0)
        self.register_parameter("weight", Parameter(ones((num_channels,))) if affine else None)
        self.register_parameter("bias", Parameter(zeros((num_channels,))) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, TensorCore):
            tensors("GroupNorm", x=x)
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(f"GroupNorm: expected x (N, {self.num_channels}, ...); received {x.shape}.")
        return ops.group_norm(x, self.weight, self.bias, groups=self.num_groups, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups} groups, eps={self.eps}"


class _BatchNorm(Module):
    """Normalises each channel over the batch (Ioffe & Szegedy 2015); in evaluation with running statistics.

    Args:
        num_features: Channels, the second axis of x.
        eps: Added to the variance.
        momentum: Share of the batch in the running statistics; None averages all batches equally.
        affine: Whether there are weight and bias.
        track_running_stats: Whether to keep running statistics; without them every mode uses the batch's.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _ndims: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: Size,
        eps: NotNegative = 1e-5,
        momentum: Probability | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_features = num_features = integer(name, "num_features", num_features, 1)
        self.eps = real(name, "eps", eps, 0.0)
        self.momentum = None if momentum is None else real(name, "momentum", momentum, 0.0, 1.0)
        affine = flag(name, "affine", affine)
        track_running_stats = flag(name, "track_running_stats", track_running_stats)
        self.register_parameter("weight", Parameter(ones((num_features,))) if affine else None)
        self.register_parameter("bias", Parameter(zeros((num_features,))) if affine else None)
        self.register_buffer("running_mean", zeros((num_features,)) if track_running_stats else None)
        self.register_buffer("running_var", ones((num_features,)) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", asarray(0) if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, TensorCore):
            tensors(type(self).__name__, x=x)
        if x.ndim not in self._ndims or x.shape[1] != self.num_features:
            axes = " or ".join(str(n) for n in self._ndims)
            raise ShapeError(
                f"{type(self).__name__}: expected x with {axes} axes and {self.num_features} channels on the second; "
                f"received {x.shape}."
            )
        wide = (1, self.num_features, *(1,) * (x.ndim - 2))
        if self.training or self.running_mean is None or self.running_var is None:
            axes_ = (0, *range(2, x.ndim))
            n = x.size // self.num_features
            if self.training and n < 2:
                raise ShapeError(f"{type(self).__name__}: training needs 2 values per channel; received x {x.shape}.")
            mean = ops.mean(x, axis=axes_, keepdims=True)
            centred = x - mean
            var = ops.mean(ops.square(centred), axis=axes_, keepdims=True)
            if self.training:
                self._track(mean, var, n)
        else:
            mean, var = self.running_mean.reshape(wide), self.running_var.reshape(wide)
            centred = x - mean
        scale = ops.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.reshape(wide)
        y: Tensor = centred * scale
        return y if self.bias is None else y + self.bias.reshape(wide)

    def _track(self, mean: Tensor, var: Tensor, n: int) -> None:
        """Moves the running statistics towards the batch's; the variance without bias, as in PyTorch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        with no_grad():
            self.num_batches_tracked.copy_(self.num_batches_tracked + 1)
            share = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            for running, batch in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
                fresh = batch.detach().reshape(running.shape).astype(running.dtype, copy=False)
                running.copy_(running + (fresh - running) * share)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Batch norm of x (N, C) or (N, C, L); arguments as in `BatchNorm2d`."""

    _ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _ndims = (4,)
