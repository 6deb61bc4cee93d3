"""What a device must be able to do besides single ops: transfers, views, gradients, steps, training, errors.

Each function checks one behaviour and raises AssertionError where it fails; `spiral.testing.conformance` runs them
all. The CPU is the reference.
"""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import spiral as sp
from spiral import nn, optim
from spiral.autograd import grad_of
from spiral.backend import Spec
from spiral.device import as_device
from spiral.dispatch import explain
from spiral.dtype import ALL, float32, float64
from spiral.errors import AutogradError, CapabilityError, DeviceError, ShapeError
from spiral.op import OPS, Op
from spiral.placement import host_copy
from spiral.tensor import Tensor, from_numpy
from spiral.testing.gradients import is_smooth
from spiral.testing.layouts import LAYOUTS, arranged, with_strides
from spiral.testing.oracle import check_refusal, samples_of, to_tensor

# of a gradient or a trained value in float32 against the CPU's: what a few hundred roundings may add up to
_TOLERANCE = 2e-4


def same_bits(got: Any, want: Any, what: str) -> None:
    """Raises AssertionError unless two arrays have one dtype, shape and representation."""
    got, want = np.ascontiguousarray(got), np.ascontiguousarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape, (
        f"{what}: {got.dtype}{got.shape}, {want.dtype}{want.shape}"
    )
    assert got.tobytes() == want.tobytes(), f"{what}: {got!r} is not {want!r}"


def close(got: Any, want: Any, what: str, tolerance: float = _TOLERANCE) -> None:
    """Raises AssertionError unless values agree relative to the largest."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what}: has shape {got.shape}, expected {want.shape}"
    worst = np.max(np.abs(got - want), initial=0.0)
    limit = tolerance * max(1.0, float(np.max(np.abs(want), initial=0.0)))
    assert worst <= limit, f"{what}: {worst:.3g} away from the CPU's, allowed is {limit:.3g}"


def values(t: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values, wherever it is."""
    return host_copy(t)


def _numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def raises(wanted: type[Exception], what: str, run: Callable[[], Any], *words: str) -> None:
    """Raises AssertionError unless a call fails with this error and its message holds these words."""
    try:
        run()
    except wanted as error:
        missing = [w for w in words if w not in str(error)]
        assert not missing, f"{what}: the error does not say {missing}: {error}"
    else:
        raise AssertionError(f"{what}: expected {wanted.__name__}")


# ---------------------------------------------------------------- memory
def check_memory(device: str) -> None:
    """Buffers have the shape and dtype asked for, values survive, copies are copies."""
    memory = as_device(device).memory
    for dtype in ALL:
        for shape in ((), (1,), (3, 5), (0, 4), (2, 3, 4)):
            buffer = memory.empty(Spec(shape, dtype))
            got = tuple(buffer.shape), buffer.dtype, buffer.ndim, buffer.size
            assert got == (shape, dtype.numpy, len(shape), int(np.prod(shape))), (
                f"memory.empty: {dtype.name}{shape}: {got}"
            )
    source = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    buffer = memory.from_host(source[:, ::-1])
    source[...] = -1.0
    first = memory.to_host(buffer)
    same_bits(first, np.arange(12.0, dtype=np.float32).reshape(3, 4)[:, ::-1], "memory.from_host copies")
    first[...] = -1.0
    assert memory.to_host(buffer)[0, 0] == 3.0, "memory.to_host: what it gives must not be the buffer itself"
    assert memory.unified == isinstance(buffer, np.ndarray), (
        "memory.unified: buffers are NumPy arrays exactly where it is"
    )


def check_transfers(device: str) -> None:
    """Every dtype and layout goes there and back unchanged; gradients go the other way."""
    for dtype in ALL:
        raw = np.random.default_rng(3).integers(0, 256, (4, 6 * dtype.itemsize), np.uint8)
        a = raw.view(dtype.numpy) if dtype.kind != "bool" else raw > 127
        for layout in LAYOUTS:
            there = from_numpy(arranged(a, layout), copy=False).to(device)
            assert str(there.device) == str(as_device(device)) and there.dtype is dtype
            same_bits(values(there.to("cpu")), a, f"{dtype.name} {layout} there and back")
        same_bits(values(from_numpy(a[:0], copy=True).to(device).to("cpu")), a[:0], f"{dtype.name} without elements")
        same_bits(
            values(from_numpy(a[0, 0, ...], copy=True).to(device).to("cpu")), a[0, 0, ...], f"{dtype.name} scalar"
        )
    x = sp.ones(3).requires_grad_()
    (x.to(device) * 2.0).to("cpu").sum().backward()
    assert x.grad is not None and x.grad.device == x.device and x.grad.tolist() == [2.0, 2.0, 2.0], (
        "gradient of transfer"
    )
    host = sp.zeros(4)
    there = host.to(device)
    host.copy_(sp.ones(4))
    back = there.to("cpu")
    back.copy_(sp.ones(4))
    assert values(there).tolist() == [0.0] * 4, "a tensor moved to a device shares no memory with where it came from"


def check_views(device: str) -> None:
    """Reshapes, transposes, slices and their compositions have the CPU's values, shapes and gradients."""
    base = _numbers(4, 6, 5)
    index = sp.asarray([3, 0, 3])
    views: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("slice", lambda x: x[1:3, ::2]),
        ("negative step", lambda x: x[::-1, :, ::-2]),
        ("integers", lambda x: x[2, -1]),
        ("new axes", lambda x: x[None, ..., None, 1]),
        ("transposed", lambda x: sp.permute_dims(x, (2, 0, 1))),
        ("reshaped", lambda x: x.reshape(8, 15)),
        ("reshaped after a transpose", lambda x: x.mT.reshape(-1)),
        ("broadcast", lambda x: sp.broadcast_to(x[:, :1], (2, 4, 3, 5))),
        ("flipped", lambda x: sp.flip(x, axis=(0, 2))),
        ("parts", lambda x: sp.split(x, 3, axis=1)[1]),
        ("slice of a transpose of a slice", lambda x: x[1:].mT[:, 1:4, ::3]),
        ("empty", lambda x: x[2:2]),
    ]
    if as_device(device).memory is None or as_device(device).memory.unified:
        views.append(("integer array", lambda x: x[index.to(x.device)]))
    for name, view in views:
        outs = []
        for where in ("cpu", device):
            x = sp.asarray(base).to(where).requires_grad_()
            y = view(x)
            (y * y).sum().backward()
            assert x.grad is not None
            outs.append((values(y), values(x.grad), values(view(x.detach()) + 1.0)))
        for got, want, what in zip(outs[1], outs[0], ("values", "gradient", "sum of a view"), strict=True):
            close(got, want, f"view {name}: {what}", 1e-6)


def check_values(device: str) -> None:
    """Assigning to a part of a tensor changes that tensor alone; copies have memory of their own."""
    x = sp.asarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)).to(device)
    alias, part, twin = x.detach(), x[1], copy.deepcopy(x)
    x[0, 1:] = 9.0
    x[1] = sp.ones(3).to(device)
    x += 1.0
    assert x.tolist() == [[1.0, 10.0, 10.0], [2.0, 2.0, 2.0]], f"item assignment: {x.tolist()}"
    for other in (alias, twin):
        assert other.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "item assignment shows in another tensor"
    assert part.tolist() == [3.0, 4.0, 5.0] and part[1].item() == 4.0 and float(part[1]) == 4.0
    assert sp.asarray(x, copy=True).tolist() == x.tolist()
    one = sp.ones(1).to(device)
    assert [(one / zero).item() for zero in (0.0, -0.0, 0, np.float32(-0.0))] == [np.inf, -np.inf, np.inf, -np.inf], (
        "numbers beside a tensor keep their sign"
    )
    for t in (pickle.loads(pickle.dumps(x)), x.to(sp.float64), sp.zeros_like(x), sp.full((2,), 3.0, device=device)):
        assert str(t.device) == str(as_device(device)), "a tensor made from one on a device is on that device"
    assert str(x).startswith("Tensor(["), "printing reads the values"


def check_mutation(device: str) -> None:
    """`copy_` is seen by what shares the memory; a stale saved value is an error of backward."""
    x = sp.zeros((2, 3)).to(device)
    row = x[1]
    x.copy_(sp.ones((2, 3)).to(device))
    assert x.tolist() == [[1.0] * 3] * 2, "copy_"
    assert row.tolist() == [1.0] * 3, "copy_ is seen by a view: indexing by integers and slices shares memory"
    row.copy_(sp.asarray([4.0]).to(device))
    assert x.tolist() == [[1.0] * 3, [4.0] * 3], "copy_ to a view"
    weight = sp.ones(3).to(device).requires_grad_()
    loss = (weight * weight).sum()
    weight.copy_(sp.zeros(3).to(device))
    raises(AutogradError, "backward after a saved value was overwritten", loss.backward, "overwritten")


# ---------------------------------------------------------------- ops
def check_explanations(op: Op, backend: str, device: str) -> None:
    """Every candidate that is not chosen has a reason, for every sample and layout."""
    for inputs, attrs in samples_of(op):
        for layout in LAYOUTS:
            tensors = tuple(to_tensor(x, float32, as_device(device), layout) for x in inputs)
            options = dict(zip((a.name for a in op.attrs), attrs, strict=True))
            with sp.prefer(backend):
                rows = list(explain(op.name, *tensors, **options))
            assert rows, f"explain: {op.name} has no rows"
            for row in rows:
                assert row.reason is None or row.reason.strip(), f"explain: {op.name}: {row.backend} gives no reason"
            best = next((r for r in rows if r.reason is None), rows[0])
            assert best.chosen or not any(r.chosen for r in rows), f"explain: {op.name}: chose past {best.backend}"


def check_determinism(op: Op, backend: str, device: str) -> None:
    """Same inputs, same bits."""
    for inputs, attrs in samples_of(op):
        runs = []
        for _ in range(2):
            tensors = tuple(to_tensor(x, float32, as_device(device)) for x in inputs)
            with sp.prefer(backend, deterministic=True):
                try:
                    outs = op.call(*tensors, *attrs)
                except CapabilityError as error:
                    check_refusal(op, as_device(device), error)
                    return
            mutated = [t for i in op.mutated for t in (tensors[i] if isinstance(tensors[i], list) else [tensors[i]])]
            mutated = [t for t in mutated if t is not None]
            outs = mutated if op.mutated else outs if isinstance(outs, tuple) else (outs,)
            runs.append([values(o) for o in outs])
        for first, second in zip(*runs, strict=True):
            same_bits(second, first, f"{op.name}: the second run")


def check_device_gradient(op: Op, backend: str, device: str) -> int:
    """Compares float32 gradients on a device with float64 ones on the CPU, for smooth samples; gives their number."""
    checked = 0
    for inputs, attrs in samples_of(op):
        if not is_smooth(inputs):
            continue
        try:
            with sp.prefer(backend):
                found = _gradients(op, inputs, attrs, float32, device)
        except CapabilityError as error:
            check_refusal(op, as_device(device), error)
            continue
        for k, (got, want) in enumerate(zip(found, _gradients(op, inputs, attrs, float64, "cpu"), strict=True)):
            close(got, want, f"{op.name}: gradient {k}")
        checked += bool(found)
    return checked


def _gradients(op: Op, inputs: Any, attrs: Any, dtype: Any, device: str) -> list[Any]:
    leaves: list[Tensor] = []

    def one(a: Any, constant: bool) -> Any:
        t = to_tensor(a, float32)
        if not isinstance(t, Tensor):
            return t
        if t.dtype is not float32:
            return t.to(device)
        t = with_strides(t._a, as_device(device)) if device != "cpu" else t.astype(dtype)
        if not constant:
            leaves.append(t.requires_grad_())
        return t

    held = [i.name in op.constants for i in op.inputs]
    args = [[one(a, c) for a in x] if isinstance(x, list) else one(x, c) for x, c in zip(inputs, held, strict=True)]
    outs = op.call(*args, *attrs)
    outs = [
        o for o in (outs if isinstance(outs, tuple) else (outs,)) if o._node is not None and o.dtype.kind == "float"
    ]
    if not outs:  # of nothing, such as a batch without rows
        return [np.zeros(t.shape) for t in leaves]
    rng = np.random.default_rng(1)
    weights = [sp.asarray(np.asarray(rng.standard_normal(o.shape)), dtype=o.dtype).to(device) for o in outs]
    totals = [(o * w).sum() for o, w in zip(outs, weights, strict=True)]
    grads = grad_of([sum(totals[1:], totals[0])], leaves)
    return [None if g is None else values(g) for g in grads]


def check_errors(device: str) -> None:
    """Mistakes get the core's own errors, before a kernel sees them."""
    here, there = sp.ones((2, 3)), sp.ones((2, 3)).to(device)
    name = str(as_device(device))
    for run in (
        lambda: here + there,
        lambda: there @ here.T,
        lambda: sp.concat([here, there]),
        lambda: there.copy_(here),
    ):
        raises(DeviceError, "tensors of two devices", run, name, "cpu", ".to(")
    for read in (there.numpy, lambda: np.asarray(there)):
        raises(DeviceError, "NumPy reads a device", read, name, ".to('cpu')")
    raises(
        DeviceError, "a device that is not there", lambda: there.to(f"{as_device(device).type}:99"), "expected one of"
    )
    raises(ShapeError, "shapes that do not fit", lambda: there @ there, "matmul")
    raises(ShapeError, "shapes that do not fit", lambda: there + sp.ones((2, 2)).to(device), "broadcast")
    raises(ShapeError, "item of many", there.item, "one element")


def check_threads(device: str) -> None:
    """Calls from several threads do not disturb each other."""
    x = sp.asarray(_numbers(33, 17)).to(device)
    want = values(x @ x.T + 1.0)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(10):
            try:
                same_bits(values(x @ x.T + 1.0), want, "a product in a thread")
            except Exception as error:  # reported by the caller's thread
                wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[0]


# ---------------------------------------------------------------- randomness, steps, training
def check_randomness(device: str) -> None:
    """The same seed gives the same numbers as on the CPU, bit for bit."""
    for make in (sp.random.normal, sp.random.uniform):
        sp.random.manual_seed(11)
        want = values(make((5, 33)))
        sp.random.manual_seed(11)
        drawn = make((5, 33), device=device)
        assert str(drawn.device) == str(as_device(device))
        same_bits(values(drawn), want, make.__name__)
    x = _numbers(7, 129)
    for p in (0.0, 0.25, 0.5, 1.0):
        outs = []
        for where in ("cpu", device):
            sp.random.manual_seed(5)
            t = sp.asarray(x).to(where).requires_grad_()
            y = nn.functional.dropout(t, p)
            y.sum().backward()
            assert t.grad is not None
            outs.append((values(y), values(t.grad)))
        for kept, wanted, what in zip(outs[1], outs[0], ("", " gradient"), strict=True):
            same_bits(kept == 0.0, wanted == 0.0, f"dropout {p}{what}: which are dropped")
            close(kept, wanted, f"dropout {p}{what}", 1e-6)


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda ps: optim.SGD(ps, lr=0.1),
    "SGD with momentum": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0.1),
    "AdamW": lambda ps: optim.AdamW(ps, lr=0.1, weight_decay=0.1),
    "Lion": lambda ps: optim.Lion(ps, lr=0.1, weight_decay=0.1),
    "Adafactor": lambda ps: optim.Adafactor(ps, lr=0.1),
}


def check_optimizer(name: str, device: str) -> None:
    """Three steps change parameters as on the CPU; the state can be saved and loaded."""
    outs = []
    for where in ("cpu", device):
        params = [sp.asarray(_numbers(*s)).to(where).requires_grad_() for s in ((5, 7), (1025,), ())]
        params.append(sp.asarray(_numbers(6, 4)).to(where).mT.requires_grad_())  # a view: the optimizer copies it
        opt = OPTIMIZERS[name](params)
        for step in range(3):
            if step == 2:  # goes on from what was saved
                state = pickle.loads(pickle.dumps(opt.state_dict()))
                opt = OPTIMIZERS[name](params)
                opt.load_state_dict(state)
            opt.zero_grad()
            sum(((p * p).sum() for p in params[1:]), (params[0] ** 3).sum()).backward()
            optim.clip_grad_norm_(params, 1.0)
            opt.step()
        outs.append([values(p) for p in params])
    for k, (got, want) in enumerate(zip(outs[1], outs[0], strict=True)):
        close(got, want, f"{name}: parameter {k} after three steps", 1e-5)


class _MLP(nn.Module):
    """Two layers with what models have between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(12, 33), nn.LayerNorm(33), nn.Linear(33, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        y: Tensor = self.fc2(nn.functional.dropout(nn.functional.gelu(self.norm(self.fc1(x))), 0.1, self.training))
        return y


def check_training(device: str, steps: int = 10) -> None:
    """Training a small network gives the CPU's losses and weights; a copy that was saved and loaded predicts alike."""
    x, t = _numbers(16, 12), np.arange(16) % 5
    outs = []
    for where in ("cpu", device):
        sp.random.manual_seed(1)
        model = _MLP().to(where)
        opt = optim.AdamW(model.parameters(), lr=1e-2)
        ema = optim.EMA(model.parameters(), decay=0.9)
        losses = []
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(sp.asarray(x, device=where)), sp.asarray(t, device=where))
            opt.zero_grad()
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            ema.update()
            losses.append(loss.item())
        model.eval()
        twin = _MLP().to(where)
        twin.load_state_dict({name: values(v) for name, v in model.state_dict().items()})
        twin.eval()
        logits = [values(m(sp.asarray(x, device=where))) for m in (model, twin)]
        same_bits(logits[1], logits[0], "logits of a copy that was saved and loaded")
        outs.append((losses, logits[0], [values(a) for a in ema.averages], [values(p) for p in model.parameters()]))
    assert outs[0][0][-1] < outs[0][0][0], "the CPU learns nothing"
    close(outs[1][0], outs[0][0], "losses")
    close(outs[1][1], outs[0][1], "logits after training", 1e-3)
    for k in (2, 3):
        for got, want in zip(outs[1][k], outs[0][k], strict=True):
            close(got, want, ("", "", "averages", "weights")[k], 1e-3)


def check_language_model(device: str, steps: int = 3) -> None:
    """Training a small decoder (attention, rotary positions, gated layers) gives the CPU's losses, and its texts."""
    from spiral.models import Llama, LlamaConfig

    config = LlamaConfig(32, context_length=16, n_layer=2, n_head=4, n_kv_head=2, dim=16, ffn_dim=24)
    tokens = np.random.default_rng(0).integers(0, 32, (2, 17))
    outs = []
    for where in ("cpu", device):
        sp.random.manual_seed(1)
        model = Llama(config).to(where)
        opt = optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(steps):
            loss = model.loss(sp.asarray(tokens[:, :-1], device=where), sp.asarray(tokens[:, 1:], device=where))
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        outs.append((losses, model.generate([1, 2, 3], 5, temperature=0.0)))
    close(outs[1][0], outs[0][0], "losses of a language model")
    assert outs[1][1] == outs[0][1], f"generated {outs[1][1]}, on the CPU {outs[0][1]}"


def check_second_derivative(device: str) -> None:
    """A gradient of a gradient agrees with the CPU's."""
    outs = []
    for where in ("cpu", device):
        x = sp.asarray(_numbers(4, 6)).to(where).requires_grad_()
        y = sp.tanh(nn.functional.layer_norm(x, 6) * x)
        (first,) = grad_of([(y * y).sum()], [x], create_graph=True)
        (second,) = grad_of([(first * first).sum()], [x])
        outs.append(values(second))
    close(outs[1], outs[0], "second derivative", 1e-3)


def ops_to_check() -> list[str]:
    """Names of the ops that are dispatched, that is all but the transfer between devices."""
    return sorted(name for name, op in OPS.items() if op.undispatched is None)
