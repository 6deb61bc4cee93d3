"""The optimizer that a configuration names, made for a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spiral import named
from spiral.errors import ConfigError, received
from spiral.optim import Optimizer
from spiral.optim.catalog import OPTIMIZERS
from spiral.schema import Schema
from spiral.tensor import Tensor
from spiral.train.config import OptimConfig

_OWN_KEYS = {"lr": "lr", "betas": "beta1 and optim.beta2", "beta1": "beta1", "beta2": "beta2", "eps": "eps",
             "weight_decay": "weight_decay"}  # fmt: skip
"""Arguments of optimizers that have keys of their own in ``optim``, with these keys."""


def optimizer_arguments(settings: OptimConfig) -> dict[str, Any]:
    """What a configuration's optimizer is called with, besides the weights.

    Of ``lr``, ``beta1``, ``beta2``, ``eps`` and ``weight_decay`` it gets what it takes.

    Raises:
        ConfigError: There is no such optimizer, it does not take an option, or one of those keys was changed and it
            does not take that.
    """
    name = settings.name
    named.find(OPTIMIZERS, "optim.name", name)
    schema = named.schema(OPTIMIZERS, "optim.options", name, leading=1)
    values: dict[str, Any] = {"lr": settings.lr, "eps": settings.eps, "weight_decay": settings.weight_decay}
    if "betas" in schema:
        values["betas"] = (settings.beta1, settings.beta2)
    else:
        values |= {"beta1": settings.beta1, "beta2": settings.beta2}
    taken = {key: value for key, value in values.items() if _takes(schema, key, value)}
    if "lr" not in taken and not schema.open:
        raise ConfigError(f"optim.name: optimizer {name!r} must take lr, which the schedule sets; it takes "
                          f"{', '.join(schema) or 'nothing'}.")  # fmt: skip
    taken["lr"] = settings.lr
    defaults = OptimConfig()
    for key in ("beta1", "beta2", "eps", "weight_decay"):
        has = key in taken or (key.startswith("beta") and "betas" in taken)
        if not has and getattr(settings, key) != getattr(defaults, key):
            raise ConfigError(
                f"optim.{key}: optimizer {name!r} does not take it; received {getattr(settings, key)!r}; leave it "
                f"out. What it takes besides lr goes into optim.options: {', '.join(schema)}."
            )
    for key in settings.options:
        if key in taken:
            raise ConfigError(f"optim.options.{key}: set optim.{_OWN_KEYS[key]} instead.")
    return {**taken, **named.parsed(OPTIMIZERS, "optim.options", name, settings.options, leading=1, there=taken)}


def _takes(schema: Schema, key: str, value: Any) -> bool:
    """Whether there is such an argument, and for such a value: Adafactor's eps is a pair."""
    if key not in schema:
        return False
    try:
        schema[key].parse(value)
    except ConfigError:
        return False
    return True


def configured_optimizer(settings: OptimConfig, weights: Mapping[str, Tensor]) -> Optimizer:
    """The optimizer of a configuration; weight decay, where it has that, is for matrices only.

    Raises:
        ConfigError: See `optimizer_arguments`; or what the name stands for makes no optimizer.
    """
    arguments = optimizer_arguments(settings)
    params: Any = list(weights.values())
    if "weight_decay" in arguments:
        params = decay_groups(weights, arguments.pop("weight_decay"))
    made = OPTIMIZERS[settings.name](params, **arguments)
    if not isinstance(made, Optimizer):
        raise ConfigError(
            f"optim.name: {settings.name!r}: expected it to make a spiral.optim.Optimizer; received {received(made)}."
        )
    return made


def decay_groups(weights: Mapping[str, Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, vectors (norms) do not."""
    return [
        {"params": [w for w in weights.values() if w.ndim >= 2], "weight_decay": weight_decay},
        {"params": [w for w in weights.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
