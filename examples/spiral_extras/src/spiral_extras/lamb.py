"""An optimizer for large batches."""

from __future__ import annotations

from typing import Any

import spiral as sp
from spiral import Tensor
from spiral.optim import Optimizer


class Lamb(Optimizer):
    """Adam's direction with decay, scaled to each parameter's own norm (You et al. 2020, algorithm 2).

    A parameter's step has the length ``lr`` times the parameter's norm, whatever the size of the gradient; where the
    norm is zero, as of a fresh bias, it is Adam's.

    Args:
        params: Tensors or groups; see `spiral.optim.Optimizer`.
        lr: Learning rate.
        betas: Decay of the first and the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Share of the parameter that is added to its direction.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(
        self,
        group: dict[str, Any],
        step: int,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
    ) -> None:
        beta1, beta2 = group["betas"]
        for p, g, m, v in zip(params, grads, slots["exp_avg"], slots["exp_avg_sq"], strict=True):
            m.copy_(beta1 * m + (1.0 - beta1) * g)
            v.copy_(beta2 * v + (1.0 - beta2) * g * g)
            direction = m / (1.0 - beta1**step) / (sp.sqrt(v / (1.0 - beta2**step)) + group["eps"])
            direction = direction + group["weight_decay"] * p
            size, length = _norm(p), _norm(direction)
            trust = size / length if size > 0.0 and length > 0.0 else 1.0
            p.copy_(p - group["lr"] * trust * direction)


def _norm(x: Tensor) -> float:
    return float(sp.sqrt(sp.sum(x * x)).item())
