"""How elements that are only moved are cut into units of up to 16 bytes."""

from __future__ import annotations

from typing import Any

from spiral.backends.cuda.arrays import AXES, collapsed

UNITS: dict[int, str] = {
    1: "spiral::u8", 2: "spiral::u16", 4: "spiral::u32", 8: "spiral::u64", 16: "spiral::Pack<spiral::u32>",
}  # fmt: skip
"""What each unit is called in CUDA C++, by bytes."""


def widest(itemsize: int, *multiples: int) -> int:
    """The largest unit, at least an element, that divides all these addresses, lengths and strides in bytes."""
    unit = 16
    while unit > itemsize and any(m % unit for m in multiples):
        unit //= 2
    return unit


def laid_out(
    itemsize: int,
    shape: tuple[int, ...],
    *strides: tuple[int, ...],
    moved: tuple[int, ...],
    fixed: tuple[int, ...] = (),
) -> tuple[int, int, tuple[int, ...]] | None:
    """Unit, number of units and the values of a ``Layout`` that visits elements in C order of ``shape``.

    Args:
        itemsize: bytes of an element.
        shape: lengths.
        *strides: bytes per axis for each operand.
        moved: which operands hold the elements; the others (indices) stay where they are along the last axis.
        fixed: addresses and offsets that the unit must divide as well.

    Returns:
        None where more than 8 axes remain.
    """
    lengths, merged = collapsed(shape, *strides)
    if len(lengths) > AXES:
        return None
    rows: list[list[int]] = [list(s) for s in merged]
    sizes = list(lengths)
    unit = itemsize
    together = all(r[-1] == (itemsize if k in moved else 0) for k, r in enumerate(rows))
    if together and sizes[-1] > 1:
        others = [s for k in moved for s in rows[k][:-1]]
        unit = widest(itemsize, sizes[-1] * itemsize, *others, *fixed)
        sizes[-1] = sizes[-1] * itemsize // unit
        for k in moved:
            rows[k][-1] = unit
    rest = (0,) * (AXES - len(sizes))
    values: tuple[int, ...] = (len(sizes), *sizes, *rest)
    count = 1
    for n in sizes:
        count *= n
    for r in rows:
        values += (*r, *rest)
    return unit, count, values


def product(lengths: Any) -> int:
    """The product of lengths; 1 for none."""
    n = 1
    for d in lengths:
        n *= d
    return n
