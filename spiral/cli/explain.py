"""``spiral explain``: which kernel runs an op, and why not the others."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "which kernel runs an op, and why not the others"
EXAMPLES = (
    "spiral explain add 2x3 2x3",
    "spiral explain rms_norm 8x128 128",
    "spiral explain softmax 4x4:float64",
    "spiral explain attention 1x4x16x32 1x2x16x32 1x2x16x32 scale=0.2 causal=true",
    "spiral explain --list",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("op", nargs="?", help="the op's name")
    parser.add_argument(
        "inputs", nargs="*", metavar="SHAPE[:DTYPE] | NUMBER | none | key=value",
        help="inputs, such as 2x3 or 2x3:float64 (scalar: a number with a point), then attributes",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the ops")


def run(arguments: argparse.Namespace) -> int:
    """Explain and print."""
    import spiral as sp
    from spiral.errors import ArgumentError, RegistryError
    from spiral.op import OPS

    if arguments.list:
        print("\n".join(sorted(OPS)))
        return 0
    if arguments.op is None:
        raise ArgumentError("explain: expected an op's name; `spiral explain --list` shows them.")
    if arguments.op not in OPS:
        import difflib

        close = ", ".join(difflib.get_close_matches(arguments.op, OPS)) or "none is close"
        raise RegistryError(f"explain: there is no op {arguments.op!r}; did you mean: {close}?")
    inputs = [_input(text) for text in arguments.inputs if "=" not in text]
    attributes = dict(_attribute(text) for text in arguments.inputs if "=" in text)
    print(sp.explain(arguments.op, *inputs, **attributes))
    return 0


def _input(text: str) -> Any:
    import spiral as sp
    from spiral.errors import ArgumentError

    if text.lower() == "none":
        return None
    shape, _, dtype = text.partition(":")
    try:
        if "." in shape:
            return float(shape)
        return sp.zeros(tuple(int(n) for n in shape.split("x")), dtype=getattr(sp, dtype or "float32"))
    except (ValueError, AttributeError) as error:
        raise ArgumentError(f"explain: expected SHAPE[:DTYPE] such as 2x3:float32; received {text!r}.") from error


def _attribute(text: str) -> tuple[str, Any]:
    import yaml

    key, _, value = text.partition("=")
    parsed = yaml.safe_load(value)
    return key, tuple(parsed) if isinstance(parsed, list) else parsed
