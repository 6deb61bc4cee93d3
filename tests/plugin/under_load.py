"""Threads that register, publish and unregister at once."""

from __future__ import annotations

import random
import threading
import time

from spiral.errors import SpiralError
from spiral.plugin import EpochEnd, Plugin, PluginMetadata, PluginRegistry


class Busy(Plugin):
    """Offers a service, sets a setting, listens."""

    def __init__(self, plugin_id: str, needs: str | None) -> None:
        self.meta = PluginMetadata(plugin_id, "1.0")
        if needs:
            self.meta = self.meta.with_dependency(needs)

    def metadata(self) -> PluginMetadata:
        return self.meta

    def on_load(self, ctx) -> None:
        self.heard = 0
        ctx.register_service(f"service of {self.meta.id}", self)
        ctx.set_config("a", 1)
        ctx.subscribe(EpochEnd, self.note)

    def note(self, event) -> None:
        self.heard += 1


def hammer(registry: PluginRegistry, seconds: float, threads: int) -> list[str]:
    """Runs the threads; gives what went wrong: errors that are not spiral's, and what was left behind."""
    wrong: list[str] = []
    end = time.monotonic() + seconds
    refused = loaded = 0

    def run(number: int) -> None:
        nonlocal refused, loaded
        chance = random.Random(number)
        try:
            while time.monotonic() < end:
                plugin_id = f"p{chance.randrange(6)}"
                needs = f"p{chance.randrange(6)}" if chance.random() < 0.4 else None
                try:
                    if chance.random() < 0.5:
                        registry.register(Busy(plugin_id, needs if needs != plugin_id else None))
                        loaded += 1
                    else:
                        registry.unregister(plugin_id, cascade=chance.random() < 0.5)
                except SpiralError:
                    refused += 1  # taken, unknown, needed, or just going: each with its message
                registry.events.publish(EpochEnd(epoch=number, loss=0.0))
                report = registry.validate_dependency_graph()
                if not report.ok:
                    wrong.append(f"the graph does not hold: {report}")
        except BaseException as error:
            wrong.append(repr(error))

    workers = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(seconds + 60)
        if w.is_alive():
            wrong.append("a thread hangs")
    if not loaded or not refused:
        wrong.append(f"nothing was tried: {loaded} loaded, {refused} refused")
    for metadata in registry.list_plugins():
        if registry.get(metadata.id) is not None:
            registry.unregister(metadata.id, cascade=True)
    if registry.services.names() or registry.configuration.keys() or registry.events.subscriptions():
        wrong.append("something was left behind")
    return wrong
