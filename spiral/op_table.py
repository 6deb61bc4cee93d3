"""Writes `docs/ops.md`: every op with its schema, its gradient and the backends that have a kernel for it.

``python -m spiral.op_table --write`` writes the file, ``--check`` exits 1 when it is stale.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

from spiral import backends, ops  # noqa: F401 (declares the ops)
from spiral.backend import Kernel
from spiral.op import OPS, Op

_HEAD = """# Ops

Written by `python -m spiral.op_table --write`; do not edit. A star marks ops that only other code calls (gradients of
fused ops, optimizer steps).

A column per backend, with the dtypes of floating inputs that its kernels take (16: float16 and bfloat16, 32, 64:
float32 and float64), *i* where they take integers or bool, and what they ask of shapes and attributes besides. Where a
backend has no kernel:

- *view*: the core makes a view; nothing is computed.
- *parts*: the op runs as its decomposition, whose parts have kernels.
- *host*: values go to the host, NumPy computes, the result goes back; each such call waits for the device. These are
  ops whose result's shape depends on values, or whose algorithms exist as libraries on the CPU.
- On the CPU, NumPy runs what the C++ backend (`cpu`) does not: *NumPy*.
- A backend of a device that shares the host's memory borrows from the CPU what has neither kernel nor decomposition.
"""
_COLUMNS = ("cpu", "cuda", "triton")


def _gradient(op: Op) -> str:
    if op.nondifferentiable:
        return "none"
    if op.vjp is None:
        return "of its decomposition"
    return "vjp" if op.exact_vjp or op.decompose is None else "vjp; second: of its decomposition"


@cache
def _kernels(backend: str) -> dict[str, list[Kernel]]:
    """A backend's kernels by op, whether it can run here or not."""
    entry = backends()[backend]
    if entry.kernels or entry.backend is None:
        return entry.kernels
    found: dict[str, list[Kernel]] = {}
    for kernel in entry.backend.kernels():
        found.setdefault(kernel.op, []).append(kernel)
    return found


def _takes(kernel: Kernel) -> str:
    if kernel.cap.priority < 0:
        return "host"
    names = {d.name for d in kernel.cap.dtypes}
    short = (["16"] if {"float16", "bfloat16"} <= names else []) + [n[5:] for n in ("float32", "float64") if n in names]
    text = " ".join([*short, *(["*i*"] if kernel.cap.integers else [])])
    return f"{text}; {kernel.cap.where_text}" if kernel.cap.where_text else text


def _cell(op: Op, backend: str) -> str:
    kernels = _kernels(backend).get(op.name, [])
    if kernels:
        return "; or ".join(dict.fromkeys(map(_takes, kernels)))
    if op.undispatched is not None or (op.view and backend != "cpu"):
        return "*view*" if op.view else "core"
    if op.decompose is not None:
        return "*parts*"
    return "*NumPy*" if backend == "cpu" else "—"


def table() -> str:
    """The whole page; needs the C++ extension and Triton, so that their columns are there."""
    lines = [_HEAD]
    for family in sorted({o.family for o in OPS.values()}):
        lines += [
            f"\n## {family}\n",
            f"| op | gradient | {' | '.join(_COLUMNS)} |",
            "|---|---|" + "---|" * len(_COLUMNS),
        ]
        for o in sorted((o for o in OPS.values() if o.family == family), key=lambda o: o.name):
            schema = o.schema.replace("|", "\\|")
            star = " *" if o.internal else ""
            cells = " | ".join(_cell(o, b) for b in _COLUMNS)
            lines.append(f"| `{schema}`{star} | {_gradient(o)} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m spiral.op_table", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    options = parser.parse_args()
    path = Path(__file__).resolve().parent.parent / "docs" / "ops.md"
    if options.write:
        path.write_text(table())
    elif path.read_text() != table():
        print(f"{path} is stale; run python -m spiral.op_table --write", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
