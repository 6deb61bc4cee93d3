"""Which kernel runs: the call path of every op, binding with reasons, `explain`, `prefer`, strictness.

A call looks up ``(op, key of each input)`` in the table of the current policy. The first call with a
key binds: it asks every kernel of every backend of the device for a reason not to run, and keeps the
best that has none, or the op's decomposition. Nothing is measured here and nothing changes later.
"""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiral import autograd, backends_registry, observation
from spiral.backend import DECOMPOSITION_PRIORITY, Kernel, Spec, static_reason
from spiral.borrowed import kernels_of_core
from spiral.device import Device, by_code, cpu
from spiral.dtype import ALL
from spiral.errors import (
    ArgumentError,
    CapabilityError,
    DeviceError,
    DTypeError,
    IndexingError,
    KernelBuildError,
    RegistryError,
    SpiralError,
    kind_of,
    received,
)
from spiral.observation import observe_choices as observe_choices
from spiral.observation import observe_ops as observe_ops
from spiral.op import OPS, Op, make_calls_with
from spiral.ownership import preparing
from spiral.registry import catalog
from spiral.set_aside import reason_against, set_aside
from spiral.storage import empty_array, foreign_stamps, native, stamp
from spiral.tensor_core import DTYPE_BITS, DTYPE_MASK, TensorCore, make_key, wrap

# keys of inputs that are not tensors; dtype codes end at 12
KEY_NONE, KEY_BOOL, KEY_INT, KEY_FLOAT = -1, -2, -3, -4
_SCALAR_KEYS = {type(None): KEY_NONE, bool: KEY_BOOL, int: KEY_INT, float: KEY_FLOAT}
DECOMPOSITION = "decomposition"


class Policy:
    """How kernels are chosen; owns its table, so that switching a policy is switching a table.

    With ``choose`` it takes no backend's kernels, but what ``choose(op, args, attrs)`` gives.
    """

    __slots__ = ("choose", "deterministic", "fallback", "prefer", "table", "tf32")

    def __init__(
        self,
        prefer: tuple[str, ...] = (),
        deterministic: bool = False,
        fallback: str = "allow",
        tf32: bool = False,
        choose: Callable[[Op, tuple[Any, ...], tuple[Any, ...]], Entry] | None = None,
    ) -> None:
        self.prefer = prefer
        self.deterministic = deterministic
        self.fallback = fallback
        self.tf32 = tf32
        self.choose = choose
        self.table: dict[tuple[Any, ...], Entry] = {}


_policies: dict[tuple[Any, ...], Policy] = {}
_changes = 0  # of the set of backends
_lock = threading.RLock()


def policy(
    prefer: tuple[str, ...] = (), deterministic: bool = False, fallback: str | None = None, tf32: bool = False
) -> Policy:
    """The policy with these settings; one object per combination."""
    if fallback is None:
        fallback = os.environ.get("SPIRAL_FALLBACK", "allow")
    if not isinstance(fallback, str) or fallback not in ("allow", "warn", "error"):
        raise ArgumentError(f"SPIRAL_FALLBACK: expected allow, warn or error; received {received(fallback)}.")
    key = (prefer, deterministic, fallback, tf32)
    with _lock:
        if key not in _policies:
            _policies[key] = Policy(*key)
        return _policies[key]


_policy: ContextVar[Policy] = ContextVar("spiral_policy", default=policy())  # noqa: B039 (one per process on purpose)


def shapes_only() -> bool:
    """Whether this context evaluates shapes and no values; see `spiral.eval_shape`."""
    return _policy.get().choose is not None


def clear_tables() -> None:
    """Forgets every choice; called when a backend, a kernel or an op comes or goes."""
    global _changes
    with _lock:
        _changes += 1
        for p in _policies.values():
            p.table.clear()


for _kind in ("backend", "kernel", "op"):
    catalog(_kind).watch(lambda _: clear_tables())


class Entry:
    """A bound choice: what to call for one dispatch key."""

    __slots__ = ("allocates", "backend", "empty", "fn", "guard", "kernel", "next", "out_keys", "specs")

    def __init__(
        self, backend: str, kernel: Kernel | None, fn: Any, out_keys: tuple[int, ...], device: Device = cpu
    ) -> None:
        self.backend = backend
        self.empty: Callable[[Spec], Any] = empty_array if device.memory is None else device.memory.empty
        self.kernel = kernel
        self.fn = fn  # None: decompose
        self.allocates = kernel is not None and kernel.allocates
        self.guard: Callable[..., bool] | None = kernel.cap.where if kernel is not None else None
        self.out_keys = out_keys
        self.specs: dict[Any, Any] = {}  # outputs by input shapes and attributes; kept by the extension's call path
        self.next: Entry | None = None  # taken when the guard says no


@dataclass(frozen=True)
class Candidate:
    """One line of `explain`."""

    backend: str
    kernel: str
    reason: str | None  # None: can run
    chosen: bool


# ---------------------------------------------------------------- binding
def _specs(args: tuple[Any, ...]) -> Iterator[Any]:
    for a in args:
        if isinstance(a, TensorCore):
            yield a
        elif isinstance(a, (list, tuple)):
            yield from (t for t in a if isinstance(t, TensorCore))


def device_of(op: Op, args: tuple[Any, ...]) -> Device:
    """The device of an op's tensors.

    Raises:
        DeviceError: they live on different devices; nothing is copied silently.
        ArgumentError: there is no tensor among them.
    """
    found = {t._key >> DTYPE_BITS for t in _specs(args)}
    if len(found) > 1:
        names = ", ".join(sorted(str(by_code(c)) for c in found))
        raise DeviceError(f"{op.name}: all tensors must be on one device; received {names}. Move one with .to(device).")
    if not found:
        raise ArgumentError(f"{op.name}: expected at least one tensor; received none.")
    return by_code(found.pop())


def call_meta(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> tuple[Spec, ...]:
    out = op.meta(*args, *attrs)
    return out if isinstance(out, tuple) else (out,)


def _candidates(
    op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...], pol: Policy, probe_guards: bool
) -> list[tuple[str, Kernel | None, str | None]]:
    """Every kernel for the op on the device, and its decomposition (None), with its reason, best first."""
    device = device_of(op, args)
    dtypes = {t.dtype for t in _specs(args)}
    scalar = any(isinstance(a, (bool, int, float)) for a in args)
    rows: list[tuple[int, int, str, Kernel | None, str | None]] = []
    found = [(b.name, b.priority, k) for b, k in backends_registry.kernels_for(op.name, device.type)]
    for name, priority, kernel in (*found, *kernels_of_core(op, device, _run_on_cpu)):
        reason = static_reason(kernel, dtypes, scalar, pol.deterministic, device.facts, pol.tf32)
        if reason is None and pol.fallback != "error":
            reason = reason_against(kernel, device, dtypes)
        guard = kernel.cap.where
        if reason is None and probe_guards and guard is not None and not guard(*_raw(args), *attrs):
            reason = kernel.cap.where_text or "its guard refuses these shapes or attributes"
        preferred = pol.prefer.index(name) if name in pol.prefer else len(pol.prefer)
        rows.append((preferred, -(priority + kernel.cap.priority), name, kernel, reason))
    if op.decompose is not None:
        forbidden = "SPIRAL_FALLBACK=error forbids it" if pol.fallback == "error" else None
        rows.append((len(pol.prefer), -DECOMPOSITION_PRIORITY, DECOMPOSITION, None, forbidden))
    rows.sort(key=lambda r: r[:3])
    return [(name, kernel, reason) for _, _, name, kernel, reason in rows]


def _raw(args: tuple[Any, ...]) -> list[Any]:
    return [
        a._a
        if isinstance(a, TensorCore)
        else [None if t is None else t._a for t in a]
        if isinstance(a, (list, tuple))
        else a
        for a in args
    ]


def _check_args(op: Op, args: tuple[Any, ...]) -> None:
    for param, a in zip(op.inputs, args, strict=True):
        if isinstance(a, TensorCore) or (a is None and param.optional):
            continue
        if isinstance(a, (bool, int, float)) and op.scalars:
            continue
        if param.many and isinstance(a, (list, tuple)):
            continue
        hint = " Wrap it with spiral.asarray()." if isinstance(a, (np.ndarray, list, tuple, np.generic)) else ""
        allowed = "a Tensor" + (" or None" if param.optional else "") + (" or a Python number" if op.scalars else "")
        raise DTypeError(f"{op.name}: {param.name} must be {allowed}; received {kind_of(a)}.{hint}")


def bind(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...], pol: Policy) -> Entry:
    """Chooses the kernel for a call.

    Raises:
        CapabilityError: no kernel can run and there is no decomposition, or the policy forbids it.
    """
    _check_args(op, args)
    if pol.choose is not None:
        return pol.choose(op, args, attrs)
    device = device_of(op, args)
    first: Entry | None = None
    last: Entry | None = None
    out_keys: tuple[int, ...] = ()
    rows = _candidates(op, args, attrs, pol, probe_guards=False)
    for name, kernel, reason in rows:
        if reason is not None:
            continue
        if kernel is None:
            if pol.fallback == "warn":
                backends_registry.warn_once(f"{op.name}: runs as its decomposition\n{_table(rows)}")
            entry = Entry(DECOMPOSITION, None, None, ())
        else:
            if not out_keys:
                specs = call_meta(op, args, attrs)
                out_keys = tuple(make_key(device, s.dtype) for s in specs)
            dtypes = tuple(ALL[k & DTYPE_MASK] for k in out_keys)
            fn = kernel.bind(kernel.fn, dtypes) if kernel.bind is not None else kernel.fn
            entry = Entry(name, kernel, fn, out_keys, device)
        if last is None:
            first = entry
        else:
            last.next = entry
        last = entry
        if kernel is None or kernel.cap.where is None:
            break
    if first is not None:
        return first
    if op.decompose is not None:
        raise CapabilityError(
            f"{op.name}: no kernel can run and SPIRAL_FALLBACK=error forbids its decomposition.\n" + _table(rows)
        )
    raise CapabilityError(f"{op.name}: no backend can run it on {device}.\n" + _table(rows))


def _table(rows: list[tuple[str, Kernel | None, str | None]]) -> str:
    kernels = [(name, reason) for name, kernel, reason in rows if kernel is not None]
    if not kernels:
        return "  (no backend has a kernel for it)"
    return "\n".join(f"  {name}: {reason or 'can run'}" for name, reason in kernels)


# ---------------------------------------------------------------- calling
def call(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> Any:
    """Runs an op: finds its kernel, allocates outputs, launches, records the graph node."""
    pol = _policy.get()
    recording = False
    key: list[Any] = [op.id]
    raw: list[Any] = []
    for a in args:
        if isinstance(a, TensorCore):
            key.append(a._key)
            raw.append(a._a)
            if a._node is not None:
                recording = True
        elif isinstance(a, (list, tuple)):
            items: list[Any] = []
            kinds: set[int] = set()
            for t in a:
                if t is None:
                    items.append(None)
                    continue
                if not isinstance(t, TensorCore):
                    _check_args(op, args)  # names the input, where it is no list
                    raise DTypeError(f"{op.name}: expected a list of tensors; received {type(t).__name__} in it.")
                items.append(t._a)
                kinds.add(t._key)
                if t._node is not None:
                    recording = True
            key.append(tuple(sorted(kinds)))
            raw.append(items)
        else:
            key.append(_SCALAR_KEYS.get(type(a), type(a)))
            raw.append(a)
    for k in op.key_attrs:
        key.append(attrs[k])
    table_key = tuple(key)
    entry = pol.table.get(table_key)
    if entry is None:
        before = _changes
        entry = bind(op, args, attrs, pol)
        with _lock:
            # else chosen among backends that are gone, or that others do not see yet
            current = before == _changes and not preparing()
            if current:
                pol.table[table_key] = entry
        if current and pol.choose is None:
            observation.note_choice(op.name, table_key, pol, entry.backend)
    while entry.guard is not None and not entry.guard(*raw, *attrs):
        if entry.next is None:
            raise _refusal(op, args, attrs, pol)
        entry = entry.next
    if entry.fn is None:
        assert op.decompose is not None
        result = op.decompose(*args, *attrs)
    else:
        try:
            outs = _outputs(op, entry, args, raw, attrs)
        except KernelBuildError as error:
            _do_without(op, entry, args, attrs, pol, error)
            return call(op, args, attrs)
        if op.mutated:
            if recording and autograd.grad_enabled():
                _check_mutation(op, args)
            autograd.note_mutation(op, [raw[i] for i in op.mutated], stamp)
        if op.mutated and not outs:
            result = None
        elif recording and not op.nondifferentiable and autograd.grad_enabled():
            result = autograd.record(op, args, raw, attrs, outs, entry.out_keys)
        elif op.many_outputs:
            result = tuple([wrap(o, entry.out_keys[0]) for o in outs])
        elif op.n_visible == 1:
            result = wrap(outs[0], entry.out_keys[0])
        else:
            result = tuple([wrap(o, k) for o, k in zip(outs[: op.n_visible], entry.out_keys, strict=False)])
    if observation.ops is not None and pol.choose is None:  # where only shapes are evaluated, nothing has run
        observation.tell_op(op.name, args, result, entry.backend)
    return result


def _output_specs(
    op: Op, entry: Entry, args: tuple[Any, ...], raw: list[Any], attrs: tuple[Any, ...]
) -> tuple[Spec, ...]:
    """What `meta` gives, remembered by shapes and attributes, which is all that it may look at besides dtypes.

    1 us instead of 3 to 10; the types of attributes count, for 1, 1.0 and True are equal but are not all an axis.
    """
    shapes = [a.shape if hasattr(a, "shape") else None if not isinstance(a, list) else list for a in raw]
    if list in shapes:
        return call_meta(op, args, attrs)
    key = (*shapes, attrs, *map(type, attrs))
    try:
        known: tuple[Spec, ...] | None = entry.specs.get(key)
    except TypeError:  # an attribute that cannot be hashed
        return call_meta(op, args, attrs)
    if known is None:
        known = call_meta(op, args, attrs)
        if len(entry.specs) >= 256:
            entry.specs.clear()
        entry.specs[key] = known
    return known


def _outputs(op: Op, entry: Entry, args: tuple[Any, ...], raw: list[Any], attrs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Launches a kernel; the arrays it gives, or that were made for it."""
    fn = entry.fn
    if entry.allocates:
        try:
            outs = fn(*raw, *attrs)
        except (ValueError, TypeError, IndexError) as error:
            raise _better_error(op, args, attrs, error) from error
        return outs if isinstance(outs, tuple) else (outs,)
    made = tuple([entry.empty(s) for s in _output_specs(op, entry, args, raw, attrs)])
    try:
        fn(*raw, *attrs, *made)
    except (ValueError, TypeError, IndexError) as error:
        raise _better_error(op, args, attrs, error) from error
    return made


def all_outputs(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...], pol: Policy | None = None) -> tuple[Any, ...]:
    """All outputs of an op's kernel, hidden ones too, as buffers; nothing is recorded, and no choice is kept.

    Args:
        op: the op.
        args: its inputs.
        attrs: its attributes, all of them.
        pol: how its kernel is chosen; None: as in this context.

    Returns:
        What the kernel gave; nothing where the op runs as its decomposition, which has no hidden outputs.

    Raises:
        CapabilityError: no kernel can run.
    """
    pol = _policy.get() if pol is None else pol
    raw = _raw(args)
    entry = bind(op, args, attrs, pol)
    while entry.guard is not None and not entry.guard(*raw, *attrs):
        if entry.next is None:
            raise _refusal(op, args, attrs, pol)
        entry = entry.next
    if entry.fn is None:
        return ()
    try:
        return _outputs(op, entry, args, raw, attrs)
    except KernelBuildError as error:
        _do_without(op, entry, args, attrs, pol, error)
        return all_outputs(op, args, attrs, pol)


def _do_without(
    op: Op, entry: Entry, args: tuple[Any, ...], attrs: tuple[Any, ...], pol: Policy, error: KernelBuildError
) -> None:
    """Sets a kernel aside that cannot be built, so that the next binding takes another.

    Raises:
        KernelBuildError: the policy forbids another; or the backend makes its kernels anew at every question, so that
            it would be taken again.
    """
    assert entry.kernel is not None
    device = device_of(op, args)
    clear_tables()  # what is bound would be called without passing here
    if pol.fallback == "error":
        raise KernelBuildError(
            f"{op.name}: the kernel of {entry.backend} cannot be built on {device}, and SPIRAL_FALLBACK=error forbids "
            f"another.\n{error}"
        ) from error
    set_aside(entry.backend, entry.kernel, device, (t.dtype for t in _specs(args)), error)
    if not any(k == entry.kernel and reason for _, k, reason in _candidates(op, args, attrs, pol, probe_guards=False)):
        raise error


def _run_on_cpu(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...]) -> tuple[Any, ...]:
    """All outputs of an op on CPU tensors, as arrays; for devices whose memory the host shares."""
    return all_outputs(op, args, attrs, policy(fallback="allow"))


def _refusal(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...], pol: Policy) -> CapabilityError:
    rows = _candidates(op, args, attrs, pol, probe_guards=True)
    return CapabilityError(f"{op.name}: no kernel takes these shapes or attributes.\n" + _table(rows))


def _make_call(op: Op) -> Callable[..., Any]:
    """What runs an op from flat arguments, inputs then attributes: the extension's call path, or `call`.

    The extension handles bound calls on tensors, None and numbers (kernels/cpu/call.cpp) and leaves the rest to `call`.
    """
    if op.undispatched is not None:
        return op.undispatched
    n, total = len(op.inputs), len(op.inputs) + len(op.attrs)
    if native is None:

        def run(*flat: Any) -> Any:
            if len(flat) != total:
                raise TypeError(f"{op.name}: expected {total} arguments, received {len(flat)}")
            return call(op, flat[:n], flat[n:])

        return run
    kinds = ("input", "spec", "output", "attr")
    wants = op.wants if op.exact_vjp or op.decompose is None else autograd.wants_all(op)
    site: Callable[..., Any] = native.call_site(
        op, op.id, op.name, op.meta, op.decompose, n, len(op.attrs), sum(1 << k for k in op.key_attrs), op.n_visible,
        not (op.mutates or op.many_outputs or any(i.many for i in op.inputs)), not op.nondifferentiable,
        tuple((kinds.index(kind), i) for kind, i in wants),
    )  # fmt: skip
    return site


def _check_mutation(op: Op, args: tuple[Any, ...]) -> None:
    from spiral.errors import AutogradError

    for i in op.mutated:
        targets = args[i] if isinstance(args[i], (list, tuple)) else [args[i]]
        if any(t is not None and t._node is not None for t in targets):
            raise AutogradError(
                f"{op.name}: overwrites {op.inputs[i].name}, which records gradients; call it inside spiral.no_grad()."
            )


def _better_error(op: Op, args: tuple[Any, ...], attrs: tuple[Any, ...], error: Exception) -> Exception:
    """The op's own error for a call that its kernel refused, else the kernel's."""
    call_meta(op, args, attrs)  # raises the typed error when shapes, dtypes or attributes are at fault
    if isinstance(error, SpiralError):
        return error
    text = str(error) if str(error).startswith(f"{op.name}:") else f"{op.name}: {error}"
    return IndexingError(text) if isinstance(error, IndexError) else ArgumentError(text)


# ---------------------------------------------------------------- what users see
class Explanation:
    """Why a kernel was chosen: printable, and iterable as `Candidate` rows."""

    def __init__(self, op: Op, text_args: str, rows: list[Candidate]) -> None:
        self.op = op
        self.args = text_args
        self.rows = rows

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.rows)

    @property
    def chosen(self) -> Candidate:
        """The row of what runs.

        Raises:
            CapabilityError: nothing can; the message lists the candidates with their reasons.
        """
        for row in self.rows:
            if row.chosen:
                return row
        raise CapabilityError(f"{self.op.name}: no backend can run it.\n{self}")

    def __str__(self) -> str:
        lines = [f"{self.op.name}({self.args})"]
        width = max(len(r.backend) for r in self.rows)
        for r in self.rows:
            state = "chosen" if r.chosen else (r.reason or "can run, lower priority")
            lines.append(f"  {'→' if r.chosen else ' '} {r.backend:<{width}}  {state}")
        return "\n".join(lines)

    __repr__ = __str__


def explain(name: str, /, *args: Any, **attrs: Any) -> Explanation:
    """Which kernel runs an op for these arguments, which others there are, and why not they.

    Args:
        name: an op's name, as in ``spiral.op.OPS``.
        *args: the op's tensor inputs; trailing optional ones may be left out.
        **attrs: its attributes; those with defaults may be left out.

    Raises:
        RegistryError: there is no such op.
        SpiralError: what calling the op with these arguments would raise; nothing is computed.

    Example:
        >>> import spiral as sp
        >>> print(sp.explain("add", sp.ones((2, 3)), sp.ones((3,))).chosen.reason)
        None
    """
    op = find_op(name)
    full, given = _checked(op, args, attrs)
    pol = _policy.get()
    rows = []
    chosen = False
    for backend, kernel, reason in _candidates(op, full, given, pol, probe_guards=True):
        pick = reason is None and not chosen
        chosen |= pick
        shown = op.name if kernel is None else getattr(kernel.fn, "__name__", kernel.op)
        rows.append(Candidate(backend, shown, reason, pick))
    if not rows:
        rows.append(Candidate("none", op.name, "no backend has a kernel for it", True))
    return Explanation(op, ", ".join(map(_shown, args)), rows)


def _checked(op: Op, args: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """All inputs and attributes of a call that is only explained.

    Raises:
        ArgumentError: there are too many or too few inputs, or an attribute is unknown, missing or of no use.
        SpiralError: the op's own error for these shapes, dtypes and attributes.
    """
    given = complete_attrs(op, attrs)
    most = len(op.inputs)
    if len(args) > most:
        raise ArgumentError(f"explain: {op.name} has {most} input(s): {op.schema}; received {len(args)}.")
    needed = sum(not param.optional for param in op.inputs)
    if len(args) < needed:
        raise ArgumentError(f"explain: {op.name} needs {needed} input(s): {op.schema}; received {len(args)}.")
    full = args + (None,) * (most - len(args))
    _check_args(op, full)
    try:
        call_meta(op, full, given)
    except SpiralError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        shown = ", ".join([*map(_shown, args), *(f"{k}={received(v)}" for k, v in attrs.items())])
        raise ArgumentError(f"explain: {op.name}: expected {op.schema}; received {shown}: {error}.") from error
    return full, given


def _shown(argument: Any) -> str:
    """An argument without its values."""
    if isinstance(argument, (list, tuple)):
        return f"[{', '.join(map(_shown, argument))}]"
    return repr(argument.spec) if isinstance(argument, TensorCore) else received(argument)


def find_op(name: str) -> Op:
    """The declared op of this name.

    Raises:
        RegistryError: there is none; the message lists similar names.
    """
    if not isinstance(name, str):
        raise RegistryError(f"op: expected an op's name; received {received(name)}.")
    if name not in OPS:
        import difflib

        near = ", ".join(difflib.get_close_matches(name, OPS, 3)) or ", ".join(sorted(OPS)[:8]) + ", …"
        raise RegistryError(f"op: there is no op {name!r}; similar: {near}.")
    return OPS[name]


def complete_attrs(op: Op, given: dict[str, Any]) -> tuple[Any, ...]:
    """An op's attributes in order, with the schema's defaults filled in."""
    values = []
    for a in op.attrs:
        if a.name in given:
            values.append(given[a.name])
        elif a.default is not None:
            values.append(ast.literal_eval(a.default))
        else:
            raise ArgumentError(f"{op.name}: the attribute {a.name} ({a.type}) is required.")
    unknown = set(given) - {a.name for a in op.attrs}
    if unknown:
        allowed = ", ".join(a.name for a in op.attrs) or "none"
        raise ArgumentError(f"{op.name}: unknown attribute {sorted(unknown)[0]!r}; allowed: {allowed}.")
    return tuple(values)


@contextmanager
def prefer(
    *backends: str, deterministic: bool | None = None, fallback: str | None = None, tf32: bool | None = None
) -> Iterator[None]:
    """Within the block, kernels of the named backends come first where they can run.

    Args:
        *backends: names as in ``spiral.backends()``, most preferred first.
        deterministic: only kernels whose results have the same bits every time.
        fallback: what happens when only the decomposition is left: ``allow``, ``warn``, ``error``.
        tf32: float32 products may round their factors to tf32 (10 bits of mantissa), for tensor cores; sums stay
            float32. Off unless asked for. A backward runs by the policy of where it is called.

    Raises:
        RegistryError: an unknown backend name.

    Example:
        >>> import spiral as sp
        >>> with prefer("numpy"):
        ...     sp.explain("exp", sp.ones(3)).chosen.backend
        'numpy'
    """
    backends_registry.check_names(backends)
    now = _policy.get()
    chosen = policy(
        backends or now.prefer,
        now.deterministic if deterministic is None else deterministic,
        now.fallback if fallback is None else fallback,
        now.tf32 if tf32 is None else tf32,
    )
    if now.choose is not None:
        chosen = now  # where only shapes are evaluated, no kernel is to be preferred
    token = _policy.set(chosen)
    try:
        yield
    finally:
        _policy.reset(token)


def start_calls(tensor: type[Any]) -> None:
    """Makes `Op.call` of every op; called by `spiral.tensor` with the class that results have."""
    if native is not None:
        native.call_setup(
            TensorCore, tensor, autograd.Node, Policy, Entry, _policy, autograd.grad_mode, autograd.sequence, call,
            empty_array, (KEY_NONE, KEY_BOOL, KEY_INT, KEY_FLOAT), autograd.SpecOf, foreign_stamps,
        )  # fmt: skip
    make_calls_with(_make_call)
