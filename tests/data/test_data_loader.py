"""ArrayDataset and DataLoader: epochs, order, resuming."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pytest

from spiral.data import ArrayDataset, DataLoader
from spiral.errors import DataError

DATA = ArrayDataset(np.arange(20.0).reshape(10, 2), np.arange(10))


class Squares:
    """A dataset without `take`."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int, /) -> tuple[int, np.ndarray]:
        return index * index, np.full(3, index)


def labels(batches: Iterable[tuple[np.ndarray, ...]]) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


def test_samples_stay_together_and_the_last_batch_is_smaller() -> None:
    with DataLoader(DATA, batch_size=4) as loader:
        batches = list(loader)
    assert labels(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for x, y in batches:
        np.testing.assert_array_equal(x[:, 0], 2.0 * y)
    assert len(loader) == 3


def test_drop_last_leaves_out_the_smaller_batch() -> None:
    loader = DataLoader(DATA, batch_size=4, drop_last=True, prefetch=0)
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader) == 2


def test_shuffled_epochs_differ_and_depend_on_the_seed_only() -> None:
    with DataLoader(DATA, 3, shuffle=True, seed=4) as loader:
        first, second = labels(loader), labels(loader)
    again = DataLoader(DATA, 3, shuffle=True, seed=4, prefetch=0)
    assert [labels(again), labels(again)] == [first, second]
    assert first != second
    for epoch in (first, second):
        assert sorted(chain.from_iterable(epoch)) == list(range(10))


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("consumed", [1, 3, 4, 6])
def test_resumed_loader_finishes_the_epoch_bit_exactly(prefetch: int, consumed: int) -> None:
    def make() -> DataLoader:
        return DataLoader(DATA, 3, shuffle=True, seed=2, prefetch=prefetch)

    def endless(loader: DataLoader) -> Iterable[tuple[np.ndarray, ...]]:
        while True:
            yield from loader

    with make() as loader, make() as resumed:
        source = iter(endless(loader))
        for _ in range(consumed):
            next(source)
        resumed.load_state_dict(loader.state_dict())
        continued = iter(endless(resumed))
        ours = [next(continued)[1].tolist() for _ in range(9)]
        assert ours == [next(source)[1].tolist() for _ in range(9)]


def test_iteration_left_early_counts_as_an_epoch() -> None:
    loader = DataLoader(DATA, 4, prefetch=0)
    next(iter(loader))
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert loader.epoch == 2


def test_state_saved_with_another_batch_size_skips_a_batch_that_cannot_be_filled() -> None:
    saved = DataLoader(DATA, 3, drop_last=True, prefetch=0)
    batches = iter(saved)
    next(batches), next(batches)
    loader = DataLoader(DATA, 5, drop_last=True, prefetch=0)
    loader.load_state_dict(saved.state_dict())
    assert (loader.epoch, labels(loader)) == (1, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])


def test_two_iterations_at_a_time_are_refused() -> None:
    loader = DataLoader(DATA, 4, prefetch=0)
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(DataError, match="overtaken"):
        next(first)


def test_datasets_without_take_are_stacked() -> None:
    with DataLoader(Squares(), batch_size=2) as loader:
        squares, rows = list(loader)[1]
    assert squares.tolist() == [4, 9]
    assert rows.tolist() == [[2, 2, 2], [3, 3, 3]]


def test_arrays_of_different_length_are_refused() -> None:
    for arrays in ([], [np.float32(1)], [np.zeros(3), np.zeros((4, 2))]):
        with pytest.raises(DataError, match="received shapes"):
            ArrayDataset(*arrays)
    with pytest.raises(DataError, match="received 10"):
        DataLoader(DATA, batch_size=11, drop_last=True)
