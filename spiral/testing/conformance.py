"""Every op's samples on a backend, against the float64 oracle.

The oracle sees the inputs as the kernel saw them (rounded to the tested dtype, then widened), so that
what is compared is the kernel's error alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import spiral as sp
from spiral.device import Device, as_device, cpu
from spiral.device_array import DeviceArray
from spiral.dispatch import explain
from spiral.dtype import DType, finfo_object, float32
from spiral.op import OPS, Op
from spiral.placement import host_copy
from spiral.tensor import Tensor, from_numpy
from spiral.tensor_core import make_key, wrap
from spiral.testing.samples import SampleMaker

# relative to the largest magnitude of the expected result: an f32 accumulation over the samples' few
# hundred terms, and a few ulp for the functions in between; 16-bit results are rounded once
_TOLERANCE = {"float32": 4e-6, "float64": 1e-12, "float16": 1e-3, "bfloat16": 8e-3}


def samples_of(op: Op) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """(inputs, attributes) of every sample of an op, inputs as float64 or integer NumPy arrays."""
    assert op.samples is not None
    n = len(op.inputs)
    for sample in op.samples(SampleMaker()):
        sample = tuple(sample)
        yield sample[:n], sample[n:]


def _map(x: Any, fn: Any) -> Any:
    if isinstance(x, list):
        return [fn(v) for v in x]
    return fn(x)


def to_tensor(x: Any, dtype: DType, device: Device = cpu) -> Any:
    """A sample input as a tensor of ``dtype``; integers, bool, numbers and None stay what they are."""

    def one(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        if a.dtype == np.float64:
            with np.errstate(over="ignore"):
                b = a.astype(np.float32) if dtype.storage_only else a
                a = b.astype(dtype.numpy)
        t = from_numpy(a, copy=False)
        return t if device is cpu else _with_strides(t, device)

    return _map(x, one)


def _with_strides(t: Tensor, device: Device) -> Tensor:
    """A tensor on a device, with the strides that it has on the CPU: copying would make it dense."""
    a = t._a
    if a.flags.c_contiguous or device.memory.unified or 0 in a.strides or not a.size:
        return t.to(device)
    spans = [(n - 1) * s for n, s in zip(a.shape, a.strides, strict=True)]
    low, high = sum(min(s, 0) for s in spans), sum(max(s, 0) for s in spans)
    raw = np.zeros(high - low + a.itemsize, np.uint8)
    np.ndarray(a.shape, a.dtype, raw, -low, a.strides)[...] = a
    block = DeviceArray.from_host(device.memory.driver, raw)
    buffer = DeviceArray(block.memory, block.block, block.address - low, a.shape, a.dtype, a.strides)
    strided: Tensor = wrap(buffer, make_key(device, t.dtype))
    return strided


def _wide(x: Any) -> Any:
    def one(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        a = host_copy(t)
        return a.astype(np.float64) if t.dtype.kind == "float" else a

    return _map(x, one)


def _close(op: Op, what: str, got: Any, want: Any, dtype: DType) -> None:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise AssertionError(f"{op.name}: {what} has shape {got.shape}, expected {want.shape}")
    limit = finfo_object(dtype).max if dtype.kind == "float" else np.inf
    with np.errstate(invalid="ignore"):
        want = np.where(np.abs(want) > limit, np.copysign(np.inf, want), want)
        finite = np.isfinite(want)
        scale = np.max(np.abs(want[finite]), initial=0.0)
        # large values do not excuse errors in small ones where results are elementwise
        bound = _TOLERANCE[dtype.name] * np.maximum(np.abs(want), min(scale, 4.0))
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        # what rounds to 0 or to the smallest denormal
        least = max(1e-37, float(np.finfo(np.float16).smallest_subnormal) if dtype.name == "float16" else 0.0)
        bad = ~(same | (finite & (np.abs(got - want) <= bound + least)))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{op.name}: {what}{list(at)} is {got[at]!r}, the oracle says {want[at]!r} "
            f"({bad.sum()} of {bad.size} differ)"
        )


def check_against_oracle(op: Op, backend: str, dtype: DType = float32, device: str = "cpu") -> int:
    """Runs an op's samples on a backend and compares with the oracle.

    Args:
        op: the op.
        backend: name of the backend; samples that its kernels do not take are left out.
        dtype: of the floating inputs.
        device: one of the backend's devices.

    Returns:
        How many samples the backend's own kernel ran.

    Raises:
        AssertionError: a result is wrong, with the first differing element.
    """
    ran = 0
    where = as_device(device)
    assert op.oracle is not None
    for inputs, attrs in samples_of(op):
        tensors = tuple(to_tensor(x, dtype, where) for x in inputs)
        with sp.prefer(backend):
            options = dict(zip((a.name for a in op.attrs), attrs, strict=True))
            if explain(op.name, *tensors, **options).chosen.backend != backend:
                continue
            wide = tuple(_copy(_wide(x)) for x in tensors)
            got = op.call(*tensors, *attrs)
            with np.errstate(all="ignore"):
                want = op.oracle(*wide, *attrs)
        ran += 1
        if op.mutates:
            for i in op.mutated:
                pairs = zip(tensors[i], wide[i], strict=True) if isinstance(wide[i], list) else ((tensors[i], wide[i]),)
                for t, w in pairs:
                    _close(op, op.inputs[i].name, _wide(t), w, dtype)
            continue
        got = got if isinstance(got, tuple) else (got,)
        want = want if isinstance(want, tuple) else (want,)
        for k, g in enumerate(got):
            name = op.outputs[min(k, len(op.outputs) - 1)].name
            _close(op, name, _wide(g), want[k], g.dtype if g.dtype.kind == "float" else dtype)
    return ran


def _copy(x: Any) -> Any:
    return _map(x, lambda a: a.copy() if isinstance(a, np.ndarray) else a)


def check_decomposition(op: Op) -> None:
    """Compares an op's decomposition with its oracle in float64."""
    assert op.decompose is not None and op.oracle is not None
    for inputs, attrs in samples_of(op):
        tensors = tuple(to_tensor(x, sp.float64) for x in inputs)
        got = op.decompose(*tensors, *attrs)
        with np.errstate(all="ignore"):
            want = op.oracle(*(_wide(t) for t in tensors), *attrs)
        got = got if isinstance(got, tuple) else (got,)
        want = want if isinstance(want, tuple) else (want,)
        for k, g in enumerate(got):
            _close(op, f"decomposition {op.outputs[k].name}", _wide(g), want[k], sp.float64)


def ops_with_samples() -> list[str]:
    """Names of all declared ops."""
    return sorted(OPS)
