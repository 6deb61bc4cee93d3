"""Who is told of ops and of choices among backends. With nobody to tell, an op pays one flag test.

The core knows no events: `spiral.plugin.bus` installs an observer while somebody listens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from spiral.storage import native
from spiral.tensor_core import TensorCore

Shapes = tuple[tuple[int, ...], ...]
OpObserver = Callable[[str, Shapes, Shapes, str], None]
ChoiceObserver = Callable[[str, str, str], None]

ops: OpObserver | None = None
"""Told of every op; set through `observe_ops`."""
choices: ChoiceObserver | None = None
"""Told of every changed choice; set through `observe_choices`."""


class _Telling(threading.local):
    """Whether this thread is telling the observer of an op; ops that it calls meanwhile are not told of."""

    now = False


_telling = _Telling()
_lock = threading.Lock()
# what each policy last chose, by an op's name and the keys of its inputs; the newest choice stands last
_made: dict[tuple[Any, ...], dict[Any, str]] = {}


def observe_ops(fn: OpObserver | None) -> None:
    """Calls ``fn(op name, input shapes, output shapes, backend)`` after every op, on its thread; None: nobody.

    While somebody is told, calls take the path through Python: 4 to 6 us instead of 0.5.
    """
    global ops
    ops = fn
    if native is not None:
        native.set_observed(fn is not None)


def observe_choices(fn: ChoiceObserver | None) -> None:
    """Calls ``fn(backend, op name, previous backend)`` when an op is bound elsewhere than before; None: nobody."""
    global choices
    choices = fn


def tell_op(name: str, args: tuple[Any, ...], result: Any, backend: str) -> None:
    """Tells the observer, unless this thread is telling it of another op just now."""
    fn = ops
    if fn is None or _telling.now:
        return
    _telling.now = True
    try:
        results = result if isinstance(result, tuple) else (result,)
        fn(name, tuple(_shapes(args)), tuple(_shapes(results)), backend)
    finally:
        _telling.now = False


def _shapes(values: tuple[Any, ...] | list[Any]) -> Iterator[tuple[int, ...]]:
    for value in values:
        if isinstance(value, TensorCore):
            yield value._a.shape
        elif isinstance(value, (list, tuple)):
            yield from _shapes(value)


def note_choice(name: str, key: tuple[Any, ...], policy: Any, backend: str) -> None:
    """Keeps what was chosen for an op, and tells the observer when that differs from before.

    Compared is what the same policy chose before or, where it chooses for the first time, the newest choice of any
    other: entering ``prefer("numpy")`` counts as a change, a rebinding that comes out as it was does not.

    Args:
        name: the op's; its number in the key is another after it was declared anew.
        key: of the table of choices.
        policy: the one under which it was made.
        backend: the chosen one.
    """
    with _lock:
        made = _made.setdefault((name, *key[1:]), {})
        previous = made.pop(policy, None) or next(reversed(made.values()), None)
        made[policy] = backend
    fn = choices
    if fn is not None and previous is not None and previous != backend:
        fn(backend, name, previous)
