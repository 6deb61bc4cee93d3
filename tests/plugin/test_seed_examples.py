"""Every example of the ecosystem guide in Python, in the guide's order; each does what the guide says of it.

The examples of Z-space plugins (sequencers, `ZSpacePluginRegistry`) are not here: Z-space is not built yet. The
"complete example" is `examples/ecosystem_integration_demo.py`, see test_ecosystem_demo.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import spiral as sp
from spiral import nn
from spiral.backend import Cap, DeviceInfo, Kernel
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
    event_bus,
    global_registry,
    init_plugin_system,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))


class Simple(Plugin):
    """A plugin whose id is its class's name."""

    def metadata(self) -> PluginMetadata:
        return PluginMetadata(type(self).__name__, "1.0.0")


@pytest.fixture
def registry():
    made = PluginRegistry()
    yield made
    assert made.shutdown().ok


# ---------------------------------------------------------------- core systems
def test_core_system_1_plugin_system(monkeypatch):
    monkeypatch.setenv("SPIRAL_PLUGINS", "+early_stopping")

    class MyPlugin(Simple):
        pass

    init_plugin_system()  # once at startup
    registry = global_registry()  # accessible anywhere
    my_plugin = registry.register(MyPlugin())
    assert registry.get("MyPlugin") is my_plugin and registry is init_plugin_system()
    registry.unregister("MyPlugin")


def test_core_system_2_module_discovery():
    registry = ModuleDiscoveryRegistry()
    metadata = ModuleMetadata("doubled", description="Twice its input", category=ModuleCategory.CUSTOM)

    class Doubled(nn.Module):
        def forward(self, x):
            return x * 2.0

    registry.register(metadata, lambda config: Doubled())
    model = (
        ModulePipelineBuilder(registry)
        .add_module("linear", {"in_features": "3", "out_features": "2"})
        .add_module("relu", {})
        .add_module("doubled")
        .build()
    )
    assert model(sp.ones((5, 3))).shape == (5, 2)


# ---------------------------------------------------------------- integration patterns
def test_pattern_1_plugin_with_service(registry):
    class MyService:
        def __init__(self):
            self.handled = []

    class MyServicePlugin(Simple):
        def __init__(self, service):
            self.service = service

        def on_load(self, ctx: PluginContext):
            ctx.register_service("my_service", self.service)
            ctx.subscribe("SomeEvent", lambda event: self.service.handled.append(event.data))

    class User(Simple):
        def metadata(self):
            return super().metadata().with_dependency("MyServicePlugin")

        def on_load(self, ctx):
            self.service = ctx.get_service("my_service", MyService)
            ctx.publish(PluginEvent.custom("SomeEvent", 7))

    service, user = MyService(), User()
    registry.register_all([user, MyServicePlugin(service)])
    assert user.service is service and service.handled == [7]


def test_pattern_2_module_registration_plugin(registry):
    class Shift(nn.Module):
        """Adds a number.

        Args:
            by: The number.
        """

        def __init__(self, by: float = 1.0) -> None:
            super().__init__()
            self.by = by

        def forward(self, x):
            return x + self.by

    class LayerPlugin(Simple):
        def on_load(self, ctx):
            ctx.register_module(Shift)
            ctx.register_service("module_registry", ModuleDiscoveryRegistry.shared())

    registry.register(LayerPlugin())
    modules = registry.services.get("module_registry", ModuleDiscoveryRegistry)
    assert modules.create("shift", {"by": "2.5"})(sp.zeros(1)).item() == 2.5
    registry.unregister("LayerPlugin")
    assert "shift" not in modules


def test_pattern_3_event_based_monitoring(registry):
    class MonitorPlugin(Simple):
        def __init__(self):
            self.metrics, self.lock = Counter(), threading.Lock()

        def on_load(self, ctx):
            ctx.subscribe("*", self.record)

        def record(self, event):
            with self.lock:
                self.metrics[event.name] += 1

    monitor = registry.register(MonitorPlugin())
    registry.events.publish(EpochStart(epoch=1))
    registry.events.publish(PluginEvent.custom("Mine", None))
    assert monitor.metrics == {"PluginLoaded": 1, "EpochStart": 1, "Mine": 1}


# ---------------------------------------------------------------- capabilities
def test_every_capability_of_the_guide_exists():
    plain = ["Operators", "LossFunctions", "Optimizers", "DataLoaders", "Visualization", "Telemetry", "Language",
             "Vision", "ReinforcementLearning", "GraphNeuralNetworks", "Recommender"]  # fmt: skip
    for name in plain:
        assert str(getattr(PluginCapability, name)) == name
    assert PluginCapability.Backend("wgpu") != PluginCapability.Custom("wgpu")


def test_finding_plugins_by_capability(registry):
    class Lion(Simple):
        def metadata(self):
            return super().metadata().with_capability(PluginCapability.Optimizers)

    class Cuda(Simple):
        def metadata(self):
            return super().metadata().with_capability(PluginCapability.Backend("cuda"))

    lion, cuda = registry.register(Lion()), registry.register(Cuda())
    assert registry.find_by_capability(PluginCapability.Optimizers) == [lion]
    assert registry.find_by_capability(PluginCapability.Backend("CUDA")) == [cuda]


# ---------------------------------------------------------------- configuration
def test_configuration_management(registry, capsys):
    class Configured(Simple):
        def on_load(self, ctx):
            ctx.set_config("learning_rate", "0.001")
            ctx.set_config("batch_size", "32")
            if (lr := ctx.get_config("learning_rate")) is not None:
                print(f"Using learning rate: {lr}")

    registry.register(Configured())
    assert capsys.readouterr().out == "Using learning rate: 0.001\n"
    assert registry.configuration.values("Configured") == {"batch_size": "32", "learning_rate": "0.001"}


# ---------------------------------------------------------------- events
def test_built_in_events_carry_what_the_guide_lists():
    events = [
        PluginEvent.SystemInit(),
        PluginEvent.SystemShutdown(),
        PluginEvent.PluginLoaded(plugin_id="a"),
        PluginEvent.PluginUnloaded(plugin_id="a"),
        PluginEvent.TensorOp(op_name="add", input_shapes=((2,), (2,)), output_shapes=((2,),), backend="cpu"),
        PluginEvent.EpochStart(epoch=1),
        PluginEvent.EpochEnd(epoch=1, loss=0.5),
        PluginEvent.BackendChanged(backend="cpu"),
        PluginEvent.Telemetry(data={"loss": 0.5}),
        PluginEvent.Custom(event_type="Mine", data=object()),
    ]
    assert [event.name for event in events[:-1]] == [type(event).__name__ for event in events[:-1]]
    assert events[-1].name == "Mine"


def test_publishing_events():
    @dataclass(frozen=True)
    class MyData:
        value: int

    heard = []
    with event_bus.subscribe("EpochStart", heard.append), event_bus.subscribe("MyEvent", heard.append):
        event_bus.publish(PluginEvent.EpochStart(epoch=1))
        event_bus.publish(PluginEvent.custom("MyEvent", MyData(value=42)))
    assert heard == [EpochStart(1), PluginEvent.custom("MyEvent", MyData(42))]


def test_subscribing_to_events(registry, capsys):
    class Listener(Simple):
        def on_load(self, ctx):
            ctx.subscribe("EpochStart", lambda event: print(f"Epoch {event.epoch} started"))
            ctx.subscribe("*", lambda event: print(f"Event: {event}"))

    registry.register(Listener())
    capsys.readouterr()
    registry.events.publish(EpochStart(epoch=3))
    assert capsys.readouterr().out == "Epoch 3 started\nEvent: EpochStart(epoch=3)\n"


# ---------------------------------------------------------------- dynamic module composition
class MyCustomConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture
def with_custom_conv():
    registry = ModuleDiscoveryRegistry()
    metadata = ModuleMetadata(
        module_type="custom_conv",
        display_name="Custom Convolution",
        description="Specialized convolution layer",
        input_shape=(3, 24, 24),
        output_shape=(64, 24, 24),
        parameters={"in_channels": 3, "out_channels": 64},  # defaults, hence types
        category=ModuleCategory.CONVOLUTION,
    )
    registry.register(
        metadata, lambda config: MyCustomConv(config.get("in_channels", 3), config.get("out_channels", 64))
    )
    return registry


def test_registering_module_factories(with_custom_conv):
    made = with_custom_conv.create("custom_conv", {"in_channels": "1"})  # from text
    assert made.conv.weight.shape == (64, 1, 3, 3)
    assert [m.module_type for m in with_custom_conv.find(ModuleCategory.CONVOLUTION, "Specialized")] == ["custom_conv"]
    with pytest.raises(sp.errors.ConfigError, match="out_channels.*'many'"):
        with_custom_conv.create("custom_conv", {"out_channels": "many"})


def test_building_pipelines(with_custom_conv):
    pipeline = (
        ModulePipelineBuilder(with_custom_conv)
        .with_name("my_model")
        .add_module("custom_conv", {"in_channels": "3", "out_channels": "64"})
        .add_module("relu", {})
        .add_module("max_pool2d", {"kernel_size": "2"})
        .build()
    )
    assert pipeline(sp.ones((1, 3, 24, 24))).shape == (1, 64, 12, 12)


# ---------------------------------------------------------------- integration with existing features
def test_backend_plugin(registry):
    class Device:
        calls = 0

        def add(self, x, y):
            self.calls += 1
            return x + y

    class WgpuBackend:
        name, device_type, priority = "wgpu", "cpu", 1000

        def __init__(self, device):
            self.device = device

        def probe(self):
            return [DeviceInfo("cpu")]

        def kernels(self):
            yield Kernel("add", self.device.add, Cap(), allocates=True)

    class WgpuBackendPlugin(Plugin):
        def metadata(self):
            return PluginMetadata("wgpu", "1.0.0").with_capability(PluginCapability.Backend("WGPU"))

        def on_load(self, ctx):
            device = Device()
            ctx.register_service("wgpu_device", device)
            ctx.register_backend(WgpuBackend(device))

    plugin = registry.register(WgpuBackendPlugin())
    assert registry.find_by_capability(PluginCapability.Backend("wgpu")) == [plugin]
    device = registry.services.get("wgpu_device", Device)
    assert (sp.ones(2) + sp.ones(2)).tolist() == [2.0, 2.0] and device.calls == 1
    registry.unregister("wgpu")
    assert (sp.ones(2) + sp.ones(2)).tolist() == [2.0, 2.0] and device.calls == 1


def test_training_plugin_lowers_the_rate_at_epoch_ends(registry):
    class TrainingPlugin(Simple):
        best = float("inf")

        def on_load(self, ctx):
            self.optimizer = ctx.get_service("optimizer", sp.optim.Optimizer)
            ctx.subscribe("EpochEnd", self.at_epoch_end)

        def at_epoch_end(self, event: EpochEnd):
            if event.loss >= self.best:
                for group in self.optimizer.param_groups:
                    group["lr"] /= 2
            self.best = min(self.best, event.loss)

    optimizer = sp.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.5)
    registry.services.register("optimizer", optimizer)
    registry.register(TrainingPlugin())
    rates = []
    for epoch, loss in enumerate([3.0, 2.0, 2.5, 1.0, 1.0], 1):
        registry.events.publish(EpochEnd(epoch, loss))
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.5, 0.5, 0.25, 0.25, 0.125]


def test_training_plugin_saves_checkpoints_at_the_epoch_ends_of_a_real_run(tmp_path):
    from tiny_run import tiny_config

    from spiral.train import prepare

    class TrainingPlugin(Simple):
        def on_load(self, ctx):
            self.saved = {}
            ctx.subscribe("EpochEnd", self.at_epoch_end)

        def at_epoch_end(self, event: EpochEnd):
            self.saved[event.epoch] = (trainer.save(), event.loss)

    config = tiny_config(tmp_path, run={"steps": 60, "batch_size": 16, "checkpoint_every": 0})
    trainer = prepare(config).trainer
    plugin = global_registry().register(TrainingPlugin())  # the trainer publishes on the process's bus
    try:
        trainer.fit()
    finally:
        global_registry().unregister("TrainingPlugin")
    assert list(plugin.saved) == list(range(1, len(plugin.saved) + 1)) and len(plugin.saved) >= 2
    losses = [loss for _, loss in plugin.saved.values()]
    assert losses[-1] < losses[0] and all(path.name.startswith("step-") for path, _ in plugin.saved.values())
    assert plugin.saved[len(plugin.saved)][0].is_dir()
