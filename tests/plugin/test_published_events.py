"""What spiral itself publishes: every op while somebody listens, and every changed choice among backends."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import spiral as sp
from spiral import dispatch, observation
from spiral.backend import Cap, DeviceInfo, Kernel
from spiral.backends_registry import register_backend, unregister_backend
from spiral.errors import CapabilityError, ShapeError
from spiral.op import OPS
from spiral.plugin.bus import EventBus, Recorder, event_bus
from spiral.plugin.events import BackendChanged, EpochStart, TensorOp


@pytest.fixture(autouse=True)
def nobody_is_left_listening():
    before = event_bus.subscriptions()
    yield
    assert event_bus.subscriptions() == before
    if not before:
        assert observation.ops is None and observation.choices is None


@pytest.fixture
def heard():
    found = []
    with event_bus.subscribe(TensorOp, found.append):
        yield found


@pytest.fixture
def changes():
    found = []
    with event_bus.subscribe(BackendChanged, found.append):
        yield found


class Extra:
    """A CPU backend with one kernel, above all others."""

    name = "extra"
    device_type = "cpu"
    priority = 100

    def __init__(self, op, fn):
        self.op, self.fn = op, fn

    def probe(self):
        return [DeviceInfo("cpu")]

    def kernels(self):
        yield Kernel(self.op, self.fn, Cap(), allocates=True)


@pytest.fixture
def extra():
    def add(op, fn):
        register_backend(Extra(op, fn))

    yield add
    unregister_backend("extra")


# ------------------------------------------------------------ ops
def test_an_op_is_published_with_its_shapes_and_the_backend_that_ran(heard):
    x = sp.ones((2, 3))
    chosen = sp.explain("add", x, sp.ones((3,))).chosen.backend
    x + sp.ones((3,))
    assert heard == [TensorOp("add", ((2, 3), (3,)), ((2, 3),), chosen)]
    with sp.prefer("numpy"):
        x + sp.ones((3,))
    assert heard[1].backend == "numpy"


def test_numbers_and_absent_inputs_have_no_shape_and_lists_give_all_of_theirs(heard):
    x = sp.ones((2, 3))
    x * 2.0
    sp.concat([x, sp.ones((1, 3))], axis=0)
    sp.ops.linear(x, sp.ones((4, 3)), None)
    assert [(e.op_name, e.input_shapes, e.output_shapes) for e in heard] == [
        ("multiply", ((2, 3),), ((2, 3),)),
        ("concat", ((2, 3), (1, 3)), ((3, 3),)),
        ("linear", ((2, 3), (4, 3)), ((2, 4),)),
    ]


def test_an_op_that_mutates_is_published_and_hidden_outputs_are_not(heard):
    x = sp.ones((2, 3))
    x.copy_(sp.zeros((2, 3)))
    sp.ops.rms_norm(x, sp.ones((3,)))
    names = {event.op_name: event for event in heard}
    assert names["rms_norm"].output_shapes == ((2, 3),)
    assert any("copy" in name for name in names)


def test_backward_is_published_too(heard):
    x = sp.ones((2, 3)).requires_grad_()
    y = sp.exp(x).sum()
    forward = len(heard)
    y.backward()
    assert [e.op_name for e in heard[:forward]] == ["exp", "sum"] and len(heard) > forward


def test_a_decomposition_is_published_after_its_parts(heard):
    name, op = "rms_norm", OPS["rms_norm"]
    only = dispatch.policy(prefer=("none of them",))
    x, w = sp.ones((2, 4)), sp.ones((4,))
    key = (op.id, x._key, w._key)
    only.table[key] = dispatch.Entry("decomposition", None, None, ())
    token = dispatch._policy.set(only)
    try:
        op.call(x, w, 1e-6)
    finally:
        dispatch._policy.reset(token)
        only.table.clear()
    assert heard[-1] == TensorOp(name, ((2, 4), (4,)), ((2, 4),), "decomposition")
    assert len(heard) > 3 and all(event.backend != "decomposition" for event in heard[:-1])


def test_an_op_that_fails_is_not_published(heard):
    with pytest.raises(ShapeError):
        sp.ones((2, 3)) + sp.ones((4,))
    assert heard == []


def test_where_only_shapes_are_evaluated_nothing_is_published(heard, changes):
    x = sp.ones((2, 3))
    x + x
    heard.clear()
    choices = sum(len(made) for made in observation._made.values())
    for _ in range(3):
        assert sp.eval_shape(lambda t: t + t, x).shape == (2, 3)
    assert heard == [] and changes == []
    assert sum(len(made) for made in observation._made.values()) == choices


def test_a_failing_listener_does_not_touch_the_result():
    def bad(event):
        raise ValueError("no")

    with event_bus.subscribe(TensorOp, bad) as subscription:
        assert (sp.ones(2) + sp.ones(2)).tolist() == [2.0, 2.0]
        assert subscription.failures == 1
    assert not observation._telling.now


def test_an_interrupt_in_a_listener_passes_and_later_ops_are_published_again():
    def stop(event):
        raise KeyboardInterrupt

    with event_bus.subscribe(TensorOp, stop), pytest.raises(KeyboardInterrupt):
        sp.ones(2) + sp.ones(2)
    found = []
    with event_bus.subscribe(TensorOp, found.append):
        sp.ones(2) + sp.ones(2)
    assert len(found) == 1


def test_ops_of_a_listener_of_ops_are_not_published(heard):
    def doubles(event):
        return sp.ones(2) * 2.0

    with event_bus.subscribe(TensorOp, doubles), event_bus.subscribe("*", doubles):
        sp.ones(2) + sp.ones(2)
        with event_bus.subscribe(EpochStart, lambda event: sp.exp(sp.ones(2))):
            event_bus.publish(EpochStart(1))  # whose listener's own ops are published
    assert [event.op_name for event in heard] == ["add", "exp", "multiply"]


def test_another_threads_ops_are_published_while_a_listener_runs():
    found, inside, done = [], threading.Event(), threading.Event()

    def slow(event):
        found.append(event.op_name)
        if event.op_name == "add":
            inside.set()
            assert done.wait(10)

    with event_bus.subscribe(TensorOp, slow):
        thread = threading.Thread(target=lambda: sp.ones(2) + sp.ones(2))
        thread.start()
        assert inside.wait(10)
        sp.exp(sp.ones(2))
        done.set()
        thread.join(10)
    assert found == ["add", "exp"]


def test_ops_are_observed_only_while_somebody_listens():
    assert observation.ops is None
    one = event_bus.subscribe(TensorOp, print)
    two = event_bus.subscribe("*", lambda event: None)
    one.cancel()
    assert observation.ops is not None
    two.cancel()
    assert observation.ops is None
    with event_bus.subscribe(EpochStart, print), EventBus().subscribe("*", print):  # nor do private buses observe
        assert observation.ops is None
        sp.ones(2) + sp.ones(2)


@pytest.mark.skipif(dispatch.native is None, reason="there is no C++ call path here that could be taken")
def test_with_nobody_listening_bound_calls_stay_in_the_extension(monkeypatch):
    x = sp.ones(16)
    x + x
    calls = []
    monkeypatch.setattr(observation, "ops", lambda *event: calls.append(event))  # without telling the extension
    x + x
    assert calls == []
    monkeypatch.undo()


def network(seed):
    rng = np.random.default_rng(seed)
    x, w, g, v = (sp.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in ((6, 8), (8, 8), (8,), (5, 8)))
    leaves = [t.requires_grad_() for t in (w, g, v)]
    hidden = sp.ops.rms_norm(sp.ops.linear(x, leaves[0], None), leaves[1])
    out = sp.ops.linear(sp.nn.functional.silu(hidden), leaves[2], None)
    loss = sp.nn.functional.cross_entropy(out, sp.asarray(rng.integers(0, 5, 6)))
    loss.backward()
    return [loss.numpy(), *(t.grad.numpy() for t in leaves)]


def test_values_and_gradients_have_the_same_bits_with_and_without_an_observer():
    without = network(0)
    recorder = Recorder()
    with event_bus.subscribe(TensorOp, recorder):
        observed = network(0)
    assert recorder.seen > 8
    for a, b, c in zip(without, observed, network(0), strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_a_graph_recorded_under_one_path_is_walked_under_the_other():
    expected = network(1)[1:]
    x = sp.ones((3,)).requires_grad_()
    with event_bus.subscribe(TensorOp, lambda event: None):
        y = sp.exp(x) * x
    y.sum().backward()
    z = sp.ones((3,)).requires_grad_()
    w = sp.exp(z) * z
    with event_bus.subscribe(TensorOp, lambda event: None):
        w.sum().backward()
    assert x.grad.numpy().tobytes() == z.grad.numpy().tobytes() and len(expected) == 3


def test_listeners_that_come_and_go_while_other_threads_compute_change_no_result():
    stop, wrong = threading.Event(), []

    def compute():
        x = sp.ones((16,)).requires_grad_()
        while not stop.is_set():
            (grad,) = (sp.grad(lambda t: (t * t).sum())(x),)
            if grad.tolist() != [2.0] * 16:
                wrong.append(grad.tolist())

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        with event_bus.subscribe(TensorOp, lambda event: None):
            sp.ones(2) + sp.ones(2)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert wrong == []


# ------------------------------------------------------------ choices
def test_the_first_choice_is_no_change(changes):
    op = "atan2" if "atan2" in OPS else "hypot"
    observation._made.clear()
    dispatch.clear_tables()
    OPS[op].call(sp.ones(3), sp.ones(3))
    assert changes == []


def test_a_backend_that_comes_and_goes_changes_the_choice_and_back(changes, extra):
    x = sp.ones((7,))
    x + x
    before = sp.explain("add", x, x).chosen.backend
    extra("add", lambda a, b: a + b)
    x + x
    x + x
    assert changes == [BackendChanged("extra", "add", before)]
    unregister_backend("extra")
    x + x
    assert changes[1:] == [BackendChanged(before, "add", "extra")]
    register_backend(Extra("add", lambda a, b: a + b))  # for the fixture to take away


def test_a_preference_that_moves_an_op_is_a_change_at_its_first_use(changes):
    dispatch.clear_tables()
    observation._made.clear()
    x = sp.ones((7,))
    x - x
    before = sp.explain("subtract", x, x).chosen.backend
    if before == "numpy":
        pytest.skip("there are no other kernels here than NumPy's")
    with sp.prefer("numpy"):
        x - x
        x - x
    x - x  # the choice of the policy that was there before has not changed
    with sp.prefer("numpy"):
        x - x
    assert changes == [BackendChanged("numpy", "subtract", before)]


def test_choosing_anew_and_alike_is_no_change(changes):
    x = sp.ones((7,))
    with sp.prefer("numpy"):
        x * x
    x * x
    changes.clear()
    dispatch.clear_tables()
    x * x
    with sp.prefer("numpy"):
        x * x
    assert changes == []


def test_other_dtypes_have_choices_of_their_own(changes, extra):
    x, y = sp.ones((7,)), sp.ones((7,), dtype=sp.float64)
    for tensor in (x, y):
        tensor + tensor
    extra("add", lambda a, b: a + b)  # takes float32 only
    y + y
    assert changes == []
    x + x
    assert len(changes) == 1


def test_a_listener_of_changes_may_call_the_op_that_changed(extra):
    found = []

    def again(event):
        found.append(event)
        return sp.ones((7,)) + sp.ones((7,))

    sp.ones((7,)) + sp.ones((7,))
    with event_bus.subscribe(BackendChanged, again) as subscription:
        extra("add", lambda a, b: a + b)
        sp.ones((7,)) + sp.ones((7,))
        assert subscription.failures == 0
    assert len(found) == 1


def test_a_choice_that_fails_is_none(changes):
    with pytest.raises((CapabilityError, ShapeError)):
        sp.ones((2,)) @ sp.ones((3,))
    assert changes == []
