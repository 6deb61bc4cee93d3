"""Batches on a device, copied there while the device still works on the batch before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from spiral.device import Device, as_device
from spiral.errors import DataError
from spiral.placement import place_ahead
from spiral.tensor import Tensor


class DeviceLoader:
    """Takes the batches of a loader one ahead and gives them as tensors on a device.

    A batch goes through page-locked host memory and a stream of its own, so that neither the host nor the work on
    the batch before waits for the copy. The tensors are values like any others: nothing overwrites them later.

    Args:
        loader: gives tuples of arrays; for `state_dict`, one of `spiral.data`'s resumable loaders.
        device: where the tensors shall be.

    Example:
        >>> from spiral.data import TokenDataset, TokenLoader
        >>> loader = DeviceLoader(TokenLoader(TokenDataset(range(100), vocab_size=100), 2, 8), "cpu")
        >>> x, y = next(loader)
        >>> x.shape, str(x.device)
        ((2, 8), 'cpu')
    """

    def __init__(self, loader: Any, device: Any) -> None:
        if not hasattr(loader, "__next__"):
            raise DataError(f"DeviceLoader: expected an iterator of batches; received {type(loader).__name__}.")
        self.loader = loader
        self.device: Device = as_device(device)
        self._ahead: tuple[Tensor, ...] | None = None
        self._ended = False
        self._state: Any = None  # of the loader before the batch that is ahead
        self._epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        if self._ahead is None:
            self._fetch()
        batch = self._ahead
        if batch is None:
            raise StopIteration
        self._fetch()
        return batch

    def _fetch(self) -> None:
        """Starts the copy of the next batch."""
        self._remember()
        self._ahead = None
        if self._ended:
            return
        try:
            arrays = next(self.loader)
        except StopIteration:
            self._ended = True
            return
        self._ahead = tuple([place_ahead(np.ascontiguousarray(a), self.device) for a in arrays])

    def _remember(self) -> None:
        if hasattr(self.loader, "state_dict"):
            self._state, self._epoch = self.loader.state_dict(), getattr(self.loader, "epoch", 0)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        if self._ahead is None:
            self._remember()
        return self._epoch

    def state_dict(self) -> Any:
        """The loader's position as if nothing had been taken ahead."""
        if self._ahead is None:
            self._remember()
        return self._state

    def load_state_dict(self, state: Any) -> None:
        """Goes on from a position; what was taken ahead is dropped."""
        self.loader.load_state_dict(state)
        self._ahead, self._ended = None, False

    def close(self) -> None:
        """Ends the loader's own thread, if it has one."""
        if hasattr(self.loader, "close"):
            self.loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
