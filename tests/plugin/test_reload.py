"""Hot reload: a transaction that either replaces a plugin as a whole or leaves it serving."""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc

import pytest
from registrations import world

from spiral.errors import RegistryError
from spiral.plugin import Custom, Plugin, PluginError, PluginMetadata, PluginRegistry, PluginReloaded, PluginWatcher

VERSION = '''
from spiral.backend import Spec
from spiral.op import op
from spiral.plugin import Plugin, PluginMetadata

{extra_import}

@op("number_of_version(x) -> y")
class NumberOfVersion:
    """The version's number, in the shape of x."""

    @staticmethod
    def meta(x):
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x):
        return x * 0 + {number}


class Counter(Plugin):
    count = 0

    def metadata(self):
        return PluginMetadata("{id}", "{number}.0")

    def on_load(self, ctx):
        ctx.register_service("counter", self, version="{number}.0")
        ctx.set_config("number", {number})
        ctx.subscribe("Tick", self.tick)
        {on_load}

    def tick(self, event):
        self.count += 1

    def on_unload(self, ctx):
        ctx.get_service("counter").said_goodbye = getattr(ctx.get_service("counter"), "said_goodbye", 0) + 1
        {on_unload}

    def export_state(self):
        return {{"count": self.count}}

    def import_state(self, state):
        {import_state}
        self.count = state["count"]
'''


@pytest.fixture
def registry():
    return PluginRegistry()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "counter.py"


def write(path, number, **parts):
    defaults = {"extra_import": "", "on_load": "pass", "on_unload": "pass", "import_state": "pass", "id": "counter"}
    path.write_text(VERSION.format(number=number, **{**defaults, **parts}))


def tick(registry):
    registry.events.publish(Custom("Tick", None))


def number(registry):
    import spiral as sp

    return sp.ops.number_of_version(sp.zeros(1)).item()


@pytest.fixture
def loaded(registry, path):
    write(path, 1)
    assert registry.load_path(path) == ["counter"]
    yield registry
    for metadata in registry.list_plugins():
        if registry.get(metadata.id) is not None:
            registry.unregister(metadata.id, cascade=True)


def test_the_new_version_serves_and_keeps_the_state(loaded, path):
    heard = []
    loaded.events.subscribe(PluginReloaded, heard.append)
    old = loaded.get("counter")
    tick(loaded), tick(loaded)
    assert number(loaded) == 1.0
    write(path, 2)
    new = loaded.reload("counter")
    tick(loaded)
    assert (new.count, old.count) == (3, 2) and loaded.get("counter") is new
    assert loaded.services.get("counter", requirement=">=2") is new
    assert loaded.configuration.get("counter", "number") == 2
    assert number(loaded) == 2.0
    assert heard == [PluginReloaded("counter", "1.0", "2.0")]
    assert [m.version for m in loaded.list_plugins()] == ["2.0"]


FAILURES = {
    "a syntax error": {"extra_import": "def ("},
    "an import error": {"extra_import": "import no_such_module_here"},
    "on_load raises": {"on_load": "raise KeyError('no')"},
    "import_state raises": {"import_state": "raise KeyError('no')"},
    "another id": {"id": "other"},
    "two plugins": {"extra_import": "class Another(Plugin): pass"},
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_reload_leaves_the_old_version_serving(loaded, path, failure):
    before, old = world(loaded), loaded.get("counter")
    modules = set(sys.modules)
    write(path, 2, **FAILURES[failure])
    for _ in range(2):
        with pytest.raises(PluginError, match="'counter': was not reloaded, version 1.0 goes on"):
            loaded.reload("counter")
    assert world(loaded) == before and set(sys.modules) == modules
    tick(loaded)
    assert loaded.get("counter") is old and old.count == 1 and number(loaded) == 1.0
    write(path, 3)
    assert loaded.reload("counter").count == 1


def test_a_file_that_is_gone_leaves_the_old_version_serving(loaded, path):
    path.unlink()
    with pytest.raises(PluginError, match="version 1.0 goes on"):
        loaded.reload("counter")
    tick(loaded)
    assert loaded.get("counter").count == 1


def test_an_on_unload_that_raises_does_not_stop_the_swap(loaded, path, caplog):
    write(path, 2, on_unload="raise KeyError('late')")
    loaded.reload("counter")
    write(path, 3)
    loaded.reload("counter")
    assert "on_unload of version 2.0 raised KeyError" in caplog.text
    assert number(loaded) == 3.0


def test_others_see_the_old_version_until_the_swap(loaded, path):
    """A thread that looks while the new version's on_load waits."""
    gate = loaded.gate = threading.Event()
    seen = {}

    class Holder(Plugin):
        def metadata(self):
            return PluginMetadata("holder", "1")

        def on_load(self, ctx):
            ctx.register_service("gate", gate)

    loaded.register(Holder())
    write(path, 2, on_load="ctx.publish(__import__('spiral').plugin.Custom('Waits', None)); "
                           "ctx.get_service('gate').wait(30)")  # fmt: skip
    waits = threading.Event()
    loaded.events.subscribe("Waits", lambda event: waits.set())
    thread = threading.Thread(target=loaded.reload, args=("counter",))
    thread.start()
    try:
        assert waits.wait(30)
        tick(loaded)
        seen = {"count": loaded.get("counter").count, "number": number(loaded)}
        seen["version"] = loaded.list_plugins()[0].version
        with pytest.raises(RegistryError, match="being loaded or reloaded"):
            loaded.unregister("counter")
        with pytest.raises(RegistryError, match="by another call"):
            loaded.reload("counter")
    finally:
        gate.set()
        thread.join()
    assert seen == {"count": 1, "number": 1.0, "version": "1.0"}
    assert number(loaded) == 2.0 and loaded.get("counter").count == 1


class Dependent(Plugin):
    """Takes the counter in on_load."""

    fails = False

    def metadata(self):
        return PluginMetadata("dependent", "1.0").with_dependency("counter", "<4")

    def on_load(self, ctx):
        self.counter = ctx.get_service("counter")
        self.ctx = ctx
        ctx.register_service("dependent", self)
        if self.fails and self.counter.metadata().version != "1.0":
            raise KeyError("not that one")


def test_dependents_are_bound_to_the_new_version(loaded, path):
    dependent = Dependent()
    loaded.register(dependent)
    write(path, 2)
    new = loaded.reload("counter")
    assert dependent.counter is new and loaded.services.get("dependent") is dependent
    dependent.ctx.set_config("works", 1)
    assert loaded.dependents_of("counter") == ["dependent"]


def test_a_dependent_that_fails_keeps_everything_old(loaded, path):
    dependent = Dependent()
    loaded.register(dependent)
    before, old, ctx = world(loaded), loaded.get("counter"), dependent.ctx
    dependent.fails = True
    write(path, 2)
    with pytest.raises(PluginError, match="not that one"):
        loaded.reload("counter")
    assert world(loaded) == before and dependent.counter is old and dependent.ctx is ctx
    ctx.set_config("works", 1)


def test_a_version_that_dependents_do_not_take_is_refused(loaded, path):
    loaded.register(Dependent())
    write(path, 4)
    with pytest.raises(PluginError, match="dependent 1.0 needs counter <4"):
        loaded.reload("counter")
    assert number(loaded) == 1.0


def test_a_plugin_without_a_file_cannot_be_reloaded(registry):
    class Code(Plugin):
        def metadata(self):
            return PluginMetadata("code", "1.0")

    registry.register(Code())
    with pytest.raises(RegistryError, match="came from code"):
        registry.reload("code")


def repeat(registry, path, times):
    for i in range(times):
        write(path, 2 + i % 2)
        registry.reload("counter")


def check_no_leak(registry, path, times):
    repeat(registry, path, 20)
    gc.collect()
    threads, modules = threading.active_count(), len(sys.modules)
    subscriptions, files = len(registry.events.subscriptions()), len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    repeat(registry, path, 10)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    repeat(registry, path, times)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # a version of the module has 20 kB; the interpreter's table of names doubles, packaging's caches end somewhere
    assert grown < 200 * times, f"{grown} bytes over {times} reloads"
    assert (threading.active_count(), len(sys.modules)) == (threads, modules)
    assert len(registry.events.subscriptions()) == subscriptions
    assert len(os.listdir("/proc/self/fd")) == files


def test_reloads_leak_nothing(loaded, path):
    """A hundred here, a thousand among the slow tests."""
    check_no_leak(loaded, path, 100)


@pytest.mark.slow
def test_a_thousand_reloads_leak_nothing(loaded, path):
    check_no_leak(loaded, path, 1000)


# ---------------------------------------------------------------- watching
def test_a_changed_file_is_reloaded_and_a_broken_one_tried_once(loaded, path):
    told = []
    watcher = PluginWatcher(loaded, told=lambda plugin_id, error: told.append((plugin_id, error is None)))
    assert watcher.look() == []
    write(path, 2)
    assert watcher.look() == ["counter"] and number(loaded) == 2.0
    write(path, 3, extra_import="def (")
    assert watcher.look() == ["counter"] and watcher.look() == [] and number(loaded) == 2.0
    path.unlink()
    assert watcher.look() == []
    write(path, 33)
    assert watcher.look() == ["counter"] and number(loaded) == 33.0
    assert told == [("counter", True), ("counter", False), ("counter", True)]


def test_the_watching_thread_ends(loaded, path):
    done = threading.Event()
    before = threading.active_count()
    with PluginWatcher(loaded, interval=0.01, told=lambda plugin_id, error: done.set()):
        write(path, 2)
        assert done.wait(30)
    assert threading.active_count() == before and number(loaded) == 2.0


def test_a_plugin_in_a_folder_reloads_with_its_parts(registry, tmp_path):
    folder = tmp_path / "parted"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from spiral.plugin import Plugin, PluginMetadata\nfrom .part import NUMBER\n"
        "class Parted(Plugin):\n    number = NUMBER\n"
        "    def metadata(self):\n        return PluginMetadata('parted', '1')\n"
    )
    (folder / "part.py").write_text("NUMBER = 1\n")
    registry.load_path(tmp_path)
    assert registry.get("parted").number == 1
    watcher = PluginWatcher(registry)
    (folder / "part.py").write_text("NUMBER = 22\n")
    assert watcher.look() == ["parted"] and registry.get("parted").number == 22
    assert [m for m in sys.modules if m.startswith("spiral_plugin_parted")].__len__() == 2
    registry.unregister("parted")
    assert not [m for m in sys.modules if m.startswith("spiral_plugin_parted")]
