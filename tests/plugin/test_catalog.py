"""Catalogs and ledgers: who owns what, what replaces what, and what readers see meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import permutations

import pytest

from spiral.errors import RegistryError
from spiral.ownership import Addition, Ledger, Swap
from spiral.registry import Catalog


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_of_three_that_replace_each_other_the_newest_left_is_seen(order):
    colours: Catalog[int] = Catalog("colour")
    additions = []
    for number in range(3):
        with Ledger(f"p{number}").recording():
            additions.append(colours.add("red", number, replace=True))
    left = {0, 1, 2}
    for number in order:
        additions[number].undo()
        left.discard(number)
        assert colours.get("red") == (max(left) if left else None)
    assert colours.snapshot() == {}


def test_a_missing_name_is_found_missing_at_once():
    settings: Catalog[int] = Catalog("setting")
    for number in range(500):
        settings.add(f"plugin-{number}/key", number)
    start = time.perf_counter()
    for _ in range(1000):
        assert settings.get("plugin-77/other", 5) == 5
    assert time.perf_counter() - start < 0.5  # with an error and its list of similar names: 25 s


def test_who_removes_by_name_leaves_nothing_in_the_ledger():
    colours: Catalog[int] = Catalog("colour")
    ledger = Ledger("painter")
    for number in range(1000):
        with ledger.recording():
            colours.add("red", number)
            colours.remove("red")
    assert ledger.additions() == () and len(ledger._additions) < 100


def test_two_who_watch_with_one_function_end_apart():
    colours: Catalog[int] = Catalog("colour")
    heard: list[str] = []
    note = heard.append
    first, second = colours.watch(note), colours.watch(note)
    first.undo()
    colours.add("red", 1)
    second.undo()
    colours.add("green", 2)
    assert heard == ["red"]


def test_a_watcher_that_raises_keeps_no_other_from_hearing():
    colours: Catalog[int] = Catalog("colour")
    heard: list[str] = []

    def refuse(name: str) -> None:
        raise ValueError(f"no {name}")

    red = colours.add("red", 1)
    colours.watch(refuse)
    colours.watch(heard.append)
    with pytest.raises(ValueError, match="no red"):
        red.undo()
    assert heard == ["red"] and "red" not in colours
    with pytest.raises(ValueError, match="no green"):
        colours.add("green", 2)
    assert heard == ["red", "green", "green"] and list(colours) == []  # of the coming and of the going


def test_an_interrupt_while_taking_back_leaves_nothing_behind():
    colours: Catalog[int] = Catalog("colour")
    ledger = Ledger("painter")

    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    with ledger.recording():
        for name in ("red", "green", "blue"):
            colours.add(name, 1)
    watch = colours.watch(interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.undo_all()
    watch.undo()
    assert list(colours) == []


def test_a_new_value_is_checked_like_the_first():
    def check(name: str, value: int) -> None:
        if value < 0:
            raise RegistryError("no negative one")

    colours: Catalog[int] = Catalog("colour", check)
    colours.put("red", 1)
    with pytest.raises(RegistryError, match="negative"):
        colours.put("red", -1)
    assert colours["red"] == 1


def test_one_of_many_threads_takes_back():
    calls: list[int] = []
    gate = threading.Barrier(8)

    def take_back(addition: Addition) -> None:
        gate.wait()
        addition.undo()

    for _ in range(50):
        addition = Addition("clean-up", "one", lambda: calls.append(1))
        threads = [threading.Thread(target=take_back, args=(addition,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(calls) == 50


def test_readers_never_miss_a_name_that_is_swapped():
    colours: Catalog[int] = Catalog("colour")
    old = Ledger("painter")
    colours.add("red", -1)  # below: seen by nobody while a painter is there
    with old.recording():
        colours.add("red", 0, replace=True)
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            value, table = colours["red"], colours.table()
            if value < 0 or table["red"] < 0:
                wrong.append((value, table))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read) for _ in range(4)]
    try:
        for reader in readers:
            reader.start()
        for number in range(1, 400):
            swap = Swap()
            new = Ledger("painter", appears=swap)
            old.disappears = swap
            with new.recording():
                colours.add("red", number, replace=True)
            swap.done = True
            old.undo_all()
            new.appears = None
            old = new
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert wrong == [] and colours["red"] == 399


OWN = """
from spiral.plugin import Plugin, PluginMetadata, PluginRegistry
from spiral.registry import HOMES, complete_catalog, catalogs

class First(Plugin):
    def metadata(self):
        return PluginMetadata("first", "1.0")
    def on_load(self, ctx):
        for kind in HOMES:  # whoever asks first has the module imported that fills the catalog
            complete_catalog(kind)

registry = PluginRegistry()
registry.register(First())
owned = {kind: names for kind, c in catalogs().items() if (names := c.owned_by("first"))}
assert not owned, owned
before = {kind: sorted(c) for kind, c in catalogs().items()}
registry.unregister("first")
assert {kind: sorted(c) for kind, c in catalogs().items()} == before
assert "adam" in before["optimizer"] and "linear" in before["module"] and "train" in before["command"]
"""


def test_what_a_plugin_is_the_first_to_import_stays_spirals_own():
    subprocess.run([sys.executable, "-c", OWN], check=True, timeout=120)
