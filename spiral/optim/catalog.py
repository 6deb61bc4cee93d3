"""The optimizers that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral.errors import RegistryError, received
from spiral.optim.adafactor import Adafactor
from spiral.optim.adam import Adam, AdamW
from spiral.optim.lion import Lion
from spiral.optim.sgd import SGD
from spiral.registry import Catalog, catalog, spirals_own


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(
            f"optimizer {name!r}: expected a class, or a function of parameters and settings; "
            f"received {received(value)}."
        )


OPTIMIZERS: Catalog[Callable[..., Any]] = catalog("optimizer", _check)
"""Classes of `spiral.optim.Optimizer` by name: called with parameters and keyword settings."""

with spirals_own():
    for _name, _class in {"sgd": SGD, "adam": Adam, "adamw": AdamW, "lion": Lion, "adafactor": Adafactor}.items():
        OPTIMIZERS.add(_name, _class)
