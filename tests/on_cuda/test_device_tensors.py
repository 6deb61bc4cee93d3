"""Tensors on a device: where they go, what they are as values, what waits, what memory they take."""

import copy
import pickle

import numpy as np
import pytest

import spiral as sp
from spiral.data import DeviceLoader, TokenDataset, TokenLoader
from spiral.device import as_device
from spiral.errors import DeviceError, KernelError, OutOfMemoryError
from spiral.op import F


@pytest.fixture
def gpu():
    sp.ones(1).to("cuda")
    return as_device("cuda").memory.driver


def on_device(values, dtype="float32"):
    return sp.asarray(np.asarray(values), dtype=dtype, device="cuda")


def test_values_come_back_as_they_went():
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    t = sp.asarray(x, device="cuda")
    assert str(t.device) == "cuda:0" and t.shape == (3, 5)
    assert (t.to("cpu").numpy() == x).all() and t.tolist() == x.tolist()


@pytest.mark.parametrize("dtype", [d.name for d in sp.dtype.ALL])
def test_every_dtype_can_live_there(dtype):
    t = sp.asarray([0, 1, 1], dtype=dtype, device="cuda")
    assert t.dtype.name == dtype and t.to("cpu").astype("float32").tolist() == [0, 1, 1]


def test_numpy_asks_for_an_explicit_copy():
    t = on_device([1.0, 2.0])
    with pytest.raises(DeviceError, match=r"\.to\('cpu'\)"):
        t.numpy()
    with pytest.raises(DeviceError, match=r"\.to\('cpu'\)"):
        np.asarray(t)


def test_tensors_of_two_devices_do_not_mix():
    with pytest.raises(DeviceError, match="one device; received cpu, cuda:0"):
        F.copy_(on_device([1.0]), sp.ones(1))


def test_views_share_memory_and_read_right(gpu):
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    t = sp.asarray(x, device="cuda")
    before = gpu.usage.used
    views = [
        (t[1], x[1]), (t[:, ::2, 1:], x[:, ::2, 1:]), (t[..., ::-1], x[..., ::-1]), (t[:, None], x[:, None]),
        (sp.permute_dims(t, (2, 0, 1)), x.transpose(2, 0, 1)), (sp.flip(t, axis=0), x[::-1]),
        (sp.broadcast_to(t[:1], (5, 3, 4)), np.broadcast_to(x[:1], (5, 3, 4))), (t[1, 2, 3], x[1, 2, 3]),
        (t.reshape(6, -1), x.reshape(6, -1)), (t[0:0], x[0:0]),
    ]  # fmt: skip
    assert gpu.usage.used == before
    for view, wanted in views:
        assert np.array_equal(view.to("cpu").numpy(), wanted)


def test_reshape_of_a_transposed_tensor_copies():
    x = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    assert sp.asarray(x, device="cuda").T.reshape(12).tolist() == x.T.reshape(12).tolist()


def test_gradients_cross_devices():
    x = sp.asarray([1.0, 2.0]).requires_grad_()
    y = x.to("cuda")
    assert str(y.device) == "cuda:0" and y.requires_grad
    y.backward(on_device([3.0, 4.0]))
    assert str(x.grad.device) == "cpu" and x.grad.tolist() == [3.0, 4.0]


def test_copies_and_pickles_stay_there():
    t = on_device([1.0, 2.0])
    for twin in (copy.deepcopy(t), pickle.loads(pickle.dumps(t)), copy.deepcopy(sp.nn.Parameter(t))):
        assert str(twin.device) == "cuda:0" and twin.tolist() == [1.0, 2.0]
        assert twin._a.address != t._a.address


def test_a_module_moves_with_its_gradients_and_prints():
    layer = sp.nn.Linear(3, 2)
    layer.weight.grad = sp.ones((2, 3))
    layer.to("cuda")
    assert str(layer.weight.device) == str(layer.weight.grad.device) == "cuda:0"
    assert "device=cuda:0" in repr(layer.weight)
    saved = layer.state_dict()
    assert saved["weight"].to("cpu").shape == (2, 3)


def test_memory_is_counted_and_freed(gpu):
    before = sp.memory("cuda")["live"]
    t = sp.zeros((1000,), device="cuda")
    sp.reset_peak_memory("cuda")
    size = sp.memory("cuda")["live"] - before
    assert 4000 <= size < 5000  # a device's pool rounds up
    u = t.to("cpu").to("cuda")
    del u
    assert sp.memory("cuda")["peak"] - before == 2 * size and sp.memory("cuda")["live"] - before == size


def test_out_of_memory_names_the_largest_tensors():
    kept = sp.zeros((1 << 20,), device="cuda")
    free = sp.memory("cuda").get("free", 8 << 30)
    with pytest.raises(OutOfMemoryError, match=r"largest tensors alive:\n +4\.0 MiB  float32\[1048576\]") as told:
        as_device("cuda").memory.driver.allocate(free * 2)
    assert "would fit" in str(told.value) and kept.shape


def test_batches_arrive_whole_and_the_loader_resumes_where_it_was(gpu):
    def loader():
        return TokenLoader(TokenDataset(range(100), vocab_size=100), 2, 8, seed=3, prefetch=0)

    plain, ahead = loader(), DeviceLoader(loader(), "cuda")
    waits = gpu.synchronizations
    batches = [next(ahead) for _ in range(4)]
    assert gpu.synchronizations == waits
    for x, y in batches:
        wanted = next(plain)
        assert (x.to("cpu").numpy() == wanted[0]).all() and (y.to("cpu").numpy() == wanted[1]).all()
    assert ahead.state_dict() == plain.state_dict() and ahead.epoch == plain.epoch
    again = DeviceLoader(loader(), "cuda")
    again.load_state_dict(ahead.state_dict())
    assert next(again)[0].tolist() == next(ahead)[0].tolist()


def test_a_graph_repeats_what_was_enqueued_on_the_values_of_now(gpu):
    x, y = on_device([[1.0, 2.0], [3.0, 4.0]]), on_device([[0.0, 0.0], [0.0, 0.0]])
    F.copy_(y, x.T)  # compiled before: a graph cannot wait for the compiler
    graph = gpu.capture(lambda: F.copy_(y, x.T))
    F.copy_(x, on_device([[5.0, 6.0], [7.0, 8.0]]))
    assert y.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    graph.launch()
    assert y.tolist() == [[5.0, 7.0], [6.0, 8.0]]


def test_a_graph_writes_the_values_that_it_was_recorded_with(gpu):
    x, y = on_device([1.0, 2.0]), on_device([0.0, 0.0])
    values = np.array([3.0, 4.0], np.float32)

    def add_values():
        F.copy_(y, x + sp.asarray(values, device="cuda"))

    add_values()  # compiled before
    graph = gpu.capture(add_values)
    values[:] = 9.0
    F.copy_(x, on_device([10.0, 20.0]))
    for _ in range(2):
        graph.launch()
        assert y.tolist() == [13.0, 24.0]


def test_a_step_of_an_optimizer_can_be_recorded_with_gradients_that_are_new(gpu):
    def step():
        w.grad = x * 2.0  # new memory: a new table of addresses
        optimizer.step()
        w.grad = None

    results = []
    for recorded in (False, True):
        w, x = sp.nn.Parameter(on_device([1.0, 2.0])), on_device([1.0, -1.0])
        optimizer = sp.optim.SGD([w], lr=0.1)
        step()
        run = gpu.capture(step).launch if recorded else step
        if recorded:
            assert w.tolist() == pytest.approx([0.8, 2.2])
        for _ in range(2):
            run()
        results.append(w.tolist())
    assert results[0] == results[1]


def test_a_graph_cannot_wait_for_the_device(gpu):
    x = on_device([1.0])
    with pytest.raises(KernelError, match="launches, copies, fills and writes only"):
        gpu.capture(lambda: x.item())
