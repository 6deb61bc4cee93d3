"""The losses that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from spiral import named
from spiral.errors import RegistryError, received
from spiral.nn import functional
from spiral.registry import Catalog, catalog


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(
            f"loss {name!r}: expected a function of predictions and targets; received {received(value)}."
        )


LOSSES: Catalog[Callable[..., Any]] = catalog("loss", _check)
"""By name: functions of predictions, targets and keyword settings, or classes that make one of the settings."""

for _name in (
    "cross_entropy", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "nll_loss", "kl_div",
    "binary_cross_entropy", "binary_cross_entropy_with_logits",
):  # fmt: skip
    LOSSES.fill({_name: getattr(functional, _name)})


def create_loss(name: str, **options: Any) -> Callable[..., Any]:
    """The loss that a name stands for, with its settings; plugins bring theirs with `init_plugin_system`.

    Args:
        name: Such as ``cross_entropy``.
        options: What it takes besides predictions and targets.

    Returns:
        A function of predictions and targets that gives a tensor.

    Raises:
        ConfigError: There is no loss of this name, or it does not take these options.

    Example:
        >>> import spiral as sp
        >>> create_loss("huber_loss", delta=2.0)(sp.asarray([4.0]), sp.asarray([0.0])).item()
        6.0
    """
    loss = named.find(LOSSES, "create_loss", name)
    if isinstance(loss, type):
        made: Callable[..., Any] = loss(**named.parsed(LOSSES, "create_loss", name, options))
        return made
    return partial(loss, **named.parsed(LOSSES, "create_loss", name, options, leading=2))
