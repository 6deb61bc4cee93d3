"""Tries a plugin out: import, metadata, dependencies, loading, unloading without a trace, loading again, reloading.

For a process that has nothing else to do, since a plugin under trial may do anything: `spiral plugin validate` runs it
in one of its own, see `spiral.plugin.trial`.
"""

from __future__ import annotations

import gc
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spiral.backends_registry import backends
from spiral.errors import SpiralError
from spiral.plugin.base import Plugin, PluginError
from spiral.plugin.dependencies import resolve
from spiral.plugin.lifecycle import Arrival, Loaded, metadata_of, node_of
from spiral.plugin.metadata import PluginCapability, PluginMetadata
from spiral.plugin.registry import PluginRegistry
from spiral.plugin.sources import Source
from spiral.registry import HOMES, complete_catalog, snapshot

OK, NOTE, PROBLEM = "ok", "note", "problem"
Registered = dict[str, list[str]]

_CAPABILITY_OF = {
    "op": PluginCapability.Operators,
    "loss": PluginCapability.LossFunctions,
    "optimizer": PluginCapability.Optimizers,
    "dataset": PluginCapability.DataLoaders,
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what: ``import``, ``unload``, ….
        verdict: ``ok``, ``note`` or ``problem``.
        text: what was found.
        detail: a traceback, or empty.
    """

    name: str
    verdict: str
    text: str
    detail: str = ""


@dataclass
class Validation:
    """What became of a trial.

    Attributes:
        origin: where the plugin lives.
        plugin_id: its id, as far as it came to that.
        version: its version.
        checks: what was looked at, in order; the trial ends at the first thing that keeps it from going on.
        registered: names of what it adds, by kind.
    """

    origin: str
    plugin_id: str = ""
    version: str = ""
    checks: list[Check] = field(default_factory=list)
    registered: Registered = field(default_factory=dict)

    @property
    def problems(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == PROBLEM]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


class _Stop(Exception):
    """The trial cannot go on; why was noted."""


class _Trial:
    """One plugin's trial, step by step."""

    def __init__(self, source: Source, registry: PluginRegistry, begun: Callable[[str], None]) -> None:
        self.source = source
        self.registry = registry
        self.found = Validation(source.origin)
        self._begun = begun

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Runs one check; what the block lists is a problem, as is what it raises."""
        self._begun(name)
        problems: list[str] = []
        try:
            yield problems
        except Exception as error:  # whatever a plugin raises is what the trial is to find
            own = error.__cause__ if isinstance(error, PluginError) and error.__cause__ else error  # the plugin's
            self.note(name, PROBLEM, _text(error), "".join(traceback.format_exception(own)))
            raise _Stop from error
        for text in problems:
            self.note(name, PROBLEM, text)

    def note(self, name: str, verdict: str, text: str, detail: str = "") -> None:
        self.found.checks.append(Check(name, verdict, text, detail))

    def arrive(self) -> tuple[Arrival, PluginMetadata]:
        arrival = Arrival.of(self.source)
        return arrival, metadata_of(arrival.plugin)

    def register(self, arrival: Arrival) -> Loaded:
        self.registry.register(arrival.plugin, source=self.source, ledger=arrival.ledger)
        return self.registry.loaded(metadata_of(arrival.plugin).id)

    # ------------------------------------------------------------ the steps
    def run(self) -> None:
        with self.step("import"):
            arrival, metadata = self.arrive()
        self.found.plugin_id, self.found.version = metadata.id, metadata.version
        self.note("import", OK, f"{type(arrival.plugin).__name__}, {metadata}")
        self._metadata(metadata)
        with self.step("dependencies"):
            self._make_room(metadata)
            before = _world(self.registry, but=arrival.ledger.owner if arrival.ledger else "")
            resolve([node_of(metadata)], self.registry.nodes())
        needed = ", ".join(map(str, metadata.dependencies)) or "none"
        self.note("dependencies", OK, needed)
        with self.step("load"):
            self.found.registered = registered(self.register(arrival))
        self.note("load", OK, "on_load ran")
        self._capabilities(metadata)
        with self.step("unload") as problems:
            self.registry.unregister(metadata.id)
            problems += _left(before, _world(self.registry))
        if not problems:
            self.note("unload", OK, "nothing that it had registered is left")
        self._again(metadata, before)
        self._reload(metadata, before)

    def _metadata(self, metadata: PluginMetadata) -> None:
        lacking = [name for name in ("description", "author") if not getattr(metadata, name)]
        if lacking:
            self.note("metadata", NOTE, f"has no {' and no '.join(lacking)}")
        else:
            self.note("metadata", OK, metadata.description)

    def _make_room(self, metadata: PluginMetadata) -> None:
        """Takes the installed plugin of the same id out of the way."""
        if self.registry.get(metadata.id) is not None:
            there = self.registry.loaded(metadata.id)
            self.registry.unregister(metadata.id, cascade=True)
            self.note("dependencies", NOTE, f"version {there.metadata.version} ({there.origin}) stood aside meanwhile")

    def _capabilities(self, metadata: PluginMetadata) -> None:
        for kind, capability in _CAPABILITY_OF.items():
            if kind in self.found.registered and capability not in metadata.capabilities:
                names = ", ".join(self.found.registered[kind])
                self.note("capabilities", NOTE, f"registers the {kind} {names}, but does not declare {capability}")

    def _again(self, metadata: PluginMetadata, before: dict[str, Any]) -> None:
        """A second round: what is different now, a first one did not clean up."""
        held = _resources()
        with self.step("load again") as problems:
            arrival, _ = self.arrive()
            second = registered(self.register(arrival))
            self.registry.unregister(metadata.id)
            problems += [
                f"{kind} {name} came the first time only; register it in on_load, not when the module is imported"
                for kind, names in self.found.registered.items()
                for name in names
                if name not in second.get(kind, ()) and kind != "Python module"
            ]
            problems += _left(before, _world(self.registry))
            problems += [f"each loading leaves {what}; let go of it in on_unload" for what in _more(held, _resources())]
        if not problems:
            self.note("load again", OK, "the same once more; no thread or open file is left")

    def _reload(self, metadata: PluginMetadata, before: dict[str, Any]) -> None:
        if not self.source.reloadable:
            self.note("reload", NOTE, f"{self.source.origin}: only plugins at a path can be reloaded")
            return
        with self.step("reload") as problems:
            arrival, _ = self.arrive()
            self.register(arrival)
            self.registry.reload(metadata.id)
            after = registered(self.registry.loaded(metadata.id))
            self.registry.unregister(metadata.id)
            if after != self.found.registered:
                problems.append(f"registers {after} after a reload; before: {self.found.registered}")
            problems += _left(before, _world(self.registry))
        if not problems:
            self.note("reload", OK, f"the new version serves; {state_of(arrival.plugin)}")


def validate_source(
    source: Source, registry: PluginRegistry, begun: Callable[[str], None] = lambda step: None
) -> Validation:
    """Tries a plugin out.

    Args:
        source: where it comes from.
        registry: holds what the plugin may need; a plugin of the same id is taken out of it.
        begun: called with the name of each step before it is taken.
    """
    for kind in HOMES:
        complete_catalog(kind)
    backends()  # the plugin's first op would load them
    trial = _Trial(source, registry, begun)
    try:
        trial.run()
    except _Stop:
        pass  # the reason is among the checks
    return trial.found


@dataclass(frozen=True)
class Rehearsal:
    """A reload that went well.

    Attributes:
        plugin_id: which plugin.
        before: the version that served, with its origin.
        after: the version that serves then.
        state: whether state was handed over, for people.
        rebound: the plugins that ran their ``on_load`` again.
        registered: names of what the new version adds, by kind.
    """

    plugin_id: str
    before: str
    after: str
    state: str
    rebound: list[str]
    registered: Registered


def rehearse_reload(registry: PluginRegistry, plugin_id: str, replacement: Source | None = None) -> Rehearsal:
    """Reloads a plugin of a registry and says what that meant.

    Raises:
        PluginError, RegistryError: see `PluginRegistry.reload`.
    """
    old = registry.loaded(plugin_id)
    registry.reload(plugin_id, replacement)
    new = registry.loaded(plugin_id)
    rebound = [m.id for m in registry.list_plugins() if plugin_id in _needs(registry, m.id)]
    return Rehearsal(
        plugin_id,
        f"{old.metadata.version} ({old.origin})",
        f"{new.metadata.version} ({new.origin})",
        state_of(old.plugin),
        rebound,
        registered(new),
    )


def _needs(registry: PluginRegistry, plugin_id: str) -> set[str]:
    """All that a plugin needs, directly or not."""
    dependents = {m.id: registry.dependents_of(m.id) for m in registry.list_plugins()}
    found: set[str] = set()
    while more := {n for n, by in dependents.items() if found.union([plugin_id]).intersection(by)} - found:
        found |= more
    return found


def state_of(plugin: Plugin) -> str:
    """Whether a plugin hands over state, for people."""
    hands_over = type(plugin).export_state is not Plugin.export_state
    return "its state was handed over" if hands_over else "it has no export_state, so it starts afresh"


def registered(found: Loaded) -> Registered:
    """Names of what a plugin has added, by kind; the plugin itself is not counted."""
    kinds: Registered = {}
    for addition in found.ledger.additions():
        if addition.kind != "plugin":
            kinds.setdefault(addition.kind, []).append(addition.name)
    return kinds


# ---------------------------------------------------------------- what is left behind
def _world(registry: PluginRegistry, but: str = "") -> dict[str, Any]:
    """What is registered where, to be compared; without what an owner has added to the process's catalogs."""
    seen = {
        kind: {name: rest for name, layers in names.items() if (rest := tuple(x for x in layers if x[1] != but))}
        for kind, names in snapshot().items()
    }
    return {
        **{f"the {kind}": names for kind, names in seen.items()},
        "the plugin": {m.id: m.version for m in registry.list_plugins()},
        "the service": dict.fromkeys(registry.services.names()),
        "the setting": dict.fromkeys(registry.configuration.keys()),
        "a subscription to": _counted(s.name for s in registry.events.subscriptions()),
    }


def _left(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What came or went between two pictures of the world."""
    found = []
    for kind in sorted({*before, *after}):
        old, new = before.get(kind, {}), after.get(kind, {})
        found += [f"{kind} {name} is left" for name in new if name not in old]
        found += [f"{kind} {name} is gone" for name in old if name not in new]
        found += [f"{kind} {name} is another one" for name in new if name in old and new[name] != old[name]]
    return found


def _resources() -> dict[str, int]:
    """Threads and open files, by what they are."""
    gc.collect()  # a file in a cycle is closed by it
    return {**_counted(f"a thread ({t.name})" for t in threading.enumerate()), **_counted(_open_files())}


def _open_files() -> Iterator[str]:
    folder = "/proc/self/fd"
    for number in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            yield f"an open file ({os.readlink(f'{folder}/{number}')})"
        except FileNotFoundError:  # the listing's own
            continue


def _more(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [what for what, count in after.items() if count > before.get(what, 0)]


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, SpiralError) else f"{type(error).__name__}: {error}"
