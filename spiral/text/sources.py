"""The sources of text that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral.errors import RegistryError, received
from spiral.registry import Catalog, catalog, spirals_own


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(f"dataset {name!r}: expected a function that returns a text; received {received(value)}.")


def python_reference() -> str:
    """The Python language reference that ships with the interpreter, each paragraph once."""
    from spiral.text.corpus import demo_corpus

    return demo_corpus()


def files(path: str) -> str:
    """A text file, or the text files of a folder.

    Args:
        path: The file or folder.
    """
    from spiral.text.corpus import load_text

    return load_text(path)


DATASETS: Catalog[Callable[..., str]] = catalog("dataset", _check)
"""Functions by name: called with keyword settings; give the text to train on."""

with spirals_own():
    DATASETS.add("python-reference", python_reference)
    DATASETS.add("files", files)
