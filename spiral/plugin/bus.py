"""The event bus: who listens to what, and how an event reaches them.

`publish` runs the listeners on the publisher's thread, one after the other: those of the event's own name first, then
those of ``"*"``, each in the order of their subscriptions. What a running listener subscribes or cancels takes effect
from the next publish. A listener that raises an Exception keeps nobody else from hearing: it is logged once, and
counted. KeyboardInterrupt and its like pass through to the publisher.

Publishing takes no lock: a change of the subscriptions makes new tables, and a publish works on those it found.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, overload

from spiral import dispatch
from spiral.errors import RegistryError, received
from spiral.observation import Shapes
from spiral.ownership import Addition, noted
from spiral.plugin.events import ANY, BUILT_IN, BackendChanged, Custom, PluginEvent, TensorOp, check_custom_name
from spiral.plugin.listeners import EventQueue, JsonlSink, Recorder

__all__ = [
    "EventBus", "EventQueue", "Failure", "JsonlSink", "PublishReport", "Recorder", "Subscription", "event_bus",
]  # fmt: skip

logger = logging.getLogger("spiral")
E = TypeVar("E", bound=PluginEvent)
Listener = Callable[[Any], object]
_EVERY_CUSTOM = Custom.__name__


class Subscription:
    """One listener of one kind of event; ends with `cancel`, at the end of a ``with``, or with its plugin.

    Attributes:
        name: the event's name, or ``"*"``.
        listener: what is called.
        failures: how often it has raised.
    """

    __slots__ = ("_addition", "_bus", "_live", "_on_end", "failures", "listener", "name")

    def __init__(self, bus: EventBus, name: str, listener: Listener, on_end: Callable[[], None] | None) -> None:
        self.name = name
        self.listener = listener
        self.failures = 0
        self._bus = bus
        self._live = True
        self._on_end = on_end
        self._addition: Addition | None = None

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self._live

    @property
    def owner(self) -> str:
        """The plugin whose it is, or ``spiral``."""
        return "spiral" if self._addition is None else self._addition.owner

    def cancel(self) -> bool:
        """Ends it, from the next publish on.

        Returns:
            Whether it had not ended before.
        """
        was = self._live
        if self._addition is not None:
            self._addition.undo()
        return was

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<subscription of {_called(self.listener)} to {self.name}{'' if self._live else ', ended'}>"


@dataclass(frozen=True, slots=True)
class Failure:
    """A listener that raised."""

    subscription: Subscription
    error: Exception


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What became of one event.

    Attributes:
        matched: how many listeners there were for it.
        delivered: how many of them returned.
        failures: those that raised instead.
    """

    matched: int
    delivered: int
    failures: tuple[Failure, ...]

    @property
    def ok(self) -> bool:
        """Whether nobody raised; also when nobody listens."""
        return not self.failures


Plan = tuple[tuple[Listener, Subscription], ...]


class EventBus:
    """Brings events to those who listen. `event_bus` is the process's; spiral publishes on that one.

    Attributes:
        failures: how often a listener has raised.

    Example:
        >>> from spiral.plugin.events import EpochEnd, PluginEvent
        >>> bus = EventBus()
        >>> with bus.subscribe(EpochEnd, lambda event: print(event.epoch, event.loss)):
        ...     bus.publish(EpochEnd(epoch=1, loss=0.5))
        1 0.5
        >>> bus.publish_report(PluginEvent.custom("Nobody", 1)).matched
        0
    """

    def __init__(self) -> None:
        self.failures = 0
        self._subscriptions: tuple[Subscription, ...] = ()
        self._watches: tuple[tuple[type[PluginEvent], Callable[[bool], None]], ...] = ()
        self._lock = threading.RLock()
        self._count_lock = threading.Lock()
        # built-in events by class, so that publishing one is one probe; Custom ones by name, users' classes by (name,)
        self._plans: dict[Any, Plan] = {}
        self._rebuild()

    # ------------------------------------------------------------ publishing
    def publish(self, event: PluginEvent) -> None:
        """Tells everybody who listens, on this thread; a listener that raises is logged once and counted.

        Raises:
            RegistryError: it is no event.
        """
        plan = self._plans.get(type(event))
        if plan is None:
            plan = self._plan_of(event)
        for listener, subscription in plan:
            try:
                listener(event)
            except Exception as error:
                self._failed(subscription, event, error)

    def publish_report(self, event: PluginEvent) -> PublishReport:
        """Like `publish`, and says what became of it.

        Raises:
            RegistryError: it is no event.
        """
        plan = self._plans.get(type(event))
        if plan is None:
            plan = self._plan_of(event)
        failures = []
        for listener, subscription in plan:
            try:
                listener(event)
            except Exception as error:
                self._failed(subscription, event, error)
                failures.append(Failure(subscription, error))
        return PublishReport(len(plan), len(plan) - len(failures), tuple(failures))

    def _plan_of(self, event: object) -> Plan:
        plans = self._plans
        if isinstance(event, Custom):
            return plans.get(event.event_type, plans[_EVERY_CUSTOM])
        if isinstance(event, PluginEvent) and type(event) is not PluginEvent:
            return plans.get((event.name,), plans[ANY])
        _refuse_event(event)

    def _failed(self, subscription: Subscription, event: PluginEvent, error: Exception) -> None:
        if isinstance(error, RecursionError) and _publishing_above():
            raise error  # listeners that make each other publish: unwound as one failure of the outermost
        with self._count_lock:
            self.failures += 1
            subscription.failures += 1
            first = subscription.failures == 1
        if first:
            logger.warning(
                "event %s: listener %s of %s raised %s: %s; it goes on being called, and what it raises is counted",
                event.name, _called(subscription.listener), subscription.owner, type(error).__name__, error,
                exc_info=error,
            )  # fmt: skip

    # ------------------------------------------------------------ listening
    @overload
    def subscribe(self, event: type[E], listener: Callable[[E], object]) -> Subscription: ...
    @overload
    def subscribe(self, event: str, listener: Listener) -> Subscription: ...
    def subscribe(self, event: type[PluginEvent] | str, listener: Listener) -> Subscription:
        """Calls ``listener(event)`` for every event of a kind, from the next publish on.

        Args:
            event: an event class, its name, a `Custom` event's name, or ``"*"`` for all; `Custom` itself stands for
                every custom event.
            listener: called on the publisher's thread; it should return soon. A queue for other threads: `listen`.

        Raises:
            RegistryError: the name is a misspelt built-in one, or the listener cannot be called.
        """
        return self._subscribe(event, listener, None)

    def _subscribe(
        self, event: type[PluginEvent] | str, listener: Listener, on_end: Callable[[], None] | None
    ) -> Subscription:
        name = _name_of(event)
        if not callable(listener):
            raise RegistryError(f"subscribe: {name}: expected a function of one event; received {received(listener)}.")
        if inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(type(listener).__call__):
            raise RegistryError(
                f"subscribe: {name}: listener {_called(listener)} is async and would never run; "
                "listeners are called on the publisher's thread: pass a function, or use listen()."
            )
        subscription = Subscription(self, name, listener, on_end)
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            self._rebuild()
        subscription._addition = noted("subscription", name, lambda: self._end(subscription))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> bool:
        """Ends a subscription, from the next publish on.

        Returns:
            Whether it had not ended before.

        Raises:
            RegistryError: it is not one of this bus.
        """
        if not isinstance(subscription, Subscription) or subscription._bus is not self:
            raise RegistryError(
                f"unsubscribe: expected what subscribe() of this bus returned; received {received(subscription)}."
            )
        return subscription.cancel()

    @overload
    def listen(self, event: type[E], maxlen: int = 1024) -> EventQueue[E]: ...
    @overload
    def listen(self, event: str, maxlen: int = 1024) -> EventQueue[PluginEvent]: ...
    def listen(self, event: type[PluginEvent] | str, maxlen: int = 1024) -> EventQueue[Any]:
        """A queue of the events of a kind, for another thread to take.

        Args:
            event: as for `subscribe`.
            maxlen: how many wait at most; then the oldest is dropped, and counted.

        Raises:
            RegistryError: as `subscribe`.
            ArgumentError: `maxlen` is no positive integer.

        Example:
            >>> from spiral.plugin.events import EpochStart
            >>> bus = EventBus()
            >>> with bus.listen(EpochStart, maxlen=2) as queue:
            ...     for epoch in (1, 2, 3):
            ...         bus.publish(EpochStart(epoch))
            >>> [event.epoch for event in queue], queue.dropped
            ([2, 3], 1)
        """
        queue: EventQueue[Any] = EventQueue(maxlen)
        return queue.attach(self._subscribe(event, queue.put, queue.end))

    def has_listeners(self, *events: type[PluginEvent] | str) -> bool:
        """Whether somebody hears one of these, ``"*"`` included; without arguments: anything at all.

        What is costly to make need not be made for nobody: ``if event_bus.has_listeners(StepEnd): ...``.
        """
        if not events:
            return bool(self._subscriptions)
        plans = self._plans
        for event in events:
            plan = plans.get(event)
            if plan is None:
                name = _name_of(event)
                if name in BUILT_IN:
                    plan = plans[BUILT_IN[name]]
                elif isinstance(event, type) and event is not Custom:
                    plan = plans.get((name,), plans[ANY])
                else:
                    plan = plans.get(name, plans[_EVERY_CUSTOM])
            if plan:
                return True
        return False

    def subscriptions(self) -> list[Subscription]:
        """Those that have not ended, in their order."""
        return list(self._subscriptions)

    def on_interest(self, event: type[PluginEvent], fn: Callable[[bool], None]) -> None:
        """Calls ``fn(True)`` when the first listener of a built-in event comes and ``fn(False)`` when the last goes.

        For publishers whose events cost something even when nobody hears them. Called under the lock of the bus.
        """
        with self._lock:
            self._watches = (*self._watches, (event, fn))
            if self._plans[event]:
                fn(True)

    # ------------------------------------------------------------ tables
    def _end(self, subscription: Subscription) -> None:
        with self._lock:
            subscription._live = False
            self._rebuild()
        if subscription._on_end is not None:
            subscription._on_end()

    def _rebuild(self) -> None:
        """New tables of who hears what; the lock is held."""
        self._subscriptions = live = tuple(s for s in self._subscriptions if s._live)
        named = {s.name for s in live if s.name != ANY}
        every = tuple((s.listener, s) for s in live if s.name == ANY)

        def hears(*names: str) -> Plan:
            return (*((s.listener, s) for s in live if s.name in names), *every)

        plans: dict[Any, Plan] = dict.fromkeys(BUILT_IN.values(), every)
        plans[ANY] = every
        plans[_EVERY_CUSTOM] = plans[ANY]
        for name in named:
            if name in BUILT_IN:
                plans[BUILT_IN[name]] = hears(name)
            elif name == _EVERY_CUSTOM:
                plans[name] = hears(name)
            else:
                plans[name] = hears(name, _EVERY_CUSTOM)
                plans[(name,)] = hears(name)
        before, self._plans = self._plans, plans
        for event, fn in self._watches:
            if bool(before[event]) != bool(plans[event]):
                fn(bool(plans[event]))


def _name_of(event: object) -> str:
    """The name that an argument of `subscribe` stands for.

    Raises:
        RegistryError: there can be no event of this name.
    """
    if isinstance(event, type) and issubclass(event, PluginEvent):
        if event is PluginEvent:
            raise RegistryError('event: PluginEvent is the base of all events; "*" stands for every event.')
        return event.__name__
    if isinstance(event, str) and (event == ANY or event == _EVERY_CUSTOM or event in BUILT_IN):
        return event
    if not isinstance(event, str):
        hint = f" Pass its class, {type(event).__name__}." if isinstance(event, PluginEvent) else ""
        raise RegistryError(f"event: expected an event class, a name or '*'; received {received(event)}.{hint}")
    check_custom_name(event)
    return event


def _refuse_event(event: object) -> NoReturn:
    hint = ""
    if isinstance(event, type) and issubclass(event, PluginEvent):
        hint = f" Make one of it: {event.__name__}(...)."
    elif isinstance(event, (str, dict)):
        hint = ' Of your own: PluginEvent.custom("MyEvent", data).'
    raise RegistryError(f"publish: expected an event; received {received(event)}.{hint}")


def _called(listener: Listener) -> str:
    """A listener's name for a log."""
    name = getattr(listener, "__qualname__", None) or type(listener).__qualname__
    module = getattr(listener, "__module__", None) or type(listener).__module__
    return f"{module}.{name}"


_PUBLISHES = (EventBus.publish.__code__, EventBus.publish_report.__code__)


def _publishing_above() -> bool:
    """Whether the publish whose listener failed was itself made by a listener."""
    frame = sys._getframe(2).f_back  # above _failed and its publish
    while frame is not None:
        if frame.f_code in _PUBLISHES:
            return True
        frame = frame.f_back
    return False


event_bus = EventBus()
"""The bus of this process; the trainer, the dispatcher and the global plugin registry publish here."""


def _publish_op(name: str, inputs: Shapes, outputs: Shapes, backend: str) -> None:
    event_bus.publish(TensorOp(name, inputs, outputs, backend))


def _publish_choice(backend: str, name: str, previous: str) -> None:
    event_bus.publish(BackendChanged(backend, name, previous))


# the core tells of ops and choices only while somebody listens
event_bus.on_interest(TensorOp, lambda heard: dispatch.observe_ops(_publish_op if heard else None))
event_bus.on_interest(BackendChanged, lambda heard: dispatch.observe_choices(_publish_choice if heard else None))
