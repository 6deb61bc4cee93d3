"""The optimizers that a configuration can name; plugins add theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spiral import named
from spiral.errors import RegistryError, received
from spiral.optim.adafactor import Adafactor
from spiral.optim.adam import Adam, AdamW
from spiral.optim.lion import Lion
from spiral.optim.sgd import SGD
from spiral.registry import Catalog, catalog


def _check(name: str, value: Any) -> None:
    if not callable(value):
        raise RegistryError(
            f"optimizer {name!r}: expected a class, or a function of parameters and settings; "
            f"received {received(value)}."
        )


OPTIMIZERS: Catalog[Callable[..., Any]] = catalog("optimizer", _check)
"""Classes of `spiral.optim.Optimizer` by name: called with parameters and keyword settings."""

OPTIMIZERS.fill({"sgd": SGD, "adam": Adam, "adamw": AdamW, "lion": Lion, "adafactor": Adafactor})


def create(name: str, params: Any, **options: Any) -> Any:
    """The optimizer that a name stands for; plugins bring theirs with `spiral.plugin.init_plugin_system`.

    Args:
        name: Such as ``lion``.
        params: Tensors or groups; see `Optimizer`.
        options: What its class takes.

    Raises:
        ConfigError: There is no optimizer of this name, or it does not take these options.

    Example:
        >>> import spiral as sp
        >>> create("lion", [sp.ones(2).requires_grad_()], lr=1e-4).param_groups[0]["betas"]
        (0.9, 0.99)
    """
    optimizer = named.find(OPTIMIZERS, "optim.create", name)
    return optimizer(params, **named.parsed(OPTIMIZERS, "optim.create", name, options, leading=1))
