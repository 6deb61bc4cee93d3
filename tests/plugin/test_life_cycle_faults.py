"""What plugins do wrong while they come and go, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle
import sys
import threading

import pytest
from registrations import world

from spiral.errors import RegistryError
from spiral.ownership import current_ledger
from spiral.plugin import (
    Plugin,
    PluginCapability,
    PluginError,
    PluginLoaded,
    PluginMetadata,
    PluginRegistry,
    PluginUnloaded,
)
from spiral.registry import Catalog


class Simple(Plugin):
    """Does what it is given."""

    def __init__(self, plugin_id="simple", *, needs=(), provides=(), on_load=None, on_unload=None):
        self.about = PluginMetadata(plugin_id, "1.0")
        for need in needs:
            self.about = self.about.with_dependency(*need)
        for provided in provides:
            self.about = self.about.with_provides(*provided)
        self.loads, self.unloads = on_load, on_unload

    def metadata(self):
        return self.about

    def on_load(self, ctx):
        self.ctx = ctx
        if self.loads:
            self.loads(ctx)

    def on_unload(self, ctx):
        if self.unloads:
            self.unloads(ctx)


def fail(error):
    def run(ctx):
        raise error

    return run


@pytest.fixture
def registry():
    return PluginRegistry()


# ---------------------------------------------------------------- coming
def test_a_plugin_registered_by_another_is_rolled_back_with_it(registry):
    before = world(registry)

    def on_load(ctx):
        ctx.registry.register(Simple("inner", on_load=lambda inner: inner.register_service("inner", 1)))
        raise ValueError("after all")

    with pytest.raises(PluginError, match="after all"):
        registry.register(Simple("outer", on_load=on_load))
    assert world(registry) == before


def test_a_plugin_registered_by_another_goes_with_it_and_with_what_needs_it(registry):
    registry.register(Simple("outer", on_load=lambda ctx: ctx.registry.register(Simple("inner"))))
    registry.register(Simple("user", needs=[("inner",)]))
    registry.unregister("outer")
    assert registry.list_plugins() == []


def test_who_takes_the_place_of_a_registered_plugin_stays(registry):
    registry.register(Simple("outer", on_load=lambda ctx: ctx.registry.register(Simple("inner"))))
    registry.unregister("inner")
    registry.register(Simple("inner"))
    registry.unregister("outer")
    assert [m.id for m in registry.list_plugins()] == ["inner"]


def test_a_thread_of_a_plugin_that_fails_can_register_nothing_afterwards(registry):
    before, go, caught = world(registry), threading.Event(), []

    def late(ctx):
        go.wait()
        try:
            ctx.register_service("late", 1)
        except RegistryError as error:
            caught.append(str(error))

    def on_load(ctx):
        on_load.thread = threading.Thread(target=late, args=(ctx,))
        on_load.thread.start()
        raise ValueError("no")

    with pytest.raises(PluginError):
        registry.register(Simple("broken", on_load=on_load))
    go.set()
    on_load.thread.join()
    assert world(registry) == before and "can add nothing more" in caught[0]


def test_what_a_task_made_in_on_load_adds_is_the_plugins(registry):
    colours: Catalog[int] = Catalog("colour")

    async def later():
        await asyncio.sleep(0)
        colours.add("red", 1)

    async def program():
        tasks = []
        registry.register(Simple("painter", on_load=lambda ctx: tasks.append(asyncio.create_task(later()))))
        assert current_ledger() is None
        await tasks[0]

    asyncio.run(program())
    assert colours.owner_of("red") == "painter"
    registry.unregister("painter")
    assert list(colours) == []


@pytest.mark.parametrize("where", ["on_load", "metadata", "on_unload"])
def test_a_plugin_cannot_end_the_program(registry, where):
    plugin = Simple("quits")
    if where == "metadata":
        plugin.metadata = lambda: sys.exit(3)
    elif where == "on_load":
        plugin.loads = lambda ctx: sys.exit(3)
    else:
        plugin.unloads = lambda ctx: sys.exit(3)
        registry.register(plugin)
    with pytest.raises((PluginError, RegistryError), match=r"SystemExit: 3"):
        registry.unregister("quits") if where == "on_unload" else registry.register(plugin)
    assert registry.list_plugins() == []


def test_an_error_that_cannot_be_shown_is_told_all_the_same(registry):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("cannot say")

    with pytest.raises(PluginError, match="Mute: its message raised RuntimeError"):
        registry.register(Simple(on_load=fail(Mute())))


def test_metadata_are_asked_once(registry):
    numbers = itertools.count()

    class Restless(Plugin):
        def metadata(self):
            return PluginMetadata(f"restless-{next(numbers)}", "1.0")

    assert registry.register_all([Restless(), Restless()]) == ["restless-0", "restless-1"]
    for plugin_id in ("restless-0", "restless-1"):
        registry.unregister(plugin_id)
    assert world(registry)["plugins"] == []


def test_the_core_is_nobodys_id(registry):
    with pytest.raises(RegistryError, match="choose another id"):
        registry.register(Simple("spiral"))


def test_objects_that_raise_when_compared_or_shown_are_plugins_like_others(registry):
    class Hostile(Simple):
        def __eq__(self, other):
            raise RuntimeError("eq")

        def __repr__(self):
            raise RuntimeError("repr")

        __hash__ = None

    plugin = Hostile("hostile")
    registry.register(plugin)
    assert registry.get("hostile") is plugin
    with pytest.raises(RegistryError, match="is loaded already"):
        registry.register(plugin)
    registry.unregister("hostile")


# ---------------------------------------------------------------- who needs whom
def test_the_provider_in_the_wanted_version_is_the_one_that_is_needed(registry):
    registry.register(Simple("old", provides=[("store", "1.0")]))
    registry.register(Simple("new", provides=[("store", "2.0")]))
    registry.register(Simple("user", needs=[("store", ">=2")]))
    assert registry.dependency_graph() == {"old": [], "new": [], "user": ["new"]}
    with pytest.raises(RegistryError, match="is needed by 'user'"):
        registry.unregister("new")
    registry.unregister("old")
    assert registry.shutdown().unloaded == ("user", "new")


# ---------------------------------------------------------------- going
def test_an_interrupt_in_on_unload_leaves_the_others_able_to_go(registry):
    gone = []
    registry.events.subscribe(PluginUnloaded, lambda event: gone.append(event.plugin_id))
    registry.register(Simple("base"))
    registry.register(Simple("user", needs=[("base",)], on_unload=fail(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        registry.unregister("base", cascade=True)
    assert [m.id for m in registry.list_plugins()] == ["base"]
    registry.unregister("base")
    assert gone == ["user", "base"]


def test_what_on_unload_registers_goes_too(registry):
    before = world(registry)
    registry.register(Simple(on_unload=lambda ctx: ctx.register_service("farewell", 1)))
    registry.unregister("simple")
    assert world(registry) == before


@pytest.mark.parametrize("act", [lambda r: r.unregister("simple"), lambda r: r.register(Simple("simple"))])
def test_who_is_going_can_neither_go_nor_come(registry, act):
    registry.register(Simple("simple", on_unload=lambda ctx: act(ctx.registry)))
    with pytest.raises(PluginError, match="is (being un)?loaded"):
        registry.unregister("simple")
    assert registry.list_plugins() == []


def test_an_id_is_free_only_when_everything_of_it_is_gone(registry):
    seen = []

    def register_again():
        try:
            registry.register(Simple("simple"))
        except RegistryError as error:
            seen.append(str(error))

    registry.register(Simple("simple", on_load=lambda ctx: ctx.on_cleanup(register_again)))
    registry.unregister("simple")
    assert "is being unloaded by another call" in seen[0] and registry.list_plugins() == []


def test_a_batch_that_fails_takes_away_what_others_built_on_it(registry):
    def build(event):
        if event.plugin_id == "first":
            registry.register(Simple("stranger", needs=[("first",)]))

    registry.events.subscribe(PluginLoaded, build)
    with pytest.raises(PluginError, match="no more"):
        registry.register_all([Simple("first"), Simple("second", on_load=fail(ValueError("no more")))])
    assert registry.list_plugins() == []


# ---------------------------------------------------------------- what a plugin says of itself
def test_metadata_can_be_copied_stored_and_hashed():
    metadata = PluginMetadata("a", "1.0").with_metadata("home", "page").with_capability(PluginCapability.Vision)
    assert pickle.loads(pickle.dumps(metadata)) == copy.deepcopy(metadata) == metadata
    assert len({metadata, copy.copy(metadata)}) == 1
    with pytest.raises(TypeError):
        metadata.metadata["home"] = "other"


@pytest.mark.parametrize("parts", [{"dependencies": ("b",)}, {"conflicts": ("b",)}, {"capabilities": ("Vision",)}])
def test_parts_of_metadata_are_checked(parts):
    with pytest.raises(RegistryError, match=r"plugin 'a'.*received 'b'|received 'Vision'"):
        PluginMetadata("a", "1.0", **parts)
