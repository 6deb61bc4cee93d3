"""``spiral plugin list`` and ``graph``: which plugins are there, and which needs which."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from spiral.cli.plugin_action import Actions, add_action

if TYPE_CHECKING:
    from spiral.plugin import PluginRegistry

SWITCHED_OFF, QUARANTINED = "switched off", "quarantined"


def add_actions(actions: Actions) -> None:
    """Declare the actions."""
    parser = add_action(
        actions,
        "list",
        _list,
        "the plugins that are loaded, switched off, or in quarantine since they cannot be loaded",
    )
    parser.add_argument("--capability", metavar="NAME", help="only loaded ones that have it: telemetry, backend:cuda")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser = add_action(actions, "graph", _graph, "which loaded plugin needs which")
    parser.add_argument("--dot", action="store_true", help="print a graph for Graphviz: | dot -Tsvg > plugins.svg")


def loaded_registry() -> PluginRegistry:
    """The process's registry with the backends and all that is installed."""
    import spiral as sp
    from spiral.plugin import init_plugin_system

    sp.backends()  # backends are plugins, too
    return init_plugin_system()


def _list(arguments: argparse.Namespace) -> int:
    from spiral.plugin import PluginCapability

    wanted = PluginCapability.parse(arguments.capability) if arguments.capability else None
    registry = loaded_registry()
    found = [
        {
            "id": m.id,
            "version": m.version,
            "origin": registry.loaded(m.id).origin,
            "capabilities": [str(c) for c in m.capabilities],
            "description": m.description,
        }
        for m in registry.list_plugins()
        if wanted is None or m.provides_capability(wanted)
    ]
    sections: dict[str, list[dict[str, Any]]] = {"loaded": found}
    if wanted is None:  # of those that are not loaded, the capabilities are not known
        sections |= not_loaded(registry)
    if arguments.json:
        print(json.dumps(sections, indent=1, ensure_ascii=False))
        return 0
    for section, plugins in sections.items():
        print(section)
        for row in _columns([[_cell(value) for key, value in p.items() if key != "description"] for p in plugins]):
            print(f"  {row}")
        if not plugins:
            print("  none")
    return 0


def not_loaded(registry: PluginRegistry) -> dict[str, list[dict[str, Any]]]:
    """What is installed but not loaded, by why."""
    from spiral.plugin.loading import left_out

    return {
        SWITCHED_OFF: [{"name": s.name, "origin": s.origin} for s in left_out(registry)],
        QUARANTINED: [{"name": q.name, "origin": q.origin, "reason": q.reason} for q in registry.quarantine.values()],
    }


def _cell(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return " ".join(text.split())


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# ---------------------------------------------------------------- graph
def _graph(arguments: argparse.Namespace) -> int:
    registry = loaded_registry()
    needs = needed_by_each(registry)
    print("\n".join(_dot(registry, needs) if arguments.dot else _tree(registry, needs)))
    report = registry.validate_dependency_graph()
    if not report.ok and not arguments.dot:
        print(report)
    return 0


def needed_by_each(registry: PluginRegistry) -> dict[str, list[str]]:
    """Of each loaded plugin the loaded ones that it needs, what provides an id standing for it."""
    needs: dict[str, list[str]] = {m.id: [] for m in registry.list_plugins()}
    for plugin_id in needs:
        for dependent in registry.dependents_of(plugin_id):
            needs[dependent].append(plugin_id)
    return needs


def _tree(registry: PluginRegistry, needs: dict[str, list[str]]) -> list[str]:
    """Plugins that nobody needs, each with what it needs below it."""
    lines: list[str] = []
    shown: set[str] = set()

    def show(plugin_id: str, first: str, rest: str) -> None:
        again = plugin_id in shown and needs[plugin_id]
        lines.append(f"{first}{registry.loaded(plugin_id).metadata}{' (see above)' if again else ''}")
        shown.add(plugin_id)
        below = [] if again else needs[plugin_id]
        for number, other in enumerate(below, 1):
            last = number == len(below)
            show(other, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")

    needed = {other for others in needs.values() for other in others}
    for plugin_id in needs:
        if plugin_id not in needed:
            show(plugin_id, "", "")
    return lines or ["no plugins are loaded"]


def _dot(registry: PluginRegistry, needs: dict[str, list[str]]) -> list[str]:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph plugins {", "  rankdir=LR;", "  node [shape=box];"]
    for plugin_id, others in needs.items():
        metadata = registry.loaded(plugin_id).metadata
        lines.append(f"  {quoted(plugin_id)} [label={quoted(str(metadata))}];")
        asked = {r.plugin_id: r for r in metadata.dependencies}
        for other in others:
            requirement = asked.get(other)
            label = quoted(requirement.specifier if requirement else "provides what is asked for")
            style = ", style=dashed" if requirement and requirement.optional else ""
            lines.append(f"  {quoted(plugin_id)} -> {quoted(other)} [label={label}{style}];")
    return [*lines, "}"]
