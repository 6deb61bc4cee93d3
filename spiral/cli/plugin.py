"""``spiral plugin``: see, check, reload and install plugins."""

from __future__ import annotations

import argparse

from spiral.cli import plugin_explain, plugin_list, plugin_market, plugin_trial, plugin_watch

HELP = "see, check, reload and install plugins"
EXAMPLES = (
    "spiral plugin list",
    "spiral plugin list --capability backend:cpu --json",
    "spiral plugin graph --dot",
    "spiral plugin explain backend-cpu",
    "spiral plugin validate notes.py",
    "spiral plugin reload notes.py",
    "spiral plugin watch notes.py",
    "spiral plugin trust market/publisher.pub",
    "spiral plugin search --index market",
    "spiral plugin install notes --index market",
    "spiral plugin upgrade --index market",
    "spiral plugin verify --index market",
    "spiral plugin remove notes --index market",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for group in (plugin_list, plugin_explain, plugin_trial, plugin_watch, plugin_market):
        group.add_actions(actions)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    status: int = arguments.act(arguments)
    return status
