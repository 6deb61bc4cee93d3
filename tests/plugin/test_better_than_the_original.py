"""Weaknesses of the system that the ecosystem guide documents, each with a test that shows it absent here.

The same behaviour is tested in depth elsewhere; here stands one short test for each, named after the weakness. Those
of its Z-space sequencers come with Z-space, which is not built yet.
"""

from __future__ import annotations

import pytest
from registrations import register_everything, world

import spiral as sp
from spiral.nn import Linear, ModuleDiscoveryRegistry
from spiral.plugin import (
    Custom,
    DependencyError,
    EpochEnd,
    EventBus,
    Plugin,
    PluginCapability,
    PluginError,
    PluginMetadata,
    PluginRegistry,
    PluginWatcher,
)

FILE = """
from spiral.plugin import Plugin, PluginMetadata

class Served(Plugin):
    def metadata(self):
        return PluginMetadata("served", "{version}")

    def on_load(self, ctx):
        ctx.register_service("served", "{version}")
        {more}
"""


class Simple(Plugin):
    """A plugin of an id, a version, and something to do while it loads."""

    def __init__(self, plugin_id, version="1.0", *, needs=None, can=None, on_load=None):
        self.data = PluginMetadata(plugin_id, version)
        self.data = self.data.with_dependency(*needs) if needs else self.data
        self.data = self.data.with_capability(can) if can else self.data
        self.loads = on_load or (lambda ctx: None)

    def metadata(self):
        return self.data

    def on_load(self, ctx):
        self.loads(ctx)


@pytest.fixture
def registry():
    sp.backends()  # plugins, too: a kernel's registration would load them
    return PluginRegistry()


@pytest.fixture
def served(registry, tmp_path):
    """A plugin of a file, and a function that writes its next version."""

    def write(version, more="pass"):
        (tmp_path / "served.py").write_text(FILE.format(version=version, more=more))

    write("1.0")
    registry.load_path(tmp_path / "served.py")
    return write


def fails(ctx):
    register_everything(ctx)
    raise ValueError("at the end")


@pytest.mark.parametrize("make", [PluginCapability.Backend, PluginCapability.Custom])
def test_looking_for_CUDA_misses_cuda(registry, make):  # noqa: N802
    plugin = registry.register(Simple("a", can=make("cuda")))
    assert registry.find_by_capability(make("CUDA")) == [plugin]


def test_version_requirements_are_never_evaluated(registry):
    registry.register(Simple("clock", "1.9"))
    with pytest.raises(DependencyError, match="a 1.0 needs clock >=2; loaded is clock 1.9"):
        registry.register(Simple("a", needs=("clock", ">=2")))
    registry.register(Simple("b", needs=("clock", ">=1.2,<2")))


def test_what_a_failing_on_load_had_registered_stays_live(registry):
    before = world(registry)
    with pytest.raises(PluginError, match="ValueError"):
        registry.register(Simple("a", on_load=fails))
    assert world(registry) == before


def test_what_an_unregistered_plugin_had_registered_stays_live(registry):
    before = world(registry)
    registry.register(Simple("a", on_load=register_everything))
    registry.unregister("a")
    assert world(registry) == before


def test_an_unregistered_plugin_goes_on_hearing_events(registry):
    heard = []
    registry.register(Simple("a", on_load=lambda ctx: ctx.subscribe("*", heard.append)))
    registry.unregister("a")
    del heard[:]
    registry.events.publish(EpochEnd(epoch=1, loss=0.5))
    assert heard == []


def test_a_listener_that_raises_counts_as_delivered():
    bus, heard = EventBus(), []

    def raises(event):
        raise ValueError("no")

    bus.subscribe("Mine", raises)
    bus.subscribe("Mine", heard.append)
    report = bus.publish_report(Custom("Mine", 1))
    assert (report.ok, report.matched, report.delivered, len(heard)) == (False, 2, 1, 1)
    assert [str(failure.error) for failure in report.failures] == ["no"]


def test_an_on_load_error_during_a_reload_loses_the_old_version(registry, served):
    served("2.0", "raise ValueError('no')")
    with pytest.raises(PluginError, match="version 1.0 goes on"):
        registry.reload("served")
    assert registry.services.get("served") == "1.0" and registry.loaded("served").metadata.version == "1.0"


def test_the_watcher_retries_a_broken_version_for_ever(registry, served):
    errors = []
    watcher = PluginWatcher(registry, told=lambda plugin_id, error: errors.append(error))
    served("2.0-broken", "raise ValueError('no')")
    assert [watcher.look() for _ in range(4)] == [["served"], [], [], []]
    assert len(errors) == 1 and registry.services.get("served") == "1.0"
    served("3.0")
    assert watcher.look() == ["served"] and registry.services.get("served") == "3.0"


def test_the_module_registry_starts_empty():
    registry = ModuleDiscoveryRegistry()
    assert {"linear", "conv2d", "relu", "layer_norm", "lstm", "multi_head_attention"} <= set(registry)
    made = registry.create("linear", {"in_features": "3", "out_features": "2"})
    assert isinstance(made, Linear) and made.weight.shape == (2, 3)
