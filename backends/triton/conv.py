"""Two-dimensional convolution as matrix products whose operands are found in the images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, cast, cast_into, dense
from spiral.backends.triton.gemm import Tile, address, cut, finish, parts, wide_name, wide_type
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, bfloat16, float16, float32, float64
from spiral.gpu import Driver
from spiral.kernels.triton import conv as source

Pair = tuple[int, int]
_LONGEST = 2**31 - 1
_SUMMED = 1024
_WINDOW = ("images", "groups", "outs", "ins", "height", "width", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw", "dh")
_TILES = {
    float16: Tile(64, 128, 32, 8, 2), bfloat16: Tile(64, 128, 32, 8, 2), float32: Tile(32, 64, 16, 4, 2),
    float64: Tile(32, 32, 16, 4, 2),
}  # fmt: skip


def _kernels(fn: Any, pointers: tuple[str, ...], *more: str) -> dict[DType, TritonKernel]:
    made = {}
    for d, tile in _TILES.items():
        params = {p: f"*{wide_name(d) if p == 'part' else NAMES[d]}" for p in pointers}
        params |= dict.fromkeys((*_WINDOW, *more), "i32")
        constants = {"WIDE": wide_type(d), "M": tile.m, "N": tile.n, "K": tile.k}
        made[d] = TritonKernel(fn, params, constants, aligned=False, num_warps=tile.warps, num_stages=tile.stages)
    return made


_FORWARD = _kernels(source.conv2d, ("x", "weight", "bias", "y"), "dw", "has_bias")
_TO_X = _kernels(source.conv2d_dx, ("g", "weight", "dx"), "dw")
_TO_WEIGHT = _kernels(source.conv2d_dw, ("g", "x", "dw", "part"), "step_w", "chunk", "splits")
_SUMS = {
    d: TritonKernel(
        source.channel_sums,
        {"g": f"*{NAMES[d]}", "y": f"*{NAMES[d]}", "part": f"*{wide_name(d)}"}
        | dict.fromkeys(("channels", "plane", "count", "chunk", "splits"), "i32"),
        {"WIDE": wide_type(d), "BLOCK": _SUMMED},
    )
    for d in FLOATS
}


def _window(
    x: tuple[int, ...], weight: tuple[int, ...], y: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
    groups: int,
) -> tuple[int, ...]:  # fmt: skip
    o, cg, kh, kw = weight
    return (x[0], groups, o // groups, cg, *x[2:], *y[2:], kh, kw, *stride, *padding, *dilation)


def _tiles(d: DType, m: int, n: int, groups: int) -> int:
    return -(-m // _TILES[d].m) * -(-n // _TILES[d].n) * groups


def _conv2d(
    x: DeviceArray, weight: DeviceArray, bias: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    y: DeviceArray,
) -> None:  # fmt: skip
    if not y.size:
        return
    d = as_dtype(y.dtype)
    x, weight = dense(cast(x, d)), dense(cast(weight, d))
    bias = None if bias is None else dense(cast(bias, d))
    window = _window(x.shape, weight.shape, y.shape, stride, padding, dilation, groups)
    n, o, oh, ow = y.shape
    programs = _tiles(d, o // groups, n * oh * ow, groups)
    operands = (x.address, weight.address, address(bias), y.address)
    _FORWARD[d](y.memory, (programs, 1, 1), *operands, *window, int(bias is not None))


def _conv2d_grad(
    g: DeviceArray, x: DeviceArray, weight: DeviceArray, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    need_x: bool, need_weight: bool, need_bias: bool, dx: DeviceArray, dw: DeviceArray, db: DeviceArray,
) -> None:  # fmt: skip
    d, gpu = as_dtype(g.dtype), g.memory
    g, x, weight = dense(g), dense(cast(x, d)), dense(cast(weight, d))
    window = _window(x.shape, weight.shape, g.shape, stride, padding, dilation, groups)
    outputs = [y if y.dtype == d.numpy else DeviceArray.empty(gpu, y.shape, d.numpy) for y in (dx, dw, db)]
    o, cg, kh, kw = weight.shape
    n, _, h, w = x.shape
    if need_x and dx.size:
        programs = _tiles(d, cg, n * h * w, groups)
        _TO_X[d](gpu, (programs, 1, 1), g.address, weight.address, outputs[0].address, *window)
    if need_weight and dw.size:
        programs = _tiles(d, o // groups, cg * kh * kw, groups)
        splits, chunk = cut(gpu, programs, n * g.shape[2] * g.shape[3], _TILES[d].k)
        part = parts(gpu, splits, outputs[1])
        operands = (g.address, x.address, outputs[1].address, address(part))
        _TO_WEIGHT[d](gpu, (programs, splits, 1), *operands, *window, chunk, splits)
        if part is not None:
            finish(part, splits, None, outputs[1], 1)
    if need_bias and db.size:
        _channel_sums(gpu, g, outputs[2])
    for y, result in zip((dx, dw, db), outputs, strict=True):
        if y is not result and y.size:
            cast_into(result, y)


def _channel_sums(gpu: Driver, g: DeviceArray, y: DeviceArray) -> None:
    n, channels, oh, ow = g.shape
    count = n * oh * ow
    splits = max(1, min(4 * gpu.facts.multiprocessors // channels, count // 4096))
    chunk = max(1, -(-count // splits))
    splits = max(1, -(-count // chunk))
    part = parts(gpu, splits, y)
    operands = (g.address, y.address, address(part))
    _SUMS[as_dtype(g.dtype)](gpu, (channels, splits, 1), *operands, channels, max(1, oh * ow), count, chunk, splits)
    if part is not None:
        finish(part, splits, None, y, 1)


def _indices_fit(first: DeviceArray, second: DeviceArray, *rest: Any) -> bool:
    return max(first.size, second.size) <= _LONGEST


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, where=_indices_fit, where_text="takes arrays of fewer than 2**31 elements")
    yield Kernel("conv2d", _conv2d, cap)
    yield Kernel("conv2d_grad", _conv2d_grad, cap)
