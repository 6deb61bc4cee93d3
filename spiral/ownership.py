"""Who has added what: ledgers that take everything back, and swaps that replace what one ledger holds by another's.

Catalogs (`spiral.registry`) and the event bus note what is added while a plugin loads in the plugin's `Ledger`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spiral.errors import RegistryError

CORE = "spiral"
"""The owner of what spiral itself brings."""

_current: ContextVar[Ledger | None] = ContextVar("spiral_ledger", default=None)
_PRUNE_FROM = 64  # additions of one ledger before those taken back are dropped from its list


class Swap:
    """The moment at which what some ledgers hold takes the place of what others held: one assignment.

    Until then the new is seen only by the context that prepares it, where the old is not seen.
    """

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False


class Addition:
    """One thing that was added, and how to take it back.

    Attributes:
        kind: what kind of thing, such as ``optimizer`` or ``subscription``.
        name: its name among these.
        ledger: the ledger that holds it; None: nobody's but spiral's or the user's.
    """

    __slots__ = ("_undo", "kind", "ledger", "name")

    def __init__(self, kind: str, name: str, undo: Callable[[], None], ledger: Ledger | None = None) -> None:
        self.kind = kind
        self.name = name
        self.ledger = ledger
        self._undo = [undo]  # taken out by one pop: of two threads one runs it

    @property
    def owner(self) -> str:
        """Who added it."""
        return CORE if self.ledger is None else self.ledger.owner

    @property
    def live(self) -> bool:
        """Whether it has not been taken back."""
        return bool(self._undo)

    def undo(self) -> None:
        """Takes it back; a second call does nothing."""
        try:
            undo = self._undo.pop()
        except IndexError:
            return
        undo()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} of {self.owner}{'' if self.live else ', taken back'}>"


class Ledger:
    """What one owner has added, in order, so that all of it can be taken back.

    Attributes:
        owner: who adds; may be renamed, as a plugin's file is read before its id is known.
        appears: what this ledger holds is seen after this swap; None: at once.
        disappears: what it holds is no longer seen after this swap; None: until it is taken back.

    Example:
        >>> from spiral.registry import Catalog
        >>> colours = Catalog("colour")
        >>> ledger = Ledger("painter")
        >>> with ledger.recording():
        ...     _ = colours.add("red", 0xFF0000)
        >>> list(colours), ledger.undo_all(), list(colours)
        (['red'], [], [])
    """

    def __init__(self, owner: str, appears: Swap | None = None) -> None:
        self.owner = owner
        self.appears = appears
        self.disappears: Swap | None = None
        self._additions: list[Addition] = []
        self._prune_at = _PRUNE_FROM
        self._lock = threading.Lock()
        self._closed = False

    @property
    def visible(self) -> bool:
        """Whether this context sees what the ledger holds."""
        return self.visible_at({})

    def visible_at(self, moment: dict[Swap, bool]) -> bool:
        """The same where several ledgers are looked at.

        Args:
            moment: which swaps were done when the first look met them; filled here. One reading must not meet a swap
                before and after it is done: it would see neither the new nor the old.
        """
        appears, disappears = self.appears, self.disappears
        if appears is None and disappears is None:
            return True
        current = _current.get()
        if current is self:  # an old version that says goodbye
            return True
        preparing = None if current is None else current.appears
        if appears is not None and appears is not preparing and not moment.setdefault(appears, appears.done):
            return False
        return disappears is None or not (disappears is preparing or moment.setdefault(disappears, disappears.done))

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
                if len(self._additions) >= self._prune_at:  # a setting that is set a million times is one addition
                    self._additions = [a for a in self._additions if a.live]
                    self._prune_at = max(_PRUNE_FROM, 2 * len(self._additions))
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
            What was raised on the way. KeyboardInterrupt and its like are raised, after everything was taken back.
        """
        with self._lock:
            self._closed = True
            taken, self._additions = self._additions, []
        failures: list[Exception] = []
        interrupt: BaseException | None = None
        for addition in reversed(taken):
            try:
                addition.undo()
            except Exception as error:  # the caller reports it; the rest must go as well
                failures.append(error)
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return failures


def current_ledger() -> Ledger | None:
    """The ledger in which additions of this context are noted; None: they are spiral's own or the user's."""
    return _current.get()


@contextmanager
def spirals_own() -> Iterator[None]:
    """Within the block, additions are spiral's own, also where a plugin is loading in this context.

    For modules that fill a catalog when they are imported: a plugin may be the first to import them.

    Example:
        >>> from spiral.registry import Catalog
        >>> colours = Catalog("colour")
        >>> with Ledger("painter").recording(), spirals_own():
        ...     _ = colours.add("red", 0xFF0000)
        >>> colours.owner_of("red")
        'spiral'
    """
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def preparing() -> bool:
    """Whether this context prepares a swap, and so sees what others do not see yet."""
    ledger = _current.get()
    return ledger is not None and ledger.appears is not None and not ledger.appears.done


def noted(kind: str, name: str, undo: Callable[[], None]) -> Addition:
    """An addition that was just made, noted in the current ledger if there is one."""
    ledger = _current.get()
    addition = Addition(kind, name, undo, ledger)
    return addition if ledger is None else ledger.note(addition)
