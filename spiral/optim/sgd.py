"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spiral import ops
from spiral.creation import zeros_like
from spiral.errors import ArgumentError
from spiral.nn.arguments import flag, real
from spiral.optim.optimizer import Optimizer, Params
from spiral.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent with momentum, in PyTorch's form (Sutskever et al. 2013).

    Args:
        params: Tensors or groups; see `Optimizer`.
        lr: Learning rate.
        momentum: Share of the last update that is kept.
        dampening: Share of the gradient left out of the momentum.
        weight_decay: Factor of the parameter that is added to its gradient.
        nesterov: Whether to look ahead; needs momentum and no dampening.
    """

    slots = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        settings = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **settings})

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        real("SGD", "dampening", settings["dampening"])
        flag("SGD", "nesterov", settings["nesterov"])
        if settings["nesterov"] and (settings["momentum"] == 0.0 or settings["dampening"] != 0.0):
            raise ArgumentError("SGD: nesterov needs momentum > 0 and dampening 0.")

    def _fresh(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"momentum_buffer": zeros_like(p)} if group["momentum"] else {}

    def _update(
        self,
        group: dict[str, Any],
        step: int,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
    ) -> None:
        ops.sgd(
            params,
            grads,
            slots["momentum_buffer"],
            lr=group["lr"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
            first=step == 1,
        )
