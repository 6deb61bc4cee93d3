from __future__ import annotations
from typing import Any
from spiral.registry import noted


class Subscription:
    def __init__(self, undo: Any) -> None:
        self.undo = undo

    def cancel(self) -> None:
        self.undo.undo()


class EventBus:
    def __init__(self) -> None:
        self.l: list[Any] = []

    def subscribe(self, event: Any, listener: Any) -> Subscription:
        n = event if isinstance(event, str) else event.__name__
        pair = (n, listener)
        self.l.append(pair)
        return Subscription(noted("subscription", n, lambda: self.l.remove(pair)))

    def subscriptions(self) -> list[Any]:
        return list(self.l)

    def publish(self, event: Any) -> None:
        for n, f in list(self.l):
            if n in ("*", event.name):
                f(event)


event_bus = EventBus()
