"""Values from one device to another; the only way they get there."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral import autograd
from spiral.backend import Spec
from spiral.device import Device, as_device, by_code
from spiral.op import OPS, F, op
from spiral.placement import place, to_host
from spiral.tensor_core import DTYPE_BITS, TensorCore, make_key, wrap


@op("transfer(x, *, device: str, source: str) -> y")
class Transfer:
    """x on another device; ``source`` is where it is, and where its gradient goes."""

    internal = True

    @staticmethod
    def meta(x: Any, device: str, source: str) -> Spec:
        return Spec(tuple(x.shape), x.dtype)

    @staticmethod
    def oracle(x: Any, device: str, source: str) -> Any:
        return np.array(x)

    @staticmethod
    def call(x: TensorCore, device: str, source: str) -> Any:
        # not dispatched: the result is elsewhere than its input
        there, here = as_device(device), by_code(x._key >> DTYPE_BITS)
        a = x._a if here is there else place(to_host(x._a, here), there)
        key = make_key(there, x.dtype)
        if x._node is None or not autograd.grad_enabled():
            return wrap(a, key)
        return autograd.record(OPS["transfer"], (x,), [x._a], (device, source), (a,), (key,))

    @staticmethod
    def vjp(need: Any, g: Any, device: str, source: str) -> Any:
        return (F.transfer(g, device=source, source=device),)

    @staticmethod
    def samples(s: Any) -> Any:
        yield s.normal(4, 5), "cpu", "cpu"
        yield s.normal(4, 5).T, "cpu", "cpu"


def transfer(x: TensorCore, device: Device) -> Any:
    """A tensor on another device; gradients flow back."""
    return OPS["transfer"].call(x, str(device), str(x.device))
