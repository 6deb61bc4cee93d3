"""Adafactor, made of tensor ops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spiral import ops
from spiral.creation import zeros
from spiral.dtype import finfo
from spiral.nn.arguments import real
from spiral.optim.optimizer import Optimizer, Params, pair_of
from spiral.tensor import Tensor


class Adafactor(Optimizer):
    """Second moments as a row and a column per matrix (Shazeer & Stern 2018), in PyTorch's form.

    Args:
        params: Tensors or groups; see `Optimizer`.
        lr: Largest relative step; each step takes min(lr, 1 / sqrt(step)).
        beta2_decay: Exponent of the decay 1 - step^beta2_decay.
        eps: Smallest second moment (None: the dtype's resolution), and smallest size of a parameter.
        d: Largest root mean square of an update.
        weight_decay: Share of the parameter, times lr, that a step takes away.
    """

    slots = ("row_var", "col_var", "variance")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **settings})

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check({k: v for k, v in settings.items() if k != "eps"})
        smallest, size = pair_of("Adafactor", "eps", settings["eps"])
        if smallest is not None:
            real("Adafactor", "eps[0]", smallest, 0.0)
        real("Adafactor", "eps[1]", size, 0.0)
        real("Adafactor", "d", settings["d"], 0.0, above=True)
        real("Adafactor", "beta2_decay", settings["beta2_decay"], most=0.0)

    def _fresh(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        if p.ndim < 2:
            return {"variance": zeros(p.shape, dtype=p.dtype, device=p.device)}
        rows, columns = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
        return {
            "row_var": zeros(rows, dtype=p.dtype, device=p.device),
            "col_var": zeros(columns, dtype=p.dtype, device=p.device),
        }

    def _update(
        self,
        group: dict[str, Any],
        step: int,
        params: list[Tensor],
        grads: list[Tensor],
        slots: dict[str, list[Tensor]],
    ) -> None:
        for p, grad in zip(params, grads, strict=True):
            self._update_one(group, step, p.detach(), grad.detach(), self.state[p])

    def _update_one(self, group: dict[str, Any], step: int, p: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        eps1 = finfo(p.dtype).eps if group["eps"][0] is None else group["eps"][0]
        share = step ** group["beta2_decay"]
        alpha = ops.maximum(_rms(p), group["eps"][1]) * min(group["lr"], 1.0 / math.sqrt(step))
        if group["weight_decay"]:
            ops.scale_([p], factor=1.0 - group["lr"] * group["weight_decay"])
        square = ops.square(grad)
        if p.ndim > 1:
            row, col = state["row_var"], state["col_var"]
            _move(row, ops.mean(square, axis=-1, keepdims=True), share)
            _move(col, ops.mean(square, axis=-2, keepdims=True), share)
            estimate = row * col / ops.maximum(ops.mean(row, axis=-2, keepdims=True), eps1)
        else:
            _move(state["variance"], square, share)
            estimate = state["variance"]
        update = ops.rsqrt(ops.maximum(estimate, eps1 * eps1)) * grad
        p.copy_(p - update * (alpha / ops.maximum(_rms(update) / group["d"], 1.0)))


def _rms(x: Tensor) -> Tensor:
    return ops.sqrt(ops.mean(ops.square(x)))


def _move(average: Tensor, value: Tensor, share: float) -> None:
    average.copy_(average + (value - average) * share)
