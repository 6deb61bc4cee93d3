"""Cost of one small call, 16 float32 elements, against PyTorch's in the same process.

    python -m benchmarks.overhead

Repeats of the two alternate, so that whatever slows the machine slows both. With ``--check`` the exit
status says whether every ratio of minima is within its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.competitor import environment
from benchmarks.report import Quartiles, print_table, print_versions
from benchmarks.versions import common_versions, spiral_versions, torch_versions

HEADER = ("call", "ratio of minima", "ratio, median (quartiles)", "bar", "", "µs", "µs, torch")


@dataclass(frozen=True)
class Call:
    """An expression over ``a``, ``b`` (16,), ``g`` (16,) with gradient, ``m`` (16, 16), and its bar."""

    name: str
    expression: str
    bar: float


CALLS = (
    Call("a + b", "a + b", 0.8),
    Call("a + b, gradient recorded", "g + b", 0.8),
    Call("a * 2.0", "a * 2.0", 1.0),
    Call("a[0]", "a[0]", 1.0),
    Call("bias add, (16, 16) + (16,)", "m + b", 1.0),
)


def operands(convert: Callable[[Any], Any]) -> dict[str, Any]:
    """The operands as a framework's tensors."""
    rng = np.random.default_rng(0)
    shapes = {"a": (16,), "b": (16,), "g": (16,), "m": (16, 16)}
    found = {k: convert(rng.standard_normal(s).astype(np.float32)) for k, s in shapes.items()}
    found["g"].requires_grad = True
    return found


def measure(call: Call, sides: list[dict[str, Any]], *, repeats: int, seconds: float) -> dict[str, Any]:
    """Seconds per call of each side, in alternating repeats of about ``seconds`` each."""
    timers = [timeit.Timer(call.expression, globals=side) for side in sides]
    for timer in timers:
        timer.timeit(200)
    number = max(1, round(seconds / (max(t.timeit(1000) for t in timers) / 1000)))
    spent: list[list[float]] = [[], []]
    for i in range(repeats):
        for who in (0, 1) if i % 2 == 0 else (1, 0):
            spent[who].append(timers[who].timeit(number) / number)
    ours, theirs = spent
    return {
        "call": call.name,
        "bar": call.bar,
        "ratio_of_minima": min(ours) / min(theirs),
        "ratio": Quartiles.of([a / b for a, b in zip(ours, theirs, strict=True)]),
        "microseconds": 1e6 * min(ours),
        "microseconds_torch": 1e6 * min(theirs),
    }


def row(r: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    ratio = r["ratio_of_minima"]
    verdict = "met" if ratio <= r["bar"] else "MISSED"
    times = (f"{r['microseconds']:.3f}", f"{r['microseconds_torch']:.3f}")
    return (r["call"], f"{ratio:.2f}", str(r["ratio"]), f"{r['bar']:.1f}", verdict, *times)


def restart_unforced() -> None:
    """Starts this program again when the environment forces an OpenBLAS core; returns when it does not."""
    env = environment(threads=1)
    if env != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:]], env)


def main() -> int:
    """Measures and prints; returns 1 when ``--check`` finds a bar missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, help="alternating pairs (default 41)")
    parser.add_argument("--seconds", type=float, help="length of a repeat (default 0.02)")
    parser.add_argument("--quick", action="store_true", help="5 short repeats: does it run?")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--json", type=Path, help="write results here")
    args = parser.parse_args()
    restart_unforced()
    import torch

    import spiral as sp

    torch.set_num_threads(1)
    sp.set_num_threads(1)
    repeats, seconds = args.repeats or (5 if args.quick else 41), args.seconds or 0.02
    if args.quick:
        seconds = min(seconds, 0.001)
    sides = [operands(sp.asarray), operands(torch.from_numpy)]
    results = [measure(call, sides, repeats=repeats, seconds=seconds) for call in CALLS]
    versions = {**common_versions(), **spiral_versions(), **torch_versions()}
    print_versions(versions)
    print_table("one call, spiral over torch (lower is better)", HEADER, [row(r) for r in results])
    if args.json:
        plain = [{**r, "ratio": r["ratio"].as_dict()} for r in results]
        args.json.write_text(json.dumps({"versions": versions, "results": plain}, indent=1) + "\n")
    return int(args.check and any(r["ratio_of_minima"] > r["bar"] for r in results))


if __name__ == "__main__":
    sys.exit(main())
