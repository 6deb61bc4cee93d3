"""Typed wrappers of the declared ops. Written by `python -m spiral.op --write`; do not edit."""

# ruff: noqa: A001, A002, E501
from __future__ import annotations

from typing import Any

from spiral import dispatch  # noqa: F401 (makes the calls)
from spiral.dtype import DType
from spiral.op import OPS
from spiral.tensor import Tensor

Number = bool | int | float
Shape = tuple[int, ...]
Axes = int | tuple[int, ...] | None
Pair = tuple[int, int]
Index = Any
Sections = int
Shift = int | tuple[int, ...]

__all__ = [
    'abs',
    'acos',
    'acosh',
    'adafactor',
    'adamw',
    'add',
    'add_layer_norm',
    'add_layer_norm_grad',
    'add_rms_norm',
    'add_rms_norm_grad',
    'all',
    'all_finite',
    'any',
    'argmax',
    'argmin',
    'argsort',
    'asin',
    'asinh',
    'astype',
    'atan',
    'atan2',
    'atanh',
    'attention',
    'attention_grad',
    'attention_varlen',
    'attention_varlen_grad',
    'avg_pool2d',
    'avg_pool2d_grad',
    'bitwise_and',
    'bitwise_invert',
    'bitwise_left_shift',
    'bitwise_or',
    'bitwise_right_shift',
    'bitwise_xor',
    'broadcast_to',
    'ceil',
    'cholesky',
    'concat',
    'conv2d',
    'conv2d_grad',
    'copy',
    'copy_',
    'copysign',
    'cos',
    'cosh',
    'cross_entropy',
    'cross_entropy_grad',
    'cumulative_prod',
    'cumulative_sum',
    'det',
    'divide',
    'dropout',
    'eigh',
    'ema_',
    'embedding',
    'embedding_grad',
    'equal',
    'erf',
    'exp',
    'expm1',
    'fill_',
    'flip',
    'floor',
    'floor_divide',
    'geglu',
    'geglu_grad',
    'gelu',
    'gelu_grad',
    'getitem',
    'grad_norm',
    'greater',
    'greater_equal',
    'group_norm',
    'group_norm_grad',
    'grouped_matmul',
    'grouped_matmul_grad',
    'hypot',
    'identity',
    'inv',
    'isfinite',
    'isinf',
    'isnan',
    'layer_norm',
    'layer_norm_grad',
    'less',
    'less_equal',
    'linear',
    'linear_activation',
    'linear_cross_entropy',
    'linear_cross_entropy_grad',
    'linear_grad',
    'lion',
    'log',
    'log10',
    'log1p',
    'log2',
    'log_softmax',
    'log_softmax_grad',
    'logaddexp',
    'logical_and',
    'logical_not',
    'logical_or',
    'logical_xor',
    'matmul',
    'max',
    'max_pool2d',
    'max_pool2d_grad',
    'maximum',
    'mean',
    'min',
    'minimum',
    'multiply',
    'negative',
    'nextafter',
    'nonzero',
    'not_equal',
    'permute_dims',
    'pinv',
    'positive',
    'pow',
    'prod',
    'qr',
    'reciprocal',
    'relu',
    'relu_grad',
    'remainder',
    'reshape',
    'rms_norm',
    'rms_norm_grad',
    'roll',
    'rope',
    'round',
    'rsqrt',
    'scale_',
    'scatter_index',
    'searchsorted',
    'set_index',
    'sgd',
    'sigmoid',
    'sign',
    'signbit',
    'silu',
    'silu_grad',
    'sin',
    'sinh',
    'slogdet',
    'softmax',
    'softmax_grad',
    'solve',
    'sort',
    'split',
    'sqrt',
    'square',
    'subtract',
    'sum',
    'svd',
    'svdvals',
    'swiglu',
    'swiglu_grad',
    'take',
    'take_along_axis',
    'take_along_axis_grad',
    'take_grad',
    'tan',
    'tanh',
    'top_k',
    'transfer',
    'tril',
    'triu',
    'trunc',
    'unique',
    'unscale_',
    'var',
    'where',
]

_abs = OPS['abs'].call


def abs(x: Tensor, /) -> Tensor:
    """Magnitude; the gradient at 0 is 0."""
    return _abs(x)  # type: ignore[no-any-return]


_acos = OPS['acos'].call


def acos(x: Tensor, /) -> Tensor:
    """Inverse cosine, in [0, pi]."""
    return _acos(x)  # type: ignore[no-any-return]


_acosh = OPS['acosh'].call


def acosh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic cosine, at least 0."""
    return _acosh(x)  # type: ignore[no-any-return]


_adafactor = OPS['adafactor'].call


def adafactor(params: list[Any], grads: list[Any], rows: list[Any], columns: list[Any], variances: list[Any], /, *, lr: float, beta2_decay: float, eps1: float, eps2: float, d: float, weight_decay: float, step: int) -> None:
    """One step of Adafactor (Shazeer & Stern 2018, algorithms 4 and 5, in PyTorch's form).
    
    Of each parameter with at least two axes rows (..., R, 1) and columns (..., 1, C) are kept, and variances is None;
    of others it is the other way round. The decay of the averages is 1 - step^beta2_decay, the relative step
    min(lr, 1 / sqrt(step)), eps1 the smallest second moment, eps2 the smallest size of a parameter, d the largest root
    mean square of an update.
    """
    return _adafactor(params, grads, rows, columns, variances, lr, beta2_decay, eps1, eps2, d, weight_decay, step)  # type: ignore[no-any-return]


_adamw = OPS['adamw'].call


def adamw(params: list[Any], grads: list[Any], m: list[Any], v: list[Any], /, *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int, decoupled: bool = True) -> None:
    """One step of AdamW (Loshchilov & Hutter 2019), or of Adam with L2 (Kingma & Ba 2015) if not decoupled."""
    return _adamw(params, grads, m, v, lr, beta1, beta2, eps, weight_decay, step, decoupled)  # type: ignore[no-any-return]


_add = OPS['add'].call


def add(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Sum of two operands."""
    return _add(x, y)  # type: ignore[no-any-return]


_add_layer_norm = OPS['add_layer_norm'].call


def add_layer_norm(x: Tensor, residual: Tensor, /, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """summed = x + residual and y = layer_norm(summed, weight, bias), over the last axis."""
    return _add_layer_norm(x, residual, weight, bias, eps)  # type: ignore[no-any-return]


_add_layer_norm_grad = OPS['add_layer_norm_grad'].call


def add_layer_norm_grad(g: Tensor, /, gsummed: Tensor | None, summed: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of add_layer_norm: that of x, which is also the residual's, and those of weight and bias."""
    return _add_layer_norm_grad(g, gsummed, summed, weight, mean, rstd)  # type: ignore[no-any-return]


_add_rms_norm = OPS['add_rms_norm'].call


def add_rms_norm(x: Tensor, residual: Tensor, /, weight: Tensor | None = None, *, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """summed = x + residual and y = rms_norm(summed, weight), over the last axis."""
    return _add_rms_norm(x, residual, weight, eps)  # type: ignore[no-any-return]


_add_rms_norm_grad = OPS['add_rms_norm_grad'].call


def add_rms_norm_grad(g: Tensor, /, gsummed: Tensor | None, summed: Tensor, weight: Tensor | None, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of add_rms_norm: that of x, which is also the residual's, and that of weight."""
    return _add_rms_norm_grad(g, gsummed, summed, weight, rstd)  # type: ignore[no-any-return]


_all = OPS['all'].call


def all(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return _all(x, axis, keepdims)  # type: ignore[no-any-return]


_all_finite = OPS['all_finite'].call


def all_finite(tensors: list[Any], /) -> Tensor:
    """Whether no element of any tensor is infinite or NaN, a bool scalar; None in the list does not count."""
    return _all_finite(tensors)  # type: ignore[no-any-return]


_any = OPS['any'].call


def any(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element is nonzero."""
    return _any(x, axis, keepdims)  # type: ignore[no-any-return]


_argmax = OPS['argmax'].call


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position of the first largest element."""
    return _argmax(x, axis, keepdims)  # type: ignore[no-any-return]


_argmin = OPS['argmin'].call


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position of the first smallest element."""
    return _argmin(x, axis, keepdims)  # type: ignore[no-any-return]


_argsort = OPS['argsort'].call


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Positions that put elements in order along an axis."""
    return _argsort(x, axis, descending, stable)  # type: ignore[no-any-return]


_asin = OPS['asin'].call


def asin(x: Tensor, /) -> Tensor:
    """Inverse sine, in [-pi/2, pi/2]."""
    return _asin(x)  # type: ignore[no-any-return]


_asinh = OPS['asinh'].call


def asinh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic sine."""
    return _asinh(x)  # type: ignore[no-any-return]


_astype = OPS['astype'].call


def astype(x: Tensor, /, dtype: DType) -> Tensor:
    """x cast to another dtype; float to integer truncates."""
    return _astype(x, dtype)  # type: ignore[no-any-return]


_atan = OPS['atan'].call


def atan(x: Tensor, /) -> Tensor:
    """Inverse tangent, in [-pi/2, pi/2]."""
    return _atan(x)  # type: ignore[no-any-return]


_atan2 = OPS['atan2'].call


def atan2(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Angle of the point (y, x): the inverse tangent of x / y in the quadrant of the signs, in [-pi, pi]."""
    return _atan2(x, y)  # type: ignore[no-any-return]


_atanh = OPS['atanh'].call


def atanh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic tangent."""
    return _atanh(x)  # type: ignore[no-any-return]


_attention = OPS['attention'].call


def attention(q: Tensor, k: Tensor, v: Tensor, /, mask: Tensor | None = None, *, scale: float, causal: bool = False, window: int = 0) -> Tensor:
    """softmax(q k^T * scale + mask) v for q (B, H, T, D), k and v (B, Hk, S, D).
    
    H is a multiple of Hk: query head h uses key head h // (H / Hk) (Ainslie et al. 2023). With
    ``causal`` query t sees keys up to t + S - T; ``window`` > 0 limits it to the last ``window`` of
    them. A row that sees nothing gives 0. The mask is additive and broadcasts to (B, H, T, S).
    Tiled over queries without storing the T x S matrix (Dao 2023).
    """
    return _attention(q, k, v, mask, scale, causal, window)  # type: ignore[no-any-return]


_attention_grad = OPS['attention_grad'].call


def attention_grad(g: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, /, mask: Tensor | None = None, *, scale: float, causal: bool = False, window: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention with respect to q, k and v (FlashAttention-2's backward, Dao 2023, algorithm 2)."""
    return _attention_grad(g, q, k, v, y, lse, mask, scale, causal, window)  # type: ignore[no-any-return]


_attention_varlen = OPS['attention_varlen'].call


def attention_varlen(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, /, *, scale: float, causal: bool = False, window: int = 0) -> Tensor:
    """Attention within each of B packed sequences: q (T, H, D), k and v (T, Hk, D), starts (B + 1).
    
    Sequence b is tokens starts[b] to starts[b + 1] (which may be none); tokens outside of all sequences give 0. Heads,
    ``scale``, ``causal`` and ``window`` are as in `attention`, within the sequence. The hidden lse is (H, T), -inf
    outside. Devices other than the CPU do not check that starts rise within [0, T].
    """
    return _attention_varlen(q, k, v, starts, scale, causal, window)  # type: ignore[no-any-return]


_attention_varlen_grad = OPS['attention_varlen_grad'].call


def attention_varlen_grad(g: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, y: Tensor, lse: Tensor, /, *, scale: float, causal: bool = False, window: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention_varlen with respect to q, k and v; 0 outside of all sequences."""
    return _attention_varlen_grad(g, q, k, v, starts, y, lse, scale, causal, window)  # type: ignore[no-any-return]


_avg_pool2d = OPS['avg_pool2d'].call


def avg_pool2d(x: Tensor, /, *, kernel: Pair = (2, 2), stride: Pair = (2, 2), padding: Pair = (0, 0), count_include_pad: bool = True) -> Tensor:
    """Mean of each window; padding counts as zeros unless count_include_pad is False."""
    return _avg_pool2d(x, kernel, stride, padding, count_include_pad)  # type: ignore[no-any-return]


_avg_pool2d_grad = OPS['avg_pool2d_grad'].call


def avg_pool2d_grad(g: Tensor, /, shape: Shape, *, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Tensor:
    """g spread evenly over each window."""
    return _avg_pool2d_grad(g, shape, kernel, stride, padding, count_include_pad)  # type: ignore[no-any-return]


_bitwise_and = OPS['bitwise_and'].call


def bitwise_and(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Bits set in both."""
    return _bitwise_and(x, y)  # type: ignore[no-any-return]


_bitwise_invert = OPS['bitwise_invert'].call


def bitwise_invert(x: Tensor, /) -> Tensor:
    """Every bit turned; for bool, the other truth value."""
    return _bitwise_invert(x)  # type: ignore[no-any-return]


_bitwise_left_shift = OPS['bitwise_left_shift'].call


def bitwise_left_shift(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x shifted left by y bits."""
    return _bitwise_left_shift(x, y)  # type: ignore[no-any-return]


_bitwise_or = OPS['bitwise_or'].call


def bitwise_or(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Bits set in either."""
    return _bitwise_or(x, y)  # type: ignore[no-any-return]


_bitwise_right_shift = OPS['bitwise_right_shift'].call


def bitwise_right_shift(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x shifted right by y bits, keeping the sign."""
    return _bitwise_right_shift(x, y)  # type: ignore[no-any-return]


_bitwise_xor = OPS['bitwise_xor'].call


def bitwise_xor(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Bits set in exactly one."""
    return _bitwise_xor(x, y)  # type: ignore[no-any-return]


_broadcast_to = OPS['broadcast_to'].call


def broadcast_to(x: Tensor, /, shape: Shape) -> Tensor:
    """x repeated along axes of length 1 (and new leading ones), without copying."""
    return _broadcast_to(x, shape)  # type: ignore[no-any-return]


_ceil = OPS['ceil'].call


def ceil(x: Tensor, /) -> Tensor:
    """Smallest integer not below x."""
    return _ceil(x)  # type: ignore[no-any-return]


_cholesky = OPS['cholesky'].call


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular factor of the symmetric positive-definite part of x: L with L L^T, or U with U^T U."""
    return _cholesky(x, upper)  # type: ignore[no-any-return]


_concat = OPS['concat'].call


def concat(arrays: list[Any], /, *, axis: int = 0) -> Tensor:
    """Tensors joined along an axis."""
    return _concat(arrays, axis)  # type: ignore[no-any-return]


_conv2d = OPS['conv2d'].call


def conv2d(x: Tensor, weight: Tensor, /, bias: Tensor | None = None, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1) -> Tensor:
    """Cross-correlation of x (N, C, H, W) with weight (O, C / groups, kh, kw)."""
    return _conv2d(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]


_conv2d_grad = OPS['conv2d_grad'].call


def conv2d_grad(g: Tensor, x: Tensor, weight: Tensor, /, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, need_x: bool, need_weight: bool, need_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of conv2d; those not needed have no elements."""
    return _conv2d_grad(g, x, weight, stride, padding, dilation, groups, need_x, need_weight, need_bias)  # type: ignore[no-any-return]


_copy = OPS['copy'].call


def copy(x: Tensor, /) -> Tensor:
    """The same values in memory of their own."""
    return _copy(x)  # type: ignore[no-any-return]


_copy_ = OPS['copy_'].call


def copy_(x: Tensor, source: Tensor, /) -> None:
    """Overwrites x with source, which broadcasts to it."""
    return _copy_(x, source)  # type: ignore[no-any-return]


_copysign = OPS['copysign'].call


def copysign(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The magnitude of x with the sign of y; zeros and NaN have signs too."""
    return _copysign(x, y)  # type: ignore[no-any-return]


_cos = OPS['cos'].call


def cos(x: Tensor, /) -> Tensor:
    """Cosine."""
    return _cos(x)  # type: ignore[no-any-return]


_cosh = OPS['cosh'].call


def cosh(x: Tensor, /) -> Tensor:
    """Hyperbolic cosine."""
    return _cosh(x)  # type: ignore[no-any-return]


_cross_entropy = OPS['cross_entropy'].call


def cross_entropy(logits: Tensor, targets: Tensor, /, *, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> Tensor:
    """Cross-entropy of logits (N, V) with class indices (N,).
    
    Label smoothing as in Szegedy et al. 2016 (PyTorch's definition); z_loss adds z * lse^2 per row
    (Chowdhery et al. 2022, PaLM). The mean is over the targets that are not ignored.
    """
    return _cross_entropy(logits, targets, ignore_index, label_smoothing, z_loss, reduction)  # type: ignore[no-any-return]


_cross_entropy_grad = OPS['cross_entropy_grad'].call


def cross_entropy_grad(g: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, /, *, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> Tensor:
    """Gradient of cross_entropy with respect to the logits."""
    return _cross_entropy_grad(g, logits, targets, lse, ignore_index, label_smoothing, z_loss, reduction)  # type: ignore[no-any-return]


_cumulative_prod = OPS['cumulative_prod'].call


def cumulative_prod(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """Running product along an axis; small integers and bool are multiplied as int64."""
    return _cumulative_prod(x, axis)  # type: ignore[no-any-return]


_cumulative_sum = OPS['cumulative_sum'].call


def cumulative_sum(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """Running sum along an axis; small integers and bool are summed as int64."""
    return _cumulative_sum(x, axis)  # type: ignore[no-any-return]


_det = OPS['det'].call


def det(x: Tensor, /) -> Tensor:
    """Determinant. The gradient needs the inverse, so a singular matrix has none."""
    return _det(x)  # type: ignore[no-any-return]


_divide = OPS['divide'].call


def divide(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Quotient; integers are divided as floats."""
    return _divide(x, y)  # type: ignore[no-any-return]


_dropout = OPS['dropout'].call


def dropout(x: Tensor, /, *, p: float, seed: int, stream: int) -> Tensor:
    """Zeroes elements with probability p and scales the rest by 1 / (1 - p).
    
    Element i is kept when word i of the Philox stream (seed, stream) is at least p * 2^32, rounded to a whole number.
    """
    return _dropout(x, p, seed, stream)  # type: ignore[no-any-return]


_eigh = OPS['eigh'].call


def eigh(x: Tensor, /) -> tuple[Tensor, Tensor]:
    """Eigenvalues (rising) and eigenvectors (columns) of the symmetric part of x.
    
    The gradient of eigenvectors is infinite where eigenvalues coincide.
    """
    return _eigh(x)  # type: ignore[no-any-return]


_ema_ = OPS['ema_'].call


def ema_(averages: list[Any], params: list[Any], /, *, decay: float) -> None:
    """averages = decay * averages + (1 - decay) * params, in place (Polyak & Juditsky 1992)."""
    return _ema_(averages, params, decay)  # type: ignore[no-any-return]


_embedding = OPS['embedding'].call


def embedding(weight: Tensor, indices: Tensor, /) -> Tensor:
    """weight[indices]: weight (V, C), indices (...) integers, result (..., C)."""
    return _embedding(weight, indices)  # type: ignore[no-any-return]


_embedding_grad = OPS['embedding_grad'].call


def embedding_grad(g: Tensor, indices: Tensor, /, *, rows: int) -> Tensor:
    """Rows of g summed by index into a (rows, C) table."""
    return _embedding_grad(g, indices, rows)  # type: ignore[no-any-return]


_equal = OPS['equal'].call


def equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x == y, element by element."""
    return _equal(x, y)  # type: ignore[no-any-return]


_erf = OPS['erf'].call


def erf(x: Tensor, /) -> Tensor:
    """Error function."""
    return _erf(x)  # type: ignore[no-any-return]


_exp = OPS['exp'].call


def exp(x: Tensor, /) -> Tensor:
    """e to the x."""
    return _exp(x)  # type: ignore[no-any-return]


_expm1 = OPS['expm1'].call


def expm1(x: Tensor, /) -> Tensor:
    """exp(x) - 1, exact near 0."""
    return _expm1(x)  # type: ignore[no-any-return]


_fill_ = OPS['fill_'].call


def fill_(x: Tensor, /, *, value: float) -> None:
    """Overwrites every element of x with one value, rounded to the dtype of x; constants on devices are made by it."""
    return _fill_(x, value)  # type: ignore[no-any-return]


_flip = OPS['flip'].call


def flip(x: Tensor, /, *, axis: Axes = None) -> Tensor:
    """Elements in reverse order along axes."""
    return _flip(x, axis)  # type: ignore[no-any-return]


_floor = OPS['floor'].call


def floor(x: Tensor, /) -> Tensor:
    """Largest integer not above x."""
    return _floor(x)  # type: ignore[no-any-return]


_floor_divide = OPS['floor_divide'].call


def floor_divide(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Quotient rounded towards minus infinity: floor(x / y) also for infinite operands, as the standard prefers."""
    return _floor_divide(x, y)  # type: ignore[no-any-return]


_geglu = OPS['geglu'].call


def geglu(a: Tensor, b: Tensor, /, *, approximate: str = 'none') -> Tensor:
    """gelu(a) * b (Shazeer 2020)."""
    return _geglu(a, b, approximate)  # type: ignore[no-any-return]


_geglu_grad = OPS['geglu_grad'].call


def geglu_grad(g: Tensor, a: Tensor, b: Tensor, /, *, approximate: str = 'none') -> tuple[Tensor, Tensor]:
    """Gradients of geglu for a and b of one shape."""
    return _geglu_grad(g, a, b, approximate)  # type: ignore[no-any-return]


_gelu = OPS['gelu'].call


def gelu(x: Tensor, /, *, approximate: str = 'none') -> Tensor:
    """Gaussian error linear unit, x Phi(x), or its tanh approximation (Hendrycks & Gimpel 2016)."""
    return _gelu(x, approximate)  # type: ignore[no-any-return]


_gelu_grad = OPS['gelu_grad'].call


def gelu_grad(g: Tensor, x: Tensor, /, *, approximate: str = 'none') -> Tensor:
    """Gradient of gelu."""
    return _gelu_grad(g, x, approximate)  # type: ignore[no-any-return]


_getitem = OPS['getitem'].call


def getitem(x: Tensor, /, *, index: Index) -> Tensor:
    """x[index]: integers, slices, None, Ellipsis, integer arrays, boolean masks."""
    return _getitem(x, index)  # type: ignore[no-any-return]


_grad_norm = OPS['grad_norm'].call


def grad_norm(grads: list[Any], /) -> Tensor:
    """Euclidean norm of all gradients together, in float64."""
    return _grad_norm(grads)  # type: ignore[no-any-return]


_greater = OPS['greater'].call


def greater(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x > y, element by element."""
    return _greater(x, y)  # type: ignore[no-any-return]


_greater_equal = OPS['greater_equal'].call


def greater_equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x >= y, element by element."""
    return _greater_equal(x, y)  # type: ignore[no-any-return]


_group_norm = OPS['group_norm'].call


def group_norm(x: Tensor, /, weight: Tensor | None = None, bias: Tensor | None = None, *, groups: int, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for x (N, C, ...), per sample and group (Wu & He 2018).
    
    ``groups`` divides C; weight and bias are (C,). The hidden statistics are (N, groups).
    """
    return _group_norm(x, weight, bias, groups, eps)  # type: ignore[no-any-return]


_group_norm_grad = OPS['group_norm_grad'].call


def group_norm_grad(g: Tensor, x: Tensor, /, weight: Tensor | None, mean: Tensor, rstd: Tensor, *, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of group_norm with respect to x, weight and bias."""
    return _group_norm_grad(g, x, weight, mean, rstd, groups)  # type: ignore[no-any-return]


_grouped_matmul = OPS['grouped_matmul'].call


def grouped_matmul(x: Tensor, weight: Tensor, sizes: Tensor, /) -> Tensor:
    """Consecutive groups of rows of x (T, K), each times its own matrix of weight (G, K, N): (T, N).
    
    sizes (G,) says how many rows each group has, 0 too; rows after the last group give 0. Devices other than the CPU
    do not check that sizes are not negative and add up to at most T.
    """
    return _grouped_matmul(x, weight, sizes)  # type: ignore[no-any-return]


_grouped_matmul_grad = OPS['grouped_matmul_grad'].call


def grouped_matmul_grad(g: Tensor, x: Tensor, sizes: Tensor, /) -> Tensor:
    """Gradient of grouped_matmul with respect to weight: x_i.T @ g_i for the rows of each group, (G, K, N)."""
    return _grouped_matmul_grad(g, x, sizes)  # type: ignore[no-any-return]


_hypot = OPS['hypot'].call


def hypot(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """sqrt(x * x + y * y) without overflow."""
    return _hypot(x, y)  # type: ignore[no-any-return]


_identity = OPS['identity'].call


def identity(x: Tensor, /) -> Tensor:
    """x itself, as a new node of the graph."""
    return _identity(x)  # type: ignore[no-any-return]


_inv = OPS['inv'].call


def inv(x: Tensor, /) -> Tensor:
    """The inverse matrix; a singular one is an error."""
    return _inv(x)  # type: ignore[no-any-return]


_isfinite = OPS['isfinite'].call


def isfinite(x: Tensor, /) -> Tensor:
    """Whether x is finite."""
    return _isfinite(x)  # type: ignore[no-any-return]


_isinf = OPS['isinf'].call


def isinf(x: Tensor, /) -> Tensor:
    """Whether x is infinite."""
    return _isinf(x)  # type: ignore[no-any-return]


_isnan = OPS['isnan'].call


def isnan(x: Tensor, /) -> Tensor:
    """Whether x is NaN."""
    return _isnan(x)  # type: ignore[no-any-return]


_layer_norm = OPS['layer_norm'].call


def layer_norm(x: Tensor, /, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba, Kiros & Hinton 2016)."""
    return _layer_norm(x, weight, bias, eps)  # type: ignore[no-any-return]


_layer_norm_grad = OPS['layer_norm_grad'].call


def layer_norm_grad(g: Tensor, x: Tensor, /, weight: Tensor | None, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of layer_norm with respect to x, weight and bias."""
    return _layer_norm_grad(g, x, weight, mean, rstd)  # type: ignore[no-any-return]


_less = OPS['less'].call


def less(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x < y, element by element."""
    return _less(x, y)  # type: ignore[no-any-return]


_less_equal = OPS['less_equal'].call


def less_equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x <= y, element by element."""
    return _less_equal(x, y)  # type: ignore[no-any-return]


_linear = OPS['linear'].call


def linear(x: Tensor, weight: Tensor, /, bias: Tensor | None = None, *, activation: str = 'none') -> Tensor:
    """act(x @ weight.T + bias): weight (out, in), x (..., in); activation none or relu."""
    return _linear(x, weight, bias, activation)  # type: ignore[no-any-return]


_linear_activation = OPS['linear_activation'].call


def linear_activation(x: Tensor, weight: Tensor, /, bias: Tensor | None = None, residual: Tensor | None = None, *, activation: str = 'none') -> Tensor:
    """act(x @ weight.T + bias) + residual: weight (out, in), x (..., in), residual (..., out).
    
    The activation is none, relu, gelu, gelu_tanh or silu. Where there is one, its argument is kept for the
    backward: computing it again would cost the product a second time.
    """
    return _linear_activation(x, weight, bias, residual, activation)  # type: ignore[no-any-return]


_linear_cross_entropy = OPS['linear_cross_entropy'].call


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, /, *, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> Tensor:
    """Cross-entropy of the logits x @ weight.T with class indices: x (N, K), weight (V, K), targets (N,).
    
    As `cross_entropy` of `linear`, but the (N, V) logits are never stored: the backward computes them again
    from x, weight and the rows' log-sum-exp (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
    Models"). Where x is a 16-bit type the loss is float32.
    """
    return _linear_cross_entropy(x, weight, targets, ignore_index, label_smoothing, z_loss, reduction)  # type: ignore[no-any-return]


_linear_cross_entropy_grad = OPS['linear_cross_entropy_grad'].call


def linear_cross_entropy_grad(g: Tensor, x: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, /, *, need_x: bool, need_weight: bool, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> tuple[Tensor, Tensor]:
    """Gradients of linear_cross_entropy with respect to x and weight; those not needed have no elements."""
    return _linear_cross_entropy_grad(g, x, weight, targets, lse, need_x, need_weight, ignore_index, label_smoothing, z_loss, reduction)  # type: ignore[no-any-return]


_linear_grad = OPS['linear_grad'].call


def linear_grad(g: Tensor, x: Tensor, weight: Tensor, /, *, need_x: bool, need_weight: bool, need_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of linear: g @ weight, g.T @ x and the column sums of g; those not needed have no elements."""
    return _linear_grad(g, x, weight, need_x, need_weight, need_bias)  # type: ignore[no-any-return]


_lion = OPS['lion'].call


def lion(params: list[Any], grads: list[Any], m: list[Any], /, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> None:
    """One step of Lion (Chen et al. 2023, algorithm 2)."""
    return _lion(params, grads, m, lr, beta1, beta2, weight_decay)  # type: ignore[no-any-return]


_log = OPS['log'].call


def log(x: Tensor, /) -> Tensor:
    """Natural logarithm."""
    return _log(x)  # type: ignore[no-any-return]


_log10 = OPS['log10'].call


def log10(x: Tensor, /) -> Tensor:
    """Logarithm to base 10."""
    return _log10(x)  # type: ignore[no-any-return]


_log1p = OPS['log1p'].call


def log1p(x: Tensor, /) -> Tensor:
    """log(1 + x), exact near 0."""
    return _log1p(x)  # type: ignore[no-any-return]


_log2 = OPS['log2'].call


def log2(x: Tensor, /) -> Tensor:
    """Logarithm to base 2."""
    return _log2(x)  # type: ignore[no-any-return]


_log_softmax = OPS['log_softmax'].call


def log_softmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """x - log(sum(exp(x))) along an axis."""
    return _log_softmax(x, axis)  # type: ignore[no-any-return]


_log_softmax_grad = OPS['log_softmax_grad'].call


def log_softmax_grad(g: Tensor, y: Tensor, /, *, axis: int = -1) -> Tensor:
    """g - exp(y) * sum(g)."""
    return _log_softmax_grad(g, y, axis)  # type: ignore[no-any-return]


_logaddexp = OPS['logaddexp'].call


def logaddexp(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """log(exp(x) + exp(y)) without overflow."""
    return _logaddexp(x, y)  # type: ignore[no-any-return]


_logical_and = OPS['logical_and'].call


def logical_and(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Whether both are true."""
    return _logical_and(x, y)  # type: ignore[no-any-return]


_logical_not = OPS['logical_not'].call


def logical_not(x: Tensor, /) -> Tensor:
    """Whether x is zero."""
    return _logical_not(x)  # type: ignore[no-any-return]


_logical_or = OPS['logical_or'].call


def logical_or(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Whether at least one is true."""
    return _logical_or(x, y)  # type: ignore[no-any-return]


_logical_xor = OPS['logical_xor'].call


def logical_xor(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Whether exactly one is true."""
    return _logical_xor(x, y)  # type: ignore[no-any-return]


_matmul = OPS['matmul'].call


def matmul(x: Tensor, y: Tensor, /) -> Tensor:
    """Matrix product over the last two axes, broadcasting the others; vectors as in NumPy."""
    return _matmul(x, y)  # type: ignore[no-any-return]


_max = OPS['max'].call


def max(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element; equal ones share the gradient, NaN wins."""
    return _max(x, axis, keepdims)  # type: ignore[no-any-return]


_max_pool2d = OPS['max_pool2d'].call


def max_pool2d(x: Tensor, /, *, kernel: Pair = (2, 2), stride: Pair = (2, 2), padding: Pair = (0, 0)) -> Tensor:
    """Largest element of each window; NaN wins. Keeps the position in the H x W plane for the backward."""
    return _max_pool2d(x, kernel, stride, padding)  # type: ignore[no-any-return]


_max_pool2d_grad = OPS['max_pool2d_grad'].call


def max_pool2d_grad(g: Tensor, position: Tensor, /, shape: Shape) -> Tensor:
    """g added at the positions that won."""
    return _max_pool2d_grad(g, position, shape)  # type: ignore[no-any-return]


_maximum = OPS['maximum'].call


def maximum(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The larger operand; NaN wins. Equal operands share the gradient."""
    return _maximum(x, y)  # type: ignore[no-any-return]


_mean = OPS['mean'].call


def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over axes."""
    return _mean(x, axis, keepdims)  # type: ignore[no-any-return]


_min = OPS['min'].call


def min(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element; equal ones share the gradient, NaN wins."""
    return _min(x, axis, keepdims)  # type: ignore[no-any-return]


_minimum = OPS['minimum'].call


def minimum(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The smaller operand; NaN wins. Equal operands share the gradient."""
    return _minimum(x, y)  # type: ignore[no-any-return]


_multiply = OPS['multiply'].call


def multiply(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Product of two operands."""
    return _multiply(x, y)  # type: ignore[no-any-return]


_negative = OPS['negative'].call


def negative(x: Tensor, /) -> Tensor:
    """-x."""
    return _negative(x)  # type: ignore[no-any-return]


_nextafter = OPS['nextafter'].call


def nextafter(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The number next to x towards y, in float32 or float64."""
    return _nextafter(x, y)  # type: ignore[no-any-return]


_nonzero = OPS['nonzero'].call


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """Positions of the elements that are not zero, one integer tensor per axis, in row-major order."""
    return _nonzero(x)  # type: ignore[no-any-return]


_not_equal = OPS['not_equal'].call


def not_equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x != y, element by element."""
    return _not_equal(x, y)  # type: ignore[no-any-return]


_permute_dims = OPS['permute_dims'].call


def permute_dims(x: Tensor, /, axes: Shape) -> Tensor:
    """Axes in another order."""
    return _permute_dims(x, axes)  # type: ignore[no-any-return]


_pinv = OPS['pinv'].call


def pinv(x: Tensor | Number, rtol: Tensor | Number, /) -> Tensor:
    """Moore-Penrose inverse; singular values up to rtol times the largest count as 0."""
    return _pinv(x, rtol)  # type: ignore[no-any-return]


_positive = OPS['positive'].call


def positive(x: Tensor, /) -> Tensor:
    """+x: the same values."""
    return _positive(x)  # type: ignore[no-any-return]


_pow = OPS['pow'].call


def pow(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x to the power y."""
    return _pow(x, y)  # type: ignore[no-any-return]


_prod = OPS['prod'].call


def prod(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Product over axes."""
    return _prod(x, axis, keepdims)  # type: ignore[no-any-return]


_qr = OPS['qr'].call


def qr(x: Tensor, /, *, mode: str = 'reduced') -> tuple[Tensor, Tensor]:
    """Orthonormal columns q and upper triangular r with q r = x."""
    return _qr(x, mode)  # type: ignore[no-any-return]


_reciprocal = OPS['reciprocal'].call


def reciprocal(x: Tensor, /) -> Tensor:
    """1 / x."""
    return _reciprocal(x)  # type: ignore[no-any-return]


_relu = OPS['relu'].call


def relu(x: Tensor, /) -> Tensor:
    """max(x, 0); NaN stays NaN."""
    return _relu(x)  # type: ignore[no-any-return]


_relu_grad = OPS['relu_grad'].call


def relu_grad(g: Tensor, y: Tensor, /) -> Tensor:
    """g where y > 0, else 0."""
    return _relu_grad(g, y)  # type: ignore[no-any-return]


_remainder = OPS['remainder'].call


def remainder(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x - floor(x / y) * y; has the sign of the divisor."""
    return _remainder(x, y)  # type: ignore[no-any-return]


_reshape = OPS['reshape'].call


def reshape(x: Tensor, /, shape: Shape) -> Tensor:
    """The same elements in another shape; one length may be -1."""
    return _reshape(x, shape)  # type: ignore[no-any-return]


_rms_norm = OPS['rms_norm'].call


def rms_norm(x: Tensor, /, weight: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019, eq. 4)."""
    return _rms_norm(x, weight, eps)  # type: ignore[no-any-return]


_rms_norm_grad = OPS['rms_norm_grad'].call


def rms_norm_grad(g: Tensor, x: Tensor, /, weight: Tensor | None, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rms_norm with respect to x and weight."""
    return _rms_norm_grad(g, x, weight, rstd)  # type: ignore[no-any-return]


_roll = OPS['roll'].call


def roll(x: Tensor, /, shift: Shift, *, axis: Axes = None) -> Tensor:
    """Elements moved along axes (along the flattened tensor without one); those that leave come in at the other end."""
    return _roll(x, shift, axis)  # type: ignore[no-any-return]


_rope = OPS['rope'].call


def rope(x: Tensor, cos: Tensor, sin: Tensor, /, *, offset: int = 0, interleaved: bool = False, inverse: bool = False) -> Tensor:
    """Rotary position embedding (Su et al. 2021): rotates pairs of x (B, H, T, D) by the angles of row offset + t.
    
    cos and sin are (positions, D/2). Pairs are the two halves of D (Hugging Face), or interleaved
    (2i, 2i + 1) (the paper, llama.cpp). Columns beyond twice the table's are copied.
    """
    return _rope(x, cos, sin, offset, interleaved, inverse)  # type: ignore[no-any-return]


_round = OPS['round'].call


def round(x: Tensor, /) -> Tensor:
    """Nearest integer, halves to even."""
    return _round(x)  # type: ignore[no-any-return]


_rsqrt = OPS['rsqrt'].call


def rsqrt(x: Tensor, /) -> Tensor:
    """1 / sqrt(x)."""
    return _rsqrt(x)  # type: ignore[no-any-return]


_scale_ = OPS['scale_'].call


def scale_(tensors: list[Any], /, *, factor: float) -> None:
    """Multiplies tensors by a factor, in place."""
    return _scale_(tensors, factor)  # type: ignore[no-any-return]


_scatter_index = OPS['scatter_index'].call


def scatter_index(g: Tensor, /, shape: Shape, *, index: Index) -> Tensor:
    """Zeros of a shape with g added at an index; the gradient of indexing. Repeated positions add up."""
    return _scatter_index(g, shape, index)  # type: ignore[no-any-return]


_searchsorted = OPS['searchsorted'].call


def searchsorted(x1: Tensor, x2: Tensor, /, *, side: str = 'left') -> Tensor:
    """Where each element of x2 goes into the sorted vector x1 so that it stays sorted."""
    return _searchsorted(x1, x2, side)  # type: ignore[no-any-return]


_set_index = OPS['set_index'].call


def set_index(x: Tensor | Number, value: Tensor | Number, /, *, index: Index) -> Tensor:
    """A copy of x with value at an index."""
    return _set_index(x, value, index)  # type: ignore[no-any-return]


_sgd = OPS['sgd'].call


def sgd(params: list[Any], grads: list[Any], buffers: list[Any], /, *, lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool, first: bool) -> None:
    """One step of stochastic gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form)."""
    return _sgd(params, grads, buffers, lr, momentum, dampening, weight_decay, nesterov, first)  # type: ignore[no-any-return]


_sigmoid = OPS['sigmoid'].call


def sigmoid(x: Tensor, /) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _sigmoid(x)  # type: ignore[no-any-return]


_sign = OPS['sign'].call


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1."""
    return _sign(x)  # type: ignore[no-any-return]


_signbit = OPS['signbit'].call


def signbit(x: Tensor, /) -> Tensor:
    """Whether the sign bit is set: also for -0 and negative NaN."""
    return _signbit(x)  # type: ignore[no-any-return]


_silu = OPS['silu'].call


def silu(x: Tensor, /) -> Tensor:
    """x * sigmoid(x) (Hendrycks & Gimpel 2016; Elfwing et al. 2018)."""
    return _silu(x)  # type: ignore[no-any-return]


_silu_grad = OPS['silu_grad'].call


def silu_grad(g: Tensor, x: Tensor, /) -> Tensor:
    """Gradient of silu."""
    return _silu_grad(g, x)  # type: ignore[no-any-return]


_sin = OPS['sin'].call


def sin(x: Tensor, /) -> Tensor:
    """Sine."""
    return _sin(x)  # type: ignore[no-any-return]


_sinh = OPS['sinh'].call


def sinh(x: Tensor, /) -> Tensor:
    """Hyperbolic sine."""
    return _sinh(x)  # type: ignore[no-any-return]


_slogdet = OPS['slogdet'].call


def slogdet(x: Tensor, /) -> tuple[Tensor, Tensor]:
    """Sign and logarithm of the magnitude of the determinant."""
    return _slogdet(x)  # type: ignore[no-any-return]


_softmax = OPS['softmax'].call


def softmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
    return _softmax(x, axis)  # type: ignore[no-any-return]


_softmax_grad = OPS['softmax_grad'].call


def softmax_grad(g: Tensor, y: Tensor, /, *, axis: int = -1) -> Tensor:
    """y * (g - sum(g * y))."""
    return _softmax_grad(g, y, axis)  # type: ignore[no-any-return]


_solve = OPS['solve'].call


def solve(a: Tensor, b: Tensor, /) -> Tensor:
    """x with a x = b, where b is a vector (one axis) or columns; a singular a is an error."""
    return _solve(a, b)  # type: ignore[no-any-return]


_sort = OPS['sort'].call


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Elements in order along an axis; the gradient goes back the way each element came."""
    return _sort(x, axis, descending, stable)  # type: ignore[no-any-return]


_split = OPS['split'].call


def split(x: Tensor, /, sections: Sections, *, axis: int = -1) -> tuple[Tensor, ...]:
    """x cut into equal parts along an axis; parts share memory with x."""
    return _split(x, sections, axis)  # type: ignore[no-any-return]


_sqrt = OPS['sqrt'].call


def sqrt(x: Tensor, /) -> Tensor:
    """Square root."""
    return _sqrt(x)  # type: ignore[no-any-return]


_square = OPS['square'].call


def square(x: Tensor, /) -> Tensor:
    """x * x."""
    return _square(x)  # type: ignore[no-any-return]


_subtract = OPS['subtract'].call


def subtract(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Difference of two operands."""
    return _subtract(x, y)  # type: ignore[no-any-return]


_sum = OPS['sum'].call


def sum(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over axes; small integers and bool are summed as int64."""
    return _sum(x, axis, keepdims)  # type: ignore[no-any-return]


_svd = OPS['svd'].call


def svd(x: Tensor, /, *, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """u, s, vh with u diag(s) vh = x; singular values falling."""
    return _svd(x, full_matrices)  # type: ignore[no-any-return]


_svdvals = OPS['svdvals'].call


def svdvals(x: Tensor, /) -> Tensor:
    """Singular values, falling."""
    return _svdvals(x)  # type: ignore[no-any-return]


_swiglu = OPS['swiglu'].call


def swiglu(a: Tensor, b: Tensor, /) -> Tensor:
    """silu(a) * b (Shazeer 2020)."""
    return _swiglu(a, b)  # type: ignore[no-any-return]


_swiglu_grad = OPS['swiglu_grad'].call


def swiglu_grad(g: Tensor, a: Tensor, b: Tensor, /) -> tuple[Tensor, Tensor]:
    """Gradients of swiglu for a and b of one shape."""
    return _swiglu_grad(g, a, b)  # type: ignore[no-any-return]


_take = OPS['take'].call


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Elements of an axis by position; negative positions count from the end. axis may be left out for vectors."""
    return _take(x, indices, axis)  # type: ignore[no-any-return]


_take_along_axis = OPS['take_along_axis'].call


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """y[..., i, ...] = x[..., indices[..., i, ...], ...]; the other axes of x and indices broadcast."""
    return _take_along_axis(x, indices, axis)  # type: ignore[no-any-return]


_take_along_axis_grad = OPS['take_along_axis_grad'].call


def take_along_axis_grad(g: Tensor, indices: Tensor, /, shape: Shape, *, axis: int) -> Tensor:
    """Zeros of a shape with g added where `take_along_axis` took it from. Repeated positions add up."""
    return _take_along_axis_grad(g, indices, shape, axis)  # type: ignore[no-any-return]


_take_grad = OPS['take_grad'].call


def take_grad(g: Tensor, indices: Tensor, /, shape: Shape, *, axis: int) -> Tensor:
    """Zeros of a shape with g added at positions of an axis; the gradient of `take`. Repeated positions add up."""
    return _take_grad(g, indices, shape, axis)  # type: ignore[no-any-return]


_tan = OPS['tan'].call


def tan(x: Tensor, /) -> Tensor:
    """Tangent."""
    return _tan(x)  # type: ignore[no-any-return]


_tanh = OPS['tanh'].call


def tanh(x: Tensor, /) -> Tensor:
    """Hyperbolic tangent."""
    return _tanh(x)  # type: ignore[no-any-return]


_top_k = OPS['top_k'].call


def top_k(x: Tensor, /, *, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along an axis, in order, and where they are.
    
    Of equal elements the first comes first. NaN counts as the largest value, as in `sort`.
    """
    return _top_k(x, k, axis, largest)  # type: ignore[no-any-return]


_transfer = OPS['transfer'].call


def transfer(x: Tensor, /, *, device: str, source: str) -> Tensor:
    """x on another device; ``source`` is where it is, and where its gradient goes."""
    return _transfer(x, device, source)  # type: ignore[no-any-return]


_tril = OPS['tril'].call


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and below the k-th diagonal, zeros above."""
    return _tril(x, k)  # type: ignore[no-any-return]


_triu = OPS['triu'].call


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and above the k-th diagonal, zeros below."""
    return _triu(x, k)  # type: ignore[no-any-return]


_trunc = OPS['trunc'].call


def trunc(x: Tensor, /) -> Tensor:
    """Integer part."""
    return _trunc(x)  # type: ignore[no-any-return]


_unique = OPS['unique'].call


def unique(x: Tensor, /) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sorted distinct values, where each occurs first, which one every element is, and how often it occurs.
    
    NaN values are distinct from each other, 0 and -0 are equal.
    """
    return _unique(x)  # type: ignore[no-any-return]


_unscale_ = OPS['unscale_'].call


def unscale_(tensors: list[Any], /, *, factor: float) -> Tensor:
    """Multiplies tensors by a factor, in place, and says whether every result is finite: what loss scaling needs."""
    return _unscale_(tensors, factor)  # type: ignore[no-any-return]


_var = OPS['var'].call


def var(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variance over axes, divided by n - correction."""
    return _var(x, axis, correction, keepdims)  # type: ignore[no-any-return]


_where = OPS['where'].call


def where(condition: Tensor | Number, x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x where the condition holds, else y."""
    return _where(condition, x, y)  # type: ignore[no-any-return]
