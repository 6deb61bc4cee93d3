"""The one registry mechanism: catalogs of named things, each with an owner who can take it away again.

Backends, ops, modules, optimizers, callbacks, services, commands: each kind is a `Catalog`. What a
plugin adds while it loads, wherever it adds it, is noted in its `Ledger`, and one call takes all of it
back. Spiral's own entries belong to the owner ``spiral``.

    OPTIMIZERS = catalog("optimizer")
    OPTIMIZERS.add("lion", Lion)
    OPTIMIZERS["lion"]
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from spiral.errors import RegistryError, received

T = TypeVar("T")
CORE = "spiral"
"""The owner of what spiral itself brings."""

_current: ContextVar[Ledger | None] = ContextVar("spiral_ledger", default=None)


class Addition:
    """One thing that was added, and how to take it back.

    Attributes:
        kind: what kind of thing, such as ``optimizer`` or ``subscription``.
        name: its name among these.
        owner: who added it.
    """

    __slots__ = ("_undo", "kind", "name", "owner")

    def __init__(self, kind: str, name: str, owner: str, undo: Callable[[], None]) -> None:
        self.kind = kind
        self.name = name
        self.owner = owner
        self._undo: Callable[[], None] | None = undo

    @property
    def live(self) -> bool:
        """Whether it has not been taken back."""
        return self._undo is not None

    def undo(self) -> None:
        """Takes it back; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} of {self.owner}{'' if self.live else ', taken back'}>"


class Ledger:
    """What one owner has added, in order, so that all of it can be taken back.

    Example:
        >>> colours = Catalog("colour")
        >>> ledger = Ledger("painter")
        >>> with ledger.recording():
        ...     _ = colours.add("red", 0xFF0000)
        >>> list(colours), ledger.undo_all(), list(colours)
        (['red'], [], [])
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._additions: list[Addition] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def recording(self) -> Iterator[Ledger]:
        """Within the block, whatever this thread adds to any catalog belongs to this owner."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def note(self, addition: Addition) -> Addition:
        """Keeps an addition.

        Raises:
            RegistryError: everything was taken back already; the addition is, too.
        """
        with self._lock:
            closed = self._closed
            if not closed:
                self._additions.append(addition)
        if closed:
            addition.undo()
            raise RegistryError(
                f"{addition.kind} {addition.name!r}: {self.owner!r} has been unloaded and can add nothing more."
            )
        return addition

    def additions(self) -> tuple[Addition, ...]:
        """What is live, in the order in which it came."""
        with self._lock:
            self._additions = [a for a in self._additions if a.live]
            return tuple(self._additions)

    def undo_all(self) -> list[Exception]:
        """Takes everything back, the newest first; an addition that resists does not keep the others.

        Returns:
            What was raised on the way.
        """
        with self._lock:
            self._closed = True
            taken, self._additions = self._additions, []
        failures = []
        for addition in reversed(taken):
            try:
                addition.undo()
            except Exception as error:  # the caller reports it; the rest must go as well
                failures.append(error)
        return failures


def current_ledger() -> Ledger | None:
    """The ledger in which additions of this context are noted; None: they are spiral's own or the user's."""
    return _current.get()


def noted(kind: str, name: str, undo: Callable[[], None], owner: str | None = None) -> Addition:
    """An addition that was just made, noted in the current ledger if there is one."""
    ledger = _current.get()
    if ledger is None:
        return Addition(kind, name, owner or CORE, undo)
    return ledger.note(Addition(kind, name, ledger.owner, undo))


class _Layer(Generic[T]):
    """One value under a name; those below it were replaced and come back when it goes."""

    __slots__ = ("owner", "value")

    def __init__(self, value: T, owner: str) -> None:
        self.value = value
        self.owner = owner


class Catalog(Mapping[str, T]):
    """Named things of one kind: a mapping to read, `add` and `remove` to change. Safe to use from any thread.

    Reading takes no lock: every change makes a new table.

    Args:
        kind: what these are, in the singular: ``optimizer``.
        check: called with name and value before an addition; raises what the caller shall see.

    Example:
        >>> c = Catalog("colour")
        >>> addition = c.add("red", 0xFF0000)
        >>> c["red"], c.owner_of("red"), addition.undo(), "red" in c
        (16711680, 'spiral', None, False)
    """

    def __init__(self, kind: str, check: Callable[[str, T], None] | None = None) -> None:
        self.kind = kind
        self._check = check
        self._layers: dict[str, tuple[_Layer[T], ...]] = {}
        self._lock = threading.Lock()
        self._watchers: tuple[Callable[[str], None], ...] = ()

    # ------------------------------------------------------------ reading
    def __getitem__(self, name: str) -> T:
        layers = self._layers.get(name) if isinstance(name, str) else None
        if layers is None:
            raise UnknownName(self._unknown(name))
        return layers[-1].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __repr__(self) -> str:
        return f"<catalog of {len(self)} {self.kind}s>"

    def owner_of(self, name: str) -> str:
        """Who added what the name stands for now."""
        self[name]
        return self._layers[name][-1].owner

    def owned_by(self, owner: str) -> tuple[str, ...]:
        """Names that an owner has added, replaced ones included."""
        return tuple(n for n, layers in self._layers.items() if any(layer.owner == owner for layer in layers))

    def snapshot(self) -> dict[str, tuple[tuple[int, str], ...]]:
        """Identity and owner of everything here, to be compared with a later snapshot."""
        return {n: tuple((id(layer.value), layer.owner) for layer in ls) for n, ls in self._layers.items()}

    def _unknown(self, name: object) -> str:
        near = difflib.get_close_matches(name, self._layers, 3) if isinstance(name, str) else []
        some = sorted(self._layers)
        there = f"similar: {', '.join(near)}" if near else f"there are {', '.join(some[:12]) or 'none'}"
        if not near and len(some) > 12:
            there += f", … ({len(some)})"
        return f"{self.kind}: there is no {self.kind} {received(name)}; {there}."

    # ------------------------------------------------------------ changing
    def add(self, name: str, value: T, *, replace: bool = False) -> Addition:
        """Adds a thing; it belongs to the plugin that is loading in this context, or to spiral.

        Args:
            name: its name.
            value: the thing.
            replace: whether it may take the place of what has the name; that comes back with `Addition.undo`.

        Raises:
            RegistryError: the name is taken, empty, or has blanks at an end; or the kind's own check refuses it.
        """
        if not isinstance(name, str) or not name or name != name.strip():
            raise RegistryError(
                f"{self.kind}: a name is a string without blanks at its ends; received {received(name)}."
            )
        if self._check is not None:
            self._check(name, value)
        ledger = _current.get()
        owner = CORE if ledger is None else ledger.owner
        layer = _Layer(value, owner)
        with self._lock:
            there = self._layers.get(name, ())
            if there and not replace:
                raise RegistryError(
                    f"{self.kind} {name!r}: is registered already, by {there[-1].owner!r}; "
                    f"choose another name, or pass replace=True."
                )
            self._layers = {**self._layers, name: (*there, layer)}
        addition = Addition(self.kind, name, owner, lambda: self._take(name, layer))
        try:
            self._tell(name)
            return addition if ledger is None else ledger.note(addition)
        except BaseException:
            addition.undo()
            raise

    def remove(self, name: str) -> None:
        """Takes away what a name stands for; what it had replaced comes back.

        Raises:
            RegistryError: there is nothing of this name.
        """
        self[name]
        self._take(name, self._layers[name][-1])

    def _take(self, name: str, layer: _Layer[T]) -> None:
        with self._lock:
            left = tuple(other for other in self._layers.get(name, ()) if other is not layer)
            layers = {n: ls for n, ls in self._layers.items() if n != name}
            if left:  # keeps its place
                layers = {n: (left if n == name else ls) for n, ls in self._layers.items()}
            self._layers = layers
        self._tell(name)

    def watch(self, fn: Callable[[str], None]) -> Addition:
        """Calls ``fn(name)`` after a name has come, gone, or changed its meaning."""
        with self._lock:
            self._watchers = (*self._watchers, fn)

        def undo() -> None:
            with self._lock:
                self._watchers = tuple(w for w in self._watchers if w is not fn)

        return noted(f"watcher of {self.kind}s", getattr(fn, "__name__", "function"), undo)

    def _tell(self, name: str) -> None:
        for fn in self._watchers:
            fn(name)


class UnknownName(RegistryError, KeyError):
    """A catalog has nothing of this name; the message lists similar names."""

    def __str__(self) -> str:  # KeyError's own shows the quoted repr
        return str(self.args[0])


_catalogs: dict[str, Catalog[Any]] = {}
_catalogs_lock = threading.Lock()


def catalog(kind: str, check: Callable[[str, Any], None] | None = None) -> Catalog[Any]:
    """The process's catalog of a kind, made at the first question.

    Args:
        kind: in the singular: ``optimizer``.
        check: see `Catalog`; given by the module whose kind it is.
    """
    with _catalogs_lock:
        if kind not in _catalogs:
            _catalogs[kind] = Catalog(kind, check)
        elif check is not None:
            _catalogs[kind]._check = check
        return _catalogs[kind]


def catalogs() -> dict[str, Catalog[Any]]:
    """Every catalog of this process by kind."""
    with _catalogs_lock:
        return dict(_catalogs)


def snapshot() -> dict[str, dict[str, tuple[tuple[int, str], ...]]]:
    """Everything in every catalog, to be compared with a later snapshot."""
    return {kind: found for kind, c in sorted(catalogs().items()) if (found := c.snapshot())}
