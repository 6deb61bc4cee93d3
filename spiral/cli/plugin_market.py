"""``spiral plugin search``, ``install``, ``upgrade``, ``remove``, ``verify`` and ``trust``: the marketplace."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from spiral.cli.plugin_action import Actions, add_action

if TYPE_CHECKING:
    from spiral.plugin.marketplace import Marketplace, Outcome

INDEX_VARIABLE = "SPIRAL_PLUGIN_INDEX"


def add_actions(actions: Actions) -> None:
    """Declare the actions."""
    parser = add_action(actions, "search", _search, "plugins that a marketplace offers")
    parser.add_argument("text", nargs="?", default="", help="what id, description or capabilities contain; default all")
    parser.add_argument("--capability", metavar="NAME", help="only those that have it: telemetry, backend:cuda")
    _add_market(parser)

    parser = add_action(actions, "install", _install, "install plugins, and those that they need, from a marketplace")
    parser.add_argument("free", nargs="+", metavar="PLUGIN", help="an id, with versions if need be: 'metrics>=1.2,<2'")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    _add_offline(parser)
    _add_market(parser)

    parser = add_action(actions, "upgrade", _upgrade, "bring plugins to the newest versions that fit together")
    parser.add_argument("free", nargs="*", metavar="ID", help="which; default all that came from a marketplace")
    _add_offline(parser)
    _add_market(parser)

    parser = add_action(actions, "remove", _remove, "remove plugins that came from a marketplace")
    parser.add_argument("free", nargs="+", metavar="ID", help="which")
    parser.add_argument("--cascade", action="store_true", help="those that need them go as well")
    _add_market(parser)

    parser = add_action(
        actions,
        "verify",
        _verify,
        "compare every file of the plugins that came from a marketplace with what was signed",
    )
    parser.add_argument("--no-index", action="store_true", help="do not ask the marketplace for its index")
    _add_market(parser)

    parser = add_action(actions, "trust", _trust, "the keys whose marketplaces are accepted: list, add, remove")
    parser.add_argument("key", nargs="?", help="a publisher's public key: its line of text, or a file that holds it")
    parser.add_argument("--remove", metavar="ID", help="trust this key no longer")


def _add_market(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index", metavar="PLACE", help=f"the marketplace: a folder or an address; default what {INDEX_VARIABLE} names"
    )
    parser.add_argument("--python", metavar="PATH", help="the interpreter whose plugins they are; default this one")


def _add_offline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--offline", action="store_true", help="do not let pip fetch ordinary Python dependencies")


def _market(arguments: argparse.Namespace, *, reads_index: bool = True) -> Marketplace:
    from spiral.errors import ArgumentError
    from spiral.plugin.marketplace import Marketplace

    place = arguments.index or os.environ.get(INDEX_VARIABLE) or ("" if reads_index else ".")
    if not place:
        raise ArgumentError(
            f"{arguments.action}: which marketplace? Name its folder or address with --index, or in {INDEX_VARIABLE}."
        )
    return Marketplace(place)


def _search(arguments: argparse.Namespace) -> int:
    found = _market(arguments).search(arguments.text, arguments.capability, arguments.python)
    for listing in found:
        entry = listing.entry
        there = f" (installed: {listing.installed})" if listing.installed else ""
        capabilities = f" [{', '.join(map(str, entry.capabilities))}]" if entry.capabilities else ""
        print(f"{entry.id} {entry.version}{there}{capabilities}")
        print(f"  {entry.description or 'no description'}")
        if len(listing.versions) > 1:
            print(f"  versions: {', '.join(listing.versions)}")
    if not found:
        print("nothing was found")
    return 0


def _install(arguments: argparse.Namespace) -> int:
    market = _market(arguments)
    if arguments.dry_run:
        plan = market.resolve(arguments.free, arguments.python)
        print("\n".join(f"would install {change}" for change in plan.changes) or "everything is there already")
        return 0
    return _done(market.install(arguments.free, arguments.python, offline=arguments.offline), "installed")


def _upgrade(arguments: argparse.Namespace) -> int:
    wanted = arguments.free or None
    return _done(_market(arguments).upgrade(wanted, arguments.python, offline=arguments.offline), "upgraded")


def _remove(arguments: argparse.Namespace) -> int:
    market = _market(arguments, reads_index=False)
    return _done(market.remove(arguments.free, arguments.python, cascade=arguments.cascade), "")


def _done(outcome: Outcome, verb: str) -> int:
    print("\n".join(f"{verb} {change}".strip() for change in outcome.changes) or "everything is there already")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from spiral.plugin.marketplace import UntrustedError

    market = _market(arguments, reads_index=not arguments.no_index)
    found = market.verify(arguments.python, with_index=not arguments.no_index)
    print(found)
    if not found.ok:
        raise UntrustedError(f"{len(found.problems)} differences between what is installed and what was signed.")
    return 0


def _trust(arguments: argparse.Namespace) -> int:
    from spiral.errors import ArgumentError
    from spiral.plugin.marketplace import TrustedKeys, keys_folder

    keys = TrustedKeys(keys_folder())
    if arguments.key is not None and arguments.remove is not None:
        raise ArgumentError("trust: expected a key or --remove ID; received both.")
    if arguments.key is not None:
        path = Path(arguments.key)
        is_file = not arguments.key.startswith("spiral-ed25519 ")
        key = keys.trust(path.read_text(encoding="utf-8", errors="replace").strip() if is_file else arguments.key)
        print(f"trusted {key.id} {key.comment}".rstrip())
    elif arguments.remove is not None:
        keys.distrust(arguments.remove)
        print(f"no longer trusted {arguments.remove}")
    else:
        print("\n".join(f"{key.id} {key.comment}".rstrip() for key in keys.values()) or "no key is trusted")
    return 0
