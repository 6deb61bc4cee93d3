"""Mixed precision: forward and backward in 16 bits, weights and optimizer in 32 (Micikevicius et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import spiral as sp
from spiral import nn
from spiral.errors import ArgumentError, TrainingError
from spiral.tensor import Tensor

PRECISIONS = ("float32", "bfloat16", "float16")
_FIRST_SCALE = 2.0**15  # the largest power of two that float16 holds
_LARGEST_SCALE = 2.0**24


class MixedPrecision:
    """Computes a model in a dtype while float32 master weights are trained.

    A step is: `backward` for each batch, `unscale`, optimizer step on `masters` unless the gradient's norm is
    not finite, `update`. Gradients of several batches add up in float32. With float16 the loss is multiplied
    by a scale so that small gradients do not vanish; a step whose gradient overflows is left out and halves
    the scale, and many good steps double it. With float32 all of this is nothing: the masters are the model's
    own parameters.

    Args:
        model: Its parameters are float32 now, and of the dtype from here on.
        dtype: One of `PRECISIONS`.
        growth_interval: Good steps after which the loss scale doubles.

    Attributes:
        masters: The weights to give to the optimizer, in the order of ``model.parameters()``.
        scale: What the loss is multiplied by.

    Raises:
        ArgumentError: The dtype is none of `PRECISIONS`, or the model is not float32.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> policy = MixedPrecision(model, "bfloat16")
        >>> model.weight.dtype.name, policy.masters[0].dtype.name
        ('bfloat16', 'float32')
    """

    def __init__(self, model: nn.Module, dtype: str = "float32", *, growth_interval: int = 2000) -> None:
        if dtype not in PRECISIONS:
            raise ArgumentError(f"MixedPrecision: dtype must be one of {', '.join(PRECISIONS)}; received {dtype!r}.")
        other = {p.dtype.name for p in model.parameters()} - {"float32"}
        if other:
            raise ArgumentError(f"MixedPrecision: expected a float32 model; received parameters of {sorted(other)}.")
        self.model = model
        self.dtype = dtype
        self.growth_interval = growth_interval
        self.scale = _FIRST_SCALE if dtype == "float16" else 1.0
        self._good_steps = 0
        self._parameters = list(model.parameters())
        self.masters: list[Tensor] = list(self._parameters)
        if self.mixed:
            self.masters = [nn.Parameter(p.detach()) for p in self._parameters]
            model.to(dtype)  # makes new arrays: the masters keep the old ones

    @property
    def mixed(self) -> bool:
        """Whether the model computes in another dtype than its masters."""
        return self.dtype != "float32"

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Add the gradient of ``share * loss`` to the masters' gradients, scaled by `scale`."""
        factor = self.scale * share
        (loss if factor == 1.0 else loss * factor).backward()
        if self.mixed:
            with sp.no_grad():
                for master, p in zip(self.masters, self._parameters, strict=True):
                    if p.grad is not None:
                        grad = p.grad.astype(sp.float32)
                        master.grad = grad if master.grad is None else master.grad + grad
                        p.grad = None

    def unscale(self) -> list[Tensor]:
        """Divide the masters' gradients by the scale; gives those that there are."""
        gradients = [master.grad for master in self.masters if master.grad is not None]
        if self.scale != 1.0 and gradients:
            with sp.no_grad():  # in place: `backward` has made each of them
                sp.ops.unscale_(gradients, factor=1.0 / self.scale)
        return gradients

    @property
    def may_overflow(self) -> bool:
        """Whether a gradient that is not finite may come from the scale, and the step is to be left out."""
        return self.dtype == "float16"

    def update(self, taken: bool = True) -> None:
        """After a step: give the masters' values to the model, and choose the next scale.

        Args:
            taken: Whether the optimizer stepped; False after a gradient that was not finite.

        Raises:
            TrainingError: The scale has fallen below 1: the gradients overflow whatever it is.
        """
        if taken:
            self._copy_masters()
        if self.may_overflow:
            self._good_steps = self._good_steps + 1 if taken else 0
            if not taken:
                self.scale /= 2.0
                if self.scale < 1.0:
                    raise TrainingError(
                        "float16: gradients are not finite even without loss scaling; "
                        "train with run.precision=bfloat16 or float32."
                    )
            elif self._good_steps % self.growth_interval == 0:
                self.scale = min(2.0 * self.scale, _LARGEST_SCALE)

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Within the block the model computes in float32 with the masters' values."""
        if not self.mixed:
            yield
            return
        self.model.to("float32")
        self._copy_masters()
        try:
            yield
        finally:
            self.model.to(self.dtype)
            self._copy_masters()

    def state_dict(self) -> dict[str, Any]:
        """Scale and the number of good steps; the masters are saved as the model's weights."""
        return {"dtype": self.dtype, "scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, after the masters were restored.

        Raises:
            ArgumentError: It was made with another dtype, or is damaged.
        """
        if state.get("dtype") != self.dtype or not math.isfinite(state.get("scale", math.nan)):
            raise ArgumentError(f"MixedPrecision: expected a state of {self.dtype}; received {state!r}.")
        self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
        self._copy_masters()

    def _copy_masters(self) -> None:
        if self.mixed:
            with sp.no_grad():
                for master, p in zip(self.masters, self._parameters, strict=True):
                    p.detach().copy_(master.detach().astype(p.dtype))
