"""The tiny run with callbacks of bundled plugins, and what every one of these must leave alone."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from tiny_run import files_of_last_checkpoint, killed, tiny_config, trained  # noqa: E402, F401

from spiral.plugin import PluginRegistry, global_registry
from spiral.plugin.sources import bundled_sources
from spiral.registry import complete_catalog, snapshot
from spiral.train import Callback, StepRecord, TrainConfig, Trainer

Make = Callable[[], Callback]


class Fails(Callback):
    """Raises after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == self.step:
            raise RuntimeError("the user's own callback fails")


@contextmanager
def bundled(name: str) -> Iterator[PluginRegistry]:
    """A registry of its own with a bundled plugin, which other tests may have loaded into the process's."""
    everywhere, registry = global_registry(), PluginRegistry()
    there = everywhere.get(name)
    if there is not None:
        everywhere.unregister(name)
    source = next(s for s in bundled_sources() if s.name == name)
    for kind in ("callback", "service", "setting", "plugin", "command"):
        complete_catalog(kind)
    before, threads = snapshot(), set(threading.enumerate())
    try:
        registry.register(source.make(), source=source)
        assert set(threading.enumerate()) == threads, "loading starts threads"
        yield registry
    finally:
        if registry.get(name) is not None:
            registry.unregister(name)
        if there is not None:
            everywhere.register(there, source=source)
    if there is None:
        after = snapshot()
        assert not [n for kind in after.values() for n, layers in kind.items() if any(o == name for _, o in layers)]
        assert all(after[kind][n] == layers for kind, names in before.items() for n, layers in names.items())
    assert not registry.events.subscriptions() and set(threading.enumerate()) == threads


@contextmanager
def loaded(name: str) -> Iterator[Callable[..., Callback]]:
    """The class of a bundled plugin's callback while the plugin is loaded; afterwards nothing of it is left."""
    with bundled(name) as registry:
        (metadata,) = registry.list_plugins()
        assert metadata.id == name and metadata.description
        yield complete_catalog("callback")[name]


def without_plugin(folder: Path, **sections: dict[str, Any]) -> dict[str, bytes]:
    """The files of the last checkpoint of a run that no plugin watches."""
    folder.mkdir()
    config = tiny_config(folder, **sections)
    trained(config)
    return files_of_last_checkpoint(config)


def require_same_weights(tmp_path: Path, make: Make, **sections: dict[str, Any]) -> None:
    """The run gives the same bits with the callback as without, also when it was killed and resumed."""
    expected = without_plugin(tmp_path / "bare", **sections)
    for name in ("watched", "resumed"):
        (tmp_path / name).mkdir()
        config = tiny_config(tmp_path / name, **sections)
        if name == "resumed":
            with pytest.raises(RuntimeError, match="fails"):
                trained(config, callbacks=(make(), Fails(8)))
            trained(config, resume=True, callbacks=(make(),))
        else:
            trained(config, callbacks=(make(),))
        assert files_of_last_checkpoint(config) == expected, name


def warnings_of(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """What a plugin has warned of."""
    found = [r for r in caplog.records if r.name == f"spiral.plugin.{name}" and r.levelno >= logging.WARNING]
    return [r.getMessage() for r in found]


__all__ = [
    "Fails", "TrainConfig", "bundled", "files_of_last_checkpoint", "killed", "loaded", "require_same_weights",
    "tiny_config", "trained", "warnings_of", "without_plugin",
]  # fmt: skip
