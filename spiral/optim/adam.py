"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from spiral import ops
from spiral.optim.optimizer import Optimizer, Params
from spiral.tensor import Tensor


class _Adam(Optimizer):
    slots = ("exp_avg", "exp_avg_sq")
    _decoupled = True

    def __init__(self, params: Params, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
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
        ops.adamw(
            params,
            grads,
            slots["exp_avg"],
            slots["exp_avg_sq"],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            step=step,
            decoupled=self._decoupled,
        )


class AdamW(_Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Args:
        params: Tensors or groups; see `Optimizer`.
        lr: Learning rate.
        betas: Decay of the averages of the gradient and of its square.
        eps: Added to the root of the average square.
        weight_decay: Share of the parameter, times lr, that a step takes away.

    Raises:
        ArgumentError: no parameters, one that collects no gradients, or a setting out of range.

    Example:
        >>> import spiral as sp
        >>> w = sp.ones(2).requires_grad_()
        >>> opt = AdamW([w], lr=0.5, weight_decay=0.0)
        >>> (w * w).sum().backward(); opt.step(); [round(x, 6) for x in w.tolist()]
        [0.5, 0.5]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class Adam(_Adam):
    """Adam (Kingma & Ba 2015); ``weight_decay`` adds to the gradient (L2). Other arguments as in `AdamW`."""

    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
