"""Axes of strided arrays, as few as possible: what launchers of both GPU backends pass to kernels."""

from __future__ import annotations


def collapsed(shape: tuple[int, ...], *strides: tuple[int, ...]) -> list[list[int]]:
    """The same elements with as few axes as possible: neighbours that lie in one stretch for all operands are merged.

    Args:
        shape: lengths.
        *strides: steps per axis, for each operand.

    Returns:
        Length and the operands' strides, for each axis.
    """
    kept: list[list[int]] = []
    for i, n in enumerate(shape):
        if n == 1:
            continue
        axis = [n, *(s[i] for s in strides)]
        if kept and all(before == step * n for before, step in zip(kept[-1][1:], axis[1:], strict=True)):
            kept[-1] = [kept[-1][0] * n, *axis[1:]]
        else:
            kept.append(axis)
    return kept
