"""``spiral explain``: which kernel runs an op, and why not the others."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spiral.op import Op

_MOST_ELEMENTS = 2**28

HELP = "which kernel runs an op, and why not the others"
EXAMPLES = (
    "spiral explain rms_norm",
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
        "free", nargs="*", metavar="SHAPE[:DTYPE] | NUMBER | none | key=value",
        help="inputs, such as 2x3 or 2x3:float64 (scalar: a number with a point), then attributes; "
        "without any, the op's first sample",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the ops")


def run(arguments: argparse.Namespace) -> int:
    """Explain and print."""
    import spiral as sp
    from spiral.dispatch import find_op
    from spiral.errors import ArgumentError
    from spiral.op import OPS

    if arguments.list:
        print("\n".join(sorted(OPS)))
        return 0
    if arguments.op is None:
        raise ArgumentError("explain: expected an op's name; `spiral explain --list` shows them.")
    op = find_op(arguments.op)
    inputs = [_input(text) for text in arguments.free if "=" not in text]
    attributes = dict(_attribute(text) for text in arguments.free if "=" in text)
    if not inputs:
        inputs, sampled = _sample(op)
        attributes = {**sampled, **attributes}
    elif len(op.inputs) == 1 and op.inputs[0].many:
        inputs = [inputs]
    print(sp.explain(op.name, *inputs, **attributes))
    return 0


def _sample(op: Op) -> tuple[list[Any], dict[str, Any]]:
    """The inputs and attributes of an op's first sample."""
    import spiral as sp
    from spiral.testing.oracle import samples_of, to_tensor

    arrays, values = next(samples_of(op))
    return [to_tensor(a, sp.float32) for a in arrays], dict(zip([a.name for a in op.attrs], values, strict=True))


def _input(text: str) -> Any:
    import spiral as sp
    from spiral.dtype import ALL
    from spiral.errors import ArgumentError

    if text.lower() == "none":
        return None
    shape, _, dtype = text.partition(":")
    try:
        if "." in shape:
            return float(shape)
        dims = tuple(int(n) for n in shape.split("x"))
    except ValueError as error:
        raise ArgumentError(f"explain: expected SHAPE[:DTYPE] such as 2x3:float32; received {text!r}.") from error
    names = [d.name for d in ALL]
    if dtype and dtype not in names:
        raise ArgumentError(f"explain: {text!r}: the dtype must be one of {', '.join(names)}; received {dtype!r}.")
    if min(dims) < 0 or math.prod(dims) > _MOST_ELEMENTS:
        raise ArgumentError(
            f"explain: {text!r}: sizes must not be negative and make at most {_MOST_ELEMENTS:,} elements: the choice "
            "does not depend on more."
        )
    return sp.zeros(dims, dtype=dtype or "float32")


def _attribute(text: str) -> tuple[str, Any]:
    """A value in JSON's spelling, or a text: causal=true, shape=[2,3], reduction=sum."""
    key, _, value = text.partition("=")
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    return key, tuple(parsed) if isinstance(parsed, list) else parsed
