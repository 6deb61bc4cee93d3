"""Writes `spiral/ops/generated.py` from the op declarations: ``python -m spiral.op --write``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spiral.op import OPS, Op

_HEADER = '''"""Typed wrappers of the declared ops. Written by `python -m spiral.op --write`; do not edit."""

# ruff: noqa: A001, A002, E501
from __future__ import annotations

from typing import Any

from spiral import dispatch  # noqa: F401 (makes the calls)
from spiral.dtype import DType
from spiral.op import OPS
from spiral.tensor import Tensor

Number = bool | int | float
Shape = tuple[int, ...]
Axes = int | tuple[int, ...] | None
Pair = tuple[int, int]
Index = Any
Sections = int
Shift = int | tuple[int, ...]
'''
_POSITIONAL = ("Shape", "DType", "Sections", "Shift")  # attributes that read well without their name


def wrapper(op: Op) -> str:
    """Source of an op's wrapper."""
    params, args, names = [], [], []
    for k, i in enumerate(op.inputs):
        kind = "list[Any]" if i.many else "Tensor | Number" if op.scalars else "Tensor"
        # Python allows a default only where no required parameter follows
        default = " = None" if all(j.optional for j in op.inputs[k:]) else ""
        params.append(f"{i.name}: {kind}{' | None' + default if i.optional else ''}")
        args.append(i.name)
    # tensors without a default are positional only, as in the array API standard
    required = next((k for k, i in enumerate(op.inputs) if i.optional), len(op.inputs))
    if required:
        params.insert(required, "/")
    star = False
    for a in op.attrs:
        if not star and a.type not in _POSITIONAL:
            params.append("*")
            star = True
        params.append(f"{a.name}: {a.type}{'' if a.default is None else ' = ' + a.default}")
        names.append(a.name)
    many = any(o.name.startswith("*") for o in op.outputs)
    out = "tuple[Tensor, ...]" if many else "Tensor" if op.n_visible == 1 else "None"
    if op.n_visible > 1:
        out = f"tuple[{', '.join(['Tensor'] * op.n_visible)}]"
    doc = op.doc.replace("\n", "\n    ") + ("\n    " if "\n" in op.doc else "")
    return (
        f"_{op.name} = OPS[{op.name!r}].call\n\n\n"
        f"def {op.name}({', '.join(params)}) -> {out}:\n"
        f'    """{doc}"""\n'
        f"    return _{op.name}({', '.join(args + names)})  # type: ignore[no-any-return]\n"
    )


def source() -> str:
    """The whole file."""
    names = sorted(OPS)
    exported = "__all__ = [\n" + "".join(f"    {n!r},\n" for n in names) + "]\n"
    return _HEADER + "\n" + exported + "\n" + "\n\n".join(wrapper(OPS[n]) for n in names)


def path() -> Path:
    return Path(__file__).parent / "ops" / "generated.py"


def declare() -> None:
    """Imports the families without the wrappers, so that a stale file cannot stand in the way."""
    import importlib
    import types

    folder = Path(__file__).parent / "ops"
    if "spiral.ops" not in sys.modules:
        package = types.ModuleType("spiral.ops")
        package.__path__ = [str(folder)]
        sys.modules["spiral.ops"] = package
    for file in sorted(folder.glob("*.py")):
        if file.stem not in ("__init__", "generated", "composite"):
            importlib.import_module(f"spiral.ops.{file.stem}")


def main() -> None:
    """Command line: --write writes the file, --check exits 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="python -m spiral.op", description=main.__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    options = parser.parse_args()
    declare()
    if options.write:
        path().write_text(source())
    elif path().read_text() != source():
        print(f"{path()} is stale; run python -m spiral.op --write", file=sys.stderr)
        raise SystemExit(1)
