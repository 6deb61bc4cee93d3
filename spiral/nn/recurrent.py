"""LSTM and GRU with PyTorch's parameter names and order of gates."""

from __future__ import annotations

import math
from typing import Any

from spiral import ops
from spiral.creation import empty_, zeros
from spiral.errors import ArgumentError, ShapeError
from spiral.nn import functional, init
from spiral.nn.module import Module
from spiral.nn.parameter import Parameter
from spiral.tensor import Tensor


class _Recurrent(Module):
    _gates = 1
    _states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(input_size, hidden_size, num_layers) < 1:
            raise ArgumentError(
                f"{type(self).__name__}: sizes and num_layers must be positive; received input_size={input_size}, "
                f"hidden_size={hidden_size}, num_layers={num_layers}."
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.has_bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        rows = self._gates * hidden_size
        bound = 1.0 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            columns = hidden_size if layer else input_size
            shapes = {"weight_ih": (rows, columns), "weight_hh": (rows, hidden_size)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}  # type: ignore[dict-item]
            for name, shape in shapes.items():
                parameter = init.uniform_(Parameter(empty_(shape)), -bound, bound)
                self.register_parameter(f"{name}_l{layer}", parameter)

    def _weights(self, layer: int) -> tuple[Any, Any, Any, Any]:
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(self._parameters.get(f"{kind}_l{layer}") for kind in kinds)  # type: ignore[return-value]

    def _run(self, x: Tensor, states: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers over time: the outputs, and the last states, each (num_layers, B, hidden_size)."""
        if x.ndim != 3 or x.shape[2] != self.input_size or 0 in x.shape:
            order = "(B, T, " if self.batch_first else "(T, B, "
            raise ShapeError(
                f"{type(self).__name__}: expected x {order}{self.input_size}) without empty axes; received {x.shape}."
            )
        batch = x.shape[0 if self.batch_first else 1]
        wanted = (self.num_layers, batch, self.hidden_size)
        if states is None:
            states = tuple(zeros(wanted, dtype=x.dtype, device=x.device) for _ in range(self._states))
        for state in states:
            if state.shape != wanted:
                raise ShapeError(f"{type(self).__name__}: the state must be {wanted}; received {state.shape}.")
        time = 1 if self.batch_first else 0
        last: list[list[Tensor]] = [[] for _ in states]
        for layer in range(self.num_layers):
            if layer:
                x = functional.dropout(x, self.dropout, self.training)
            x, final = self._layer(x, time, layer, tuple(s[layer] for s in states))
            for kept, state in zip(last, final, strict=True):
                kept.append(state)
        return x, tuple(ops.stack(kept, axis=0) for kept in last)

    def _layer(self, x: Tensor, time: int, layer: int, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        w_ih, w_hh, b_ih, b_hh = self._weights(layer)
        projected = ops.linear(x, w_ih, b_ih)  # the inputs' part of every step in one product
        outputs = []
        for step in ops.split(projected, projected.shape[time], axis=time):
            states = self._cell(ops.squeeze(step, axis=time), ops.linear(states[0], w_hh, b_hh), states)
            outputs.append(states[0])
        return ops.stack(outputs, axis=time), states

    def _cell(self, from_x: Tensor, from_h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__}: write _cell.")

    def extra_repr(self) -> str:
        parts = [f"{self.input_size} -> {self.hidden_size}"]
        return ", ".join(parts + ["batch_first"] * self.batch_first)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), gates in the order input, forget, cell, output.

    Args:
        input_size: Length of x's last axis.
        hidden_size: Length of the state.
        num_layers: Layers, each over the outputs of the one before.
        bias: Whether there are biases.
        batch_first: Whether x is (B, T, input_size) rather than (T, B, input_size).
        dropout: Probability between layers, in training.
    """

    _gates = 4
    _states = 2

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The last layer's outputs, and (h, c), each (num_layers, B, hidden_size)."""
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
        """The last layer's outputs, and h (num_layers, B, hidden_size)."""
        y, (h,) = self._run(x, None if state is None else (state,))
        return y, h

    def _cell(self, from_x: Tensor, from_h: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        xr, xz, xn = ops.split(from_x, 3, axis=-1)
        hr, hz, hn = ops.split(from_h, 3, axis=-1)
        z = ops.sigmoid(xz + hz)
        n = ops.tanh(xn + ops.sigmoid(xr + hr) * hn)
        return (n + z * (states[0] - n),)
