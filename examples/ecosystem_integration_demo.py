"""The plugin system in one program: four plugins train a classifier of two spirals and then leave without a trace.

    python examples/ecosystem_integration_demo.py

- ``metrics`` offers a service to the others and listens to epochs.
- ``waves`` brings a module type, so that pipelines can name it.
- ``schedule`` needs ``metrics``; it lowers the learning rate when the loss stands still, and tells everybody.
- ``monitor`` listens to everything.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import numpy as np

import spiral as sp
from spiral import nn, optim
from spiral.errors import RegistryError
from spiral.nn import ModuleCategory, ModuleDiscoveryRegistry, ModuleMetadata, ModulePipelineBuilder
from spiral.plugin import (
    EpochEnd,
    EpochStart,
    Plugin,
    PluginCapability,
    PluginContext,
    PluginEvent,
    PluginMetadata,
    PluginRegistry,
    init_plugin_system,
)
from spiral.registry import snapshot


# ---------------------------------------------------------------- a service for other plugins
class Metrics(Protocol):
    """What the service ``metrics`` can do; who uses it asks for this."""

    def losses(self) -> list[float]: ...


class MetricsPlugin(Plugin):
    """Remembers the loss of every epoch."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def metadata(self) -> PluginMetadata:
        return (
            PluginMetadata("metrics", "1.2.0")
            .with_description("remembers the loss of every epoch")
            .with_capability(PluginCapability.Telemetry)
        )

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_service("metrics", self, version="1.0")
        ctx.subscribe(EpochEnd, lambda event: self._losses.append(event.loss))

    def losses(self) -> list[float]:
        return list(self._losses)


# ---------------------------------------------------------------- a module type for pipelines
class Waves(nn.Module):
    """Sine and cosine of learned directions: a curved boundary from few weights.

    Args:
        in_features: Length of each input.
        waves: Directions; each gives two features.
        frequency: Standard deviation of the directions at the start.
    """

    def __init__(self, in_features: int, waves: int = 16, frequency: float = 2.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(sp.random.normal((in_features, waves)) * frequency)

    def forward(self, x: sp.Tensor) -> sp.Tensor:
        angles = x @ self.weight
        return sp.concat([sp.sin(angles), sp.cos(angles)], axis=-1)


class WavesPlugin(Plugin):
    """Brings `Waves`, once as it is and once from a factory with metadata of its own."""

    def metadata(self) -> PluginMetadata:
        return PluginMetadata("waves", "0.3.0").with_capability(PluginCapability.Custom("Modules"))

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_module(Waves)  # settings, types and defaults come from its signature
        ctx.register_module(
            ModuleMetadata(
                "fast_waves",
                display_name="Fast waves",
                description="Waves of a high frequency",
                parameters={"in_features": int, "waves": 16},
                category=ModuleCategory.ENCODER,
            ),
            lambda config: Waves(config["in_features"], config.get("waves", 16), frequency=8.0),
        )
        ctx.register_service("module_registry", ModuleDiscoveryRegistry.shared())


# ---------------------------------------------------------------- a plugin that steers training
class SchedulePlugin(Plugin):
    """Halves the learning rate when the loss has not fallen by a hundredth for some epochs."""

    def metadata(self) -> PluginMetadata:
        return (
            PluginMetadata("schedule", "2.0.0")
            .with_description("halves the learning rate when the loss stands still")
            .with_dependency("metrics", ">=1.1,<2")
            .with_capability(PluginCapability.Optimizers)
        )

    def on_load(self, ctx: PluginContext) -> None:
        ctx.set_config("patience", 4)  # SPIRAL_CONFIG__SCHEDULE__PATIENCE=9 in the environment wins
        ctx.set_config("learning_rate", 0.04)
        self.ctx = ctx
        self.metrics = ctx.get_service("metrics", Metrics, ">=1,<2")
        self.last_change = 0
        ctx.subscribe(EpochEnd, self.look)

    def look(self, event: EpochEnd) -> None:
        patience = self.ctx.get_config("patience")
        losses = self.metrics.losses()
        if event.epoch - self.last_change <= patience or len(losses) <= patience:
            return
        if min(losses[-patience:]) > 0.99 * min(losses[:-patience]):
            self.last_change = event.epoch
            self.ctx.set_config("learning_rate", self.ctx.get_config("learning_rate") / 2)
            self.ctx.publish(PluginEvent.custom("LearningRateHalved", self.ctx.get_config("learning_rate")))


# ---------------------------------------------------------------- a plugin that watches
class MonitorPlugin(Plugin):
    """Counts every event by its name."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def metadata(self) -> PluginMetadata:
        return PluginMetadata("monitor", "1.0.0").with_capability(PluginCapability.Telemetry)

    def on_load(self, ctx: PluginContext) -> None:
        ctx.subscribe("*", lambda event: self.seen.update([event.name]))


# ---------------------------------------------------------------- what the plugins are for
def two_spirals(points: int) -> tuple[sp.Tensor, sp.Tensor]:
    """Points of two interleaved spirals: (points, 2), and which spiral each is of."""
    rng = np.random.default_rng(0)
    along = np.sqrt(rng.uniform(0.05, 1.0, points))
    which = rng.integers(0, 2, points)
    angle = 2.5 * np.pi * along + np.pi * which
    xy = along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 0.05, (points, 2))
    return sp.asarray(xy.astype(np.float32)), sp.asarray(which)


def build(registry: PluginRegistry) -> nn.Module:
    """A model from names and texts, as they would stand in a file; shapes are checked before weights exist."""
    modules = registry.services.get("module_registry", ModuleDiscoveryRegistry)
    builder = (
        ModulePipelineBuilder(modules)
        .with_name("spirals")
        .with_input((2,))
        .add_module("waves", {"in_features": "auto", "waves": "24"})
        .add_module("linear", {"in_features": "auto", "out_features": "32"})
        .add_module("relu")
        .add_module("linear", {"in_features": "auto", "out_features": "2"})
    )
    print(builder.check())
    return builder.build()


def train(model: nn.Module, registry: PluginRegistry, epochs: int = 60) -> float:
    """Trains, publishes the epochs, and gives the accuracy on points that were not trained on."""
    x, which = two_spirals(1200)
    train_x, train_y, test_x, test_y = x[:1000], which[:1000], x[1000:], which[1000:]
    optimizer = optim.AdamW(model.parameters(), lr=registry.configuration.get("schedule", "learning_rate"))
    for epoch in range(1, epochs + 1):
        registry.events.publish(EpochStart(epoch))
        losses = []
        for begin in range(0, 1000, 100):
            loss = nn.functional.cross_entropy(model(train_x[begin : begin + 100]), train_y[begin : begin + 100])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        registry.events.publish(EpochEnd(epoch, float(np.mean(losses))))
        optimizer.param_groups[0]["lr"] = registry.configuration.get("schedule", "learning_rate")
    with sp.no_grad():
        guess = model(test_x).argmax(axis=-1)
    return float((guess.numpy() == test_y.numpy()).mean())


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def main() -> None:
    sp.random.manual_seed(0)
    registry = init_plugin_system()
    sp.backends()  # plugins, too: the first op would load them
    before = snapshot()

    heading("Plugins")
    monitor = MonitorPlugin()
    registry.register(monitor)
    registry.register_all([SchedulePlugin(), WavesPlugin(), MetricsPlugin()])  # sorted: metrics before schedule
    mine = ("monitor", "metrics", "waves", "schedule")
    for found in registry.list_plugins():
        if found.id in mine:
            needs = ", ".join(map(str, found.dependencies)) or "nothing"
            print(f"{found!s:<16} can {', '.join(map(str, found.capabilities)):<16} needs {needs}")
    watching = registry.find_by_capability(PluginCapability.Telemetry)
    print("telemetry:", ", ".join(sorted(p.metadata().id for p in watching if p.metadata().id in mine)))

    heading("A model of names")
    model = build(registry)

    heading("Training")
    accuracy = train(model, registry)
    losses = registry.services.get("metrics", Metrics).losses()
    print(f"loss {losses[0]:.3f} → {losses[-1]:.3f} in {len(losses)} epochs, accuracy on new points {accuracy:.1%}")
    rate = registry.configuration.get("schedule", "learning_rate")
    print(f"learning rate {rate:g} in the end; halved: {monitor.seen['LearningRateHalved']}")

    heading("Events")
    for name, count in monitor.seen.most_common():
        print(f"{name:<20} {count}")

    heading("Goodbye")
    try:
        registry.unregister("metrics")
    except RegistryError as error:
        print(error)
    registry.unregister("metrics", cascade=True)
    registry.unregister("waves")
    registry.unregister("monitor")
    left = [m.id for m in registry.list_plugins() if m.id in mine]
    print(f"left: {left or 'nothing'}; everything as before: {snapshot() == before}")


if __name__ == "__main__":
    main()
