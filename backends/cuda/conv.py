"""Two-dimensional convolution as a matrix product whose operands are found in the images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, cast, cast_into, dense
from spiral.backends.cuda.gemm import MATRIX, STRIDED, strided
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.products import FINDING_TILES, PRODUCT_FORMAT, Kind, products
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, float32, float64

Pair = tuple[int, int]
_CONV = Source("conv.cu")
_DIVIDER = "3I"
_WINDOW = "10i12I"
_PATCHES = Kind("Patches", f"P2i{_WINDOW}", ", false")
_PATCHES_TRANSPOSED = Kind("Patches", f"P2i{_WINDOW}", ", true")
_SPREAD = Kind("Spread", f"P2i{_WINDOW}")
_FLIPPED = Kind("Flipped", "P2i3I2i4x")
_PIXELS = Kind("Pixels", "P2i3I2i4x")
_PLANES = Kind("Planes", "PP3I2i4x")
_FORWARD = {d: products(_CONV, d, STRIDED, _PATCHES, _PLANES, True, False, FINDING_TILES) for d in FLOATS}
_TO_X = {d: products(_CONV, d, _FLIPPED, _SPREAD, _PLANES, True, False, FINDING_TILES) for d in FLOATS}
_TO_WEIGHT = {d: products(_CONV, d, _PIXELS, _PATCHES_TRANSPOSED, MATRIX, True, True, FINDING_TILES) for d in FLOATS}
_SUMS = {
    d: _CONV.kernel(f"spiral::channel_sums<{NAMES[d]}>", "P", _DIVIDER, MATRIX.format, PRODUCT_FORMAT) for d in FLOATS
}
_LONGEST = 2**31 - 1


def divider(d: int) -> tuple[int, int, int]:
    """The values of a ``Divider``: n // d == (n * multiplier // 2**32 + n) >> shift for 0 <= n < 2**31."""
    shift = (d - 1).bit_length()
    return d, (1 << 32) * ((1 << shift) - d) // d + 1, shift


def _window(
    inner: tuple[int, ...], per_group: int, outer: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair,
) -> tuple[int, ...]:  # fmt: skip
    _, channels, height, width = inner
    (oh, ow), (kh, kw) = outer[2:], kernel
    return (
        channels, per_group, height, width, *stride, *padding, *dilation,
        *divider(oh * ow), *divider(ow), *divider(kh * kw), *divider(kw),
    )  # fmt: skip


def _conv2d(
    x: DeviceArray, weight: DeviceArray, bias: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    y: DeviceArray,
) -> None:  # fmt: skip
    if not y.size:
        return
    d = as_dtype(y.dtype)
    x, weight = dense(cast(x, d)), dense(cast(weight, d))
    bias = None if bias is None else dense(cast(bias, d))
    o, cg, kh, kw = weight.shape
    n, _, oh, ow = y.shape
    m, pixels, k = o // groups, n * oh * ow, cg * kh * kw
    rows = weight.reshape_view((groups, m, k))
    assert rows is not None
    window = _window(x.shape, cg, y.shape, (kh, kw), stride, padding, dilation)
    _, a = strided(rows, (groups,), rows.strides[:1])
    b = (x.address, pixels, k, *window)
    to = (y.address, 0 if bias is None else bias.address, *divider(oh * ow), o, m)
    _FORWARD[d](y.memory, m, pixels, k, groups, a, b, to)


def _conv2d_grad(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    need_x: bool, need_weight: bool, need_bias: bool, dx: DeviceArray, dw: DeviceArray, db: DeviceArray,
) -> None:  # fmt: skip
    d, gpu = as_dtype(g.dtype), g.memory
    g, x, weight = dense(g), dense(cast(x, d)), dense(cast(weight, d))
    o, cg, kh, kw = weight.shape
    n, _, oh, ow = g.shape
    og, taps = o // groups, kh * kw
    outputs = [y if y.dtype == d.numpy else DeviceArray.empty(gpu, y.shape, d.numpy) for y in (dx, dw, db)]
    if need_x:
        h, w = x.shape[2:]
        window = _window(g.shape, og, x.shape, (kh, kw), stride, padding, dilation)
        a = (weight.address, cg, og * taps, *divider(taps), cg * taps, og * cg * taps)
        b = (g.address, n * h * w, og * taps, *window)
        to: tuple[int, ...] = (outputs[0].address, 0, *divider(h * w), cg * groups, cg)
        _TO_X[d](gpu, cg, n * h * w, og * taps, groups, a, b, to)
    if need_weight:
        window = _window(x.shape, cg, g.shape, (kh, kw), stride, padding, dilation)
        a = (g.address, og, n * oh * ow, *divider(oh * ow), o, og)
        b = (x.address, cg * taps, n * oh * ow, *window)
        to = (outputs[1].address, 0, og, cg * taps, 0)
        _TO_WEIGHT[d](gpu, og, cg * taps, n * oh * ow, groups, a, b, to)
    if need_bias:
        _channel_sums(g, outputs[2])
    for y, result in zip((dx, dw, db), outputs, strict=True):
        if y is not result and y.size:
            cast_into(result, y)


def _channel_sums(g: DeviceArray, y: DeviceArray) -> None:
    gpu, d = g.memory, as_dtype(g.dtype)
    n, channels, oh, ow = g.shape
    count = n * oh * ow
    splits = max(1, min(4 * gpu.facts.multiprocessors // channels, count // 4096))
    chunk = max(1, -(-count // splits))
    splits = max(1, -(-count // chunk))
    of_dtype = _TO_WEIGHT[d]
    part = DeviceArray.empty(gpu, (splits, channels), of_dtype.wide) if splits > 1 else None
    shape = (0 if part is None else part.address, 1, channels, count, chunk, 1, channels, 1)
    to = (y.address, 0, 1, channels, 0)
    plane = divider(max(1, oh * ow))
    _SUMS[d](gpu, (channels, splits, 1), (THREADS, 1, 1), g.address, *plane, *to, *shape)
    if part is not None:
        of_dtype.finish(gpu, blocks(channels), (THREADS, 1, 1), *shape, *to, splits)


def _indices_fit(first: DeviceArray, second: DeviceArray, *rest: Any) -> bool:
    return max(first.size, second.size) <= _LONGEST


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    text = "takes arrays of fewer than 2**31 elements"
    for name, fn in (("conv2d", _conv2d), ("conv2d_grad", _conv2d_grad)):
        yield Kernel(name, fn, Cap((float32, float64), where=_indices_fit, where_text=text))
        yield Kernel(name, fn, Cap(FLOATS, cc=(80, 999), where=_indices_fit, where_text=text))
