"""Adafactor."""

from __future__ import annotations

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
        eps1, eps2 = group["eps"]
        by_dtype: dict[Any, list[int]] = {}
        for i, p in enumerate(params):
            by_dtype.setdefault(p.dtype, []).append(i)
        for dtype, numbers in by_dtype.items():  # one call, unless dtypes with other resolutions are mixed
            states = [self.state[params[i]] for i in numbers]
            ops.adafactor(
                [params[i] for i in numbers],
                [grads[i] for i in numbers],
                *([state.get(slot) for state in states] for slot in self.slots),
                lr=group["lr"],
                beta2_decay=group["beta2_decay"],
                eps1=finfo(dtype).eps if eps1 is None else eps1,
                eps2=eps2,
                d=group["d"],
                weight_decay=group["weight_decay"],
                step=step,
            )
