"""What a docstring says of each argument, and its first sentence."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$", re.M)
_ENTRY = re.compile(r"^\s*\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_ELSEWHERE = re.compile(r"rguments (?:are )?as in `(\w+)`")


def summary(thing: Any) -> str:
    """The first paragraph of a docstring, on one line, without backquotes; empty where a class has none of its own.

    Example:
        >>> summary(summary)[:22]
        'The first paragraph of'
    """
    doc = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return " ".join(doc.partition("\n\n")[0].split())


def argument_help(thing: Any) -> dict[str, str]:
    """What the ``Args`` section of a function or class says, by argument.

    For a class: its own docstring and those of its ``__init__`` and its bases, and of a class in the same module to
    which "arguments as in `Name`" refers; the nearest counts.
    """
    docs = [thing.__doc__]
    if inspect.isclass(thing):
        for base in thing.__mro__[:-1]:
            docs += [base.__doc__, base.__dict__.get("__init__", base).__doc__]
    found: dict[str, str] = {}
    for doc in docs:
        if not doc:
            continue
        found = {**_section(doc), **found}
        refers = _ELSEWHERE.search(doc)
        other = getattr(sys.modules.get(thing.__module__), refers[1], None) if refers else None
        if other is not None and other is not thing and other.__doc__:
            docs.append(other.__doc__)
            docs += [base.__doc__ for base in getattr(other, "__mro__", ())[1:-1]]
    return found


def _section(doc: str) -> dict[str, str]:
    text = inspect.cleandoc(doc)
    start = _SECTION.search(text)
    if start is None:
        return {}
    found: dict[str, str] = {}
    name, indent = "", None
    for line in text[start.end() :].splitlines():
        if not line.strip():
            if found:
                break
            continue
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            break
        entry = _ENTRY.match(line)
        if entry and (indent is None or depth <= indent):
            indent = depth
            name = entry[1]
            found[name] = entry[2].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
