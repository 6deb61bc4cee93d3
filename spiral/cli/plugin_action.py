"""How an action of `spiral plugin` declares itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Actions = Any  # argparse has no public name for what add_subparsers gives


def add_action(
    actions: Actions, name: str, act: Callable[[argparse.Namespace], int], help: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """The parser of ``spiral plugin <name>``, whose arguments the caller adds."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=help, description=help, epilog=epilog, allow_abbrev=False
    )
    parser.set_defaults(act=act)
    return parser
