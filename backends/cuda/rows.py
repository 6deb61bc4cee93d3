"""How many threads share a row or a column."""

from __future__ import annotations

from spiral.backends.cuda.arrays import THREADS

BLOCKS = 1056
"""As many as keep a large GPU busy: 8 on each of 132 multiprocessors. The same on every device, so that results are."""

MOST = 512  # threads that share a row


def power(n: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, n - 1).bit_length()


def row_grid(rows: int, n: int, itemsize: int, held: int) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    """Threads of a group that has one row (see ``rows.cuh``), the grid and the block.

    Args:
        rows: how many.
        n: elements of each.
        itemsize: bytes of an element.
        held: how many pieces of 16 bytes a thread keeps in registers; half of them are used where that is enough.
    """
    packs = -(-n * itemsize // 16)
    group = power(-(-2 * packs // held))
    if group > 32 and packs <= 32 * held:
        group = 32
    group = min(group, MOST)
    threads = max(group, THREADS) if group <= 32 else group
    return group, (-(-rows * group // threads), 1, 1), (threads, 1, 1)


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
