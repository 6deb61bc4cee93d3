"""A driver's memory in terms of tensors' buffers."""

from __future__ import annotations

import gc

from spiral.device_array import DeviceArray, SeparateMemory


class GpuMemory(SeparateMemory):
    """The `spiral.backend.Memory` of a GPU; a buffer's ``memory`` is the `spiral.gpu.Driver`."""


def largest_alive(count: int = 10) -> list[tuple[int, str]]:
    """Bytes and description of the largest device buffers that are alive, one line per block of memory.

    Found by walking the collector's objects: nothing is paid for it until memory runs out.
    """
    blocks: dict[int, tuple[int, str]] = {}
    for o in gc.get_objects():
        if type(o) is DeviceArray:
            size = getattr(o.block, "nbytes", o.nbytes)
            blocks[id(o.block)] = (size, f"{o.dtype}{list(o.shape)}")
    return sorted(blocks.values(), reverse=True)[:count]


def out_of_memory(wanted: int, free: int, total: int) -> str:
    """What an out-of-memory error says: what was wanted, what would fit, and who holds the rest.

    Args:
        wanted: bytes asked for.
        free: bytes that would still fit.
        total: bytes of the device.
    """
    lines = [
        f"the device has no {_size(wanted)} left: {_size(free)} of {_size(total)} would fit. The largest tensors alive:"
    ]
    lines += [f"  {_size(size):>10}  {text}" for size, text in largest_alive()] or ["  none of spiral's"]
    lines.append("Use a smaller batch, spiral.checkpoint, bfloat16, or free what is no longer needed.")
    return "\n".join(lines)


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"
