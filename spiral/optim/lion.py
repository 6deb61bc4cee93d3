"""Lion."""

from __future__ import annotations

from typing import Any

from spiral import ops
from spiral.optim.optimizer import Optimizer, Params
from spiral.tensor import Tensor


class Lion(Optimizer):
    """The sign of an interpolated momentum (Chen et al. 2023, algorithm 2).

    Args:
        params: Tensors or groups; see `Optimizer`.
        lr: Learning rate; 3 to 10 times smaller than AdamW's.
        betas: Interpolation of the update, and decay of the momentum.
        weight_decay: Share of the parameter, times lr, that a step takes away.
    """

    slots = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def _update(
        self,
        group: dict[str, Any],
        step: int,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
    ) -> None:
        beta1, beta2 = group["betas"]
        ops.lion(
            params,
            grads,
            slots["exp_avg"],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
        )
