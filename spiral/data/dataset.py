"""Datasets of samples, and batches of them: images with labels, rows with targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiral.data.resume import Cursor, EpochRandom, ResumableLoader, require_integer
from spiral.errors import DataError, IndexingError

Arrays = tuple[NDArray[Any], ...]


class Dataset(Protocol):
    """Anything with a length whose items are tuples of arrays or numbers of one shape each."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[ArrayLike, ...]: ...


@runtime_checkable
class BatchedDataset(Protocol):
    """A dataset that gathers a whole batch at once, faster than item by item."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[ArrayLike, ...]: ...

    def take(self, indices: NDArray[np.int64], /) -> Arrays:
        """The samples at these indices, stacked along a new first axis."""
        ...


class ArrayDataset:
    """Arrays whose first axis counts the samples.

    Args:
        *arrays: One or more arrays of the same length; they are not copied.

    Raises:
        DataError: There is no array, one has no axis, or their lengths differ.

    Example:
        >>> dataset = ArrayDataset([[1.0, 2.0], [3.0, 4.0]], [0, 1])
        >>> dataset[1]
        (array([3., 4.]), np.int64(1))
    """

    def __init__(self, *arrays: ArrayLike) -> None:
        self._arrays: Arrays = tuple(np.asarray(array) for array in arrays)
        shapes = [array.shape for array in self._arrays]
        if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise DataError(
                "ArrayDataset: expected one or more arrays with the same length along the first "
                f"axis; received shapes {shapes}."
            )

    def __len__(self) -> int:
        return len(self._arrays[0])

    def __getitem__(self, index: int, /) -> Arrays:
        try:
            return tuple(array[index] for array in self._arrays)
        except IndexError as error:
            raise IndexingError(f"ArrayDataset: expected an index below {len(self)}; received {index!r}.") from error

    def take(self, indices: NDArray[np.int64], /) -> Arrays:
        """The samples at these indices, as one array per array of the dataset."""
        try:
            return tuple(array[indices] for array in self._arrays)
        except IndexError as error:
            raise IndexingError(f"ArrayDataset.take: expected integer indices below {len(self)}; {error}.") from error


class DataLoader(ResumableLoader[Arrays]):
    """Batches of a dataset; iterating once is one epoch.

    The order depends on (seed, epoch) only. After `load_state_dict` the next iteration goes on
    in the middle of the epoch; otherwise each iteration starts an epoch from its beginning, and
    one that was left early counts as done.

    Args:
        dataset: A `Dataset`; with a method ``take(indices)``, batches are gathered by it.
        batch_size: Samples per batch.
        shuffle: Whether to visit the samples in random order.
        seed: 0 to 2**64 - 1.
        drop_last: Whether to leave out a last batch with fewer samples.
        prefetch: How many batches to make ahead in a background thread; 0 for none.

    Raises:
        ArgumentError: An argument is out of range.
        DataError: The dataset holds no batch.

    Example:
        >>> dataset = ArrayDataset(np.arange(5))
        >>> [x.tolist() for (x,) in DataLoader(dataset, batch_size=2, prefetch=0)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
    ) -> None:
        require_integer("DataLoader", "batch_size", batch_size, at_least=1)
        require_integer("DataLoader", "seed", seed, at_least=0, below=2**64)
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise DataError(
                "DataLoader: expected a dataset with a length and items, such as ArrayDataset(x, y); received "
                f"{type(dataset).__name__}."
            )
        needed = batch_size if drop_last else 1
        if len(dataset) < needed:
            raise DataError(
                f"DataLoader: expected at least {needed} sample(s) for batch_size={batch_size}, "
                f"drop_last={drop_last}; received {len(dataset)}; give more samples"
                + (" or drop_last=False." if drop_last else ".")
            )
        self._batches = _EpochBatches(dataset, batch_size, shuffle, seed, drop_last)
        identity = {"seed": int(seed), "shuffle": int(shuffle), "samples": len(dataset)}
        super().__init__(self._batches, identity, prefetch)
        self._resumed = False
        self._iteration = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._batches.per_epoch

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        super().load_state_dict(state)
        # Saved with another batch size, it may leave no batch in its epoch.
        self._move_to(self._batches.batch_start(self._cursor))
        self._resumed = True
        self._iteration += 1

    def __iter__(self) -> Iterator[Arrays]:
        if self._cursor.position and not self._resumed:
            self._move_to(Cursor(self._cursor.epoch + 1, 0))
        self._resumed = False
        self._iteration += 1
        return self._one_epoch(self._iteration, self._cursor.epoch)

    def _one_epoch(self, iteration: int, epoch: int) -> Iterator[Arrays]:
        while True:
            if self._iteration != iteration:
                raise DataError(
                    "DataLoader: this iteration was overtaken by a later one (or a loaded state) "
                    "of the same loader; make a second loader to iterate twice at a time."
                )
            if self._cursor.epoch != epoch:
                return
            yield self._next_batch()


class _EpochBatches:
    """The batch at a cursor; remembers the order of the epoch it was last asked for."""

    def __init__(self, dataset: Dataset, batch_size: int, shuffle: bool, seed: int, drop_last: bool) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._samples = len(dataset)
        # A batch starts at each position up to this one; with drop_last only where it is full.
        self._last_start = self._samples - (batch_size if drop_last else 1)
        self._epoch = -1
        self._order: NDArray[np.int64] = np.arange(self._samples)

    @property
    def per_epoch(self) -> int:
        return self._last_start // self._batch_size + 1

    def __call__(self, cursor: Cursor) -> tuple[Arrays, Cursor]:
        epoch, position = cursor
        indices = self._epoch_order(epoch)[position : position + self._batch_size]
        return self._gather(indices), self.batch_start(Cursor(epoch, position + len(indices)))

    def batch_start(self, cursor: Cursor) -> Cursor:
        """The cursor itself, or the next epoch when no batch can start there any more."""
        return cursor if cursor.position <= self._last_start else Cursor(cursor.epoch + 1, 0)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if self._shuffle and epoch != self._epoch:
            self._order = EpochRandom(self._seed, epoch).permutation(self._samples)
            self._epoch = epoch
        return self._order

    def _gather(self, indices: NDArray[np.int64]) -> Arrays:
        if isinstance(self._dataset, BatchedDataset):
            return self._dataset.take(indices)
        samples = [self._dataset[index] for index in indices.tolist()]
        odd = next((i for i, sample in enumerate(samples) if not isinstance(sample, (tuple, list))), None)
        if odd is not None:
            raise DataError(
                f"DataLoader: items of a dataset must be tuples of arrays or numbers; item {indices[odd]} is a "
                f"{type(samples[odd]).__name__}."
            )
        try:
            return tuple(np.stack([np.asarray(part) for part in column]) for column in zip(*samples, strict=True))
        except ValueError as error:
            shapes = sorted({tuple(np.shape(part) for part in sample) for sample in samples})
            raise DataError(
                f"DataLoader: the items of a batch must have the same shapes; received {shapes[:4]}; pad them, or "
                "take batch_size=1."
            ) from error
