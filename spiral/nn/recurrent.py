"""LSTM and GRU with PyTorch's parameter names and order of gates."""

from __future__ import annotations

import math
from typing import Any

from spiral import ops
from spiral.creation import empty_, zeros
from spiral.errors import ArgumentError, ShapeError, received
from spiral.nn import functional, init
from spiral.nn.arguments import Probability, Size, flag, integer, real, tensors
from spiral.nn.module import Module
from spiral.nn.parameter import Parameter
from spiral.tensor import Tensor


class _Recurrent(Module):
    _gates = 1
    _states = 1

    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        num_layers: Size = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: Probability = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = input_size = integer(name, "input_size", input_size, 1)
        self.hidden_size = hidden_size = integer(name, "hidden_size", hidden_size, 1)
        self.num_layers = num_layers = integer(name, "num_layers", num_layers, 1)
        self.has_bias = bias = flag(name, "bias", bias)
        self.batch_first = flag(name, "batch_first", batch_first)
        self.dropout = real(name, "dropout", dropout, 0.0, 1.0)
        self.bidirectional = bidirectional = flag(name, "bidirectional", bidirectional)
        self._suffixes = ("", "_reverse") if bidirectional else ("",)
        rows = self._gates * hidden_size
        bound = 1.0 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            columns = hidden_size * len(self._suffixes) if layer else input_size
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, columns), "weight_hh": (rows, hidden_size)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for suffix in self._suffixes:
                for kind, shape in shapes.items():
                    parameter = init.uniform_(Parameter(empty_(shape)), -bound, bound)
                    self.register_parameter(f"{kind}_l{layer}{suffix}", parameter)

    def _weights(self, layer: int, suffix: str) -> tuple[Any, Any, Any, Any]:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(self._parameters.get(f"{kind}_l{layer}{suffix}") for kind in kinds)  # type: ignore[return-value]

    def _run(self, x: Tensor, states: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers over time: the outputs, and the last states, each (layers * directions, B, hidden_size)."""
        name = type(self).__name__
        if states is not None and (not isinstance(states, (list, tuple)) or len(states) != self._states):
            raise ArgumentError(f"{name}: the state must be {self._states} tensors; received {received(states)}.")
        for tensor in (x, *(states or ())):
            tensors(name, **{"x" if tensor is x else "state": tensor})
        if x.ndim == 2:  # one sequence without a batch axis
            given = None if states is None else tuple(ops.expand_dims(s, axis=1) for s in states)
            y, last_states = self._run(ops.expand_dims(x, axis=0 if self.batch_first else 1), given)
            return ops.squeeze(y, axis=0 if self.batch_first else 1), tuple(ops.squeeze(s, axis=1) for s in last_states)
        time = 1 if self.batch_first else 0
        if x.ndim != 3 or x.shape[2] != self.input_size or x.shape[time] == 0:
            order = "(B, T, " if self.batch_first else "(T, B, "
            raise ShapeError(
                f"{name}: expected x {order}{self.input_size}) or (T, {self.input_size}), where T > 0; "
                f"received {x.shape}."
            )
        directions = len(self._suffixes)
        wanted = (self.num_layers * directions, x.shape[1 - time], self.hidden_size)
        if states is None:
            states = tuple(zeros(wanted, dtype=x.dtype, device=x.device) for _ in range(self._states))
        for state in states:
            if state.shape != wanted:
                raise ShapeError(f"{name}: the state must be {wanted}; received {state.shape}.")
        last: list[list[Tensor]] = [[] for _ in states]
        for layer in range(self.num_layers):
            if layer:
                x = functional.dropout(x, self.dropout, self.training)
            outputs = []
            for direction, suffix in enumerate(self._suffixes):
                first = tuple(s[layer * directions + direction] for s in states)
                y, final = self._direction(x, time, self._weights(layer, suffix), first, bool(direction))
                outputs.append(y)
                for kept, state in zip(last, final, strict=True):
                    kept.append(state)
            x = outputs[0] if directions == 1 else ops.concat(outputs, axis=-1)
        return x, tuple(ops.stack(kept, axis=0) for kept in last)

    def _direction(
        self, x: Tensor, time: int, weights: tuple[Any, ...], states: tuple[Tensor, ...], backwards: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        w_ih, w_hh, b_ih, b_hh = weights
        projected = ops.linear(x, w_ih, b_ih)  # the inputs' part of every step in one product
        steps = ops.split(projected, projected.shape[time], axis=time)
        outputs = []
        for step in reversed(steps) if backwards else steps:
            states = self._cell(ops.squeeze(step, axis=time), ops.linear(states[0], w_hh, b_hh), states)
            outputs.append(states[0])
        return ops.stack(outputs[::-1] if backwards else outputs, axis=time), states

    def _cell(self, from_x: Tensor, from_h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__}: write _cell.")

    def extra_repr(self) -> str:
        parts = [f"{self.input_size} -> {self.hidden_size}"]
        return ", ".join(parts + ["batch_first"] * self.batch_first + ["bidirectional"] * self.bidirectional)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), gates in the order input, forget, cell, output.

    Args:
        input_size: Length of x's last axis.
        hidden_size: Length of the state.
        num_layers: Layers, each over the outputs of the one before.
        bias: Whether there are biases.
        batch_first: Whether x is (B, T, input_size) rather than (T, B, input_size); also (T, input_size) alone.
        dropout: Probability between layers, in training.
        bidirectional: Whether every layer also runs from the end; outputs are joined, forward first.
    """

    _gates = 4
    _states = 2

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The last layer's outputs, and (h, c), each (num_layers * directions, B, hidden_size)."""
        y, (h, c) = self._run(x, state)
        return y, (h, c)

    def _cell(self, from_x: Tensor, from_h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        i, f, g, o = ops.split(from_x + from_h, 4, axis=-1)
        c = ops.sigmoid(f) * states[1] + ops.sigmoid(i) * ops.tanh(g)
        return ops.sigmoid(o) * ops.tanh(c), c


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al. 2014), gates in the order reset, update, new; arguments as in `LSTM`.

    The reset gate multiplies the projected state, bias included, as in PyTorch and cuDNN.
    """

    _gates = 3

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The last layer's outputs, and h (num_layers * directions, B, hidden_size)."""
        y, (h,) = self._run(x, None if state is None else (state,))
        return y, h

    def _cell(self, from_x: Tensor, from_h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        xr, xz, xn = ops.split(from_x, 3, axis=-1)
        hr, hz, hn = ops.split(from_h, 3, axis=-1)
        z = ops.sigmoid(xz + hz)
        n = ops.tanh(xn + ops.sigmoid(xr + hr) * hn)
        return (n + z * (states[0] - n),)
