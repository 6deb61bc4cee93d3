"""Gradient checks: <J u, v> by central differences against <u, J^T v> by the op's vjp, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

import spiral as sp
from spiral.autograd import grad_of
from spiral.op import Op
from spiral.tensor import Tensor, from_numpy
from spiral.testing.oracle import samples_of, to_tensor


def is_smooth(inputs: tuple[Any, ...]) -> bool:
    """Whether a sample consists of ordinary numbers (edge values are for the value checks)."""
    return all(
        np.isfinite(a).all() and (np.abs(a) < 1e3).all()
        for x in inputs
        for a in (x if isinstance(x, list) else [x])
        if isinstance(a, np.ndarray) and a.dtype == np.float64
    )


def _flat(inputs: tuple[Any, ...]) -> list[Any]:
    return [a for x in inputs for a in (x if isinstance(x, list) else [x])]


def _leaves(inputs: tuple[Any, ...]) -> list[Tensor]:
    return [a for a in _flat(inputs) if isinstance(a, Tensor) and a._node is not None]


def _total(op: Op, tensors: tuple[Any, ...], attrs: tuple[Any, ...], weights: list[Any]) -> Any:
    """The scalar sum over visible outputs of output * weight."""
    outs = op.call(*tensors, *attrs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    outs = tuple(o for o in outs if o.dtype.kind == "float") or outs  # integer outputs have no gradient
    if any(o.dtype is not sp.float64 for o in outs):  # a cast to a narrower type: differences say nothing
        return outs[0].detach()
    if not weights:
        rng = np.random.default_rng(1)
        weights.extend(from_numpy(np.asarray(rng.standard_normal(o.shape)), copy=True) for o in outs)
    total = None
    for o, w in zip(outs, weights, strict=True):
        part = (o * w).sum()
        total = part if total is None else total + part
    return total


def _fresh(op: Op, inputs: tuple[Any, ...], shifts: list[Any] | None, h: float, track: bool) -> tuple[Any, ...]:
    it = iter(shifts or [])

    def one(a: Any, constant: bool) -> Any:
        t = to_tensor(a, sp.float64)
        if isinstance(t, Tensor) and t.dtype is sp.float64 and not constant:
            if shifts is not None:
                t = from_numpy(t._a + h * next(it), copy=True)
            if track:
                t = from_numpy(np.array(t._a), copy=True).requires_grad_()
        return t

    held = [i.name in op.constants for i in op.inputs]
    return tuple(
        [one(a, c) for a in x] if isinstance(x, list) else one(x, c) for x, c in zip(inputs, held, strict=True)
    )


def _compare(op: Op, what: str, analytic: float, numeric: float, scale: float) -> None:
    if not abs(analytic - numeric) <= 2e-5 * max(1.0, abs(numeric), scale):
        raise AssertionError(f"{op.name}: {what}: vjp gives {analytic!r}, differences give {numeric!r}")


def check_gradient(op: Op) -> int:
    """Checks an op's vjp on its smooth samples; returns how many were checked."""
    checked = 0
    for inputs, attrs in samples_of(op):
        if not is_smooth(inputs):
            continue
        tensors = _fresh(op, inputs, None, 0.0, track=True)
        leaves = _leaves(tensors)
        weights: list[Any] = []
        total = _total(op, tensors, attrs, weights)
        if not leaves or total._node is None or total.dtype is not sp.float64:
            continue
        rng = np.random.default_rng(2)
        directions = [np.asarray(rng.standard_normal(t.shape)) for t in leaves]
        grads = grad_of([total], leaves)
        analytic = sum(float((g._a * d).sum()) for g, d in zip(grads, directions, strict=True))
        h = 1e-6
        up = _total(op, _fresh(op, inputs, directions, h, False), attrs, weights).item()
        down = _total(op, _fresh(op, inputs, directions, -h, False), attrs, weights).item()
        scale = sum(float(np.abs(g._a * d).sum()) for g, d in zip(grads, directions, strict=True))
        _compare(op, "first derivative", analytic, (up - down) / (2 * h), scale)
        checked += 1
    return checked


def check_second_gradient(op: Op) -> int:
    """Checks the derivative of <gradient, u>, taken with create_graph, on smooth samples."""
    checked = 0
    for inputs, attrs in samples_of(op):
        if not is_smooth(inputs):
            continue
        weights: list[Any] = []
        rng = np.random.default_rng(3)
        probe: list[Any] = []

        def slope(
            tensors: tuple[Any, ...],
            graph: bool,
            attrs: Any = attrs,
            weights: Any = weights,
            probe: Any = probe,
        ) -> Any:
            total = _total(op, tensors, attrs, weights)
            leaves = _leaves(tensors)
            grads = grad_of([total], leaves, create_graph=graph)
            if not probe:
                probe.extend(from_numpy(np.asarray(rng.standard_normal(t.shape)), copy=True) for t in leaves)  # noqa: B023 (same turn)
            out = None
            for g, u in zip(grads, probe, strict=True):
                part = (g * u).sum()
                out = part if out is None else out + part
            return out

        tensors = _fresh(op, inputs, None, 0.0, track=True)
        leaves = _leaves(tensors)
        if not leaves or _total(op, tensors, attrs, weights)._node is None:
            continue
        s = slope(tensors, True)
        directions = [np.asarray(rng.standard_normal(t.shape)) for t in leaves]
        if s._node is None:
            analytic, scale = 0.0, 0.0
        else:
            second = grad_of([s], leaves)
            analytic = sum(float((g._a * d).sum()) for g, d in zip(second, directions, strict=True))
            scale = sum(float(np.abs(g._a * d).sum()) for g, d in zip(second, directions, strict=True))
        h = 1e-5
        up = slope(_fresh(op, inputs, directions, h, True), False).item()
        down = slope(_fresh(op, inputs, directions, -h, True), False).item()
        _compare(op, "second derivative", analytic, (up - down) / (2 * h), scale)
        checked += 1
    return checked
