"""The formats that ``spiral export --format`` can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral.errors import RegistryError, received
from spiral.registry import Catalog, catalog


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(
            f"exporter {name!r}: expected a function of model, tokenizer and path; received {received(value)}."
        )


EXPORTERS: Catalog[Callable[..., Any]] = catalog("exporter", _check)
"""Functions by name: called with model, tokenizer, path and keyword settings; write the file."""
