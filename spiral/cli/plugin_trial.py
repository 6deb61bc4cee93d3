"""``spiral plugin validate`` and ``reload``: try a plugin out in a process of its own."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiral.cli.plugin_action import Actions, add_action

if TYPE_CHECKING:
    from spiral.plugin.sources import Source
    from spiral.plugin.validation import Registered, Validation


def add_actions(actions: Actions) -> None:
    """Declare the actions."""
    parser = add_action(
        actions, "validate", _validate,
        "load a plugin in a process of its own; check its metadata and dependencies, that unloading leaves nothing, "
        "and that it can be reloaded",
        "exit status: 0 no problem, 2 problems",
    )  # fmt: skip
    _add_target(parser, "a plugin's file, its folder, a folder of plugins, or the id of an installed one")
    parser = add_action(
        actions, "reload", _reload,
        "rehearse a reload: load what is installed, then put the plugin's file as it is now in the plugin's place",
        "this command is a process of its own and cannot reach into another. A program that watches the file "
        "(PluginWatcher, spiral plugin watch) reloads it by itself; --touch makes it do so now",
    )  # fmt: skip
    _add_target(parser, "a plugin's file or folder, or the id of one that was loaded from a file")
    parser.add_argument("--with", metavar="PATH", dest="replacement", help="the version that takes its place")
    parser.add_argument(
        "--touch", action="store_true",
        help="if that went well, give the file a new time, so that programs that watch it reload it",
    )  # fmt: skip


def _add_target(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("target", metavar="PATH|ID", help=help)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="after which the plugin's process is ended (default 60)"
    )


def _is_path(text: str) -> bool:
    return os.path.exists(text) or os.sep in text or text.endswith(".py")


# ---------------------------------------------------------------- validate
def _validate(arguments: argparse.Namespace) -> int:
    from spiral.errors import RegistryError
    from spiral.plugin.sources import path_sources
    from spiral.plugin.trial import validate_apart

    if _is_path(arguments.target):
        sources = path_sources(arguments.target)
        if not sources:
            raise RegistryError(f"plugin: {arguments.target}: holds no plugins: no .py file, no folder of one.")
        trials = [validate_apart(path=s.origin, seconds=arguments.seconds) for s in sources]
    else:
        source = _installed(arguments.target)
        trials = [validate_apart(installed=source.origin, seconds=arguments.seconds)]
    for found in trials:
        print("\n".join(_shown(found)))
    bad = [f"{found.plugin_id or found.origin} has {_count(len(found.problems))}" for found in trials if not found.ok]
    if bad:
        raise RegistryError(f"{'; '.join(bad)}.")
    return 0


def _count(problems: int) -> str:
    return f"{problems} problem{'' if problems == 1 else 's'}"


def _installed(name: str) -> Source:
    """The source of an installed plugin, by its name, or by the id of what it gives."""
    from spiral.cli.plugin_explain import unknown_plugin
    from spiral.cli.plugin_list import loaded_registry
    from spiral.errors import RegistryError
    from spiral.plugin.loading import every_source

    named = [source for source in every_source() if source.name == name]
    if named:
        return named[0]
    registry = loaded_registry()
    if registry.get(name) is None:
        raise unknown_plugin(registry, name)
    source = registry.loaded(name).source
    if source is None or source.origin not in [s.origin for s in every_source()]:
        raise RegistryError(f"plugin {name!r}: comes from spiral itself, not from an installed plugin.")
    return source


def _shown(found: Validation) -> list[str]:
    lines = [f"{found.plugin_id} {found.version} ({found.origin})" if found.plugin_id else found.origin]
    for check in found.checks:
        lines.append(f"  {check.verdict:<8} {check.name:<13} {' '.join(check.text.split())}")
        lines += [f"  {'':<8} {line}" for line in check.detail.rstrip().splitlines()]
    return lines + (_registered(found.registered) if found.registered else [])


def _registered(kinds: Registered) -> list[str]:
    return ["  registers"] + [f"    {kind:<14} {', '.join(names)}" for kind, names in kinds.items()]


# ---------------------------------------------------------------- reload
def _reload(arguments: argparse.Namespace) -> int:
    from spiral.errors import ArgumentError
    from spiral.plugin.sources import file_source
    from spiral.plugin.trial import rehearse_apart

    target = arguments.target
    if _is_path(target) and arguments.replacement is not None:
        raise ArgumentError(f"reload: --with goes with a plugin's id; received the path {target!r}.")
    where: dict[str, Any] = {"path": target} if _is_path(target) else {"plugin_id": target}
    path = where.get("path", arguments.replacement)
    if path is not None:
        file_source(path)  # that it is there
    found = rehearse_apart(**{**where, "path": path}, seconds=arguments.seconds)
    print(f"{found.plugin_id}: {found.before} → {found.after}; {found.state}")
    if found.rebound:
        print(f"  on_load ran again in {', '.join(found.rebound)}, which need it")
    print("\n".join(_registered(found.registered)))
    if arguments.touch:
        touched = _touch(target if path is None else path)
        print(f"  touched {touched}: programs that watch it reload it now")
    else:
        print("  a rehearsal: running programs have not been told; those that watch the file see changes by themselves")
    return 0


def _touch(target: str) -> Path:
    """Gives the entry file of a plugin, named by path or id, a new time of change."""
    from spiral.plugin.sources import file_source

    source = file_source(target) if _is_path(target) else _installed(target)
    files = source.files()
    entry = next((f for f in files if f.name == "__init__.py"), files[0])
    os.utime(entry)
    return entry
