"""What a type hint allows, in words and in JSON Schema."""

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from spiral.schema_values import _MAPPINGS, _NONES, _SEQUENCES, OneOf, Range, members, parts

_NAMES = {int: "integer", float: "number", bool: "boolean", str: "text", Path: "path"}
_JSON = {int: "integer", float: "number", bool: "boolean", str: "string", Path: "string"}


def type_name(hint: Any) -> str:
    """The hint in short: ``integer``, ``integer or none``.

    Example:
        >>> type_name(int | tuple[int, int] | None)
        'integer, (integer, integer) or none'
    """
    plain, _ = parts(hint)
    if len(members(plain)) > 1:
        *first, last = [type_name(h) for h in sorted(members(plain), key=lambda h: parts(h)[0] in _NONES)]
        return f"{', '.join(first)} or {last}"
    if plain in _NONES:
        return "none"
    if choices(hint):
        return "choice"
    if plain in _NAMES:
        return _NAMES[plain]
    origin, inner = get_origin(plain) or plain, get_args(plain)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"({', '.join(map(type_name, inner))})"
    if origin in _SEQUENCES:
        return f"list of {type_name(inner[0])}" if inner else "list"
    if origin in _MAPPINGS:
        return "mapping"
    if origin in (collections.abc.Callable, typing.Callable):
        return "function"
    if plain in (Any, object) or isinstance(plain, typing.TypeVar):
        return "anything"
    return getattr(origin, "__name__", str(origin))


def choices(hint: Any) -> tuple[Any, ...]:
    """The values of which a hint allows one; none for other hints."""
    plain, notes = parts(hint)
    for note in notes:
        if isinstance(note, OneOf):
            return note.names
    if get_origin(plain) is Literal:
        return get_args(plain)
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return tuple(e.value if isinstance(e.value, str) else e.name for e in plain)
    return ()


def allowed(hint: Any) -> str:
    """What is allowed, as it stands after "must be".

    Example:
        >>> from typing import Annotated
        >>> allowed(Annotated[int, Range(1)]), allowed(Literal["mean", "sum"] | None)
        ('an integer of at least 1', "'mean', 'sum' or none")
    """
    found: list[str] = []
    for member in sorted(members(hint), key=lambda h: parts(h)[0] in _NONES):
        some = choices(hint if len(members(hint)) == 1 else member)
        found += list(map(repr, some)) or [_alternative(member)]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def _alternative(hint: Any) -> str:
    name = type_name(hint)
    plain, notes = parts(hint)
    limits = [str(n) for n in notes if isinstance(n, Range)]
    if plain in (int, float, bool, Path):
        article = "an" if name[0] in "aeiou" else "a"
        name = "true or false" if plain is bool else f"{article} {'finite ' if plain is float else ''}{name}"
        if plain is float:
            name = name.replace("an finite", "a finite")
        return f"{name} {'of ' if limits and limits[0].startswith('at least') else ''}{limits[0]}" if limits else name
    if isinstance(plain, type) and plain not in (str, *_NONES, *_SEQUENCES, *_MAPPINGS, Any, object):
        return f"a {name} object"
    return f"{name}, each {limits[0]}" if limits else name


def json_schema(hint: Any) -> dict[str, Any]:
    """The hint as JSON Schema says it."""
    plain, notes = parts(hint)
    if len(members(plain)) > 1:
        made: dict[str, Any] = {"anyOf": [json_schema(h) for h in members(plain)]}
    elif choices(hint):
        made = {"enum": list(choices(hint))}
    elif plain in _NONES or plain is types.NoneType:
        made = {"type": "null"}
    elif plain in _JSON:
        made = {"type": _JSON[plain]}
    else:
        made = _json_container(plain)
    for note in notes:
        if isinstance(note, Range) and made.get("type") in ("integer", "number"):
            made |= _json_range(note)
    return made


def _json_container(hint: Any) -> dict[str, Any]:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        items = [json_schema(h) for h in inner]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in _SEQUENCES:
        return {"type": "array"} | ({"items": json_schema(inner[0])} if inner else {})
    if origin in _MAPPINGS:
        return {"type": "object"}
    if hint in (Any, object):
        return {}
    return {"description": f"a Python object: {type_name(hint)}"}


def _json_range(limits: Range) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.low is not None:
        found["exclusiveMinimum" if limits.open_low else "minimum"] = limits.low
    if limits.high is not None:
        found["exclusiveMaximum" if limits.open_high else "maximum"] = limits.high
    return found
