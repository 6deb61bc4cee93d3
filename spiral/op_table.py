"""Writes `docs/ops.md`: every op with its schema, its gradient and the backends that have a kernel for it.

``python -m spiral.op_table --write`` writes the file, ``--check`` exits 1 when it is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spiral import backends, ops  # noqa: F401 (declares the ops)
from spiral.op import OPS, Op

_HEAD = """# Ops

Written by `python -m spiral.op_table --write`; do not edit. A star marks ops that only other code calls (gradients of
fused ops, optimizer steps). Dtypes are those of floating inputs; where the C++ backend (`cpu`) has no kernel
for a dtype or an attribute, the NumPy backend runs.
"""


def _gradient(op: Op) -> str:
    if op.nondifferentiable:
        return "none"
    if op.vjp is None:
        return "of its decomposition"
    return "vjp" if op.exact_vjp or op.decompose is None else "vjp; second: of its decomposition"


def _kernels(name: str, backend: str) -> str:
    kernels = backends()[backend].kernels.get(name, [])
    out = []
    for k in kernels:
        text = ", ".join(d.name for d in k.cap.dtypes)
        out.append(f"{text}; {k.cap.where_text}" if k.cap.where_text else text)
    return "; ".join(out) or "—"


def table() -> str:
    """The whole page; needs the C++ extension, so that its column is there."""
    lines = [_HEAD]
    for family in sorted({o.family for o in OPS.values()}):
        lines += [f"\n## {family}\n", "| op | gradient | decomposition | cpu |", "|---|---|---|---|"]
        for o in sorted((o for o in OPS.values() if o.family == family), key=lambda o: o.name):
            schema = o.schema.replace("|", "\\|")
            star = " *" if o.internal else ""
            lines.append(
                f"| `{schema}`{star} | {_gradient(o)} | {'yes' if o.decompose else 'no'} | {_kernels(o.name, 'cpu')} |"
            )
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
