"""``spiral plugin watch``: load plugins from paths and reload them when their files change."""

from __future__ import annotations

import argparse
import time

from spiral.cli.plugin_action import Actions, add_action
from spiral.errors import SpiralError


def add_actions(actions: Actions) -> None:
    """Declare the action."""
    parser = add_action(
        actions, "watch", _watch,
        "load plugins and reload them when their files change, until Ctrl-C",
        "for writing a plugin: every change is tried at once, as a program would that watches its plugins. "
        "Other programs are not touched; files that are new in a folder are not picked up",
    )  # fmt: skip
    parser.add_argument("free", nargs="+", metavar="PATH", help="a plugin's file, its folder, or a folder of plugins")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between looks (default 0.5)")


def _watch(arguments: argparse.Namespace) -> int:
    from spiral.cli.plugin_list import loaded_registry
    from spiral.errors import ArgumentError
    from spiral.plugin import PluginWatcher
    from spiral.plugin.lifecycle import Arrival
    from spiral.plugin.sources import path_sources

    if not 0 < arguments.interval < 3600:
        raise ArgumentError(f"watch: --interval must be between 0 and 3600 seconds; received {arguments.interval}.")
    registry = loaded_registry()
    arrivals: list[Arrival] = []
    try:
        for path in arguments.free:
            arrivals += [Arrival.of(source) for source in path_sources(path)]
    except BaseException:
        for arrival in arrivals:
            arrival.put_back()
        raise
    loaded = registry.register_arrivals(arrivals)

    def told(plugin_id: str, error: SpiralError | None) -> None:
        what = f"reloaded {registry.loaded(plugin_id).metadata}" if error is None else " ".join(str(error).split())
        print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)

    try:
        watcher = PluginWatcher(registry, told=told)
        for plugin_id in loaded:
            found = registry.loaded(plugin_id)
            print(f"{time.strftime('%H:%M:%S')}  loaded {found.metadata} from {found.origin}", flush=True)
        print("watching; Ctrl-C ends", flush=True)
        while True:  # in this thread, so that Ctrl-C ends what a plugin does
            time.sleep(arguments.interval)
            watcher.look()
    except KeyboardInterrupt:
        return 0
    finally:
        for plugin_id in reversed(loaded):
            if registry.get(plugin_id) is not None:
                registry.unregister(plugin_id, cascade=True)
