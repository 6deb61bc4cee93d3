"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spiral import ops
from spiral.autograd import no_grad
from spiral.creation import asarray
from spiral.errors import ArgumentError
from spiral.nn.arguments import real, tensor_list
from spiral.nn.state import StateDictError, load_tensors, need_mapping
from spiral.tensor import Tensor


class EMA:
    """averages = decay * averages + (1 - decay) * params after each step (Polyak & Juditsky 1992).

    Args:
        params: Tensors to average, usually ``model.parameters()``.
        decay: Share of the old average.

    Attributes:
        averages: One tensor per parameter, in order.

    Example:
        >>> import spiral as sp
        >>> w = sp.ones(1)
        >>> ema = EMA([w], decay=0.5)
        >>> w.copy_(sp.zeros(1)); ema.update(); ema.averages[0].tolist()
        Tensor([0.])
        [0.5]
    """

    def __init__(self, params: Iterable[Tensor], decay: float = 0.999) -> None:
        self.decay = real("EMA", "decay", decay, 0.0, 1.0)
        self.params: list[Tensor] = tensor_list("EMA", "params", params)
        self.averages = [asarray(p.detach(), copy=True) for p in self.params]

    def update(self) -> None:
        """Moves the averages towards the parameters."""
        with no_grad():
            ops.ema_(self.averages, [p.detach() for p in self.params], decay=self.decay)

    def copy_to_params(self) -> None:
        """Overwrites the parameters with the averages."""
        for p, average in zip(self.params, self.averages, strict=True):
            p.copy_(average)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the block the parameters have the averages' values; after it their own again."""
        kept = [asarray(p.detach(), copy=True) for p in self.params]
        self.copy_to_params()
        try:
            yield
        finally:
            for p, values in zip(self.params, kept, strict=True):
                p.copy_(values)

    def state_dict(self) -> dict[str, Any]:
        """Decay and averages by number."""
        return {"decay": self.decay, "averages": {str(i): a for i, a in enumerate(self.averages)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            StateDictError: it is something else, and nothing was loaded.
        """
        need_mapping("EMA.load_state_dict", state)
        absent = tuple(key for key in ("decay", "averages") if key not in state)
        if absent:
            raise StateDictError(f"EMA.load_state_dict: missing {', '.join(absent)}.", missing=absent)
        try:
            decay = real("EMA.load_state_dict", "decay", state["decay"], 0.0, 1.0)
        except ArgumentError as error:
            raise StateDictError(str(error)) from error
        load_tensors("EMA", {str(i): a for i, a in enumerate(self.averages)}, state["averages"], strict=True)
        self.decay = decay
