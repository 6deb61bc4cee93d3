"""``spiral plugin explain``: all that is known of one plugin."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING

from spiral.cli.plugin_action import Actions, add_action

if TYPE_CHECKING:
    from spiral.plugin import PluginRegistry
    from spiral.plugin.lifecycle import Loaded, Quarantined


def add_actions(actions: Actions) -> None:
    """Declare the action."""
    parser = add_action(
        actions, "explain", _explain,
        "a plugin's metadata, what it has registered, its settings, and why it was not loaded if it was not",
    )  # fmt: skip
    parser.add_argument("plugin", metavar="ID", help="the plugin's id; of one that is not loaded, its name")


def _explain(arguments: argparse.Namespace) -> int:
    from spiral.cli.plugin_list import loaded_registry
    from spiral.plugin.loading import CHOICE_VARIABLE, left_out

    registry, name = loaded_registry(), arguments.plugin
    if registry.get(name) is not None:
        print("\n".join(_of_loaded(registry, registry.loaded(name))))
        return 0
    if name in registry.quarantine:
        print("\n".join(_of_quarantined(registry.quarantine[name])))
        return 0
    off = {source.name: source for source in left_out(registry)}
    if name in off:
        print(f"{name} is not loaded: {CHOICE_VARIABLE} switches it off\n  origin        {off[name].origin}")
        return 0
    raise unknown_plugin(registry, name)


def unknown_plugin(registry: PluginRegistry, name: str) -> Exception:
    """The error for a plugin that nobody has heard of."""
    from spiral.errors import RegistryError
    from spiral.plugin.loading import left_out

    known = sorted({m.id for m in registry.list_plugins()} | set(registry.quarantine))
    known = sorted({*known, *(source.name for source in left_out(registry))})
    near = difflib.get_close_matches(name, known, 3)
    there = f"similar: {', '.join(near)}" if near else f"there are {', '.join(known) or 'none'}"
    return RegistryError(f"plugin {name!r}: there is no such plugin; {there}.")


def _of_loaded(registry: PluginRegistry, found: Loaded) -> list[str]:
    from spiral.plugin.validation import registered

    m = found.metadata
    lines = [f"{m}{f' — {m.name}' if m.name else ''}"]
    lines += [f"  {m.description}"] if m.description else []
    facts = {
        "origin": found.origin,
        "author": m.author,
        "capabilities": ", ".join(map(str, m.capabilities)),
        "needs": ", ".join(map(str, m.dependencies)),
        "conflicts with": ", ".join(map(str, m.conflicts)),
        "provides": ", ".join(f"{name} {version}" for name, version in m.provides),
        "needed by": ", ".join(registry.dependents_of(m.id)),
        **m.metadata,
    }
    lines += [f"  {key:<14} {value}" for key, value in facts.items() if value]
    kinds = registered(found)
    heard = list(dict.fromkeys(kinds.pop("subscription", [])))
    kinds.pop("setting", None)  # below, with their values
    lines += ["registered"] + [f"  {kind:<14} {', '.join(names)}" for kind, names in kinds.items()]
    lines += [] if kinds else ["  nothing"]
    lines += ["listens to", f"  {', '.join(heard) or 'nothing'}"]
    return lines + _settings(registry, m.id)


def _settings(registry: PluginRegistry, plugin_id: str) -> list[str]:
    from spiral.plugin.configuration import variable_of

    settings = registry.configuration
    lines = ["settings"]
    for key, value in settings.values(plugin_id).items():
        origin = settings.origin(plugin_id, key)
        variable = variable_of(plugin_id, key)
        hint = "" if origin == variable else f"; {variable} overrides it"
        lines.append(f"  {key:<14} {value!r}, from {'the plugin' if origin == 'plugin' else origin}{hint}")
    return lines if len(lines) > 1 else [*lines, "  none"]


def _of_quarantined(found: Quarantined) -> list[str]:
    return [
        f"{found.name} is in quarantine: it could not be loaded",
        f"  origin        {found.origin}",
        f"  reason        {' '.join(found.reason.split())}",
        "traceback",
        *(f"  {line}" for line in found.traceback.rstrip().splitlines()),
    ]
