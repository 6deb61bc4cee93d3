"""Lets the tests of this folder import what stands beside them; gives private registries the bundled plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spiral.plugin import global_registry

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _bundled_plugins_are_nobodys() -> Iterator[None]:
    """A command that ran in this process has loaded the bundled plugins, whose names private registries want, too."""
    _unload_bundled()
    yield
    _unload_bundled()


def _unload_bundled() -> None:
    registry = global_registry()
    for metadata in reversed(registry.list_plugins()):
        origin = registry.loaded(metadata.id).origin
        if origin.startswith("bundled plugin"):
            registry.unregister(metadata.id)
            registry.known_sources.discard(origin)
