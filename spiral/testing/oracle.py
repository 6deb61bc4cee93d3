"""Every op's samples on a backend, against the float64 oracle.

The oracle sees the inputs as the kernel saw them (rounded to the tested dtype, then widened), so that
what is compared is the kernel's error alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

import spiral as sp
from spiral.backend import Spec
from spiral.device import Device, as_device, cpu
from spiral.dispatch import all_outputs, call_meta, clear_tables, explain
from spiral.dtype import DType, float32, float64
from spiral.errors import CapabilityError
from spiral.op import Op
from spiral.placement import host_copy
from spiral.tensor import Tensor, from_numpy
from spiral.testing.layouts import arranged, with_strides
from spiral.testing.samples import SampleMaker

# relative to the largest magnitude of the expected result: an f32 accumulation over the samples' few
# hundred terms, and a few ulp for the functions in between; 16-bit results are rounded once
_TOLERANCE = {"float32": 4e-6, "float64": 1e-12, "float16": 1e-3, "bfloat16": 8e-3}
_DECOMPOSED = 16.0  # a decomposition rounds after each of its steps


@dataclass
class Ran:
    """How many samples of an op were run, and by whom.

    Attributes:
        own: by the backend's own kernel.
        others: by its decomposition, or by a kernel of the core or of another backend of the device.
        refused: by nobody; the `CapabilityError` listed who could not, and why.
    """

    own: int = 0
    others: int = 0
    refused: int = 0


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


def to_tensor(x: Any, dtype: DType, device: Device = cpu, layout: str = "sampled") -> Any:
    """A sample input as a tensor of ``dtype``; integers, bool, numbers and None stay what they are.

    A float32 array in a sample is what is kept wider than the tensors, such as a row's rstd: it stays float32 beside
    16-bit tensors, and becomes float64 beside float64 ones.

    Args:
        layout: see `spiral.testing.layouts.arranged`.
    """

    def one(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        if a.dtype == np.float64:
            a = _cast(a, dtype)
        elif a.dtype == np.float32 and dtype is float64:
            a = a.astype(np.float64)
        a = arranged(a, layout)
        return from_numpy(a, copy=False) if device is cpu else with_strides(a, device)

    return _map(x, one)


def _cast(a: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    if dtype.kind != "float":  # small whole numbers, 0 left out: integers have no division by it
        whole = np.rint(np.nan_to_num(a, posinf=9.0, neginf=-9.0).clip(-3.0, 3.0) * 3.0)
        whole = np.where(whole == 0.0, 1.0, np.abs(whole) if dtype.kind == "uint" else whole)
        return np.asarray(whole > 0.0 if dtype.kind == "bool" else whole.astype(dtype.numpy))
    with np.errstate(over="ignore"):
        b = a.astype(np.float32) if dtype.storage_only else a
        return np.asarray(b.astype(dtype.numpy))


def _wide(x: Any) -> Any:
    def one(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        a = host_copy(t)
        return a.astype(np.float64) if t.dtype.kind == "float" else a

    return _map(x, one)


def _close(
    op: Op, what: str, got: Any, want: Any, dtype: DType, factor: float = 1.0, steps: DType | None = None
) -> None:
    """Compares with the oracle; ``steps``: the dtype that values in between were rounded to, where there are some."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        raise AssertionError(f"{op.name}: {what} has shape {got.shape}, expected {want.shape}")
    floating = dtype.kind == "float"
    facts: Any = ml_dtypes.finfo(dtype.numpy) if floating else None  # type: ignore[no-untyped-call]
    limit = float(facts.max) if floating else np.inf
    least = max(1e-37, float(facts.smallest_subnormal)) if floating else 0.0
    with np.errstate(invalid="ignore"):
        want = np.where(np.abs(want) > limit, np.copysign(np.inf, want), want)
        finite = np.isfinite(want)
        scale = np.max(np.abs(want[finite]), initial=0.0)
        # large values do not excuse errors in small ones where results are elementwise
        tolerance = max(_TOLERANCE.get(d.name, 0.0) for d in (dtype, steps or dtype))
        bound = factor * tolerance * np.maximum(np.abs(want), min(scale, 4.0))
        same = (got == want) | (np.isnan(got) & np.isnan(want))
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
    return check_on_device(op, backend, dtype, device, others=False).own


def check_on_device(
    op: Op, backend: str, dtype: DType, device: str, layout: str = "sampled", others: bool = True
) -> Ran:
    """Runs an op's samples on a device and compares with the oracle; a backend's kernels come first.

    Args:
        op: the op.
        backend: name of the backend.
        dtype: of the floating inputs of the samples.
        device: one of the backend's devices.
        layout: how the inputs lie in memory; see `spiral.testing.layouts.arranged`.
        others: whether samples that the backend has no kernel for are run too.

    Raises:
        AssertionError: a result is wrong, with the first differing element; or an op cannot run and does not say why.
    """
    ran = Ran()
    where = as_device(device)
    with sp.prefer(backend), poisoned(where):
        for inputs, attrs in samples_of(op):
            arrange = ["sampled" if i in op.mutated and op.name != "copy_" else layout for i in range(len(inputs))]
            tensors = tuple(to_tensor(x, dtype, where, how) for x, how in zip(inputs, arrange, strict=True))
            if not _takes(op, tensors, attrs, dtype):
                continue
            options = dict(zip((a.name for a in op.attrs), attrs, strict=True))
            chosen = next((row.backend for row in explain(op.name, *tensors, **options) if row.chosen), "none")
            if chosen != backend and not others:
                continue
            try:
                _check_sample(op, tensors, attrs, dtype, _DECOMPOSED if chosen == "decomposition" else 1.0)
            except CapabilityError as error:
                check_refusal(op, where, error)
                ran.refused += 1
                continue
            ran.own += chosen == backend
            ran.others += chosen != backend
    return ran


def _takes(op: Op, tensors: tuple[Any, ...], attrs: tuple[Any, ...], dtype: DType) -> bool:
    """Whether an op is declared for a dtype: its meta takes it, and for whole numbers its oracle has an answer."""
    try:
        call_meta(op, tensors, attrs)
        if dtype.kind != "float":
            assert op.oracle is not None
            with np.errstate(all="ignore"):
                op.oracle(*(_copy(_wide(x)) for x in tensors), *attrs)
    except (TypeError, ValueError):  # DTypeError is a TypeError; NumPy has no sign of a bool
        return False
    # gradients and steps of whole numbers are nobody's, though their meta may not say so
    return dtype.kind == "float" or not (op.name.endswith("_grad") or (op.mutates and op.name != "copy_"))


def check_refusal(op: Op, device: Device, error: CapabilityError) -> None:
    """An op that cannot run on a device says why; where the device shares the host's memory every op can run."""
    assert device.memory is not None and not device.memory.unified, f"{op.name}: every op runs on {device}; got {error}"
    lines = str(error).splitlines()[1:]
    assert lines and all(line.startswith("  ") and line.strip() for line in lines), f"{op.name}: no reasons in {error}"


def _check_sample(op: Op, tensors: tuple[Any, ...], attrs: tuple[Any, ...], dtype: DType, factor: float) -> None:
    assert op.oracle is not None
    wide = tuple(_copy(_wide(x)) for x in tensors)
    got = op.call(*tensors, *attrs)
    with np.errstate(all="ignore"):
        want = op.oracle(*wide, *attrs)
    if op.mutates:
        for i in op.mutated:
            pairs = zip(tensors[i], wide[i], strict=True) if isinstance(wide[i], list) else ((tensors[i], wide[i]),)
            for t, w in pairs:
                if t is not None:
                    _close(op, op.inputs[i].name, _wide(t), w, dtype, factor)
        if not op.outputs:
            return
    got = got if isinstance(got, tuple) else (got,)
    want = want if isinstance(want, tuple) else (want,)
    specs = call_meta(op, tensors, attrs)
    for k, g in enumerate(got):
        name = op.outputs[min(k, len(op.outputs) - 1)].name
        wanted = specs[min(k, len(specs) - 1)].dtype
        assert g.dtype is wanted, f"{op.name}: {name} is {g.dtype.name}, expected {wanted.name}"
        _close(op, name, _wide(g), want[k], g.dtype, factor, dtype if factor > 1.0 else None)
    if op.n_visible < len(op.outputs):
        _check_hidden(op, tensors, attrs, want)


def _check_hidden(op: Op, tensors: tuple[Any, ...], attrs: tuple[Any, ...], want: tuple[Any, ...]) -> None:
    """What a kernel saves for the backward is compared too; a call gives it to nobody else."""
    buffers, specs = all_outputs(op, tensors, attrs), call_meta(op, tensors, attrs)
    if not buffers:  # a decomposition
        return
    for k in range(op.n_visible, len(op.outputs)):
        name, dtype = f"hidden {op.outputs[k].name}", specs[k].dtype
        got = buffers[k] if isinstance(buffers[k], np.ndarray) else buffers[k].to_host()
        assert got.dtype == dtype.numpy, f"{op.name}: {name} is {got.dtype}, expected {dtype.name}"
        _close(op, name, got.astype(np.float64) if dtype.kind == "float" else got, want[k], dtype)


def _copy(x: Any) -> Any:
    return _map(x, lambda a: a.copy() if isinstance(a, np.ndarray) else a)


class _Poisoned:
    """A device's memory that fills what it hands out, so that a kernel that leaves an element out is noticed."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def empty(self, spec: Spec) -> Any:
        buffer = self._memory.empty(spec)
        if isinstance(buffer, np.ndarray):
            buffer[...] = np.array(0xA5).astype(spec.dtype.numpy) if spec.dtype.kind != "float" else np.nan
            return buffer
        poison = np.full(spec.shape, np.nan if spec.dtype.kind == "float" else 0xA5).astype(spec.dtype.numpy)
        return self._memory.from_host(poison)


@contextmanager
def poisoned(device: Device) -> Iterator[None]:
    """Within the block new outputs on a device are filled with NaN; nothing on the CPU, whose core allocates itself."""
    memory = device.memory
    if memory is None:
        yield
        return
    device.memory = _Poisoned(memory)
    clear_tables()
    try:
        yield
    finally:
        device.memory = memory
        clear_tables()


def check_decomposition(op: Op) -> None:
    """Compares an op's decomposition with its oracle in float64."""
    assert op.decompose is not None and op.oracle is not None
    for inputs, attrs in samples_of(op):
        tensors = tuple(to_tensor(_copy(x), sp.float64) for x in inputs)
        wide = tuple(_copy(_wide(t)) for t in tensors)
        got = op.decompose(*tensors, *attrs)
        with np.errstate(all="ignore"):
            want = op.oracle(*wide, *attrs)
        for i in op.mutated:
            for t, w in zip(tensors[i], wide[i], strict=True):
                if t is not None:
                    _close(op, f"decomposition {op.inputs[i].name}", _wide(t), w, sp.float64)
        if not op.outputs:
            continue
        got = got if isinstance(got, tuple) else (got,)
        want = want if isinstance(want, tuple) else (want,)
        for k, g in enumerate(got):
            _close(op, f"decomposition {op.outputs[k].name}", _wide(g), want[k], sp.float64)
