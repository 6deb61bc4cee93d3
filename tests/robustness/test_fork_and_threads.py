"""fork() and threads after kernels, pools and loaders were used: no deadlock, the same results."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import spiral as sp
from spiral import nn
from spiral.data import ArrayDataset, DataLoader, TokenDataset, TokenLoader

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = sp.get_num_threads()
    sp.set_num_threads(2)
    yield
    sp.set_num_threads(before)


def work() -> bytes:
    """GEMM, elementwise, reduction and backward, large enough for the pool."""
    model = nn.Linear(256, 512)
    model.weight.detach().copy_(sp.asarray(np.linspace(-1, 1, 256 * 512, dtype=np.float32).reshape(512, 256)))
    model.bias.detach().copy_(sp.zeros((512,)))
    x = sp.asarray(np.sin(np.arange(400 * 256, dtype=np.float32)).reshape(400, 256))
    (nn.functional.gelu(model(x)) * 2.0).sum().backward()
    return bytes(model.weight.grad.numpy().tobytes())


def in_child(call: Callable[[], bytes], seconds: float = 60) -> bytes:
    """What a forked child returns; the child is killed where it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(call())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
    timer.start()
    try:
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        timer.cancel()
    assert status == 0, f"the child ended with {status} (-9: it hung)"
    return data


@forks
def test_child_after_kernels_has_a_pool_of_its_own() -> None:
    expected = work()
    for _ in range(5):
        assert in_child(work) == expected
        assert work() == expected  # the parent's pool is as it was


@forks
def test_child_forked_while_another_thread_computes() -> None:
    expected, stop = work(), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(5):
            assert in_child(work) == expected
    finally:
        stop.set()
        thread.join()


@forks
def test_grandchild_and_worker_processes() -> None:
    expected = work()
    assert in_child(lambda: in_child(work)) == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_worker, range(4)).get(60) == [expected] * 4


def _worker(_: int) -> bytes:
    return work()


def test_threads_share_the_pool_and_get_the_same_results() -> None:
    expected, found = work(), []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 6


class Failing:
    """A dataset that cannot give one of its items."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[float]:
        if index == 6:
            raise ZeroDivisionError("item 6")
        return (float(index),)


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spiral-prefetch"]


def settled() -> bool:
    """Whether all prefetching threads end soon."""
    deadline = time.monotonic() + 10
    while prefetching() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.005)
    return not prefetching()


def test_error_in_the_prefetching_thread_reaches_the_consumer_after_the_batches_before_it() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError, match="item 6"):
        for (batch,) in DataLoader(Failing(), 2, prefetch=3):
            seen += batch.tolist()
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] and settled()


def test_thread_ends_when_the_iterator_is_dropped() -> None:
    batches = iter(DataLoader(ArrayDataset(np.arange(10_000)), 2, prefetch=2))
    next(batches)
    assert len(prefetching()) == 1
    del batches
    assert settled()
    loader = TokenLoader(TokenDataset([1, 2, 3] * 100, 5), 2, 8)
    next(loader)
    assert len(prefetching()) == 1
    del loader
    assert settled()


@forks
def test_loader_goes_on_in_a_forked_child_where_the_parent_stood() -> None:
    def make() -> TokenLoader:
        return TokenLoader(TokenDataset(np.arange(500) % 7, 7), 4, 8, seed=3, prefetch=2)

    straight = make()
    expected = [next(straight)[0].tobytes() for _ in range(6)]
    loader = make()
    assert [next(loader)[0].tobytes() for _ in range(3)] == expected[:3]
    assert in_child(lambda: b"".join(next(loader)[0].tobytes() for _ in range(3))) == b"".join(expected[3:])
    assert [next(loader)[0].tobytes() for _ in range(3)] == expected[3:]
    straight.close()
    loader.close()


@pytest.mark.parametrize("size", [1, 2, 17, 1000])
def test_shuffled_epoch_is_a_permutation_fixed_by_the_seed(size: int) -> None:
    def order(seed: int, epochs: int = 2) -> list[list[int]]:
        loader = DataLoader(ArrayDataset(np.arange(size)), 7, shuffle=True, seed=seed, prefetch=0)
        return [[int(i) for (batch,) in loader for i in batch] for _ in range(epochs)]

    first = order(5)
    assert all(sorted(epoch) == list(range(size)) for epoch in first) and order(5) == first
    if size > 10:
        assert first[0] != first[1] and order(6) != first and first[0] != list(range(size))
