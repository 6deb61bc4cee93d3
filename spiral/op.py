"""The ``@op`` declaration: everything about an op, in one place, next to its mathematics.

    @op("softmax(x) -> y")
    class Softmax:
        '''Softmax over the last axis.'''
        meta = ...       # shapes and dtypes, no data
        oracle = ...     # float64 NumPy, the definition of right
        decompose = ...  # in simpler ops
        vjp = ...        # in ops; exactly the parameters named here are saved
        samples = ...    # the inputs every backend must survive

The schema lists tensor inputs (``bias?`` optional, ``*params`` a list), after a bare ``*`` the static
attributes with their types and defaults, and the outputs; a ``:hidden`` output is what a fused
kernel keeps for its backward. ``python -m spiral.op --write`` writes the typed wrappers.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spiral.errors import ArgumentError, RegistryError
from spiral.registry import Catalog, catalog


@dataclass(frozen=True)
class Input:
    """A tensor parameter of an op."""

    name: str
    optional: bool = False
    many: bool = False  # a list of tensors


@dataclass(frozen=True)
class Attr:
    """A static attribute of an op."""

    name: str
    type: str
    default: str | None  # source text; None: required


@dataclass(frozen=True)
class Output:
    """A result of an op; hidden ones are kept for the backward and not returned."""

    name: str
    hidden: bool = False


class Op:
    """A declared op. Made by `op`, found in `OPS`."""

    call: Callable[..., Any]  # runs the op: inputs, then attributes, by position; made by `spiral.dispatch`
    hooked = False  # `spiral.hooks` wraps ops of nodes whose gradients someone watches

    def __init__(self, schema: str, cls: type) -> None:
        self.schema = schema
        self.name, self.inputs, self.attrs, self.outputs = parse_schema(schema)
        self.id = next(_ids)
        self.doc = inspect.cleandoc(cls.__doc__ or "")
        self.family = cls.__module__.rsplit(".", 1)[-1]
        self.meta: Callable[..., Any] = cls.meta  # type: ignore[attr-defined]
        self.oracle: Callable[..., Any] | None = getattr(cls, "oracle", None)
        self.decompose: Callable[..., Any] | None = getattr(cls, "decompose", None)
        self.vjp: Callable[..., Any] | None = getattr(cls, "vjp", None)
        self.samples: Callable[..., Any] | None = getattr(cls, "samples", None)
        self.nondifferentiable: bool = getattr(cls, "nondifferentiable", False)
        self.scalars: bool = getattr(cls, "scalars", False)
        self.mutates: tuple[str, ...] = getattr(cls, "mutates", ())
        self.constants: tuple[str, ...] = getattr(cls, "constants", ())  # inputs without a gradient
        self.view: bool = getattr(cls, "view", False)  # results share memory: no arithmetic
        self.dynamic: bool = getattr(cls, "dynamic", False)  # shapes depend on values; meta gives the largest
        self.fused: bool = getattr(cls, "fused", False)  # made of ops that are faster than its oracle: decomposes first
        self.internal: bool = getattr(cls, "internal", False)
        self.undispatched: Callable[..., Any] | None = getattr(cls, "call", None)  # runs it instead of a kernel
        self.many_outputs = any(o.name.startswith("*") for o in self.outputs)
        self.n_visible = sum(not o.hidden for o in self.outputs)  # with many_outputs: at least
        names = [i.name for i in self.inputs]
        outs = [o.name for o in self.outputs]
        attrs = [a.name for a in self.attrs]
        self.key_attrs = tuple(k for k, a in enumerate(self.attrs) if "DType" in a.type)
        self.mutated = tuple(names.index(m) for m in self.mutates)
        # what vjp asks for, as ("input" | "spec" | "output" | "attr", position)
        self.wants: tuple[tuple[str, int], ...] = ()
        self.wants_all: tuple[tuple[str, int], ...] | None = None  # see `spiral.autograd.wants_all`
        # names no hidden output, so it can itself be differentiated
        self.exact_vjp = self.vjp is not None
        if self.vjp is not None:
            wants: list[tuple[str, int]] = []
            for p in list(inspect.signature(self.vjp).parameters)[2:]:
                if p in names:
                    wants.append(("input", names.index(p)))
                elif p in outs:
                    wants.append(("output", outs.index(p)))
                    self.exact_vjp &= not self.outputs[outs.index(p)].hidden
                elif p in attrs:
                    wants.append(("attr", attrs.index(p)))
                elif p.endswith("_spec") and p[:-5] in names:
                    wants.append(("spec", names.index(p[:-5])))
                else:
                    raise RegistryError(
                        f"op {self.name}: vjp names {p!r}; allowed are {', '.join(names + outs + attrs)} "
                        "and <input>_spec"
                    )
            self.wants = tuple(wants)

    def __repr__(self) -> str:
        return f"Op({self.schema})"


OPS: Catalog[Op] = catalog("op")
_ids = itertools.count()  # part of dispatch keys: never given twice, also where an op is deleted
_makers: list[Callable[[Op], Callable[..., Any]]] = []


def make_calls_with(make: Callable[[Op], Callable[..., Any]]) -> None:
    """Sets what makes `Op.call`, for the ops declared so far and for later ones; used by `spiral.dispatch`."""
    _makers[:] = [make]
    for o in OPS.values():
        o.call = make(o)


def function_of(name: str) -> Callable[..., Any]:
    """An op as a function: inputs by position, attributes by name. For ops without a written wrapper, a plugin's.

    Raises:
        AttributeError: there is no such op.
    """
    if name.startswith("__") or name not in OPS:
        raise AttributeError(f"there is no op {name!r}")

    def run(*inputs: Any, **attrs: Any) -> Any:
        from spiral.dispatch import complete_attrs

        o = OPS[name]
        if len(inputs) > len(o.inputs):
            raise ArgumentError(f"{name}: expected {o.schema}; received {len(inputs)} inputs.")
        given = complete_attrs(o, attrs)
        return o.call(*inputs, *(None,) * (len(o.inputs) - len(inputs)), *given)

    run.__name__ = run.__qualname__ = name
    run.__doc__ = OPS[name].doc
    return run


class Namespace:
    """The ops as functions, for use inside op declarations; filled when the wrappers are loaded."""

    def __getattr__(self, name: str) -> Any:
        return function_of(name)


F: Any = Namespace()


def op(schema: str) -> Callable[[type], type]:
    """Declares an op; see the module's documentation."""

    def declare(cls: type) -> type:
        o = Op(schema, cls)
        if o.name in OPS:
            raise RegistryError(f"op {o.name} is declared twice: {OPS[o.name].schema} and {schema}")
        for make in _makers:
            o.call = make(o)
        OPS.add(o.name, o)
        return cls

    return declare


_SCHEMA = re.compile(r"^(\w+)\((.*)\)\s*->\s*(.*)$", re.S)


def parse_schema(schema: str) -> tuple[str, tuple[Input, ...], tuple[Attr, ...], tuple[Output, ...]]:
    """Name, inputs, attributes and outputs of a schema.

    Raises:
        RegistryError: the text does not follow the grammar.
    """
    m = _SCHEMA.match(schema.strip())
    if m is None:
        raise RegistryError(f"op schema: expected 'name(inputs, *, attrs) -> outputs'; received {schema!r}")
    name, params, results = m.groups()
    inputs: list[Input] = []
    attrs: list[Attr] = []
    in_attrs = False
    for part in _split(params):
        if part == "*":
            in_attrs = True
        elif in_attrs:
            head, _, default = part.partition("=")
            attr, _, kind = head.partition(":")
            attrs.append(Attr(attr.strip(), kind.strip(), default.strip() or None))
        elif part.startswith("*"):
            inputs.append(Input(part[1:], many=True))
        else:
            inputs.append(Input(part.rstrip("?"), optional=part.endswith("?")))
    outputs = [
        Output(part.partition(":")[0], hidden=part.endswith(":hidden")) for part in _split(results) if part != "()"
    ]
    return name, tuple(inputs), tuple(attrs), tuple(outputs)


def _split(text: str) -> list[str]:
    """Splits at commas that stand outside brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in "[(":
            depth += 1
        elif c in "])":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [p for p in parts if p]


if __name__ == "__main__":
    from spiral.op_wrappers import main

    main()
