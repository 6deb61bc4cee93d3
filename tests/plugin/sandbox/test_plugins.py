"""Sandboxed plugins as the registry sees them: in Python, in C, in shell; alive and broken."""

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from spiral.errors import ArgumentError, RegistryError
from spiral.plugin import (
    Custom,
    EpochEnd,
    Plugin,
    PluginCapability,
    PluginError,
    PluginMetadata,
    PluginRegistry,
    StepEnd,
    Telemetry,
)
from spiral.plugin.sandbox import (
    LimitExceeded,
    Limits,
    PluginCallError,
    PluginDied,
    PluginNotRunning,
    ProtocolError,
    SandboxedPlugin,
    SandboxError,
    WireError,
)

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "plugins"
PATIENT = {"start_seconds": 60.0, "call_seconds": 60.0, "grace_seconds": 5.0}
HEAD = "from spiral.plugin import *\nimport os, sys, signal\nclass P(Plugin):\n"
METADATA = "    def metadata(self): return PluginMetadata('p', '1.0')\n"


@pytest.fixture
def registry():
    return PluginRegistry()


@pytest.fixture
def heard(registry):
    """Telemetry and Custom events that were published."""
    events = []
    for kind in (Telemetry, Custom):
        registry.events.subscribe(kind, events.append)
    return events


@pytest.fixture
def python(folder, tmp_path):
    """``python(body, **limits)``: a sandboxed plugin with these methods; it is closed after the test."""
    made = []

    def make(body, *, head=HEAD, packages=False, event_window=1, **limits):
        path = tmp_path / f"plugin{len(made)}.py"
        path.write_text(head + METADATA + body)
        chosen = Limits(**{**PATIENT, **limits})
        made.append(SandboxedPlugin.from_file(path, packages=packages, limits=chosen, event_window=event_window))
        return made[-1]

    yield make
    for plugin in made:
        plugin.close()


@pytest.fixture(scope="session")
def loss_watch(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    built = tmp_path_factory.mktemp("c") / "loss_watch"
    source = EXAMPLES / "loss_watch.c"
    command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(source), "-lm"]
    subprocess.run(command, check=True)
    return built


# ---------------------------------------------------------------- Python
def test_a_python_plugin_does_what_it_does_inside_the_host(python, registry, heard, caplog):
    plugin = python("""
    def on_load(self, ctx):
        self.ctx = ctx
        ctx.log.warning("hello %d", 3)
        ctx.set_config("factor", 1.5)
        self.factor = ctx.get_config("factor")
        ctx.subscribe(EpochEnd, self.seen)
        ctx.register_service("scale", Scale(self.factor), version="1.2")
    def seen(self, event):
        self.ctx.publish(Custom("seen", {"epoch": event.epoch, "loss": event.loss}))
        self.ctx.publish(Telemetry({"loss": event.loss}))
class Scale:
    def __init__(self, by): self.by = by
    def times(self, x, *, plus=0): return self.by * x + plus
    def _private(self): pass
""")
    registry.register(plugin)
    assert registry.get("p") is plugin and plugin.status == "loaded"
    assert "hello 3" in caplog.text and registry.configuration.get("p", "factor") == 1.5
    registry.events.publish(EpochEnd(epoch=2, loss=0.25))
    assert heard == [Custom("seen", {"epoch": 2, "loss": 0.25}), Telemetry({"loss": 0.25})]
    scale = registry.services.get("scale", requirement=">=1,<2")
    assert scale.times(2, plus=1) == 4.0 and not hasattr(scale, "_private")
    registry.unregister("p")
    assert (plugin.status, registry.services.names(), registry.configuration.values("p")) == ("unloaded", [], {})
    registry.events.publish(EpochEnd(epoch=3, loss=0.25))
    assert len(heard) == 2


def test_on_event_hears_everything(python, registry, heard):
    registry.register(
        python("""
    def on_event(self, event, ctx):
        ctx.publish(Custom("got", [event.name, getattr(event, "loss", None)]))
""")
    )
    registry.events.publish(EpochEnd(epoch=1, loss=math.inf))
    registry.events.publish(Custom("mine", 5))
    got = [e.data for e in heard if e.event_type == "got"]
    assert ["EpochEnd", math.inf] in got and len(got) == 3  # its own PluginLoaded too; never what it has published


def test_metadata_come_from_the_other_process(python):
    about = python(
        "",
        head=HEAD.replace(
            "class P",
            """
class P""",
        ),
    ).metadata()
    assert (about.id, about.version, about.capabilities) == ("p", "1.0", ())
    shared = SandboxedPlugin.from_file(EXAMPLES / "running_mean.py", limits=Limits(**PATIENT))
    with shared:
        assert shared.metadata().provides_capability(PluginCapability.Telemetry)


def test_the_example_keeps_its_state_and_runs_in_both_places(folder, registry):
    registry.load_path(EXAMPLES / "running_mean.py")
    assert registry.services.get("running_mean").add(3.0) == 3.0
    inside = registry.get("running_mean").export_state()
    registry.unregister("running_mean")
    with SandboxedPlugin.from_file(EXAMPLES / "running_mean.py", limits=Limits(**PATIENT)) as plugin:
        registry.register(plugin)
        plugin.import_state(inside)
        assert registry.services.get("running_mean").add(1.0) == 2.0
        assert plugin.export_state() == [3.0, 1.0]
        registry.unregister("running_mean")


def test_printing_does_not_disturb_the_wire(python):
    plugin = python("""
    def noisy(self):
        print("to stdout")
        os.write(1, b"raw\\n")
        sys.__stdout__.write("again\\n")
        return sys.stdin.read()
""")
    assert plugin.call("noisy") == ""
    plugin.flush()
    assert "to stdout" in plugin.stderr and "raw" in plugin.stderr


def test_the_worker_is_light(python):
    loaded = python("    def modules(self): return sorted(sys.modules)\n").call("modules")
    assert not {"numpy", "spiral.tensor", "spiral.plugin.registry", "asyncio", "ctypes", "socket"} & set(loaded)


def test_installed_packages_are_there_when_asked_for(python):
    body = "    def total(self, x):\n        import numpy\n        return float(x.numpy().sum())\n"
    with pytest.raises(PluginCallError, match="numpy"):
        python(body).call("total", np.ones(3))
    assert python(body, packages=True, memory_bytes=2 << 30).call("total", np.ones(3)) == 3.0


def test_arrays_pass_both_ways(python):
    plugin = python("    def echo(self, x): return {'x': x, 'first': x.tolist()[0]}\n")
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = plugin.call("echo", sent)
    np.testing.assert_array_equal(got["x"].numpy(), sent, strict=True)
    assert got["first"] == [0.0, 1.0, 2.0]


def test_an_exception_in_a_method_tells_where(python):
    plugin = python("    def boom(self): raise KeyError('\\ud800')\n    def well(self): return 1\n")
    with pytest.raises(PluginCallError, match="KeyError") as caught:
        plugin.call("boom")
    assert caught.value.remote_type == "KeyError" and "in boom" in caught.value.remote_traceback
    for wrong in ("metadata", "_x", "on_load", "nothing", "nothing.at_all"):
        with pytest.raises(PluginCallError, match="there is no method"):
            plugin.call(wrong)
    with pytest.raises(PluginCallError, match="wire"):
        python("    def odd(self): return object()\n").call("odd")
    assert plugin.call("well") == 1 and plugin.status == "ready"


def test_an_exception_in_a_listener_is_reported_by_the_bus_and_the_plugin_lives(python, registry, caplog):
    plugin = python("""
    def on_load(self, ctx):
        ctx.subscribe(EpochEnd, self.seen)
    def seen(self, event): raise ValueError("bad epoch")
""")
    registry.register(plugin)
    report = registry.events.publish_report(EpochEnd(epoch=1, loss=1.0))
    assert not report.ok and "bad epoch" in str(report.failures)
    assert plugin.status == "loaded"


def test_a_failing_on_load_leaves_nothing(python, registry, belongings):
    before = registry.events.subscriptions()
    plugin = python("""
    def on_load(self, ctx):
        ctx.subscribe(EpochEnd, print)
        ctx.register_service("s", {}.__class__())
        ctx.set_config("a", 1)
        raise RuntimeError("no")
""")
    pid = plugin.pid
    with pytest.raises(PluginError, match="RuntimeError: no"):
        registry.register(plugin)
    assert registry.services.names() == [] and registry.list_plugins() == []
    assert registry.events.subscriptions() == before and plugin.status == "unloaded"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_a_sandboxed_plugin_cannot_do_is_said(python, registry):
    for code, says in (
        ("ctx.register_optimizer('x', int)", "cannot do this; it has log, publish"),
        ("ctx.publish(EpochEnd(epoch=1, loss=1.0))", "publishes Telemetry and Custom"),
        ("ctx._wire.ask('publish', {'type': 'EpochEnd', 'data': {}})", "name of spiral's own"),
        ("ctx._wire.ask('shutdown', {})", "no method 'shutdown' for plugins"),
        ("ctx._wire.ask('get_config', {'key': 5})", "key must be a str; received 5"),
        ("ctx.register_service('x', object())", "no public methods"),
        ("import numpy", "No module named 'numpy'"),
        ("from spiral.plugin import init_plugin_system", "packages=True"),
    ):
        plugin = python(f"    def on_load(self, ctx):\n        {code}\n")
        with pytest.raises(PluginError, match=says):
            registry.register(plugin)


def test_a_refused_notification_is_written_into_the_log(python, registry, caplog):
    plugin = python("    def on_load(self, ctx): ctx._wire.tell('publish', {'type': 'EpochEnd', 'data': {}})\n")
    registry.register(plugin)
    assert "publish was refused" in caplog.text and plugin.status == "loaded"


def test_a_service_name_that_is_taken_is_refused(python, registry):
    registry.services.register("taken", object())
    body = "    def on_load(self, ctx): ctx.register_service('taken', self)\n    def one(self): return 1\n"
    with pytest.raises(PluginError, match="taken"):
        registry.register(python(body))


def test_it_can_be_loaded_again_after_it_was_unloaded(python, registry):
    plugin = python("    n = 0\n    def count(self):\n        self.n += 1\n        return self.n\n")
    for _ in range(2):
        registry.register(plugin)
        assert plugin.call("count") == 1
        registry.unregister("p")
    with pytest.raises(PluginNotRunning):
        plugin.call("count")


VERSIONED = """
from spiral.plugin import Plugin, PluginMetadata
class P(Plugin):
    state = []
    def metadata(self): return PluginMetadata("p", "VERSION")
    def on_load(self, ctx):
        FAIL
        ctx.register_service("s", self)
    def add(self, x):
        self.state = [*self.state, x]
        return ["VERSION", self.state]
    def export_state(self): return self.state
    def import_state(self, state): self.state = state
"""


def test_a_reload_hands_the_state_to_a_new_process(folder, tmp_path, registry, belongings):
    path = tmp_path / "p.py"
    path.write_text(VERSIONED.replace("VERSION", "1").replace("FAIL", ""))
    source = SandboxedPlugin.source(path, limits=Limits(**PATIENT))
    registry.register(source.make(), source=source)
    assert registry.services.get("s").add(5) == ["1", [5]]
    before, first = belongings(), registry.get("p")
    for broken in ("raise ValueError('no')", "def", "import os; os._exit(1)"):
        path.write_text(VERSIONED.replace("VERSION", "2").replace("FAIL", broken))
        with pytest.raises(PluginError, match="version 1 goes on"):
            registry.reload("p")
    assert registry.services.get("s").add(6) == ["1", [5, 6]] and belongings() == before
    path.write_text(VERSIONED.replace("VERSION", "3").replace("FAIL", ""))
    assert registry.reload("p").status == "loaded" and first.status == "unloaded"
    assert registry.services.get("s").add(7) == ["3", [5, 6, 7]]
    after = belongings()
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    registry.unregister("p")


def test_a_process_that_a_plugin_starts_while_it_loads_ends_with_it(folder, tmp_path, registry):
    path = tmp_path / "p.py"
    path.write_text(VERSIONED.replace("VERSION", "1").replace("FAIL", ""))

    class Outer(Plugin):
        def metadata(self):
            return PluginMetadata("outer", "1")

        def on_load(self, ctx):
            self.inner = SandboxedPlugin.from_file(path, limits=Limits(**PATIENT))

    outer = registry.register(Outer())
    assert outer.inner.status == "ready"
    registry.unregister("outer")
    assert outer.inner.status == "unloaded"


def test_a_dependent_in_the_sandbox_is_bound_again(python, registry, tmp_path):
    base = tmp_path / "base.py"
    text = (
        "from spiral.plugin import *\nclass B(Plugin):\n    def metadata(self): return PluginMetadata('base', '%d')\n"
    )
    base.write_text(text % 1)
    registry.load_path(base)
    plugin = python("""
    loads = 0
    def metadata(self): return PluginMetadata("p", "1").with_dependency("base")
    def on_load(self, ctx):
        self.loads += 1
        ctx.subscribe(EpochEnd, self.seen)
        ctx.register_service("s", self)
        self.ctx = ctx
    def seen(self, event): self.ctx.publish(Custom("heard", self.loads))
    def count(self): return self.loads
""")
    registry.register(plugin)
    base.write_text(text % 2)
    registry.reload("base")
    heard = []
    registry.events.subscribe("heard", heard.append)
    registry.events.publish(EpochEnd(epoch=1, loss=0.5))
    assert [e.data for e in heard] == [2] and registry.services.get("s").count() == 2
    assert plugin.status == "loaded"


def test_settings_of_the_user_reach_the_plugin(python, registry):
    registry.configuration.override("p", "factor", 4)
    body = """
    def on_load(self, ctx):
        ctx.set_config("factor", 2)
        self.factor = ctx.get_config("factor")
        self.missing = ctx.get_config("missing", "default")
    def both(self): return self.factor, self.missing
"""
    plugin = python(body)
    registry.register(plugin)
    assert plugin.call("both") == [4, "default"]


def test_threads_of_a_plugin_may_publish(python, registry, heard):
    plugin = python("""
    def on_load(self, ctx): self.ctx = ctx
    def work(self):
        import threading
        def run(n): self.ctx.publish(Custom("from thread", n))
        threads = [threading.Thread(target=run, args=(n,)) for n in range(20)]
        for t in threads: t.start()
        for t in threads: t.join()
""")
    registry.register(plugin)
    plugin.call("work")
    assert sorted(e.data for e in heard) == list(range(20))


def test_each_listener_hears_an_event_once(python, registry, heard):
    plugin = python("""
    def on_load(self, ctx):
        self.seen = []
        for kind in (EpochEnd, "EpochEnd", "mine", Custom, "*"):
            ctx.subscribe(kind, lambda event, kind=str(kind): self.seen.append(kind))
    def all(self): return self.seen
""")
    registry.register(plugin)
    plugin.call("all")
    registry.events.publish(EpochEnd(epoch=1, loss=0.5))
    registry.events.publish(Custom("mine", None))
    seen = plugin.call("all")[-6:]
    assert seen[1] == "EpochEnd" and "EpochEnd" in seen[0] and seen[2] == "*"
    assert seen[3:] == ["mine", "<class 'spiral.plugin.events.Custom'>", "*"]


# ---------------------------------------------------------------- broken
BREAKING = {
    "loops": ("while True: pass", LimitExceeded, "call_seconds"),
    "allocates": ("bytearray(10 << 30)", LimitExceeded, "memory_bytes"),
    "allocates slowly": ("x = [bytearray(1 << 20) for _ in range(10**6)]", LimitExceeded, "memory_bytes"),
    "forks": ("os.fork()", LimitExceeded, "processes"),
    "exits": ("sys.exit(3)", PluginDied, "status 3"),
    "dies": ("os.kill(os.getpid(), signal.SIGSEGV)", PluginDied, "SIGSEGV"),
    "writes a large file": ("open('x', 'wb').write(bytes(20 << 20))", LimitExceeded, "file_bytes"),
    "writes garbage": ("os.write(4, b'garbage\\n')", ProtocolError, "not JSON"),  # 4: the worker's end of the wire
    "ignores termination": (
        "signal.signal(signal.SIGTERM, lambda *_: None)\n        while True: pass",
        LimitExceeded,
        "",
    ),
}


@pytest.mark.parametrize("how", BREAKING)
def test_a_plugin_that_breaks_during_an_event_is_set_aside_and_the_host_goes_on(how, python, registry, heard, caplog):
    code, kind, says = BREAKING[how]
    plugin = python(
        f"""
    def on_load(self, ctx):
        ctx.subscribe(EpochEnd, self.seen)
        ctx.register_service("s", self)
    def seen(self, event):
        {code}
""",
        call_seconds=0.5 if "call" in says or "ignores" in how else 60.0,
        grace_seconds=0.2,
        memory_bytes=256 << 20,
    )
    registry.register(plugin)
    other = []
    registry.events.subscribe(EpochEnd, other.append)
    with caplog.at_level(logging.WARNING):
        registry.events.publish(EpochEnd(epoch=1, loss=0.5))
        registry.events.publish(EpochEnd(epoch=2, loss=0.5))
    assert plugin.status == "broken" and isinstance(plugin.failure, kind) and says in str(plugin.failure)
    assert len(other) == 2 and registry.services.names() == []
    warning = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warning) == 1 and str(plugin.failure) in warning[0].getMessage()
    with pytest.raises(PluginNotRunning):
        plugin.call("seen", 1)
    registry.unregister("p")
    assert registry.list_plugins() == []


def test_a_death_that_nobody_saw_is_seen_in_the_status(python, registry):
    plugin = python("    def on_load(self, ctx): ctx.subscribe(EpochEnd, print)\n")
    registry.register(plugin)
    os.kill(plugin.pid, signal.SIGKILL)
    plugin._talk._child.wait_exited(60)
    assert plugin.status == "broken" and "SIGKILL" in str(plugin.failure)


def test_a_restart_is_explicit_and_complete(python, registry, heard):
    plugin = python("""
    def on_load(self, ctx):
        self.ctx = ctx
        ctx.subscribe(EpochEnd, self.seen)
        ctx.register_service("s", self)
    def seen(self, event):
        if event.epoch == 1: os._exit(1)
        self.ctx.publish(Custom("alive", event.epoch))
    def one(self): return 1
""")
    registry.register(plugin)
    for epoch in (1, 2):
        registry.events.publish(EpochEnd(epoch=epoch, loss=0.5))
    assert heard == [] and plugin.status == "broken"
    plugin.restart()
    registry.events.publish(EpochEnd(epoch=3, loss=0.5))
    assert heard == [Custom("alive", 3)] and plugin.status == "loaded" and registry.services.get("s").one() == 1
    plugin.restart()  # also one that is alive
    assert registry.services.get("s").one() == 1
    registry.unregister("p")
    assert registry.services.names() == []


def test_a_restart_that_fails_can_be_tried_again(python, registry, tmp_path):
    plugin = python(f"""
    def on_load(self, ctx):
        if os.path.exists({str(tmp_path / "flag")!r}): raise ValueError("not now")
        ctx.register_service("s", self)
    def one(self): return 1
""")
    registry.register(plugin)
    (tmp_path / "flag").touch()
    with pytest.raises(PluginCallError, match="not now"):
        plugin.restart()
    assert plugin.status == "broken" and registry.services.names() == []
    (tmp_path / "flag").unlink()
    plugin.restart()
    assert plugin.status == "loaded" and registry.services.get("s").one() == 1
    registry.unregister("p")
    assert registry.services.names() == []


def test_an_update_under_a_restart_is_noticed(python, registry, tmp_path):
    plugin = python("")
    registry.register(plugin)
    path = tmp_path / "plugin0.py"
    path.write_text(path.read_text().replace("'1.0'", "'2.0'"))
    with pytest.raises(RegistryError, match="'p' 1.0: is 'p' 2.0 after a restart"):
        plugin.restart()
    assert plugin.status == "broken"


def test_a_plugin_that_cannot_be_imported_is_reported_with_its_traceback(python, belongings):
    before = belongings()
    for body, says in (
        ("    x = (\n", "SyntaxError"),
        ("    1 / 0\n", "ZeroDivisionError"),
        ("    os._exit(4)\n", "status 4"),
    ):
        with pytest.raises(SandboxError, match=says):
            python(body)
    assert belongings() == before
    with pytest.raises(RegistryError, match="expected a .py file"):
        SandboxedPlugin.from_file("/nowhere/plugin.py")


def test_events_in_a_window_are_dealt_with_in_order(python, registry, heard):
    plugin = python(
        """
    def on_load(self, ctx):
        self.seen = []
        ctx.subscribe(EpochEnd, lambda e: self.seen.append(e.epoch))
    def all(self): return self.seen
""",
        event_window=16,
    )
    registry.register(plugin)
    for epoch in range(100):
        registry.events.publish(EpochEnd(epoch=epoch, loss=0.5))
    plugin.flush()
    assert plugin.call("all") == list(range(100))


def test_an_event_that_cannot_be_sent_is_reported_and_the_plugin_lives(python, registry):
    plugin = python("    def on_load(self, ctx): ctx.subscribe('odd', print)\n")
    registry.register(plugin)
    report = registry.events.publish_report(Custom("odd", object()))
    assert not report.ok and isinstance(report.failures[0].error, WireError)
    assert plugin.status == "loaded"


def test_plugins_that_answer_each_other_do_not_wait_for_ever(python, registry):
    body = """
    def on_load(self, ctx):
        self.ctx = ctx
        ctx.subscribe("ping", self.seen)
    def seen(self, event):
        self.ctx.publish(Custom("pong", event.data))
"""
    plugin = python(body)
    registry.register(plugin)
    rounds = []

    def back(event):
        rounds.append(event.data)
        if event.data < 5:
            registry.events.publish(Custom("ping", event.data + 1))

    registry.events.subscribe("pong", back)
    registry.events.publish(Custom("ping", 0))
    assert rounds == list(range(6))


def test_many_threads_may_publish_to_it(python, registry):
    plugin = python("""
    def on_load(self, ctx):
        self.seen = 0
        ctx.subscribe(EpochEnd, self.note)
    def note(self, event): self.seen += 1
    def count(self): return self.seen
""")
    registry.register(plugin)

    def publish():
        for epoch in range(50):
            registry.events.publish(EpochEnd(epoch=epoch, loss=0.5))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plugin.call("count") == 200


def test_nothing_is_left_of_plugins_that_come_and_go(python, registry, belongings):
    body = "    def on_load(self, ctx): ctx.subscribe(EpochEnd, self.seen)\n"
    body += "    def seen(self, event): os._exit(event.epoch)\n"
    plugin = python(body)
    registry.register(plugin)
    registry.unregister("p")
    before, subscriptions = belongings(), registry.events.subscriptions()
    for i in range(6):
        registry.register(plugin)
        if i % 2:
            registry.events.publish(EpochEnd(epoch=i, loss=0.5))
        registry.unregister("p")
    assert belongings() == before and registry.events.subscriptions() == subscriptions


@pytest.mark.slow
def test_nothing_is_left_of_a_hundred_restarts(python, registry, belongings):
    plugin = python("    def on_load(self, ctx): ctx.register_service('s', self)\n    def die(self): os._exit(1)\n")
    registry.register(plugin)
    before = belongings()
    for _ in range(100):
        with pytest.raises(PluginDied):
            plugin.call("die")
        plugin.restart()
    after = belongings()
    assert (after.descriptors, after.threads, len(after.children)) == (
        before.descriptors,
        before.threads,
        len(before.children),
    )


def test_arguments_are_checked():
    for wrong in ("true", [], [1], Path("x")):
        with pytest.raises(ArgumentError, match="command must be a list"):
            SandboxedPlugin.from_command(wrong) if wrong == "true" or isinstance(wrong, Path) else SandboxedPlugin(
                wrong
            )
    with pytest.raises(ArgumentError, match="event_window"):
        SandboxedPlugin(["true"], event_window=0)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("5", "must be an object"),
        ("{}", "lacks 'protocol'"),
        ("{'protocol': 2}", "protocol must be 1"),
        ("{'protocol': 1, 'id': 'x'}", "lacks 'version'"),
        ("{'protocol': 1, 'id': '', 'version': '1'}", "id"),
        ("{'protocol': 1, 'id': 'x', 'version': 'one'}", "version"),
        ("{'protocol': 1, 'id': 'x', 'version': '1', 'capabilities': ['Nothing']}", "kind is one of"),
        ("{'protocol': 1, 'id': 'x', 'version': '1', 'methods': [1]}", "list of strings"),
        ("{'protocol': 1, 'id': 'x', 'version': '1', 'dependencies': [{'id': 'x'}]}", "itself"),
    ],
)
def test_a_description_that_is_wrong_is_named(folder, answer, says):
    source = (
        f"import json\nm = json.loads(input())\nprint(json.dumps(dict(jsonrpc='2.0', id=m['id'], result={answer})))"
    )
    with pytest.raises(ProtocolError, match=says):
        SandboxedPlugin.from_command([sys.executable, "-I", "-S", "-c", source], limits=Limits(**PATIENT))


# ---------------------------------------------------------------- other languages
def test_a_plugin_in_c_finds_loss_spikes(loss_watch, folder, registry, heard):
    plugin = SandboxedPlugin.from_command([loss_watch], limits=Limits(**PATIENT, memory_bytes=32 << 20))
    registry.configuration.override("loss_watch", "warmup", 10)
    registry.register(plugin)
    losses = [1.0 + 0.01 * (i % 5) for i in range(40)]
    for step, loss in enumerate([*losses, 9.0, 1.0, math.nan]):
        registry.events.publish(StepEnd(step, loss, lr=1e-3, grad_norm=1.0, seconds=0.1, tokens=64))
    spike, wrong = (event.data for event in heard)
    assert (spike["step"], spike["loss_spike"]) == (40, 9.0)
    assert spike["mean"] == pytest.approx(np.mean(losses), abs=0.01) and 0.005 < spike["sigma"] < 0.05
    assert wrong["step"] == 42 and math.isnan(wrong["loss_not_finite"])
    state = plugin.export_state()
    assert state["steps"] == 42 and state["spikes"] == 2 and plugin.call("summary") == state
    plugin.restart()
    plugin.import_state(state)
    assert plugin.call("summary") == state
    with pytest.raises(PluginCallError, match="no such method"):
        plugin.call("nothing")
    registry.unregister("loss_watch")
    assert plugin.status == "unloaded" and plugin._talk._child.ending.status == 0


def test_a_plugin_in_shell_and_awk_finds_the_best_epoch(folder, registry, heard):
    if shutil.which("awk") is None:
        pytest.skip("there is no awk")
    plugin = SandboxedPlugin.from_command(["/bin/sh", EXAMPLES / "best_epoch.sh"], limits=Limits(**PATIENT))
    registry.register(plugin)
    for epoch, loss in enumerate([0.5, 0.25, 0.75, 1e-7, math.nan]):
        registry.events.publish(EpochEnd(epoch=epoch, loss=loss))
    assert [(e.data["epoch"], e.data["loss"]) for e in heard] == [(0, 0.5), (1, 0.25), (3, 1e-7)]
    assert plugin.call("best") == {"epoch": 3, "loss": 1e-7}
    registry.unregister("best_epoch")
    assert plugin._talk._child.ending.status == 0
