"""The one registry mechanism: catalogs of named things, each with an owner who can take it away again.

Backends, ops, modules, optimizers, callbacks, services, commands: each kind is a `Catalog`. What a
plugin adds while it loads, wherever it adds it, is noted in its ledger (`spiral.ownership`), and one call
takes all of it back. Spiral's own entries belong to the owner ``spiral``.

    OPTIMIZERS = catalog("optimizer")
    OPTIMIZERS.add("lion", Lion)
    OPTIMIZERS["lion"]
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Generic, TypeVar, overload

from spiral.errors import RegistryError, received
from spiral.ownership import CORE, Addition, Ledger, Swap, current_ledger, noted, spirals_own

T = TypeVar("T")
D = TypeVar("D")


class _Layer(Generic[T]):
    """One value under a name; those below it were replaced and come back when it goes."""

    __slots__ = ("addition", "ledger", "value")

    def __init__(self, value: T, ledger: Ledger | None) -> None:
        self.value = value
        self.ledger = ledger
        self.addition: Addition  # how to take it back

    @property
    def owner(self) -> str:
        return CORE if self.ledger is None else self.ledger.owner

    @property
    def pending(self) -> bool:
        """Whether it waits for a swap to be seen."""
        appears = None if self.ledger is None else self.ledger.appears
        return appears is not None and not appears.done


def _top(layers: tuple[_Layer[T], ...], moment: dict[Swap, bool]) -> _Layer[T] | None:
    """The newest layer that this context sees; see `Ledger.visible_at`."""
    for layer in reversed(layers):
        if layer.ledger is None or layer.ledger.visible_at(moment):
            return layer
    return None


def _predecessor(layers: tuple[_Layer[T], ...], ledger: Ledger | None) -> int | None:
    """Where the layer is whose place an addition takes: the old version's, while its plugin is reloaded."""
    if ledger is None or ledger.appears is None or any(layer.ledger is ledger for layer in layers):
        return None
    for place, layer in enumerate(layers):
        if layer.ledger is not None and layer.owner == ledger.owner and layer.ledger.disappears is ledger.appears:
            return place
    return None


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
        return self._seen(name).value

    @overload
    def get(self, name: str, /) -> T | None: ...
    @overload
    def get(self, name: str, /, default: T | D) -> T | D: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """What a name stands for, or ``default``; without the cost of the error that a subscript raises."""
        layer = self._find(name)
        return default if layer is None else layer.value

    def __iter__(self) -> Iterator[str]:
        return iter(self.table())

    def __len__(self) -> int:
        return len(self.table())

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def table(self) -> dict[str, T]:
        """Everything at one moment; other threads may change the catalog meanwhile."""
        while True:
            layers, moment = self._layers, dict[Swap, bool]()
            found = {name: top.value for name, ls in layers.items() if (top := _top(ls, moment)) is not None}
            if not moment or layers is self._layers:  # else see `_find`
                return found

    def items(self) -> ItemsView[str, T]:
        """Names and things at one moment."""
        return self.table().items()

    def values(self) -> ValuesView[T]:
        """The things at one moment."""
        return self.table().values()

    def __repr__(self) -> str:
        return f"<catalog of {len(self)} {self.kind}s>"

    def owner_of(self, name: str) -> str:
        """Who added what the name stands for now."""
        return self._seen(name).owner

    def owned_by(self, owner: str) -> tuple[str, ...]:
        """Names that an owner has added, replaced ones included."""
        return tuple(n for n, layers in self._layers.items() if any(layer.owner == owner for layer in layers))

    def snapshot(self) -> dict[str, tuple[tuple[int, str], ...]]:
        """Identity and owner of everything here, to be compared with a later snapshot."""
        return {n: tuple((id(layer.value), layer.owner) for layer in ls) for n, ls in self._layers.items()}

    def _find(self, name: object) -> _Layer[T] | None:
        """The layer that a name stands for."""
        while isinstance(name, str):
            layers, moment = self._layers, dict[Swap, bool]()
            found = _top(layers.get(name, ()), moment)
            if not moment or layers is self._layers:
                return found
            # a swap may have been prepared and done since: what it hides is in these layers, what it shows is not
        return None

    def _seen(self, name: object) -> _Layer[T]:
        layer = self._find(name)
        if layer is None:
            raise UnknownName(self._unknown(name))
        return layer

    def _unknown(self, name: object) -> str:
        some = sorted(self)
        near = difflib.get_close_matches(name, some, 3) if isinstance(name, str) else []
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
        ledger = current_ledger()
        layer = _Layer(value, ledger)
        layer.addition = addition = Addition(self.kind, name, lambda: self._take(name, layer), ledger)
        with self._lock:
            there = self._layers.get(name, ())
            place = _predecessor(there, ledger)
            if place is not None:  # who has replaced the old version's stays above the new one's
                there = (*there[: place + 1], layer, *there[place + 1 :])
            else:
                # what another context prepares counts as taken: it appears at any moment
                seen = _top(there, {}) or next((la for la in there if la.ledger is not ledger and la.pending), None)
                if seen is not None and not replace:
                    raise RegistryError(
                        f"{self.kind} {name!r}: is registered already, by {seen.owner!r}; "
                        f"choose another name, or pass replace=True."
                    )
                there = (*there, layer)
            self._layers = {**self._layers, name: there}
        try:
            self.tell(name)
            return addition if ledger is None else ledger.note(addition)
        except BaseException as error:
            try:
                addition.undo()
            except Exception as again:  # it is gone; only watchers can have raised
                error.add_note(f"taking {self.kind} {name!r} back raised {type(again).__name__} in turn")
            raise

    def fill(self, things: Mapping[str, T]) -> None:
        """Adds what spiral itself brings: it is spiral's also where a plugin's loading is the first to import it.

        Raises:
            RegistryError: see `add`.
        """
        with spirals_own():
            for name, value in things.items():
                self.add(name, value)

    def put(self, name: str, value: T) -> None:
        """Adds a thing, or gives one that this context's owner has added another value.

        Raises:
            RegistryError: the name is somebody else's, or the kind's own check refuses the value.
        """
        ledger = current_ledger()
        known = any(layer.ledger is ledger for layer in self._layers.get(name, ()))
        if known and self._check is not None:
            self._check(name, value)
        with self._lock:
            own = [layer for layer in self._layers.get(name, ()) if layer.ledger is ledger]
            if own:
                own[-1].value = value
        if own:
            self.tell(name)
        else:
            self.add(name, value)

    def remove(self, name: str) -> None:
        """Takes away what a name stands for; what it had replaced comes back.

        Raises:
            RegistryError: there is nothing of this name.
        """
        self._seen(name).addition.undo()  # so that its owner's ledger lets go of it, too

    def _take(self, name: str, layer: _Layer[T]) -> None:
        with self._lock:
            left = tuple(other for other in self._layers.get(name, ()) if other is not layer)
            layers = {n: ls for n, ls in self._layers.items() if n != name}
            if left:  # keeps its place
                layers = {n: (left if n == name else ls) for n, ls in self._layers.items()}
            self._layers = layers
        self.tell(name)

    def watch(self, fn: Callable[[str], None]) -> Addition:
        """Calls ``fn(name)`` after a name has come, gone, or changed its meaning."""

        def watcher(name: str) -> None:  # one for each call: two owners may watch with the same function
            fn(name)

        with self._lock:
            self._watchers = (*self._watchers, watcher)

        def undo() -> None:
            with self._lock:
                self._watchers = tuple(w for w in self._watchers if w is not watcher)

        return noted(f"watcher of {self.kind}s", getattr(fn, "__name__", "function"), undo)

    def tell(self, name: str) -> None:
        """Calls the watchers for a name; `Swap` changes what names stand for without an addition.

        Raises:
            Exception: what a watcher raised, after all were called; what further ones raised is noted on it.
        """
        failures = []
        for fn in self._watchers:
            try:
                fn(name)
            except Exception as error:
                failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(f"another watcher of {self.kind} {name!r} raised {type(other).__name__}: {other}")
            raise failures[0]


class UnknownName(RegistryError, KeyError):
    """A catalog has nothing of this name; the message lists similar names."""

    def __str__(self) -> str:  # KeyError's own shows the quoted repr
        return str(self.args[0])


HOMES = {
    "op": "spiral.op",
    "backend": "spiral.backends_registry",
    "kernel": "spiral.backends_registry",
    "module": "spiral.nn.discovery",
    "loss": "spiral.nn.loss_catalog",
    "optimizer": "spiral.optim.catalog",
    "dataset": "spiral.text.sources",
    "callback": "spiral.train.callback_catalog",
    "exporter": "spiral.models.exporters",
    "command": "spiral.cli.main",
    "service": "spiral.plugin.registry",
    "setting": "spiral.plugin.registry",
    "plugin": "spiral.plugin.registry",
}
"""Kinds that spiral knows, with the module that fills each with spiral's own."""

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
    """Every catalog of this process by kind, as far as somebody has asked for them."""
    with _catalogs_lock:
        return dict(_catalogs)


def complete_catalog(kind: str) -> Catalog[Any]:
    """The catalog of a kind with spiral's own entries in it.

    Raises:
        RegistryError: nobody has made such a kind.
    """
    import importlib

    if kind in HOMES:
        importlib.import_module(HOMES[kind])
    elif kind not in catalogs():
        known = ", ".join(sorted({*HOMES, *catalogs()}))
        raise RegistryError(f"registry: the kind is one of {known}; received {received(kind)}.")
    return catalog(kind)


def snapshot() -> dict[str, dict[str, tuple[tuple[int, str], ...]]]:
    """Everything in every catalog, to be compared with a later snapshot."""
    return {kind: found for kind, c in sorted(catalogs().items()) if (found := c.snapshot())}
