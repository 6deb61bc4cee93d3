"""Life cycle: loading in order, complete taking back, refusals that explain, reports."""

from __future__ import annotations

import threading
from typing import Protocol

import pytest
from registrations import REGISTRATIONS, register_everything, world

import spiral as sp
from spiral.errors import RegistryError
from spiral.plugin import (
    DependencyError,
    Plugin,
    PluginCapability,
    PluginError,
    PluginLoaded,
    PluginMetadata,
    PluginRegistry,
    PluginUnloaded,
    ServiceTypeError,
    SystemInit,
    SystemShutdown,
    global_registry,
)


class Simple(Plugin):
    """A plugin with the given metadata, which notes what happens to it."""

    def __init__(self, plugin_id, version="1.0", needs=(), log=None, on_load=None, on_unload=None):
        self.meta = PluginMetadata(plugin_id, version)
        for need in needs:
            self.meta = self.meta.with_dependency(*need) if isinstance(need, tuple) else self.meta.with_dependency(need)
        self.log = [] if log is None else log
        self.loads, self.unloads = on_load, on_unload

    def metadata(self):
        return self.meta

    def on_load(self, ctx):
        self.ctx = ctx
        self.log.append(f"+{self.meta.id}")
        if self.loads:
            self.loads(ctx)

    def on_unload(self, ctx):
        self.log.append(f"-{self.meta.id}")
        if self.unloads:
            self.unloads(ctx)


@pytest.fixture
def registry():
    return PluginRegistry()


class Refused(Exception):
    """What a failing plugin raises."""


@pytest.mark.parametrize("fails_after", range(len(REGISTRATIONS) + 1))
def test_a_failing_on_load_leaves_everything_as_it_was(registry, fails_after):
    registry.register(Simple("other", on_load=lambda ctx: register_everything(ctx, "other")))
    before = world(registry)

    def on_load(ctx):
        for number, add in enumerate(REGISTRATIONS.values()):
            if number == fails_after:
                raise Refused("in the middle")
            add(ctx, "mine")
        raise Refused("at the end")

    with pytest.raises(PluginError, match="plugin 'broken': on_load raised Refused") as caught:
        registry.register(Simple("broken", on_load=on_load))
    assert isinstance(caught.value.__cause__, Refused)
    assert world(registry) == before
    registry.unregister("other")


def test_an_interrupt_while_loading_takes_back_too_and_goes_on_its_way(registry):
    before = world(registry)

    def on_load(ctx):
        register_everything(ctx)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.register(Simple("broken", on_load=on_load))
    assert world(registry) == before


def test_unloading_takes_back_everything_and_loading_again_works(registry):
    before = world(registry)
    for _ in range(3):
        registry.register(Simple("all", on_load=register_everything))
        assert world(registry) != before
        registry.unregister("all")
        assert world(registry) == before


def test_what_is_added_after_loading_belongs_to_the_plugin_too(registry):
    before = world(registry)
    plugin = Simple("late")
    registry.register(plugin)
    thread = threading.Thread(target=register_everything, args=(plugin.ctx,))
    thread.start(), thread.join()
    assert "service-x" in registry.services.names()
    registry.unregister("late")
    assert world(registry) == before
    with pytest.raises(RegistryError, match="'late' has been unloaded"):
        plugin.ctx.register_service("too-late", 1)
    assert world(registry) == before


def test_an_op_declared_with_the_decorator_while_loading_is_owned(registry):
    from spiral.op import OPS, op

    def on_load(ctx):
        from registrations import TripleDeclaration

        op("tripled_by_decorator(x) -> y")(TripleDeclaration)

    registry.register(Simple("decorates", on_load=on_load))
    assert OPS.owner_of("tripled_by_decorator") == "decorates"
    x = sp.ones(2).requires_grad_()
    y = sp.ops.tripled_by_decorator(x)  # NumPy runs the oracle of an op that came after the backends
    y.sum().backward()
    assert y.tolist() == [3.0, 3.0] and x.grad.tolist() == [3.0, 3.0]
    registry.unregister("decorates")
    with pytest.raises(AttributeError, match="tripled_by_decorator"):
        sp.ops.tripled_by_decorator(x)


def test_a_kernel_added_to_a_backend_is_chosen_and_goes(registry):
    from spiral.backend import Cap, Kernel

    calls = []

    def add(x, y):
        calls.append(1)
        return x + y

    kernel = Kernel("add", add, Cap(priority=1000), allocates=True)
    registry.register(Simple("faster", on_load=lambda ctx: ctx.register_kernel("cpu", kernel)))
    assert (sp.ones(3) + sp.ones(3)).tolist() == [2.0] * 3 and len(calls) == 1
    assert sp.explain("add", sp.ones(3), sp.ones(3)).chosen.kernel == "add"
    registry.unregister("faster")
    assert (sp.ones(3) + sp.ones(3)).tolist() == [2.0] * 3 and len(calls) == 1


# ---------------------------------------------------------------- order and refusals
def test_events_tell_of_loading_and_unloading(registry):
    heard = []
    registry.events.subscribe("*", heard.append)
    registry.register(Simple("a"))
    registry.unregister("a")
    assert heard == [PluginLoaded("a"), PluginUnloaded("a")]


def test_on_event_hears_everything_until_the_plugin_goes(registry):
    class Monitor(Simple):
        heard = ()

        def on_event(self, event, ctx):
            assert ctx is self.ctx
            self.heard = (*self.heard, event.name)

    monitor = Monitor("monitor")
    registry.register(monitor)
    registry.register(Simple("a"))
    registry.unregister("monitor")
    registry.unregister("a")
    assert monitor.heard == ("PluginLoaded", "PluginLoaded")


@pytest.mark.parametrize("value", [object(), Simple, None, "name", 3])
def test_what_is_no_plugin_is_refused(registry, value):
    with pytest.raises(RegistryError, match="expected an object of a Plugin subclass"):
        registry.register(value)


def test_bad_metadata_is_refused_by_name(registry):
    class Wrong(Plugin):
        def metadata(self):
            return {"id": "x"}

    class Raises(Plugin):
        def metadata(self):
            raise KeyError("x")

    with pytest.raises(RegistryError, match="must return a PluginMetadata"):
        registry.register(Wrong())
    with pytest.raises(RegistryError, match="Raises: metadata.. raised KeyError"):
        registry.register(Raises())
    with pytest.raises(NotImplementedError, match="write metadata"):
        Plugin().metadata()


def test_an_id_is_taken_once(registry):
    registry.register(Simple("a", "1.0"))
    with pytest.raises(RegistryError, match="'a': is loaded already, in version 1.0"):
        registry.register(Simple("a", "2.0"))
    assert registry.get("a").meta.version == "1.0"


def test_an_id_is_reserved_while_it_loads(registry):
    started, go_on = threading.Event(), threading.Event()

    def slow(ctx):
        started.set()
        assert go_on.wait(30)

    thread = threading.Thread(target=registry.register, args=(Simple("a", on_load=slow),))
    thread.start()
    try:
        assert started.wait(30)
        assert registry.get("a") is None
        with pytest.raises(RegistryError, match="being loaded by another call"):
            registry.register(Simple("a"))
        registry.register(Simple("b"))  # others are not held up
    finally:
        go_on.set()
        thread.join()
    assert [m.id for m in registry.list_plugins()] == ["b", "a"]


def test_requirements_are_evaluated_and_explained(registry):
    registry.register(Simple("metrics", "1.4"))
    with pytest.raises(DependencyError, match="trainer 2.0 needs metrics >=2,<3; loaded is metrics 1.4"):
        registry.register(Simple("trainer", "2.0", needs=[("metrics", ">=2,<3")]))
    with pytest.raises(DependencyError, match="there is no metrisc; similar: metrics"):
        registry.register(Simple("trainer", needs=["metrisc"]))
    registry.register(Simple("trainer", needs=[("metrics", ">=1.2,<2")]))
    assert registry.dependency_graph() == {"metrics": [], "trainer": ["metrics"]}
    assert registry.validate_dependency_graph().ok


def test_a_batch_is_sorted_and_all_or_nothing(registry):
    log = []
    a, b = Simple("a", log=log), Simple("b", needs=["a"], log=log)
    assert registry.register_all([b, a]) == ["a", "b"]
    before = world(registry)
    bad = Simple("d", needs=["c"], on_load=lambda ctx: ctx.get_service("nowhere"))
    with pytest.raises(PluginError, match="'d'"):
        registry.register_all([bad, Simple("c", log=log, on_load=register_everything)])
    assert world(registry) == before and log == ["+a", "+b", "+c", "-c"]
    with pytest.raises(DependencyError, match="x → y → x|y → x → y"):
        registry.register_all([Simple("x", needs=["y"]), Simple("y", needs=["x"]), Simple("z")])
    assert world(registry) == before


def test_dependents_are_named_and_cascade_takes_them_first(registry):
    log = []
    registry.register_all([Simple("a", log=log), Simple("b", needs=["a"], log=log), Simple("c", needs=["b"], log=log)])
    with pytest.raises(RegistryError, match="'a': is needed by 'c', 'b'"):
        registry.unregister("a")
    assert [m.id for m in registry.list_plugins()] == ["a", "b", "c"]
    registry.unregister("a", cascade=True)
    assert log[3:] == ["-c", "-b", "-a"] and registry.list_plugins() == []


def test_shutdown_goes_backwards_and_one_failure_does_not_stop_it(registry, caplog):
    log, heard = [], []
    registry.events.subscribe(SystemShutdown, heard.append)

    def fails(ctx):
        raise Refused("at the end")

    plugins = [Simple("c", needs=["b"], log=log), Simple("a", log=log, on_load=register_everything)]
    before = world(registry)
    registry.register_all([*plugins, Simple("b", needs=["a"], log=log, on_unload=fails)])
    report = registry.shutdown()
    assert log[3:] == ["-c", "-b", "-a"] and report.unloaded == ("c", "b", "a")
    assert not report.ok and [type(e) for e in report.failures["b"]] == [Refused]
    assert "plugin b: on_unload raised Refused" in caplog.text
    assert heard == [SystemShutdown()] and world(registry) == before


def test_a_failing_on_unload_is_told_and_the_plugin_is_gone(registry):
    def fails(ctx):
        raise Refused("at the end")

    before = world(registry)
    registry.register(Simple("a", on_load=register_everything, on_unload=fails))
    with pytest.raises(PluginError, match="was unloaded, but .* Refused: at the end"):
        registry.unregister("a")
    assert world(registry) == before


def test_unknown_ids_are_errors_with_similar_names(registry):
    registry.register(Simple("metrics"))
    with pytest.raises(RegistryError, match="similar: metrics"):
        registry.unregister("metrisc")
    assert registry.get("metrisc") is None


def test_initialising_is_told_once(registry, monkeypatch):
    monkeypatch.setenv("SPIRAL_PLUGINS", "+none")
    heard = []
    registry.events.subscribe(SystemInit, heard.append)
    assert registry.initialize_all() == [] and registry.initialize_all() == []
    assert heard == [SystemInit()]


# ---------------------------------------------------------------- metadata
@pytest.mark.parametrize(
    "make",
    [
        lambda: PluginMetadata("", "1"),
        lambda: PluginMetadata(" a", "1"),
        lambda: PluginMetadata("a\n", "1"),
        lambda: PluginMetadata("../a", "1"),
        lambda: PluginMetadata("a", ""),
        lambda: PluginMetadata("a", "one"),
        lambda: PluginMetadata("a", None),
        lambda: PluginMetadata("a", "1").with_dependency("a"),
        lambda: PluginMetadata("a", "1").with_dependency("b", "about 2"),
        lambda: PluginMetadata("a", "1").with_dependency(""),
        lambda: PluginMetadata("a", "1").with_capability("Telemetry"),
        lambda: PluginMetadata("a", "1").with_provides("b", "x"),
        lambda: PluginCapability.Backend(""),
        lambda: PluginCapability.Custom(" x"),
        lambda: PluginCapability("Optimizers", "x"),
        lambda: PluginCapability("Optimisers"),
        lambda: PluginCapability.parse("nothing:x"),
    ],
)
def test_malformed_metadata_is_refused(make):
    with pytest.raises(RegistryError):
        make()


def test_names_of_capabilities_are_compared_without_case(registry):
    class Cuda(Simple):
        def metadata(self):
            return super().metadata().with_capability(PluginCapability.Backend("CUDA"))

    plugin = Cuda("cuda")
    registry.register(plugin)
    assert registry.find_by_capability(PluginCapability.Backend("cuda")) == [plugin]
    assert registry.find_by_capability(PluginCapability.Custom("cuda")) == []
    assert PluginCapability.parse("backend:Cuda") == PluginCapability.Backend("cuda")


def test_the_processor_backend_is_a_plugin():
    sp.ones(1) + sp.ones(1)
    found = global_registry().find_by_capability(PluginCapability.Backend("CPU"))
    assert [p.metadata().id for p in found] == ["backend-cpu"]
    assert global_registry().loaded("backend-cpu").origin == "bundled"


# ---------------------------------------------------------------- services and settings
class Clock(Protocol):
    def now(self) -> float: ...


class Watch:
    def now(self):
        return 1.0


def test_a_service_is_checked_against_the_expected_type(registry):
    registry.register(Simple("a", on_load=lambda ctx: ctx.register_service("clock", Watch(), version="1.2")))
    assert registry.services.get("clock", Clock).now() == 1.0
    assert registry.services.get("clock", Watch, ">=1,<2").now() == 1.0
    registry.register(Simple("b", on_load=lambda ctx: ctx.register_service("stone", object())))
    with pytest.raises(ServiceTypeError, match="'stone': expected Clock; 'b' registered a object, which lacks now"):
        registry.services.get("stone", Clock)
    with pytest.raises(ServiceTypeError, match="which is no int"):
        registry.services.get("clock", int)
    with pytest.raises(RegistryError, match="version >=2 is required; 'a' offers 1.2"):
        registry.services.get("clock", Clock, ">=2")
    with pytest.raises(RegistryError, match="without a version"):
        registry.services.get("stone", requirement=">=2")
    with pytest.raises(RegistryError, match="similar: clock"):
        registry.services.get("clok")


def test_a_replaced_service_comes_back(registry):
    registry.register(Simple("a", on_load=lambda ctx: ctx.register_service("s", 1)))
    with pytest.raises(PluginError, match="registered already, by 'a'"):
        registry.register(Simple("b", on_load=lambda ctx: ctx.register_service("s", 2)))
    registry.register(Simple("b", on_load=lambda ctx: ctx.register_service("s", 2, replace=True)))
    assert registry.services.get("s") == 2
    registry.unregister("b")
    assert registry.services.get("s") == 1
    registry.register(Simple("b", on_load=lambda ctx: ctx.register_service("s", 2, replace=True)))
    registry.unregister("a")  # the one below goes; the one above stays
    assert registry.services.get("s") == 2
    registry.unregister("b")
    assert registry.services.names() == []


def test_settings_are_namespaced_and_users_win(registry, monkeypatch, tmp_path):
    a, b = Simple("a"), Simple("b")
    registry.register_all([a, b])
    a.ctx.set_config("learning_rate", "0.001")
    a.ctx.set_config("log.level", 3)
    b.ctx.set_config("learning_rate", 5)
    assert (a.ctx.get_config("learning_rate"), b.ctx.get_config("learning_rate")) == ("0.001", 5)
    assert b.ctx.get_config("learning_rate", plugin="a") == "0.001" and a.ctx.get_config("none", 7) == 7
    assert a.ctx.list_config() == {"learning_rate": "0.001", "log.level": 3}
    override = registry.configuration.override("a", "log.level", 4)
    assert a.ctx.get_config("log.level") == 4
    (tmp_path / "plugins.yaml").write_text("a: {log.level: 5, other: [1, 2]}\n")
    monkeypatch.setenv("SPIRAL_PLUGIN_CONFIG", str(tmp_path / "plugins.yaml"))
    assert a.ctx.get_config("log.level") == 5 and a.ctx.get_config("other") == [1, 2]
    monkeypatch.setenv("SPIRAL_CONFIG__A__LOG_LEVEL", "6")
    monkeypatch.setenv("SPIRAL_CONFIG__A__LEARNING_RATE", "0.1")
    assert a.ctx.get_config("log.level") == 6
    assert a.ctx.get_config("learning_rate") == "0.1"  # a string stays one
    assert registry.configuration.origin("a", "log.level") == "SPIRAL_CONFIG__A__LOG_LEVEL"
    override.undo()
    assert a.ctx.clear_config("log") == 1 and a.ctx.unset_config("log.level") is False
    registry.unregister("a")
    assert registry.configuration.get("b", "learning_rate") == 5
    monkeypatch.delenv("SPIRAL_CONFIG__A__LEARNING_RATE")
    assert registry.configuration.get("a", "learning_rate") is None


def test_a_setting_set_a_million_times_is_one_addition(registry):
    plugin = Simple("a")
    registry.register(plugin)
    for i in range(1000):
        plugin.ctx.set_config("step", i)
    assert len(registry.loaded("a").ledger.additions()) == 2  # the plugin itself and the setting


@pytest.mark.parametrize("text", ["[1, 2]", "a: 3", "a: {", "\x00", "a: {x: 1, x: 2}"])
def test_a_damaged_settings_file_is_named(registry, monkeypatch, tmp_path, text):
    (tmp_path / "plugins.yaml").write_text(text)
    monkeypatch.setenv("SPIRAL_PLUGIN_CONFIG", str(tmp_path / "plugins.yaml"))
    with pytest.raises(sp.errors.ConfigError, match=r"plugins\.yaml"):
        registry.configuration.get("a", "x")


# ---------------------------------------------------------------- many at once
def test_threads_register_publish_and_unregister_at_once(registry):
    """Briefly here; ten seconds in test_under_load."""
    from under_load import hammer

    assert hammer(registry, seconds=0.5, threads=8) == []


def test_a_misspelt_name_in_the_choice_is_told_once(registry, monkeypatch, caplog):
    monkeypatch.setenv("SPIRAL_PLUGINS", "-tensorbord,-tensorboard,-jsonl,-curve,-live,-prometheus,-early_stopping")
    registry.initialize_all()
    registry.initialize_all()
    told = [r.getMessage() for r in caplog.records if "SPIRAL_PLUGINS" in r.getMessage()]
    assert told == ["SPIRAL_PLUGINS: no installed plugin is called tensorbord; similar: tensorboard."]
    assert registry.list_plugins() == []
