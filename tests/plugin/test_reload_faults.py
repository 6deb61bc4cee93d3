"""Reloading while others read, replace, register, depend and compute."""

from __future__ import annotations

import inspect
import os
import pickle
import sys
import threading
import time

import pytest

import spiral as sp
from spiral.plugin import Plugin, PluginError, PluginMetadata, PluginRegistry, PluginWatcher

SOURCE = """
import dataclasses
from spiral.plugin import Plugin, PluginMetadata
{top}
VERSION = {version}

@dataclasses.dataclass
class Record:
    number: int = VERSION

class Versioned(Plugin):
    def metadata(self):
        return PluginMetadata("versioned", "{version}.0")

    def on_load(self, ctx):
        ctx.register_service("version", VERSION)
        {on_load}

    def on_unload(self, ctx):
        {on_unload}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "versioned-1.x y.py"


def write(path, version, top="", on_load="pass", on_unload="pass"):
    path.write_text(SOURCE.format(version=version, top=top, on_load=on_load, on_unload=on_unload))


@pytest.fixture
def registry(path):
    registry = PluginRegistry()
    write(path, 1)
    registry.load_path(path)
    yield registry
    registry.shutdown()


class Dependent(Plugin):
    """Keeps what the versioned plugin offers."""

    def __init__(self, plugin_id, *needs, fails_at=None):
        self.about = PluginMetadata(plugin_id, "1.0")
        for need in needs or ("versioned",):
            self.about = self.about.with_dependency(need)
        self.fails_at, self.seen = fails_at, []

    def metadata(self):
        return self.about

    def on_load(self, ctx):
        self.version = ctx.get_service("version")
        self.seen = [*self.seen, self.version]
        ctx.register_service(self.about.id, self.version)
        if self.version == self.fails_at:
            raise ValueError("not this one")


def module_of(registry):
    return sys.modules[type(registry.get("versioned")).__module__]


def test_readers_find_the_service_at_every_moment_of_many_reloads(registry, path):
    wrong, stop, interval = [], threading.Event(), sys.getswitchinterval()

    def read():
        while not stop.is_set():
            try:
                registry.services.get("version", int)
                registry.loaded("versioned")
                assert [m.id for m in registry.list_plugins()] == ["versioned"]
            except BaseException as error:
                wrong.append(repr(error))

    readers = [threading.Thread(target=read) for _ in range(8)]
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            registry.reload("versioned")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert wrong[:3] == []


def test_a_diamond_of_dependents_is_bound_in_order(registry, path):
    left, right = Dependent("left"), Dependent("right")
    top = Dependent("top", "left", "right", "versioned")
    registry.register_all([top, left, right])
    write(path, 2)
    registry.reload("versioned")
    assert (top.seen, left.seen, right.seen) == ([1, 2],) * 3
    assert [registry.services.get(name) for name in ("left", "right", "top", "version")] == [2] * 4


def test_a_dependent_that_fails_has_its_attributes_back_also_those_in_slots(registry, path):
    class Slotted(Dependent):
        __slots__ = ("fresh", "version")

        def on_load(self, ctx):
            if ctx.get_service("version") == 2:
                self.fresh = True
            super().on_load(ctx)

    plugin = Slotted("slotted", fails_at=2)
    registry.register(plugin)
    write(path, 2)
    with pytest.raises(PluginError, match="not this one"):
        registry.reload("versioned")
    assert (plugin.version, plugin.seen, hasattr(plugin, "fresh")) == (1, [1], False)


def test_who_has_replaced_what_the_old_version_registered_keeps_its_place(registry, path):
    class Better(Plugin):
        def metadata(self):
            return PluginMetadata("better", "1.0")

        def on_load(self, ctx):
            ctx.register_service("version", 100, replace=True)

    registry.register(Better())
    for version in (2, 3):
        write(path, version)
        registry.reload("versioned")
        assert registry.services.get("version") == 100
    registry.unregister("better")
    assert registry.services.get("version") == 3


def test_a_new_version_that_registers_less_leaves_less(registry, path):
    write(path, 2, on_load="ctx.register_service('more', 1); ctx.set_config('more', 1)")
    registry.reload("versioned")
    write(path, 3)
    registry.reload("versioned")
    assert registry.services.names() == ["version"] and registry.configuration.keys() == []


def test_nobody_builds_on_the_old_version_while_the_new_one_loads(registry, path):
    caught = []

    def arrive(ctx):
        try:
            registry.register(Dependent("late"))
        except Exception as error:
            caught.append(str(error))

    sys.reloads_here = lambda: thread_of(arrive)
    write(path, 2, on_load="import sys; sys.reloads_here()")
    registry.reload("versioned")
    del sys.reloads_here
    assert "needs 'versioned', which is being loaded or reloaded by another call" in caught[0]
    registry.register(Dependent("late"))


def thread_of(fn):
    thread = threading.Thread(target=fn, args=(None,))
    thread.start()
    thread.join()


def test_an_interrupt_in_the_old_versions_on_unload_leaves_the_new_one_alone(registry, path):
    write(path, 2, on_unload="raise KeyboardInterrupt")
    registry.reload("versioned")
    write(path, 3)
    with pytest.raises(KeyboardInterrupt):
        registry.reload("versioned")
    assert registry.services.get("version") == 3
    registry.unregister("versioned")
    assert registry.services.names() == [] and registry.list_plugins() == []


def test_a_new_version_that_wants_to_end_the_program_is_refused(registry, path):
    write(path, 2, top="import sys; sys.exit(3)")
    with pytest.raises(PluginError, match="version 1.0 goes on: SystemExit: 3"):
        registry.reload("versioned")
    assert registry.services.get("version") == 1


BACKEND = """
import numpy as np
from spiral.backend import ANY, DeviceInfo, Kernel

class Constant:
    name, device_type, priority = "constant", "cpu", 1000

    def probe(self):
        return [DeviceInfo("cpu")]

    def kernels(self):
        yield Kernel("exp", lambda x: np.zeros_like(x) + VERSION, ANY, allocates=True)
"""
IN = "ctx.register_backend(Constant())"


def test_no_kernel_of_another_version_is_left_in_a_table(registry, path):
    def results():
        return [sp.exp(sp.ones(1, dtype=dtype)).item() for dtype in (sp.float32, sp.float64)]

    write(path, 2, BACKEND, IN)
    registry.reload("versioned")
    assert sp.exp(sp.ones(1)).item() == 2  # bound for float32; float64 is bound first where nobody shall see it
    write(
        path, 3, BACKEND, f"{IN}; import spiral as sp; assert sp.exp(sp.ones(1, dtype=sp.float64)).item() == 3; 1 / 0"
    )
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        registry.reload("versioned")
    assert results() == [2, 2]
    write(path, 4, BACKEND, "import spiral as sp; sp.exp(sp.ones(1, dtype=sp.float16)); 1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        registry.reload("versioned")
    assert sp.exp(sp.ones(1, dtype=sp.float16)).item() == 2 and results() == [2, 2]
    write(path, 5, BACKEND, IN)
    registry.reload("versioned")
    assert results() == [5, 5]
    write(path, 6)
    registry.reload("versioned")
    assert results() == pytest.approx([2.718281828] * 2)


# ---------------------------------------------------------------- files
def test_a_part_that_changes_within_a_second_to_the_same_size_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = tmp_path / "parted"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from spiral.plugin import Plugin, PluginMetadata\nfrom .part import ONE\nfrom .deep.part import TWO\n"
        "class Parted(Plugin):\n    numbers = ONE, TWO\n"
        "    def metadata(self):\n        return PluginMetadata('parted', '1')\n"
    )
    (folder / "deep" / "__init__.py").write_text("")
    parts = {"ONE": folder / "part.py", "TWO": folder / "deep" / "part.py"}
    registry = PluginRegistry()
    for number in (1, 2, 3):
        for name, part in parts.items():
            part.write_text(f"{name} = {number}\n")
            os.utime(part, (1e9, 1e9))
        registry.reload("parted") if number > 1 else registry.load_path(folder)
        assert registry.get("parted").numbers == (number, number)
    (folder / "new.py").write_text("THREE = 3\n")  # a folder's list is not remembered either
    (folder / "part.py").write_text("from .new import THREE as ONE\n")
    registry.reload("parted")
    assert registry.get("parted").numbers == (3, 3)
    assert not list(folder.rglob("*.pyc"))
    registry.unregister("parted")
    assert not [m for m in sys.modules if m.startswith("spiral_plugin_parted")]


def test_objects_and_sources_of_a_plugin_from_a_file(registry, path):
    record = module_of(registry).Record(5)
    stored = pickle.dumps(record)
    assert pickle.loads(stored) == record
    write(path, 2, top="# one line more\n")
    registry.reload("versioned")
    assert inspect.getsource(module_of(registry).Record).startswith("@dataclasses.dataclass\nclass Record")
    with pytest.raises(ModuleNotFoundError, match="spiral_plugin_versioned_1_x_y"):
        pickle.loads(stored)  # the class is gone; state goes over by export_state


def test_a_watcher_survives_who_is_told_and_starts_once(registry, path):
    told = threading.Semaphore(0)

    def tell(plugin_id, error):
        told.release()
        raise ValueError("cannot be told")

    with PluginWatcher(registry, interval=0.01, told=tell) as watcher:
        before = threading.active_count()
        assert watcher.start() is watcher and threading.active_count() == before
        for version in (22, 333):
            write(path, version)
            assert told.acquire(timeout=30)
    assert registry.services.get("version") == 333
