"""The callbacks that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spiral import named
from spiral.errors import ConfigError, RegistryError, received
from spiral.registry import Catalog, catalog
from spiral.train.callbacks import Callback


def _check(name: str, value: Any) -> None:
    if not callable(value) or (isinstance(value, type) and not issubclass(value, Callback)):
        raise RegistryError(
            f"callback {name!r}: expected a class of spiral.train.Callback, or a function that makes one; "
            f"received {received(value)}."
        )


CALLBACKS: Catalog[Callable[..., Callback]] = catalog("callback", _check)
"""Classes of `Callback` by name: called with keyword settings."""

EARLY_STOPPING = "early_stopping"
"""The callback that ``run.patience`` is short for."""


def create_callback(name: str, **options: Any) -> Callback:
    """The callback that a name stands for.

    Args:
        name: as ``run.callbacks`` of a configuration has it.
        options: what its class takes.

    Raises:
        ConfigError: there is no callback of this name, or it does not take these options.
    """
    return made_callback("create_callback", name, options)


def early_stopping(key: str) -> Callable[..., Callback]:
    """The class behind ``early_stopping``, which a bundled plugin brings; loads the bundled plugins if need be.

    Args:
        key: What asks for it, for messages.

    Raises:
        ConfigError: The plugin is not loaded.
    """
    if EARLY_STOPPING not in CALLBACKS:
        from spiral.plugin import global_registry
        from spiral.plugin.loading import load_bundled

        load_bundled(global_registry())
    if EARLY_STOPPING not in CALLBACKS:
        raise ConfigError(
            f"{key}: needs the bundled plugin {EARLY_STOPPING}, which SPIRAL_PLUGINS leaves out or which was unloaded."
        )
    return CALLBACKS[EARLY_STOPPING]


def made_callback(key: str, name: str, options: Mapping[str, Any]) -> Callback:
    """The same for a setting, which messages name."""
    callback = named.find(CALLBACKS, key, name)(**named.parsed(CALLBACKS, key, name, options))
    if not isinstance(callback, Callback):
        raise ConfigError(
            f"{key}: callback {name!r}: expected it to make a spiral.train.Callback; received {received(callback)}."
        )
    return callback
