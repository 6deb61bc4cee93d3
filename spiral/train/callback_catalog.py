"""The callbacks that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral.errors import RegistryError, received
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
