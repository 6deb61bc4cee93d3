"""Products of matrices with strides, on the tiles of ``kernels/triton/linear.py``."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton.language as tl

from spiral.backends.triton.arrays import NAMES, dense
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, bfloat16, float16, float32, float64, int32, int64
from spiral.gpu import Driver
from spiral.gpu.axes import collapsed
from spiral.gpu.sources import triton_digest
from spiral.gpu.tuning import Choice, Key, Trial, declare
from spiral.kernels.triton import linear as source

BATCH_AXES = 3
_LONGEST = 2**31 - 1
_SHORTEST_SPLIT = 256  # of k: below, writing and adding the parts costs what the split saves
_MOST_SPLITS = 32
_BLOCK = 1024


@dataclass(frozen=True)
class Tile:
    """Results m x n, k at a time, by so many warps with a pipeline of so many stages."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


TILES: dict[DType, tuple[Tile, ...]] = {
    float16: (Tile(128, 128, 64, 8, 3), Tile(64, 64, 64, 4, 3)),
    bfloat16: (Tile(128, 128, 64, 8, 3), Tile(64, 64, 64, 4, 3)),
    float32: (Tile(128, 64, 16, 4, 3), Tile(32, 32, 32, 4, 3)),
    float64: (Tile(64, 64, 16, 8, 3), Tile(32, 32, 16, 4, 3)),
}
"""By dtype, largest first."""


def wide_type(d: DType) -> Any:
    """What sums of a floating dtype are in, as a kernel's constant."""
    return tl.float64 if d is float64 else tl.float32


def wide_name(d: DType) -> str:
    """The same as a parameter's type."""
    return "fp64" if d is float64 else "fp32"


_WAYS = tuple(itertools.product((True, False), repeat=2))
_LENGTHS = ("m", "n", "k")
_STEPS = ("x_row", "x_k", "w_row", "w_k", "n1", "n2", "x0", "x1", "x2", "w0", "w1", "w2")


def _product(d: DType, tile: Tile, x_along_k: bool, w_along_k: bool) -> TritonKernel:
    t, numbers = f"*{NAMES[d]}", dict.fromkeys((*_LENGTHS, *_STEPS, "has_bias", "relu", "chunk", "splits"), "i32")
    params = {"x": t, "w": t, "bias": t, "y": t, "part": f"*{wide_name(d)}"} | numbers
    # what the reads' alignment depends on; n where only the writes' does is left out, since a vocabulary may be odd
    long = ({"k", "x_row"} if x_along_k else {"m", "x_k"}) | ({"k", "w_row"} if w_along_k else {"n", "w_k"})
    return TritonKernel(
        source.product,
        params,
        {
            "WIDE": wide_type(d), "M": tile.m, "N": tile.n, "K": tile.k,
            "X_ALONG_K": x_along_k, "W_ALONG_K": w_along_k,
        },
        divisible=tuple(sorted(long | {"chunk", "x0", "x1", "x2", "w0", "w1", "w2"})),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )  # fmt: skip


_PRODUCTS = {(d, tile, a, b): _product(d, tile, a, b) for d in FLOATS for tile in TILES[d] for a, b in _WAYS}
_FINISH = {
    d: TritonKernel(
        source.finish,
        {"part": f"*{wide_name(d)}", "bias": f"*{NAMES[d]}", "y": f"*{NAMES[d]}", "count": "i64"}
        | dict.fromkeys(("n", "splits", "has_bias", "relu"), "i32"),
        {"BLOCK": _BLOCK},
    )
    for d in FLOATS
}
_SUMS = {
    d: TritonKernel(
        source.column_sums,
        {"x": f"*{NAMES[d]}", "y": f"*{NAMES[d]}", "part": f"*{wide_name(d)}"}
        | dict.fromkeys(("rows", "n", "chunk", "splits"), "i32"),
        {"WIDE": wide_type(d), "R": 32, "N": 64},
        divisible=("n",),
    )
    for d in FLOATS
}
_SIDE = 32
_WHOLE = {
    d: TritonKernel(
        source.whole_product,
        dict.fromkeys(("x", "w", "y"), f"*{NAMES[d]}") | dict.fromkeys((*_LENGTHS, *_STEPS), "i32"),
        {"SIDE": _SIDE},
        aligned=False,
    )
    for d in (int32, int64)
}


_SIDES, _DEPTHS = (6, 8, 10, 12, 14), (10, 12)  # of products: powers of two that their lengths fit in


def product_class(d: DType, m: int, n: int, k: int) -> Key:
    """The class of shapes that a product of (m, k) and (k, n) is in."""
    rows, columns = ((length - 1).bit_length() for length in (m, n))
    side = _SIDES[-1]
    return (
        d.name, next((s for s in _SIDES if rows <= s), side), next((s for s in _SIDES if columns <= s), side),
        _DEPTHS[k > 1 << _DEPTHS[0]],
    )  # fmt: skip


def _trial(key: Key, nbytes: int) -> Trial:
    """A linear layer of the class's largest lengths, which leave no choice of the number of bytes."""
    m, n, k = (1 << int(bits) for bits in key[1:])
    return Trial("linear", (((m, k), str(key[0])), ((n, k), str(key[0])), None), ("none",))


PRODUCT = declare(
    Choice(
        "triton/product", ("tile",),
        {
            (d.name, m, n, k): ((-1,), *((i,) for i in range(len(TILES[d]))))
            for d in FLOATS for m in _SIDES for n in _SIDES for k in _DEPTHS
        },
        lambda: triton_digest("linear.py"), _trial,
    )
)  # fmt: skip
"""Which of `TILES` a product takes; -1: what `tile_for` says."""


def transposed(x: DeviceArray) -> DeviceArray:
    """x with its last two axes exchanged."""
    return x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _lies(x: DeviceArray) -> bool:
    """Whether rows or columns of x (..., rows, k) lie in one stretch, and strides are numbers of elements."""
    size = x.itemsize
    if any(s % size or abs(s) // size > _LONGEST for s in x.strides):
        return False
    return any(s == size or n == 1 for n, s in zip(x.shape[-2:], x.strides[-2:], strict=True))


def _steps(x: DeviceArray) -> tuple[bool, int, int]:
    """Whether x (..., rows, k) lies along k, and its strides along rows and k, 0 along an axis of length 1."""
    size = x.itemsize
    row, k = (0 if n == 1 else s // size for n, s in zip(x.shape[-2:], x.strides[-2:], strict=True))
    if k == 1 or x.shape[-1] == 1:
        return True, row, 1
    return False, 1, k


def tile_for(gpu: Driver, tiles: tuple[Tile, ...], m: int, n: int, batch: int) -> Tile:
    """The largest tile of which there are enough to fill the device, else the smallest."""
    for tile in tiles:
        wasteful = m <= tile.m // 2 or n <= tile.n // 2
        if not wasteful and -(-m // tile.m) * -(-n // tile.n) * batch >= gpu.facts.multiprocessors:
            return tile
    return tiles[-1]


def cut(gpu: Driver, tiles: int, k: int, step: int) -> tuple[int, int]:
    """How many splits of k, for two blocks on every multiprocessor, and the length of each, a multiple of step."""
    splits = max(1, min(2 * gpu.facts.multiprocessors // tiles, k // _SHORTEST_SPLIT, _MOST_SPLITS))
    chunk = -(-max(1, k) // (splits * step)) * step
    return max(1, -(-k // chunk)), chunk


def multiply(
    x: DeviceArray, w: DeviceArray, y: DeviceArray, bias: DeviceArray | None = None, activation: str = "none"
) -> None:
    """y = activation(x w^T + bias) for x (..., M, K), w (..., N, K) and dense y (..., M, N) of one dtype.

    Leading axes of x and w broadcast; any strides. Overwrites y.
    """
    if not y.size:
        return
    x, w = [a if _lies(a) else dense(a) for a in (x, w)]
    m, n, k = x.shape[-2], w.shape[-2], x.shape[-1]
    lead = y.shape[:-2]
    if lead and all(d == 1 for d in w.shape[:-2]):  # one w for all: more rows, where they are equally far apart
        rows = x.reshape_view((-1, k)) if x.size else None
        if rows is not None and rows.shape[0] == m * math.prod(lead):
            w = w if w.ndim == 2 else w.reshape_view(w.shape[-2:]) or dense(w)
            x, m, lead = rows, rows.shape[0], ()
    wide_x, wide_w = x.broadcast_to((*lead, m, k)), w.broadcast_to((*lead, n, k))
    size = y.itemsize
    axes = collapsed(lead, *[tuple([s // size for s in a.strides[:-2]]) for a in (wide_x, wide_w)])
    if len(axes) > BATCH_AXES:
        wide_x, wide_w = dense(wide_x), dense(wide_w)
        axes = collapsed(lead, *[tuple([s // size for s in a.strides[:-2]]) for a in (wide_x, wide_w)])
    axes = [[1, 0, 0]] * (BATCH_AXES - len(axes)) + axes
    (x_along_k, *x_steps), (w_along_k, *w_steps) = _steps(wide_x), _steps(wide_w)
    steps = (*x_steps, *w_steps, axes[1][0], axes[2][0], *[a[1] for a in axes], *[a[2] for a in axes])
    gpu, d, batch = y.memory, as_dtype(y.dtype), math.prod(lead)
    if d.kind != "float":
        tiles = -(-m // _SIDE) * -(-n // _SIDE) * batch
        _WHOLE[d](gpu, (tiles, 1, 1), x.address, w.address, y.address, m, n, k, *steps)
        return
    (chosen,) = PRODUCT.at(gpu, product_class(d, m, n, k))
    tile = tile_for(gpu, TILES[d], m, n, batch) if chosen < 0 else TILES[d][chosen]
    tiles = -(-m // tile.m) * -(-n // tile.n) * batch
    splits, chunk = cut(gpu, tiles, k, tile.k)
    ending = (int(bias is not None), int(activation == "relu"))
    part = parts(gpu, splits, y)
    _PRODUCTS[d, tile, x_along_k, w_along_k](
        gpu, (tiles, splits, 1), x.address, w.address, address(bias), y.address, address(part), m, n, k, *steps,
        *ending, chunk, splits,
    )  # fmt: skip
    if part is not None:
        finish(part, splits, bias, y, n, *ending)


def multiply_wide(x: DeviceArray, w: DeviceArray, y: DeviceArray) -> None:
    """y = x w^T for x (M, K) and w (N, K) of one floating dtype and dense y (M, N) in their wide type. Overwrites y."""
    if not y.size:
        return
    x, w = [a if _lies(a) else dense(a) for a in (x, w)]
    (m, k), n, d, gpu = x.shape, w.shape[0], as_dtype(x.dtype), y.memory
    (x_along_k, *x_steps), (w_along_k, *w_steps) = _steps(x), _steps(w)
    tile = tile_for(gpu, TILES[d], m, n, 1)
    tiles = -(-m // tile.m) * -(-n // tile.n)
    steps = (*x_steps, *w_steps, 1, 1, 0, 0, 0, 0, 0, 0)
    # the only one of "two splits": what a split gives is stored in the wide type
    _PRODUCTS[d, tile, x_along_k, w_along_k](
        gpu, (tiles, 1, 1), x.address, w.address, 0, 0, y.address, m, n, k, *steps, 0, 0, max(1, k), 2
    )  # fmt: skip


def address(x: DeviceArray | None) -> int:
    """Of an array; 0 for None."""
    return 0 if x is None else x.address


def parts(gpu: Driver, splits: int, y: DeviceArray) -> DeviceArray | None:
    """Room for what each split of a sum gives, or None where there is one."""
    if splits == 1:
        return None
    wide = np.dtype(np.float64) if y.dtype == float64.numpy else np.dtype(np.float32)
    return DeviceArray.empty(gpu, (splits, y.size), wide)


def finish(
    part: DeviceArray, splits: int, bias: DeviceArray | None, y: DeviceArray, n: int, has_bias: int = 0, relu: int = 0
) -> None:
    """y = the sum of the parts."""
    grid = (-(-y.size // _BLOCK), 1, 1)
    values = (part.address, address(bias), y.address, y.size, n, splits, has_bias, relu)
    _FINISH[as_dtype(y.dtype)](y.memory, grid, *values)


def column_sums(x: DeviceArray, y: DeviceArray) -> None:
    """y = sum of x (rows, n) over its rows; y dense, of x's dtype. Overwrites y."""
    rows, n = x.shape
    if not n:
        return
    x, gpu = dense(x), y.memory
    across = -(-n // 64)
    splits = max(1, min(4 * gpu.facts.multiprocessors // across, rows // 64))
    chunk = max(1, -(-rows // splits))
    splits = max(1, -(-rows // chunk))
    part = parts(gpu, splits, y)
    _SUMS[as_dtype(y.dtype)](
        gpu, (across, splits, 1), x.address, y.address, address(part), rows, n, chunk, splits
    )  # fmt: skip
    if part is not None:
        finish(part, splits, None, y, n)
