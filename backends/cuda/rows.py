"""How many threads share a row or a column."""

from __future__ import annotations

from collections.abc import Callable

from spiral.backends.cuda.arrays import THREADS
from spiral.gpu.kernel_cache import source_hash
from spiral.gpu.sources import CUDA_FOLDER
from spiral.gpu.tuning import Choice, Config, Key, Trial, declare

BLOCKS = 1056
"""As many as keep a large GPU busy: 8 on each of 132 multiprocessors. The same on every device, so that results are."""

MOST = 512  # threads that share a row


def power(n: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, n - 1).bit_length()


def row_grid(
    rows: int, n: int, itemsize: int, held: int, config: Config = (0, THREADS)
) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    """Threads of a group that has one row (see ``rows.cuh``), the grid and the block.

    Args:
        rows: how many.
        n: elements of each.
        itemsize: bytes of an element.
        held: how many pieces of 16 bytes a thread keeps in registers; half of them are used where that is enough.
        config: of `row_choice`.
    """
    shift, most = config
    packs = -(-n * itemsize // 16)
    group = power(-(-2 * packs // held))
    if group > 32 and packs <= 32 * held:
        group = 32
    group = min(group << shift if shift >= 0 else max(1, group >> -shift), MOST)
    threads = max(group, most) if group <= 32 else group
    return group, (-(-rows * group // threads), 1, 1), (threads, 1, 1)


LEAST, GREATEST = 6, 17
"""Classes of rows: of up to 2^6 bytes, ..., of more than 2^16."""


def row_class(n: int, itemsize: int) -> tuple[int, int]:
    """The class of shapes that a row of n elements is in."""
    return itemsize, min(GREATEST, max(LEAST, (n * itemsize - 1).bit_length()))


def row_choice(kernel: str, file: str, trial: Callable[[int, int, str], Trial]) -> Choice:
    """What launches of `row_grid` may choose: how many times two as many threads for a row, and threads of a block.

    Args:
        kernel: its name.
        file: of ``kernels/cuda``.
        trial: (rows, n, dtype) -> what to run.
    """
    few = ((0, THREADS), (0, 128), (0, 512), (1, THREADS), (-1, THREADS))  # several rows in a block
    many = ((0, THREADS), (1, THREADS), (-1, THREADS))  # a row is a block: its threads are the row's
    dtypes = {2: "bfloat16", 4: "float32", 8: "float64"}

    def of_class(key: Key, nbytes: int) -> Trial:
        itemsize, bits = int(key[0]), int(key[1])
        n = (1 << bits) // itemsize
        return trial(max(1, nbytes // (n * itemsize)), n, dtypes[itemsize])

    return declare(
        Choice(
            f"cuda/{kernel}", ("shift", "threads"),
            {(size, bits): few if bits <= 12 else many for size in dtypes for bits in range(LEAST, GREATEST + 1)},
            lambda: source_hash(CUDA_FOLDER / file), of_class,
        )
    )  # fmt: skip


def shared_row_grid(rows: int, n: int, itemsize: int) -> tuple[int, tuple[int, int, int]]:
    """Threads of a group as in `row_grid`, and the grid, for blocks of ``THREADS`` whose y shares out long rows.

    Only for kernels that reduce nothing; 4 pieces of 16 bytes are in flight in each thread.
    """
    packs = -(-n * itemsize // 16)
    group = power(-(-packs // 4))
    group = group if group <= 32 else THREADS
    grid = -(-rows * group // THREADS)
    shares = max(1, min(packs // (4 * THREADS), BLOCKS // grid)) if group == THREADS else 1
    return group, (grid, shares, 1)


def column_threads(columns: int, n: int) -> int:
    """How many threads of a block lie side by side on columns of n elements; the others share them."""
    by = 1
    most = min(THREADS // min(32, power(columns)), power(-(-n // 8)))
    while by < most and columns * by < BLOCKS * THREADS // 2:
        by *= 2
    return THREADS // by
