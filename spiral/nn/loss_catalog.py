"""The losses that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral.errors import RegistryError, received
from spiral.nn import functional
from spiral.registry import Catalog, catalog, spirals_own


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(
            f"loss {name!r}: expected a function of predictions and targets; received {received(value)}."
        )


LOSSES: Catalog[Callable[..., Any]] = catalog("loss", _check)
"""Functions by name: called with predictions, targets and keyword settings; give a scalar tensor."""

with spirals_own():
    for _name in (
        "cross_entropy", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "nll_loss", "kl_div",
        "binary_cross_entropy", "binary_cross_entropy_with_logits",
    ):  # fmt: skip
        LOSSES.add(_name, getattr(functional, _name))
