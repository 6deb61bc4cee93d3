"""How a matrix product is cut into blocks: which tile, and how many splits of the sum where there are few tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiral.backends.cuda.arrays import NAMES, THREADS, blocks
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import DType, bfloat16, float16, float32, float64, int32, int64
from spiral.gpu import Driver

PRODUCT_FORMAT = "P6iq"
"""The `struct` format of ``Product``."""

_SHORTEST_SPLIT = 256  # of k: below, writing and adding the parts costs what the split saves
_MOST_SPLITS = 32


@dataclass(frozen=True)
class Tile:
    """A tile: its name in CUDA C++, results m x n, k at a time, threads, bytes of dynamic shared memory."""

    name: str
    m: int
    n: int
    k: int
    threads: int = 256
    shared: int = 0


@dataclass(frozen=True)
class Products:
    """The kernels that multiply operands of certain kinds into a destination of a certain kind.

    Attributes:
        kernels: by tile, largest first.
        finish: sums the parts where k is split.
        wide: dtype of the parts, as NumPy's.
    """

    kernels: Mapping[Tile, CudaKernel]
    finish: CudaKernel
    wide: Any

    def __call__(
        self,
        gpu: Driver,
        m: int,
        n: int,
        k: int,
        batch: int,
        a: Sequence[Any],
        b: Sequence[Any],
        y: Sequence[Any],
        splits: int = 0,
    ) -> None:
        """Launches: y[batch] (m, n) = a[batch] (m, k) b[batch] (n, k)^T.

        Args:
            gpu: where.
            m, n, k: lengths.
            batch: how many products.
            a, b, y: values of the operands' and the destination's structures.
            splits: of k; 0 chooses.
        """  # fmt: skip
        if m * n * batch:
            self.launch(gpu, self.tile(gpu, m, n, batch), m, n, k, batch, a, b, y, splits)

    def launch(
        self,
        gpu: Driver,
        tile: Tile,
        m: int,
        n: int,
        k: int,
        batch: int,
        a: Sequence[Any],
        b: Sequence[Any],
        y: Sequence[Any],
        splits: int = 0,
    ) -> None:
        """The same with a tile of `tile`'s choice."""
        tiles_m, tiles_n = -(-m // tile.m), -(-n // tile.n)
        count = tiles_m * tiles_n * batch
        splits = splits or _splits(gpu, count, k)
        chunk = -(-max(1, k) // (splits * tile.k)) * tile.k
        splits = max(1, -(-k // chunk))
        part = DeviceArray.empty(gpu, (splits, batch, m, n), self.wide) if splits > 1 else None
        shape = (part.address if part is not None else 0, m, n, k, chunk, tiles_m, tiles_n, batch)
        kernel = self.kernels[tile]
        kernel(gpu, (count, splits, 1), (tile.threads, 1, 1), *a, *b, *y, *shape, shared=tile.shared)
        if part is not None:
            self.finish(gpu, blocks(m * n * batch), (THREADS, 1, 1), *shape, *y, splits)

    def tile(self, gpu: Driver, m: int, n: int, batch: int) -> Tile:
        """The largest tile of which there are enough to fill the device, else the smallest."""
        tile = None
        for tile in self.kernels:
            wasteful = m <= tile.m // 2 or n <= tile.n // 2
            if not wasteful and -(-m // tile.m) * -(-n // tile.n) * batch >= gpu.facts.multiprocessors:
                return tile
        assert tile is not None
        return tile


SIMT_TILES: dict[DType, tuple[Tile, ...]] = {
    float32: (Tile("spiral::LargeFloat", 128, 128, 8), Tile("spiral::SmallFloat", 64, 64, 16)),
    float64: (Tile("spiral::Double", 64, 64, 8),),
    int32: (Tile("spiral::Int", 64, 64, 16),),
    int64: (Tile("spiral::Long", 64, 64, 8),),
}
"""Tiles of the ordinary arithmetic units by what they compute in, largest first, as in ``product_tiles.cuh``."""
FINDING_TILES = SIMT_TILES | {float32: (Tile("spiral::WideFloat", 64, 128, 8), Tile("spiral::SmallFloat", 64, 64, 16))}
"""The same for operands that work out where an element is: the largest tile would spill its registers."""
MMA_TILES: dict[DType, tuple[Tile, ...]] = {
    d: (
        Tile(f"spiral::LargeMma<{NAMES[d]}>", 128, 128, 32, 256, 4 * 64 * 256),
        Tile(f"spiral::SmallMma<{NAMES[d]}>", 64, 64, 32, 128, 4 * 64 * 128),
    )
    for d in (float16, bfloat16)
}
"""Tiles of the tensor cores."""
TF32_TILES: dict[DType, tuple[Tile, ...]] = {
    float32: (
        Tile("spiral::LargeTf32", 128, 128, 32, 256, 3 * 128 * 272),
        Tile("spiral::SmallTf32", 64, 64, 32, 128, 3 * 128 * 144),
    )
}
"""The same for float32 that is rounded to tf32."""


@dataclass(frozen=True)
class Kind:
    """A structure of CUDA C++ that a product reads or writes: its name without the dtype, and its `struct` format."""

    name: str
    format: str
    more: str = ""

    def of(self, d: DType) -> str:
        """Its name for a dtype."""
        return f"spiral::{self.name}<{NAMES[d]}{self.more}>"


def products(
    source: Source,
    d: DType,
    a: Kind,
    b: Kind,
    y: Kind,
    a_along_k: bool = True,
    b_along_k: bool = True,
    tiles: Mapping[DType, tuple[Tile, ...]] = SIMT_TILES,
    to: DType | None = None,
    tf32: bool = False,
) -> Products:
    """The kernels for operands of a dtype and results of it, or of ``to``.

    Operands of tensor cores, 16-bit ones and with ``tf32`` float32, lie in shared memory along k or along rows.
    """
    to = to or d
    kinds = ", ".join((a.of(d), b.of(d), y.of(to)))
    formats = (a.format, b.format, y.format, PRODUCT_FORMAT)
    mma = TF32_TILES if tf32 else MMA_TILES
    if d in mma:
        ways = f"{a_along_k}, {b_along_k}".lower()
        kernels = {t: source.kernel(f"spiral::mma_product<{t.name}, {kinds}, {ways}>", *formats) for t in mma[d]}
    else:
        kernels = {t: source.kernel(f"spiral::product<{t.name}, {kinds}>", *formats) for t in tiles[d]}
    wide = float32 if d in MMA_TILES else d
    name = f"spiral::finish<{NAMES[wide]}, {y.of(to)}>"
    return Products(kernels, source.kernel(name, PRODUCT_FORMAT, y.format, "i"), wide.numpy)


def _splits(gpu: Driver, tiles: int, k: int) -> int:
    """Enough that two blocks run on every multiprocessor."""
    return max(1, min(2 * gpu.facts.multiprocessors // tiles, k // _SHORTEST_SPLIT, _MOST_SPLITS))
