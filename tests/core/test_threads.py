"""One pool for every caller: same bits for any number of threads, several Python threads at once, resizing, forking."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest

import spiral as sp
from spiral import nn, optim
from spiral.errors import ArgumentError
from spiral.storage import native, native_reason

# one worker runs these, so that two of them never share the machine's few cores
pytestmark = [
    pytest.mark.xdist_group("threads"),
    pytest.mark.skipif(native is None, reason=f"no thread pool: {native_reason}"),
]


@pytest.fixture(autouse=True)
def restored_thread_count():
    before = sp.get_num_threads()
    yield
    sp.set_num_threads(before)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 64)
        self.norm = nn.RMSNorm(64)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)
        self.head = nn.Linear(64, 50, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        q = sp.permute_dims(sp.reshape(self.norm(x), (*x.shape[:2], 4, 16)), (0, 2, 1, 3))
        y = nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        x = x + sp.reshape(sp.permute_dims(y, (0, 2, 1, 3)), x.shape)
        x = x + self.down(nn.functional.dropout(nn.functional.gelu(self.up(x)), 0.1))
        return self.head(x)


def trained(threads, steps=3):
    sp.set_num_threads(threads)
    sp.random.manual_seed(7)
    model = Net()
    opt = optim.AdamW(model.parameters(), lr=1e-2)
    tokens = sp.asarray(np.random.default_rng(0).integers(0, 50, (6, 33)))
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        opt.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def test_training_has_the_same_bits_for_any_number_of_threads():
    one = trained(1)
    for threads in (2, 3, 5):
        other = trained(threads)
        assert all(np.array_equal(one[k], other[k]) for k in one)


def test_python_threads_may_call_kernels_at_once():
    sp.set_num_threads(2)
    a = sp.asarray(np.random.default_rng(1).standard_normal((300, 200)).astype(np.float32))
    expected = (a @ a.T).numpy().copy(), sp.softmax(a, axis=-1).numpy().copy()
    wrong, done = [], []

    def work():
        for _ in range(60):
            if not np.array_equal((a @ a.T).numpy(), expected[0]):
                wrong.append("product")
            if not np.array_equal(sp.softmax(a, axis=-1).numpy(), expected[1]):
                wrong.append("softmax")
        done.append(True)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(done) == 4 and not wrong


def test_the_pool_may_be_resized_while_others_compute():
    a = sp.asarray(np.random.default_rng(2).standard_normal((200, 200)).astype(np.float32))
    expected = (a @ a).numpy().copy()
    stop, wrong = threading.Event(), []

    def work():
        while not stop.is_set():
            if not np.array_equal((a @ a).numpy(), expected):
                wrong.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for n in (1, 3, 2, 1, 4, 2) * 5:
        sp.set_num_threads(n)
        assert sp.get_num_threads() == n
        assert np.array_equal((a @ a).numpy(), expected)
    stop.set()
    thread.join(60)
    assert not thread.is_alive() and not wrong


def product_in_child(queue, array):
    a = sp.asarray(array)
    queue.put((sp.get_num_threads(), (a @ a).numpy().copy()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_computes_with_a_pool_of_its_own():
    sp.set_num_threads(2)
    array = np.random.default_rng(3).standard_normal((256, 256)).astype(np.float32)
    expected = (sp.asarray(array) @ sp.asarray(array)).numpy().copy()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=product_in_child, args=(queue, array))
    child.start()
    threads, result = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0 and threads == 2 and np.array_equal(result, expected)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_a_thread_count_must_be_a_positive_integer(n):
    with pytest.raises(ArgumentError, match="set_num_threads"):
        sp.set_num_threads(n)
