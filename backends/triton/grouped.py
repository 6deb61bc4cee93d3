"""Products of groups of rows, each with a matrix of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import NAMES, cast, dense
from spiral.backends.triton.gemm import Tile, wide_type
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, bfloat16, float16, float32, float64, int32
from spiral.kernels.triton import grouped as source

_TILES = {
    float16: Tile(64, 64, 64, 4, 3), bfloat16: Tile(64, 64, 64, 4, 3), float32: Tile(32, 64, 16, 4, 3),
    float64: Tile(32, 32, 16, 4, 2),
}  # fmt: skip


def _declare(fn: Any, d: Any, pointers: str, numbers: tuple[str, ...], divisible: tuple[str, ...], **more: Any) -> Any:
    tile = _TILES[d]
    params = {p: "*i32" if p == "sizes" else f"*{NAMES[d]}" for p in pointers.split()} | dict.fromkeys(numbers, "i32")
    constants = {"WIDE": wide_type(d), "M": tile.m, "N": tile.n, "K": tile.k} | more
    return TritonKernel(fn, params, constants, divisible=divisible, num_warps=tile.warps, num_stages=tile.stages)


_FORWARD = {
    (d, along_k): _declare(
        source.grouped_matmul, d, "x weight sizes y", ("total", "n", "k", "groups", "x_row", "w_group", "w_k", "w_n"),
        ("k", "x_row", "w_group", "w_n") if along_k else ("k", "n", "x_row", "w_group", "w_k"), ALONG_K=along_k,
    )
    for d in FLOATS for along_k in (True, False)
}  # fmt: skip
_GRAD = {
    d: _declare(source.grouped_matmul_grad, d, "g x sizes dw", ("n", "k", "tiles_k", "tiles_n"), ("n", "k"))
    for d in FLOATS
}


def _grouped_matmul(x: DeviceArray, weight: DeviceArray, sizes: DeviceArray, y: DeviceArray) -> None:
    if not y.size:
        return
    d = as_dtype(y.dtype)
    x, weight, sizes = dense(cast(x, d)), cast(weight, d), dense(cast(sizes, int32))
    (total, k), (groups, _, n), size = x.shape, weight.shape, y.itemsize
    if size not in weight.strides[1:] or any(s % size for s in weight.strides):
        weight = dense(weight)
    w_group, w_k, w_n = [s // size for s in weight.strides]
    along_k = w_k == 1 and w_n != 1
    tile = _TILES[d]
    grid = (-(-total // tile.m) + groups + 1, -(-n // tile.n), 1)
    addresses = (x.address, weight.address, sizes.address, y.address)
    _FORWARD[d, along_k](y.memory, grid, *addresses, total, n, k, groups, k, w_group, w_k, w_n)


def _grouped_matmul_grad(g: DeviceArray, x: DeviceArray, sizes: DeviceArray, dw: DeviceArray) -> None:
    if not dw.size:
        return
    d = as_dtype(dw.dtype)
    g, x, sizes = dense(cast(g, d)), dense(cast(x, d)), dense(cast(sizes, int32))
    groups, k, n = dw.shape
    tiles_k, tiles_n = -(-k // _TILES[d].m), -(-n // _TILES[d].n)
    addresses = (g.address, x.address, sizes.address, dw.address)
    _GRAD[d](dw.memory, (groups * tiles_k * tiles_n, 1, 1), *addresses, n, k, tiles_k, tiles_n)


def _few(first: DeviceArray, second: DeviceArray, sizes: DeviceArray) -> bool:
    return max(first.size, second.size) < 2**31


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    integers = tuple(d for d in ANY.integers if d.name != "bool")
    cap = Cap(FLOATS, integers=integers, where=_few, where_text="takes fewer than 2**31 elements")
    yield Kernel("grouped_matmul", _grouped_matmul, cap)
    yield Kernel("grouped_matmul_grad", _grouped_matmul_grad, cap)
