"""Learning-rate schedules: functions from a step to a factor, and the object that applies one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from spiral.errors import ArgumentError, kind_of
from spiral.nn.arguments import function, integer, real
from spiral.nn.state import StateDictError, need_mapping
from spiral.optim.optimizer import Optimizer


def warmup_factor(step: int, warmup: int) -> float:
    """(step + 1) / warmup during the first ``warmup`` steps, then 1: the first step is not wasted on 0."""
    return (step + 1) / warmup if step < warmup else 1.0


def _progress(step: int, start: int, end: int) -> float:
    return min(max((step - start) / max(end - start, 1), 0.0), 1.0)


def constant_factor(step: int, *, warmup: int = 0) -> float:
    """1 after warm-up."""
    return warmup_factor(step, warmup)


def linear_factor(step: int, *, total: int, warmup: int = 0, minimum: float = 0.0) -> float:
    """From 1 after warm-up along a line to ``minimum`` at step ``total``."""
    if step < warmup:
        return warmup_factor(step, warmup)
    return 1.0 + (minimum - 1.0) * _progress(step, warmup, total)


def cosine_factor(step: int, *, total: int, warmup: int = 0, minimum: float = 0.0) -> float:
    """From 1 after warm-up along half a cosine to ``minimum`` at step ``total`` (Loshchilov & Hutter 2017)."""
    if step < warmup:
        return warmup_factor(step, warmup)
    return minimum + (1.0 - minimum) * 0.5 * (1.0 + math.cos(math.pi * _progress(step, warmup, total)))


def wsd_factor(step: int, *, total: int, decay: int, warmup: int = 0, minimum: float = 0.0) -> float:
    """Warm-up, 1, then a line to ``minimum`` over the last ``decay`` steps (Hu et al. 2024, MiniCPM)."""
    if step < warmup:
        return warmup_factor(step, warmup)
    return 1.0 + (minimum - 1.0) * _progress(step, max(total - decay, warmup), total)


class LRSchedule:
    """Sets each group's lr to its first value times ``factor(step)``; call `step` after the optimizer's.

    Args:
        optimizer: Its groups' ``"lr"`` at this moment are the base values.
        factor: From the number of steps done to a factor.

    Example:
        >>> import spiral as sp
        >>> from spiral.optim import SGD, linear
        >>> opt = SGD([sp.ones(1).requires_grad_()], lr=1.0)
        >>> schedule = linear(opt, total=4)
        >>> schedule.step(); opt.param_groups[0]["lr"]
        0.75
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"LRSchedule: optimizer must be an Optimizer; received {kind_of(optimizer)}.")
        self.optimizer = optimizer
        self.factor = function("LRSchedule", "factor", factor)
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.last_step = 0
        self._apply()

    def _apply(self) -> None:
        factor = real("LRSchedule", f"factor({self.last_step})", self.factor(self.last_step))
        # groups that were added since: their lr is their base value
        self.base_lrs += [float(group["lr"]) for group in self.optimizer.param_groups[len(self.base_lrs) :]]
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor

    def step(self) -> None:
        """Goes on to the next step."""
        self.last_step += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """Each group's lr now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Steps done and base values; the factor itself belongs to the program."""
        return {"last_step": self.last_step, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, and the groups' lr with it."""
        need_mapping("LRSchedule.load_state_dict", state)
        absent = tuple(key for key in ("last_step", "base_lrs") if key not in state)
        if absent:
            raise StateDictError(f"LRSchedule.load_state_dict: missing {', '.join(absent)}.", missing=absent)
        if not isinstance(state["base_lrs"], (list, tuple)):
            raise StateDictError(
                f"LRSchedule.load_state_dict: base_lrs must be a list; received {kind_of(state['base_lrs'])}."
            )
        if len(state["base_lrs"]) != len(self.base_lrs):
            raise ArgumentError(
                f"LRSchedule.load_state_dict: expected {len(self.base_lrs)} groups; received {len(state['base_lrs'])}."
            )
        last_step = integer("LRSchedule.load_state_dict", "last_step", state["last_step"], 0)
        base_lrs = [
            real("LRSchedule.load_state_dict", f"base_lrs[{i}]", lr, 0.0) for i, lr in enumerate(state["base_lrs"])
        ]
        self.last_step, self.base_lrs = last_step, base_lrs
        self._apply()


def _positive(name: str, *, minimum: float = 0.0, **lengths: int) -> None:
    real(name, "minimum", minimum, 0.0)
    for what, value in lengths.items():
        integer(name, what, value, 1 if what == "total" else 0)
    if "total" in lengths and lengths["total"] < lengths["warmup"]:
        raise ArgumentError(f"{name}: total {lengths['total']} must be at least warmup {lengths['warmup']}.")


def constant(optimizer: Optimizer, warmup: int = 0) -> LRSchedule:
    """Schedule of `constant_factor`."""
    _positive("constant", warmup=warmup)
    return LRSchedule(optimizer, lambda step: constant_factor(step, warmup=warmup))


def linear(optimizer: Optimizer, total: int, warmup: int = 0, minimum: float = 0.0) -> LRSchedule:
    """Schedule of `linear_factor`."""
    _positive("linear", total=total, warmup=warmup, minimum=minimum)
    return LRSchedule(optimizer, lambda step: linear_factor(step, total=total, warmup=warmup, minimum=minimum))


def cosine(optimizer: Optimizer, total: int, warmup: int = 0, minimum: float = 0.0) -> LRSchedule:
    """Schedule of `cosine_factor`."""
    _positive("cosine", total=total, warmup=warmup, minimum=minimum)
    return LRSchedule(optimizer, lambda step: cosine_factor(step, total=total, warmup=warmup, minimum=minimum))


def wsd(optimizer: Optimizer, total: int, decay: int, warmup: int = 0, minimum: float = 0.0) -> LRSchedule:
    """Schedule of `wsd_factor`."""
    _positive("wsd", total=total, warmup=warmup, decay=decay, minimum=minimum)
    return LRSchedule(
        optimizer, lambda step: wsd_factor(step, total=total, decay=decay, warmup=warmup, minimum=minimum)
    )
