"""eval_shape: the same shapes and dtypes as a real run, with no memory, no random number and no side effect."""

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.backend import Spec
from spiral.errors import CapabilityError, DeviceError, NoValueError, ShapeError
from spiral.op import OPS
from spiral.shape_evaluation import shapes_only
from spiral.testing.oracle import samples_of, to_tensor

TOKENS = Spec((2, 5), sp.int64)
CASES = {
    "linear": (lambda: nn.Linear(6, 3), (2, 5, 6)),
    "conv2d": (lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1), (2, 6, 9, 8)),
    "conv1d same": (lambda: nn.Conv1d(6, 4, 3, padding="same"), (2, 6, 9)),
    "batch norm": (lambda: nn.BatchNorm2d(6), (2, 6, 3, 3)),
    "group norm": (lambda: nn.GroupNorm(3, 6), (2, 6, 3, 3)),
    "lstm": (lambda: nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True), (2, 5, 6)),
    "gru": (lambda: nn.GRU(6, 4), (5, 2, 6)),
    "embedding": (lambda: nn.Embedding(30, 6, padding_idx=0), TOKENS),
    "attention": (lambda: nn.MultiHeadAttention(8, 4, 2, causal=True, rope=nn.RotaryEmbedding(2)), (2, 5, 8)),
    "dropout": (lambda: nn.Dropout(0.5), (2, 6)),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d(2), (2, 6, 9, 8)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_module_gives_the_shapes_of_a_real_run(case):
    make, given = CASES[case]
    real = sp.zeros(given.shape, dtype=given.dtype) if isinstance(given, Spec) else sp.ones(given)
    wanted = sp.autograd.map_tensors(make()(real), lambda t: t.spec)
    state = sp.random.get_state()
    assert sp.eval_shape(lambda x: make()(x), given) == wanted
    assert sp.random.get_state() == state


@pytest.mark.parametrize("name", sorted(n for n, o in OPS.items() if not o.mutates and not o.dynamic))
def test_every_op_gives_the_shapes_of_a_real_run(name):
    op = OPS[name]
    arrays, attributes = next(samples_of(op))
    real = [None if a is None else to_tensor(a, sp.float32) for a in arrays]
    wanted = sp.autograd.map_tensors(op.call(*real, *attributes), lambda t: t.spec)
    assert sp.eval_shape(lambda: op.call(*real, *attributes)) == wanted


def test_nothing_is_allocated():
    def model(x):
        return nn.Sequential(nn.Linear(10**6, 10**6), nn.ReLU(), nn.Linear(10**6, 3))(x)

    before = sp.memory().get("live", 0)
    assert sp.eval_shape(model, (8, 10**6)).shape == (8, 3)
    assert sp.memory().get("live", 0) == before


def test_gradients_have_shapes_too():
    value, gradient = sp.eval_shape(sp.value_and_grad(lambda w: sp.sum(sp.tanh(w @ w))), (4, 4))
    assert (value.shape, gradient.shape) == ((), (4, 4))


def test_running_statistics_of_a_real_module_stay_as_they_are():
    norm = nn.BatchNorm1d(3)
    sp.eval_shape(norm, (8, 3))
    assert norm.num_batches_tracked.item() == 0 and norm.running_mean.tolist() == [0.0] * 3


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: float(x.sum()),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: sp.asarray(x._a + 1),
        lambda x: np.sum(x._a),
        lambda x: x if bool(sp.all(x == 0)) else x,
        lambda x: x[x > 0],
        lambda x: sp.nonzero(x),
        lambda x: sp.unique_values(x),
        lambda x: x.__dlpack__(),
        lambda x: [1, 2, 3][x.astype("int64")[0]],
    ],
)
def test_asking_for_a_value_is_an_error_that_never_gives_the_stand_in(ask):
    with pytest.raises(NoValueError, match="value"):
        sp.eval_shape(ask, (3,))


def test_a_mismatch_is_the_ops_own_error():
    with pytest.raises(ShapeError, match="linear"):
        sp.eval_shape(nn.Linear(3, 2), (5, 4))


def test_a_tensor_that_escapes_is_good_for_nothing():
    with shapes_only():
        layer = nn.Linear(3, 2)
    with pytest.raises(DeviceError, match="cpu, meta"):
        layer(sp.ones((1, 3)))
    with pytest.raises(CapabilityError, match="meta"):
        layer.weight * 2.0
    assert "without values" in repr(layer.weight)
    assert sp.eval_shape(layer, (1, 3)).shape == (1, 2)


def test_nobody_puts_a_tensor_on_the_device_without_values():
    with pytest.raises(DeviceError, match="expected one of cpu"):
        sp.ones(3, device="meta")
    assert [str(d) for d in sp.devices()] == ["cpu"]


def test_preferring_a_backend_inside_does_not_bring_kernels_back():
    def fn(x):
        with sp.prefer("numpy", fallback="error"):
            return sp.exp(x)

    assert sp.eval_shape(fn, (10**9, 10**6)).shape == (10**9, 10**6)


def test_after_an_error_inside_everything_computes_again():
    with pytest.raises(ZeroDivisionError):
        sp.eval_shape(lambda x: 1 / 0, (3,))
    assert (sp.ones(2) + 1).tolist() == [2.0, 2.0] and sp.ones(1).requires_grad_().sum().requires_grad


def test_a_size_that_no_tensor_has_is_said():
    with pytest.raises(ShapeError, match="no tensor is so large"):
        sp.eval_shape(lambda x: x * sp.ones((10**18, 1)), (10**18,))


def test_a_clone_of_a_layer_takes_no_memory_either():
    import copy

    def fn(x):
        return copy.deepcopy(nn.Linear(10**6, 10**6))(x)

    assert sp.eval_shape(fn, (1, 10**6)).shape == (1, 10**6)
