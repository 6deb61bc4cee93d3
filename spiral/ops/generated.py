"""Typed wrappers of the declared ops. Written by `python -m spiral.op --write`; do not edit."""

# ruff: noqa: A001, A002, E501
from __future__ import annotations

from typing import Any

from spiral.dispatch import call
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
    'adamw',
    'add',
    'all',
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
    'flip',
    'floor',
    'floor_divide',
    'gelu',
    'gelu_grad',
    'getitem',
    'grad_norm',
    'greater',
    'greater_equal',
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
    'tan',
    'tanh',
    'tril',
    'triu',
    'trunc',
    'unique',
    'var',
    'where',
]

_abs = OPS['abs']


def abs(x: Tensor, /) -> Tensor:
    """Magnitude; the gradient at 0 is 0."""
    return call(_abs, (x,), ())  # type: ignore[no-any-return]


_acos = OPS['acos']


def acos(x: Tensor, /) -> Tensor:
    """Inverse cosine, in [0, pi]."""
    return call(_acos, (x,), ())  # type: ignore[no-any-return]


_acosh = OPS['acosh']


def acosh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic cosine, at least 0."""
    return call(_acosh, (x,), ())  # type: ignore[no-any-return]


_adamw = OPS['adamw']


def adamw(params: list[Any], grads: list[Any], m: list[Any], v: list[Any], /, *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int, decoupled: bool = True) -> None:
    """One step of AdamW (Loshchilov & Hutter 2019), or of Adam with L2 (Kingma & Ba 2015) if not decoupled."""
    return call(_adamw, (params, grads, m, v,), (lr, beta1, beta2, eps, weight_decay, step, decoupled,))  # type: ignore[no-any-return]


_add = OPS['add']


def add(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Sum of two operands."""
    return call(_add, (x, y,), ())  # type: ignore[no-any-return]


_all = OPS['all']


def all(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return call(_all, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_any = OPS['any']


def any(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether any element is nonzero."""
    return call(_any, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_argmax = OPS['argmax']


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position of the first largest element."""
    return call(_argmax, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_argmin = OPS['argmin']


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position of the first smallest element."""
    return call(_argmin, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_argsort = OPS['argsort']


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Positions that put elements in order along an axis."""
    return call(_argsort, (x,), (axis, descending, stable,))  # type: ignore[no-any-return]


_asin = OPS['asin']


def asin(x: Tensor, /) -> Tensor:
    """Inverse sine, in [-pi/2, pi/2]."""
    return call(_asin, (x,), ())  # type: ignore[no-any-return]


_asinh = OPS['asinh']


def asinh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic sine."""
    return call(_asinh, (x,), ())  # type: ignore[no-any-return]


_astype = OPS['astype']


def astype(x: Tensor, /, dtype: DType) -> Tensor:
    """x cast to another dtype; float to integer truncates."""
    return call(_astype, (x,), (dtype,))  # type: ignore[no-any-return]


_atan = OPS['atan']


def atan(x: Tensor, /) -> Tensor:
    """Inverse tangent, in [-pi/2, pi/2]."""
    return call(_atan, (x,), ())  # type: ignore[no-any-return]


_atan2 = OPS['atan2']


def atan2(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Angle of the point (y, x): the inverse tangent of x / y in the quadrant of the signs, in [-pi, pi]."""
    return call(_atan2, (x, y,), ())  # type: ignore[no-any-return]


_atanh = OPS['atanh']


def atanh(x: Tensor, /) -> Tensor:
    """Inverse hyperbolic tangent."""
    return call(_atanh, (x,), ())  # type: ignore[no-any-return]


_attention = OPS['attention']


def attention(q: Tensor, k: Tensor, v: Tensor, /, mask: Tensor | None = None, *, scale: float, causal: bool = False, window: int = 0) -> Tensor:
    """softmax(q k^T * scale + mask) v for q (B, H, T, D), k and v (B, Hk, S, D).
    
    H is a multiple of Hk: query head h uses key head h // (H / Hk) (Ainslie et al. 2023). With
    ``causal`` query t sees keys up to t + S - T; ``window`` > 0 limits it to the last ``window`` of
    them. A row that sees nothing gives 0. The mask is additive and broadcasts to (B, H, T, S).
    Tiled over queries without storing the T x S matrix (Dao 2023).
    """
    return call(_attention, (q, k, v, mask,), (scale, causal, window,))  # type: ignore[no-any-return]


_attention_grad = OPS['attention_grad']


def attention_grad(g: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, /, mask: Tensor | None = None, *, scale: float, causal: bool = False, window: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention with respect to q, k and v (FlashAttention-2's backward, Dao 2023, algorithm 2)."""
    return call(_attention_grad, (g, q, k, v, y, lse, mask,), (scale, causal, window,))  # type: ignore[no-any-return]


_avg_pool2d = OPS['avg_pool2d']


def avg_pool2d(x: Tensor, /, *, kernel: Pair = (2, 2), stride: Pair = (2, 2), padding: Pair = (0, 0), count_include_pad: bool = True) -> Tensor:
    """Mean of each window; padding counts as zeros unless count_include_pad is False."""
    return call(_avg_pool2d, (x,), (kernel, stride, padding, count_include_pad,))  # type: ignore[no-any-return]


_avg_pool2d_grad = OPS['avg_pool2d_grad']


def avg_pool2d_grad(g: Tensor, /, shape: Shape, *, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Tensor:
    """g spread evenly over each window."""
    return call(_avg_pool2d_grad, (g,), (shape, kernel, stride, padding, count_include_pad,))  # type: ignore[no-any-return]


_bitwise_and = OPS['bitwise_and']


def bitwise_and(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Bits set in both."""
    return call(_bitwise_and, (x, y,), ())  # type: ignore[no-any-return]


_bitwise_invert = OPS['bitwise_invert']


def bitwise_invert(x: Tensor, /) -> Tensor:
    """Every bit turned; for bool, the other truth value."""
    return call(_bitwise_invert, (x,), ())  # type: ignore[no-any-return]


_bitwise_left_shift = OPS['bitwise_left_shift']


def bitwise_left_shift(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x shifted left by y bits."""
    return call(_bitwise_left_shift, (x, y,), ())  # type: ignore[no-any-return]


_bitwise_or = OPS['bitwise_or']


def bitwise_or(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Bits set in either."""
    return call(_bitwise_or, (x, y,), ())  # type: ignore[no-any-return]


_bitwise_right_shift = OPS['bitwise_right_shift']


def bitwise_right_shift(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x shifted right by y bits, keeping the sign."""
    return call(_bitwise_right_shift, (x, y,), ())  # type: ignore[no-any-return]


_bitwise_xor = OPS['bitwise_xor']


def bitwise_xor(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Bits set in exactly one."""
    return call(_bitwise_xor, (x, y,), ())  # type: ignore[no-any-return]


_broadcast_to = OPS['broadcast_to']


def broadcast_to(x: Tensor, /, shape: Shape) -> Tensor:
    """x repeated along axes of length 1 (and new leading ones), without copying."""
    return call(_broadcast_to, (x,), (shape,))  # type: ignore[no-any-return]


_ceil = OPS['ceil']


def ceil(x: Tensor, /) -> Tensor:
    """Smallest integer not below x."""
    return call(_ceil, (x,), ())  # type: ignore[no-any-return]


_cholesky = OPS['cholesky']


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular factor of the symmetric positive-definite part of x: L with L L^T, or U with U^T U."""
    return call(_cholesky, (x,), (upper,))  # type: ignore[no-any-return]


_concat = OPS['concat']


def concat(arrays: list[Any], /, *, axis: int = 0) -> Tensor:
    """Tensors joined along an axis."""
    return call(_concat, (arrays,), (axis,))  # type: ignore[no-any-return]


_conv2d = OPS['conv2d']


def conv2d(x: Tensor, weight: Tensor, /, bias: Tensor | None = None, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1) -> Tensor:
    """Cross-correlation of x (N, C, H, W) with weight (O, C / groups, kh, kw)."""
    return call(_conv2d, (x, weight, bias,), (stride, padding, dilation, groups,))  # type: ignore[no-any-return]


_conv2d_grad = OPS['conv2d_grad']


def conv2d_grad(g: Tensor, x: Tensor, weight: Tensor, /, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, need_x: bool, need_weight: bool, need_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of conv2d; those not needed have no elements."""
    return call(_conv2d_grad, (g, x, weight,), (stride, padding, dilation, groups, need_x, need_weight, need_bias,))  # type: ignore[no-any-return]


_copy = OPS['copy']


def copy(x: Tensor, /) -> Tensor:
    """The same values in memory of their own."""
    return call(_copy, (x,), ())  # type: ignore[no-any-return]


_copy_ = OPS['copy_']


def copy_(x: Tensor, source: Tensor, /) -> None:
    """Overwrites x with source, which broadcasts to it."""
    return call(_copy_, (x, source,), ())  # type: ignore[no-any-return]


_copysign = OPS['copysign']


def copysign(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The magnitude of x with the sign of y; zeros and NaN have signs too."""
    return call(_copysign, (x, y,), ())  # type: ignore[no-any-return]


_cos = OPS['cos']


def cos(x: Tensor, /) -> Tensor:
    """Cosine."""
    return call(_cos, (x,), ())  # type: ignore[no-any-return]


_cosh = OPS['cosh']


def cosh(x: Tensor, /) -> Tensor:
    """Hyperbolic cosine."""
    return call(_cosh, (x,), ())  # type: ignore[no-any-return]


_cross_entropy = OPS['cross_entropy']


def cross_entropy(logits: Tensor, targets: Tensor, /, *, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> Tensor:
    """Cross-entropy of logits (N, V) with class indices (N,).
    
    Label smoothing as in Szegedy et al. 2016 (PyTorch's definition); z_loss adds z * lse^2 per row
    (Chowdhery et al. 2022, PaLM). The mean is over the targets that are not ignored.
    """
    return call(_cross_entropy, (logits, targets,), (ignore_index, label_smoothing, z_loss, reduction,))  # type: ignore[no-any-return]


_cross_entropy_grad = OPS['cross_entropy_grad']


def cross_entropy_grad(g: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, /, *, ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, reduction: str = 'mean') -> Tensor:
    """Gradient of cross_entropy with respect to the logits."""
    return call(_cross_entropy_grad, (g, logits, targets, lse,), (ignore_index, label_smoothing, z_loss, reduction,))  # type: ignore[no-any-return]


_cumulative_prod = OPS['cumulative_prod']


def cumulative_prod(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """Running product along an axis; small integers and bool are multiplied as int64."""
    return call(_cumulative_prod, (x,), (axis,))  # type: ignore[no-any-return]


_cumulative_sum = OPS['cumulative_sum']


def cumulative_sum(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """Running sum along an axis; small integers and bool are summed as int64."""
    return call(_cumulative_sum, (x,), (axis,))  # type: ignore[no-any-return]


_det = OPS['det']


def det(x: Tensor, /) -> Tensor:
    """Determinant. The gradient needs the inverse, so a singular matrix has none."""
    return call(_det, (x,), ())  # type: ignore[no-any-return]


_divide = OPS['divide']


def divide(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Quotient; integers are divided as floats."""
    return call(_divide, (x, y,), ())  # type: ignore[no-any-return]


_dropout = OPS['dropout']


def dropout(x: Tensor, /, *, p: float, seed: int, stream: int) -> Tensor:
    """Zeroes elements with probability p and scales the rest by 1 / (1 - p).
    
    Element i is kept when word i of the Philox stream (seed, stream) is at least p * 2^32.
    """
    return call(_dropout, (x,), (p, seed, stream,))  # type: ignore[no-any-return]


_eigh = OPS['eigh']


def eigh(x: Tensor, /) -> tuple[Tensor, Tensor]:
    """Eigenvalues (rising) and eigenvectors (columns) of the symmetric part of x.
    
    The gradient of eigenvectors is infinite where eigenvalues coincide.
    """
    return call(_eigh, (x,), ())  # type: ignore[no-any-return]


_ema_ = OPS['ema_']


def ema_(averages: list[Any], params: list[Any], /, *, decay: float) -> None:
    """averages = decay * averages + (1 - decay) * params, in place (Polyak & Juditsky 1992)."""
    return call(_ema_, (averages, params,), (decay,))  # type: ignore[no-any-return]


_embedding = OPS['embedding']


def embedding(weight: Tensor, indices: Tensor, /) -> Tensor:
    """weight[indices]: weight (V, C), indices (...) integers, result (..., C)."""
    return call(_embedding, (weight, indices,), ())  # type: ignore[no-any-return]


_embedding_grad = OPS['embedding_grad']


def embedding_grad(g: Tensor, indices: Tensor, /, *, rows: int) -> Tensor:
    """Rows of g summed by index into a (rows, C) table."""
    return call(_embedding_grad, (g, indices,), (rows,))  # type: ignore[no-any-return]


_equal = OPS['equal']


def equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x == y, element by element."""
    return call(_equal, (x, y,), ())  # type: ignore[no-any-return]


_erf = OPS['erf']


def erf(x: Tensor, /) -> Tensor:
    """Error function."""
    return call(_erf, (x,), ())  # type: ignore[no-any-return]


_exp = OPS['exp']


def exp(x: Tensor, /) -> Tensor:
    """e to the x."""
    return call(_exp, (x,), ())  # type: ignore[no-any-return]


_expm1 = OPS['expm1']


def expm1(x: Tensor, /) -> Tensor:
    """exp(x) - 1, exact near 0."""
    return call(_expm1, (x,), ())  # type: ignore[no-any-return]


_flip = OPS['flip']


def flip(x: Tensor, /, *, axis: Axes = None) -> Tensor:
    """Elements in reverse order along axes."""
    return call(_flip, (x,), (axis,))  # type: ignore[no-any-return]


_floor = OPS['floor']


def floor(x: Tensor, /) -> Tensor:
    """Largest integer not above x."""
    return call(_floor, (x,), ())  # type: ignore[no-any-return]


_floor_divide = OPS['floor_divide']


def floor_divide(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Quotient rounded towards minus infinity: floor(x / y) also for infinite operands, as the standard prefers."""
    return call(_floor_divide, (x, y,), ())  # type: ignore[no-any-return]


_gelu = OPS['gelu']


def gelu(x: Tensor, /, *, approximate: str = 'none') -> Tensor:
    """Gaussian error linear unit, x Phi(x), or its tanh approximation (Hendrycks & Gimpel 2016)."""
    return call(_gelu, (x,), (approximate,))  # type: ignore[no-any-return]


_gelu_grad = OPS['gelu_grad']


def gelu_grad(g: Tensor, x: Tensor, /, *, approximate: str = 'none') -> Tensor:
    """Gradient of gelu."""
    return call(_gelu_grad, (g, x,), (approximate,))  # type: ignore[no-any-return]


_getitem = OPS['getitem']


def getitem(x: Tensor, /, *, index: Index) -> Tensor:
    """x[index]: integers, slices, None, Ellipsis, integer arrays, boolean masks."""
    return call(_getitem, (x,), (index,))  # type: ignore[no-any-return]


_grad_norm = OPS['grad_norm']


def grad_norm(grads: list[Any], /) -> Tensor:
    """Euclidean norm of all gradients together, in float64."""
    return call(_grad_norm, (grads,), ())  # type: ignore[no-any-return]


_greater = OPS['greater']


def greater(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x > y, element by element."""
    return call(_greater, (x, y,), ())  # type: ignore[no-any-return]


_greater_equal = OPS['greater_equal']


def greater_equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x >= y, element by element."""
    return call(_greater_equal, (x, y,), ())  # type: ignore[no-any-return]


_hypot = OPS['hypot']


def hypot(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """sqrt(x * x + y * y) without overflow."""
    return call(_hypot, (x, y,), ())  # type: ignore[no-any-return]


_identity = OPS['identity']


def identity(x: Tensor, /) -> Tensor:
    """x itself, as a new node of the graph."""
    return call(_identity, (x,), ())  # type: ignore[no-any-return]


_inv = OPS['inv']


def inv(x: Tensor, /) -> Tensor:
    """The inverse matrix; a singular one is an error."""
    return call(_inv, (x,), ())  # type: ignore[no-any-return]


_isfinite = OPS['isfinite']


def isfinite(x: Tensor, /) -> Tensor:
    """Whether x is finite."""
    return call(_isfinite, (x,), ())  # type: ignore[no-any-return]


_isinf = OPS['isinf']


def isinf(x: Tensor, /) -> Tensor:
    """Whether x is infinite."""
    return call(_isinf, (x,), ())  # type: ignore[no-any-return]


_isnan = OPS['isnan']


def isnan(x: Tensor, /) -> Tensor:
    """Whether x is NaN."""
    return call(_isnan, (x,), ())  # type: ignore[no-any-return]


_layer_norm = OPS['layer_norm']


def layer_norm(x: Tensor, /, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba, Kiros & Hinton 2016)."""
    return call(_layer_norm, (x, weight, bias,), (eps,))  # type: ignore[no-any-return]


_layer_norm_grad = OPS['layer_norm_grad']


def layer_norm_grad(g: Tensor, x: Tensor, /, weight: Tensor | None, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of layer_norm with respect to x, weight and bias."""
    return call(_layer_norm_grad, (g, x, weight, mean, rstd,), ())  # type: ignore[no-any-return]


_less = OPS['less']


def less(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x < y, element by element."""
    return call(_less, (x, y,), ())  # type: ignore[no-any-return]


_less_equal = OPS['less_equal']


def less_equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x <= y, element by element."""
    return call(_less_equal, (x, y,), ())  # type: ignore[no-any-return]


_linear = OPS['linear']


def linear(x: Tensor, weight: Tensor, /, bias: Tensor | None = None, *, activation: str = 'none') -> Tensor:
    """act(x @ weight.T + bias): weight (out, in), x (..., in); activation none or relu."""
    return call(_linear, (x, weight, bias,), (activation,))  # type: ignore[no-any-return]


_linear_grad = OPS['linear_grad']


def linear_grad(g: Tensor, x: Tensor, weight: Tensor, /, *, need_x: bool, need_weight: bool, need_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of linear: g @ weight, g.T @ x and the column sums of g; those not needed have no elements."""
    return call(_linear_grad, (g, x, weight,), (need_x, need_weight, need_bias,))  # type: ignore[no-any-return]


_lion = OPS['lion']


def lion(params: list[Any], grads: list[Any], m: list[Any], /, *, lr: float, beta1: float, beta2: float, weight_decay: float) -> None:
    """One step of Lion (Chen et al. 2023, algorithm 2)."""
    return call(_lion, (params, grads, m,), (lr, beta1, beta2, weight_decay,))  # type: ignore[no-any-return]


_log = OPS['log']


def log(x: Tensor, /) -> Tensor:
    """Natural logarithm."""
    return call(_log, (x,), ())  # type: ignore[no-any-return]


_log10 = OPS['log10']


def log10(x: Tensor, /) -> Tensor:
    """Logarithm to base 10."""
    return call(_log10, (x,), ())  # type: ignore[no-any-return]


_log1p = OPS['log1p']


def log1p(x: Tensor, /) -> Tensor:
    """log(1 + x), exact near 0."""
    return call(_log1p, (x,), ())  # type: ignore[no-any-return]


_log2 = OPS['log2']


def log2(x: Tensor, /) -> Tensor:
    """Logarithm to base 2."""
    return call(_log2, (x,), ())  # type: ignore[no-any-return]


_log_softmax = OPS['log_softmax']


def log_softmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """x - log(sum(exp(x))) along an axis."""
    return call(_log_softmax, (x,), (axis,))  # type: ignore[no-any-return]


_log_softmax_grad = OPS['log_softmax_grad']


def log_softmax_grad(g: Tensor, y: Tensor, /, *, axis: int = -1) -> Tensor:
    """g - exp(y) * sum(g)."""
    return call(_log_softmax_grad, (g, y,), (axis,))  # type: ignore[no-any-return]


_logaddexp = OPS['logaddexp']


def logaddexp(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """log(exp(x) + exp(y)) without overflow."""
    return call(_logaddexp, (x, y,), ())  # type: ignore[no-any-return]


_logical_and = OPS['logical_and']


def logical_and(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Whether both are true."""
    return call(_logical_and, (x, y,), ())  # type: ignore[no-any-return]


_logical_not = OPS['logical_not']


def logical_not(x: Tensor, /) -> Tensor:
    """Whether x is zero."""
    return call(_logical_not, (x,), ())  # type: ignore[no-any-return]


_logical_or = OPS['logical_or']


def logical_or(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Whether at least one is true."""
    return call(_logical_or, (x, y,), ())  # type: ignore[no-any-return]


_logical_xor = OPS['logical_xor']


def logical_xor(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Whether exactly one is true."""
    return call(_logical_xor, (x, y,), ())  # type: ignore[no-any-return]


_matmul = OPS['matmul']


def matmul(x: Tensor, y: Tensor, /) -> Tensor:
    """Matrix product over the last two axes, broadcasting the others; vectors as in NumPy."""
    return call(_matmul, (x, y,), ())  # type: ignore[no-any-return]


_max = OPS['max']


def max(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element; equal ones share the gradient, NaN wins."""
    return call(_max, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_max_pool2d = OPS['max_pool2d']


def max_pool2d(x: Tensor, /, *, kernel: Pair = (2, 2), stride: Pair = (2, 2), padding: Pair = (0, 0)) -> Tensor:
    """Largest element of each window; NaN wins. Keeps the position in the H x W plane for the backward."""
    return call(_max_pool2d, (x,), (kernel, stride, padding,))  # type: ignore[no-any-return]


_max_pool2d_grad = OPS['max_pool2d_grad']


def max_pool2d_grad(g: Tensor, position: Tensor, /, shape: Shape) -> Tensor:
    """g added at the positions that won."""
    return call(_max_pool2d_grad, (g, position,), (shape,))  # type: ignore[no-any-return]


_maximum = OPS['maximum']


def maximum(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The larger operand; NaN wins. Equal operands share the gradient."""
    return call(_maximum, (x, y,), ())  # type: ignore[no-any-return]


_mean = OPS['mean']


def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over axes."""
    return call(_mean, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_min = OPS['min']


def min(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element; equal ones share the gradient, NaN wins."""
    return call(_min, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_minimum = OPS['minimum']


def minimum(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The smaller operand; NaN wins. Equal operands share the gradient."""
    return call(_minimum, (x, y,), ())  # type: ignore[no-any-return]


_multiply = OPS['multiply']


def multiply(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Product of two operands."""
    return call(_multiply, (x, y,), ())  # type: ignore[no-any-return]


_negative = OPS['negative']


def negative(x: Tensor, /) -> Tensor:
    """-x."""
    return call(_negative, (x,), ())  # type: ignore[no-any-return]


_nextafter = OPS['nextafter']


def nextafter(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """The number next to x towards y, in float32 or float64."""
    return call(_nextafter, (x, y,), ())  # type: ignore[no-any-return]


_nonzero = OPS['nonzero']


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """Positions of the elements that are not zero, one integer tensor per axis, in row-major order."""
    return call(_nonzero, (x,), ())  # type: ignore[no-any-return]


_not_equal = OPS['not_equal']


def not_equal(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x != y, element by element."""
    return call(_not_equal, (x, y,), ())  # type: ignore[no-any-return]


_permute_dims = OPS['permute_dims']


def permute_dims(x: Tensor, /, axes: Shape) -> Tensor:
    """Axes in another order."""
    return call(_permute_dims, (x,), (axes,))  # type: ignore[no-any-return]


_pinv = OPS['pinv']


def pinv(x: Tensor | Number, rtol: Tensor | Number, /) -> Tensor:
    """Moore-Penrose inverse; singular values up to rtol times the largest count as 0."""
    return call(_pinv, (x, rtol,), ())  # type: ignore[no-any-return]


_positive = OPS['positive']


def positive(x: Tensor, /) -> Tensor:
    """+x: the same values."""
    return call(_positive, (x,), ())  # type: ignore[no-any-return]


_pow = OPS['pow']


def pow(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x to the power y."""
    return call(_pow, (x, y,), ())  # type: ignore[no-any-return]


_prod = OPS['prod']


def prod(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Product over axes."""
    return call(_prod, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_qr = OPS['qr']


def qr(x: Tensor, /, *, mode: str = 'reduced') -> tuple[Tensor, Tensor]:
    """Orthonormal columns q and upper triangular r with q r = x."""
    return call(_qr, (x,), (mode,))  # type: ignore[no-any-return]


_reciprocal = OPS['reciprocal']


def reciprocal(x: Tensor, /) -> Tensor:
    """1 / x."""
    return call(_reciprocal, (x,), ())  # type: ignore[no-any-return]


_relu = OPS['relu']


def relu(x: Tensor, /) -> Tensor:
    """max(x, 0); NaN stays NaN."""
    return call(_relu, (x,), ())  # type: ignore[no-any-return]


_relu_grad = OPS['relu_grad']


def relu_grad(g: Tensor, y: Tensor, /) -> Tensor:
    """g where y > 0, else 0."""
    return call(_relu_grad, (g, y,), ())  # type: ignore[no-any-return]


_remainder = OPS['remainder']


def remainder(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x - floor(x / y) * y; has the sign of the divisor."""
    return call(_remainder, (x, y,), ())  # type: ignore[no-any-return]


_reshape = OPS['reshape']


def reshape(x: Tensor, /, shape: Shape) -> Tensor:
    """The same elements in another shape; one length may be -1."""
    return call(_reshape, (x,), (shape,))  # type: ignore[no-any-return]


_rms_norm = OPS['rms_norm']


def rms_norm(x: Tensor, /, weight: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019, eq. 4)."""
    return call(_rms_norm, (x, weight,), (eps,))  # type: ignore[no-any-return]


_rms_norm_grad = OPS['rms_norm_grad']


def rms_norm_grad(g: Tensor, x: Tensor, /, weight: Tensor | None, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rms_norm with respect to x and weight."""
    return call(_rms_norm_grad, (g, x, weight, rstd,), ())  # type: ignore[no-any-return]


_roll = OPS['roll']


def roll(x: Tensor, /, shift: Shift, *, axis: Axes = None) -> Tensor:
    """Elements moved along axes (along the flattened tensor without one); those that leave come in at the other end."""
    return call(_roll, (x,), (shift, axis,))  # type: ignore[no-any-return]


_rope = OPS['rope']


def rope(x: Tensor, cos: Tensor, sin: Tensor, /, *, offset: int = 0, interleaved: bool = False, inverse: bool = False) -> Tensor:
    """Rotary position embedding (Su et al. 2021): rotates pairs of x (B, H, T, D) by the angles of row offset + t.
    
    cos and sin are (positions, D/2). Pairs are the two halves of D (Hugging Face), or interleaved
    (2i, 2i + 1) (the paper, llama.cpp). Columns beyond twice the table's are copied.
    """
    return call(_rope, (x, cos, sin,), (offset, interleaved, inverse,))  # type: ignore[no-any-return]


_round = OPS['round']


def round(x: Tensor, /) -> Tensor:
    """Nearest integer, halves to even."""
    return call(_round, (x,), ())  # type: ignore[no-any-return]


_rsqrt = OPS['rsqrt']


def rsqrt(x: Tensor, /) -> Tensor:
    """1 / sqrt(x)."""
    return call(_rsqrt, (x,), ())  # type: ignore[no-any-return]


_scale_ = OPS['scale_']


def scale_(tensors: list[Any], /, *, factor: float) -> None:
    """Multiplies tensors by a factor, in place."""
    return call(_scale_, (tensors,), (factor,))  # type: ignore[no-any-return]


_scatter_index = OPS['scatter_index']


def scatter_index(g: Tensor, /, shape: Shape, *, index: Index) -> Tensor:
    """Zeros of a shape with g added at an index; the gradient of indexing. Repeated positions add up."""
    return call(_scatter_index, (g,), (shape, index,))  # type: ignore[no-any-return]


_searchsorted = OPS['searchsorted']


def searchsorted(x1: Tensor, x2: Tensor, /, *, side: str = 'left') -> Tensor:
    """Where each element of x2 goes into the sorted vector x1 so that it stays sorted."""
    return call(_searchsorted, (x1, x2,), (side,))  # type: ignore[no-any-return]


_set_index = OPS['set_index']


def set_index(x: Tensor | Number, value: Tensor | Number, /, *, index: Index) -> Tensor:
    """A copy of x with value at an index."""
    return call(_set_index, (x, value,), (index,))  # type: ignore[no-any-return]


_sgd = OPS['sgd']


def sgd(params: list[Any], grads: list[Any], buffers: list[Any], /, *, lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool, first: bool) -> None:
    """One step of stochastic gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form)."""
    return call(_sgd, (params, grads, buffers,), (lr, momentum, dampening, weight_decay, nesterov, first,))  # type: ignore[no-any-return]


_sigmoid = OPS['sigmoid']


def sigmoid(x: Tensor, /) -> Tensor:
    """1 / (1 + exp(-x))."""
    return call(_sigmoid, (x,), ())  # type: ignore[no-any-return]


_sign = OPS['sign']


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1."""
    return call(_sign, (x,), ())  # type: ignore[no-any-return]


_signbit = OPS['signbit']


def signbit(x: Tensor, /) -> Tensor:
    """Whether the sign bit is set: also for -0 and negative NaN."""
    return call(_signbit, (x,), ())  # type: ignore[no-any-return]


_silu = OPS['silu']


def silu(x: Tensor, /) -> Tensor:
    """x * sigmoid(x) (Hendrycks & Gimpel 2016; Elfwing et al. 2018)."""
    return call(_silu, (x,), ())  # type: ignore[no-any-return]


_silu_grad = OPS['silu_grad']


def silu_grad(g: Tensor, x: Tensor, /) -> Tensor:
    """Gradient of silu."""
    return call(_silu_grad, (g, x,), ())  # type: ignore[no-any-return]


_sin = OPS['sin']


def sin(x: Tensor, /) -> Tensor:
    """Sine."""
    return call(_sin, (x,), ())  # type: ignore[no-any-return]


_sinh = OPS['sinh']


def sinh(x: Tensor, /) -> Tensor:
    """Hyperbolic sine."""
    return call(_sinh, (x,), ())  # type: ignore[no-any-return]


_slogdet = OPS['slogdet']


def slogdet(x: Tensor, /) -> tuple[Tensor, Tensor]:
    """Sign and logarithm of the magnitude of the determinant."""
    return call(_slogdet, (x,), ())  # type: ignore[no-any-return]


_softmax = OPS['softmax']


def softmax(x: Tensor, /, *, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
    return call(_softmax, (x,), (axis,))  # type: ignore[no-any-return]


_softmax_grad = OPS['softmax_grad']


def softmax_grad(g: Tensor, y: Tensor, /, *, axis: int = -1) -> Tensor:
    """y * (g - sum(g * y))."""
    return call(_softmax_grad, (g, y,), (axis,))  # type: ignore[no-any-return]


_solve = OPS['solve']


def solve(a: Tensor, b: Tensor, /) -> Tensor:
    """x with a x = b, where b is a vector (one axis) or columns; a singular a is an error."""
    return call(_solve, (a, b,), ())  # type: ignore[no-any-return]


_sort = OPS['sort']


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Elements in order along an axis; the gradient goes back the way each element came."""
    return call(_sort, (x,), (axis, descending, stable,))  # type: ignore[no-any-return]


_split = OPS['split']


def split(x: Tensor, /, sections: Sections, *, axis: int = -1) -> tuple[Tensor, ...]:
    """x cut into equal parts along an axis; parts share memory with x."""
    return call(_split, (x,), (sections, axis,))  # type: ignore[no-any-return]


_sqrt = OPS['sqrt']


def sqrt(x: Tensor, /) -> Tensor:
    """Square root."""
    return call(_sqrt, (x,), ())  # type: ignore[no-any-return]


_square = OPS['square']


def square(x: Tensor, /) -> Tensor:
    """x * x."""
    return call(_square, (x,), ())  # type: ignore[no-any-return]


_subtract = OPS['subtract']


def subtract(x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """Difference of two operands."""
    return call(_subtract, (x, y,), ())  # type: ignore[no-any-return]


_sum = OPS['sum']


def sum(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over axes; small integers and bool are summed as int64."""
    return call(_sum, (x,), (axis, keepdims,))  # type: ignore[no-any-return]


_svd = OPS['svd']


def svd(x: Tensor, /, *, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """u, s, vh with u diag(s) vh = x; singular values falling."""
    return call(_svd, (x,), (full_matrices,))  # type: ignore[no-any-return]


_svdvals = OPS['svdvals']


def svdvals(x: Tensor, /) -> Tensor:
    """Singular values, falling."""
    return call(_svdvals, (x,), ())  # type: ignore[no-any-return]


_swiglu = OPS['swiglu']


def swiglu(a: Tensor, b: Tensor, /) -> Tensor:
    """silu(a) * b (Shazeer 2020)."""
    return call(_swiglu, (a, b,), ())  # type: ignore[no-any-return]


_swiglu_grad = OPS['swiglu_grad']


def swiglu_grad(g: Tensor, a: Tensor, b: Tensor, /) -> tuple[Tensor, Tensor]:
    """Gradients of swiglu."""
    return call(_swiglu_grad, (g, a, b,), ())  # type: ignore[no-any-return]


_take = OPS['take']


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Elements of an axis by position; negative positions count from the end. axis may be left out for vectors."""
    return call(_take, (x, indices,), (axis,))  # type: ignore[no-any-return]


_take_along_axis = OPS['take_along_axis']


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """y[..., i, ...] = x[..., indices[..., i, ...], ...]; the other axes of x and indices broadcast."""
    return call(_take_along_axis, (x, indices,), (axis,))  # type: ignore[no-any-return]


_tan = OPS['tan']


def tan(x: Tensor, /) -> Tensor:
    """Tangent."""
    return call(_tan, (x,), ())  # type: ignore[no-any-return]


_tanh = OPS['tanh']


def tanh(x: Tensor, /) -> Tensor:
    """Hyperbolic tangent."""
    return call(_tanh, (x,), ())  # type: ignore[no-any-return]


_tril = OPS['tril']


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and below the k-th diagonal, zeros above."""
    return call(_tril, (x,), (k,))  # type: ignore[no-any-return]


_triu = OPS['triu']


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The elements on and above the k-th diagonal, zeros below."""
    return call(_triu, (x,), (k,))  # type: ignore[no-any-return]


_trunc = OPS['trunc']


def trunc(x: Tensor, /) -> Tensor:
    """Integer part."""
    return call(_trunc, (x,), ())  # type: ignore[no-any-return]


_unique = OPS['unique']


def unique(x: Tensor, /) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sorted distinct values, where each occurs first, which one every element is, and how often it occurs.
    
    NaN values are distinct from each other, 0 and -0 are equal.
    """
    return call(_unique, (x,), ())  # type: ignore[no-any-return]


_var = OPS['var']


def var(x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Variance over axes, divided by n - correction."""
    return call(_var, (x,), (axis, correction, keepdims,))  # type: ignore[no-any-return]


_where = OPS['where']


def where(condition: Tensor | Number, x: Tensor | Number, y: Tensor | Number, /) -> Tensor:
    """x where the condition holds, else y."""
    return call(_where, (condition, x, y,), ())  # type: ignore[no-any-return]
