"""Which plugins fit together, and in which order they load.

`resolve` orders plugins so that each comes after what it needs; where they do not fit, its error explains the whole
set: who asks for what, and what is there. `validate` gives the same as a report. Versions and specifiers are those
of PEP 440. A version that is there satisfies a specifier even if it is a pre-release.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spiral.errors import RegistryError, received
from spiral.optional import missing as missing_package
from spiral.plugin.graph import cycles, dependencies_first, missing

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

__all__ = [
    "Asked", "Conflict", "DependencyError", "Found", "GraphReport", "Missing", "Node", "Requirement", "Unsatisfied",
    "check_specifier", "cycles", "missing", "parse_version", "resolve", "satisfies", "validate",
]  # fmt: skip


class DependencyError(RegistryError):
    """Plugins do not fit together; the message says who asks for what, and what is there."""


@dataclass(frozen=True)
class Requirement:
    """That another plugin is there, in certain versions.

    Attributes:
        plugin_id: the other's id, or something that it ``provides``.
        specifier: versions as PEP 440 writes them, ``>=1.2,<2``; empty: any.
        optional: it may be missing; where it is there, it loads first and its version must fit.
    """

    plugin_id: str
    specifier: str = ""
    optional: bool = False

    def __str__(self) -> str:
        specifier = f" {self.specifier}" if self.specifier else ""
        return f"{self.plugin_id}{specifier}{' (optional)' if self.optional else ''}"


@dataclass(frozen=True)
class Node:
    """What has to be known of a plugin to see what it fits with.

    Attributes:
        id: the plugin's.
        version: the plugin's, as PEP 440 writes it.
        requirements: what it needs.
        conflicts: what it cannot stand beside.
        provides: (id, version) of what it may stand for.
    """

    id: str
    version: str
    requirements: tuple[Requirement, ...] = ()
    conflicts: tuple[Requirement, ...] = ()
    provides: tuple[tuple[str, str], ...] = ()

    def stands_for(self) -> tuple[tuple[str, str], ...]:
        """Its own id and version, then those it provides."""
        return ((self.id, self.version), *self.provides)

    def __str__(self) -> str:
        return f"{self.id} {self.version}"


# ---------------------------------------------------------------- versions
def parse_version(text: str, plugin: str = "") -> Version:
    """A version.

    Args:
        text: as PEP 440 writes it: ``1.2.0``, ``2.0rc1``.
        plugin: whose it is, for the error.

    Raises:
        RegistryError: it is none.
    """
    try:
        return _version(text)
    except (ValueError, TypeError):
        raise RegistryError(
            f"{_owner(plugin)}: a version must be one as PEP 440 writes it, such as 1.2.0; received {received(text)}."
        ) from None


def check_specifier(text: str, plugin: str = "") -> SpecifierSet:
    """The versions that a specifier allows.

    Args:
        text: ``>=1.2,<2``; empty: any.
        plugin: who asks, for the error.

    Raises:
        RegistryError: it is no specifier.
    """
    try:
        return _specifier(text)
    except (ValueError, TypeError, AttributeError):
        raise RegistryError(
            f"{_owner(plugin)}: allowed versions are written as in PEP 440, such as >=1,<2; received {received(text)}."
        ) from None


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version that is there is among those asked for; a pre-release counts like any other.

    Example:
        >>> satisfies("2.0rc1", ">=1.2"), satisfies("2.0rc1", ">=2")
        (True, False)
    """
    return check_specifier(specifier).contains(parse_version(version), prereleases=True)


def _owner(plugin: str) -> str:
    return f"plugin {plugin!r}" if plugin else "plugin"


@functools.lru_cache(4096)
def _version(text: str) -> Version:
    try:
        from packaging.version import Version
    except ModuleNotFoundError:
        raise missing_package("packaging", "comparing versions of plugins", "pip install packaging") from None

    return Version(text)


@functools.lru_cache(4096)
def _specifier(text: str) -> SpecifierSet:
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        raise missing_package("packaging", "comparing versions of plugins", "pip install packaging") from None

    return SpecifierSet(text)


# ---------------------------------------------------------------- what a report consists of
@dataclass(frozen=True)
class Asked:
    """A requirement, or a declared conflict, and the plugin whose it is."""

    plugin_id: str
    version: str
    requirement: Requirement

    def __str__(self) -> str:
        return f"{self.plugin_id} {self.version} needs {self.requirement}"


@dataclass(frozen=True)
class Found:
    """A plugin that stands for an id, as itself or because it provides it.

    Attributes:
        plugin_id: what it stands for.
        version: in which version it does.
        provider: the plugin, ``fast-metrics 3.0``, if it provides the id; else empty.
        loaded: whether it was there before.
    """

    plugin_id: str
    version: str
    provider: str = ""
    loaded: bool = False

    def __str__(self) -> str:
        itself = f"{self.plugin_id} {self.version}"
        return f"{self.provider}, which provides {itself}" if self.provider else itself


@dataclass(frozen=True)
class Missing:
    """An id that is needed and that nothing stands for."""

    plugin_id: str
    asked_by: tuple[Asked, ...]
    similar: tuple[str, ...] = ()

    def __str__(self) -> str:
        near = f"; similar: {', '.join(self.similar)}" if self.similar else ""
        return f"{_join(self.asked_by)}; there is no {self.plugin_id}{near}"


@dataclass(frozen=True)
class Unsatisfied:
    """An id that is there, but not in a version that all who ask for it accept.

    Attributes:
        plugin_id: the id.
        asked_by: whose requirement is not met.
        found: what stands for the id.
        also: who asks for it besides, and is content.
    """

    plugin_id: str
    asked_by: tuple[Asked, ...]
    found: tuple[Found, ...]
    also: tuple[Asked, ...] = ()

    def __str__(self) -> str:
        content = ", ".join(f"{a.plugin_id} {a.version}: {a.requirement}" for a in self.also)
        also = f" (also asked for by {content})" if self.also else ""
        return f"{_join(self.asked_by)}; {_there(self.found)}{also}"


@dataclass(frozen=True)
class Conflict:
    """A plugin that is there although another says that the two do not go together."""

    declared: Asked
    found: tuple[Found, ...]

    def __str__(self) -> str:
        d = self.declared
        return f"{d.plugin_id} {d.version} conflicts with {d.requirement}; {_there(self.found)}"


@dataclass(frozen=True)
class GraphReport:
    """What is wrong between plugins; printed, one line for each problem.

    Attributes:
        missing: ids that nothing stands for.
        cycles: ids that need one another: ``(a, b)`` is a → b → a.
        unsatisfied: ids that are there in the wrong version.
        conflicts: plugins that exclude each other.
    """

    missing: tuple[Missing, ...] = ()
    cycles: tuple[tuple[str, ...], ...] = ()
    unsatisfied: tuple[Unsatisfied, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything fits."""
        return not self.problems()

    def problems(self) -> list[str]:
        """One sentence for each problem."""
        rounds = [cycle_text(c) for c in self.cycles]
        return [str(p) for p in (*self.missing, *self.unsatisfied, *self.conflicts)] + rounds

    def __str__(self) -> str:
        return "\n".join(self.problems()) or "all dependencies are satisfied"


def cycle_text(cycle: tuple[str, ...]) -> str:
    """One sentence for a cycle."""
    return f"{' → '.join((*cycle, cycle[0]))} is a cycle: each needs the next"


def _join(asked: Iterable[Asked]) -> str:
    return ", ".join(str(a) for a in asked)


def _there(found: tuple[Found, ...]) -> str:
    word = "loaded" if all(f.loaded for f in found) else "there"
    return f"{word} {'is' if len(found) == 1 else 'are'} {', '.join(str(f) for f in found)}"


# ---------------------------------------------------------------- checking and ordering
class _Present:
    """Plugins by everything they stand for: those that are to load, and those that are loaded and stay."""

    def __init__(self, given: Iterable[Node], available: Mapping[str, Node]) -> None:
        self.given: dict[str, Node] = {}
        for node in given:
            if node.id in self.given:
                raise DependencyError(f"plugin {node.id!r}: is given twice, as {self.given[node.id]} and as {node}.")
            self.given[node.id] = node
        self.loaded = {id: node for id, node in available.items() if id not in self.given}
        replaced = [node for id, node in available.items() if id in self.given]
        self.touched = {name for node in (*self.given.values(), *replaced) for name, _ in node.stands_for()}
        self._standing: dict[str, list[tuple[Node, str]]] = {}
        nodes = (*self.loaded.values(), *self.given.values())
        for node in nodes:
            self._standing.setdefault(node.id, []).append((node, node.version))
        for node in nodes:  # after every id itself
            for name, version in node.provides:
                self._standing.setdefault(name, []).append((node, version))

    def nodes(self) -> tuple[Node, ...]:
        return (*self.loaded.values(), *self.given.values())

    def names(self) -> list[str]:
        return list(self._standing)

    def standing_for(self, name: str, asker: Node) -> list[tuple[Node, str]]:
        """Plugins other than the asker, those that are the id itself first."""
        return [(node, version) for node, version in self._standing.get(name, ()) if node is not asker]

    def fitting(self, requirement: Requirement, asker: Node) -> list[tuple[Node, str]]:
        standing = self.standing_for(requirement.plugin_id, asker)
        allowed = check_specifier(requirement.specifier, asker.id)
        return [(n, v) for n, v in standing if allowed.contains(parse_version(v, n.id), prereleases=True)]

    def found(self, standing: Iterable[tuple[Node, str]], name: str) -> tuple[Found, ...]:
        return tuple(
            Found(name, version, "" if node.id == name else str(node), node.id in self.loaded)
            for node, version in standing
        )

    def concerned(self, asker: Node, requirement: Requirement) -> bool:
        """Whether the load could change it: what is loaded already is not judged anew."""
        return asker.id in self.given or requirement.plugin_id in self.touched

    def graph(self) -> dict[str, list[str]]:
        """Of each plugin those that it loads after."""
        graph: dict[str, list[str]] = {}
        for node in self.nodes():
            after = graph.setdefault(node.id, [])
            for requirement in node.requirements:
                standing = self.fitting(requirement, node) or self.standing_for(requirement.plugin_id, node)
                after += [other.id for other, _ in standing[:1]]
                if requirement.plugin_id == node.id:
                    after.append(node.id)
        return graph


def validate(nodes: Iterable[Node], available: Mapping[str, Node] | None = None) -> GraphReport:
    """What keeps plugins from being loaded.

    Args:
        nodes: the plugins that are to load.
        available: those that are loaded already, by id; a given one replaces one of the same id, and those that
            need it must be content with the new one.

    Raises:
        DependencyError: an id is given twice.
        RegistryError: a version or specifier is malformed.

    Example:
        >>> print(validate([Node("trainer", "2.0", (Requirement("metrics", ">=2,<3"),))],
        ...                {"metrics": Node("metrics", "1.4")}))
        trainer 2.0 needs metrics >=2,<3; loaded is metrics 1.4
    """
    present = _Present(nodes, available or {})
    absent: dict[str, list[Asked]] = {}
    wrong: dict[str, list[Asked]] = {}
    content: dict[str, list[Asked]] = {}
    conflicts = []
    for node in present.nodes():
        for requirement in node.requirements:
            asked = Asked(node.id, node.version, requirement)
            name = requirement.plugin_id
            if name == node.id:
                continue  # a cycle
            if present.fitting(requirement, node):
                content.setdefault(name, []).append(asked)
            elif not present.concerned(node, requirement):
                continue
            elif present.standing_for(name, node):
                wrong.setdefault(name, []).append(asked)
            elif not requirement.optional:
                absent.setdefault(name, []).append(asked)
        for requirement in node.conflicts:
            fitting = present.fitting(requirement, node)
            if fitting and (node.id in present.given or any(n.id in present.given for n, _ in fitting)):
                found = present.found(fitting, requirement.plugin_id)
                conflicts.append(Conflict(Asked(node.id, node.version, requirement), found))
    unsatisfied = []
    for name, asking in wrong.items():
        by = {a.plugin_id for a in asking}
        standing = [pair for pair in present._standing[name] if pair[0].id not in by] or present._standing[name]
        unsatisfied.append(
            Unsatisfied(name, tuple(asking), present.found(standing, name), tuple(content.get(name, ())))
        )
    rounds = [c for c in cycles(present.graph()) if any(id in present.given for id in c)]
    return GraphReport(
        tuple(Missing(n, tuple(a), similar(n, present.names())) for n, a in absent.items()),
        tuple(rounds),
        tuple(unsatisfied),
        tuple(conflicts),
    )


def resolve(nodes: Iterable[Node], available: Mapping[str, Node] | None = None) -> list[str]:
    """The order in which plugins load: each after those that it needs, otherwise as given.

    Args:
        nodes: the plugins that are to load.
        available: see `validate`.

    Returns:
        Their ids.

    Raises:
        DependencyError: they do not fit together; the message explains all of it.
        RegistryError: a version or specifier is malformed.

    Example:
        >>> resolve([Node("trainer", "2.0", (Requirement("metrics", ">=1"),)), Node("metrics", "1.4")])
        ['metrics', 'trainer']
    """
    given = list(nodes)
    report = validate(given, available)
    if not report.ok:
        raise explained(report.problems())
    present = _Present(given, available or {})
    return [id for id in dependencies_first(present.graph()) if id in present.given]


def explained(problems: list[str], limit: int = 30) -> DependencyError:
    """The error that tells these problems."""
    shown = problems[:limit] + ([f"… and {len(problems) - limit} more"] if len(problems) > limit else [])
    if len(shown) == 1:
        return DependencyError(f"plugins do not fit together: {shown[0]}.")
    return DependencyError("plugins do not fit together:\n" + "\n".join(f"  - {line}" for line in shown))


def similar(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Up to three names that resemble one."""
    return tuple(difflib.get_close_matches(name, [n for n in names if n != name], 3))
