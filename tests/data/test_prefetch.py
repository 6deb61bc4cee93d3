"""The background thread: failures reach the consumer, and it always ends."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from spiral.data import ArrayDataset, DataLoader, Prefetcher, TokenDataset, TokenLoader


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spiral-prefetch"]


class FailsOnce(ArrayDataset):
    """Refuses to be read the first time sample 6 is asked for."""

    failed = False

    def take(self, indices: np.ndarray, /) -> tuple[np.ndarray, ...]:
        if 6 in indices and not self.failed:
            self.failed = True
            raise OSError("disk went away")
        return super().take(indices)


def test_results_come_in_order_and_no_more_than_depth_ahead() -> None:
    made: list[int] = []
    full = threading.Event()
    counter = itertools.count()

    def produce() -> int:
        made.append(next(counter))
        if len(made) == 4:
            full.set()
        return made[-1]

    prefetcher = Prefetcher(produce, depth=3)
    assert full.wait(10)  # three wait in the queue, the fourth for room
    assert made == [0, 1, 2, 3]
    assert [prefetcher.get() for _ in range(10)] == list(range(10))
    prefetcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        prefetcher.get()


def test_exception_is_raised_after_the_batches_before_it_and_can_be_retried() -> None:
    with DataLoader(FailsOnce(np.arange(10)), batch_size=2, prefetch=4) as loader:
        batches = iter(loader)
        assert [next(batches)[0].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
        with pytest.raises(OSError, match="disk went away"):
            next(batches)
        loader.load_state_dict(loader.state_dict())
        assert [x.tolist() for (x,) in loader] == [[6, 7], [8, 9]]


def test_thread_ends_on_close_and_when_the_loader_is_forgotten() -> None:
    dataset = TokenDataset(range(100), 100)
    loader = TokenLoader(dataset, 2, 8)
    next(loader)
    assert len(prefetch_threads()) == 1
    loader.close()
    assert prefetch_threads() == []
    next(loader)
    assert len(prefetch_threads()) == 1
    del loader
    gc.collect()
    assert prefetch_threads() == []


def test_interpreter_exits_with_a_loader_still_open() -> None:
    code = (
        "from spiral.data import TokenDataset, TokenLoader\n"
        "loader = TokenLoader(TokenDataset(range(100), 100), 2, 8)\n"
        "next(loader)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_forked_child_starts_a_thread_of_its_own() -> None:
    code = (
        "import os\n"
        "from spiral.data import TokenDataset, TokenLoader\n"
        "loader = TokenLoader(TokenDataset(range(100), 100), 2, 8)\n"
        "next(loader)\n"
        "child = os.fork()\n"
        "x, y = next(loader)\n"
        "assert (y == x + 1).all()\n"
        "raise SystemExit(os.waitpid(child, 0)[1] if child else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
