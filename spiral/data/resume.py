"""What all loaders share: an order that depends on (seed, epoch), exact resuming, prefetching.

A batch is a pure function of a `Cursor`. A loader keeps the cursor of what was *consumed*, so its
state does not depend on how far the background thread has run ahead.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from spiral.data.prefetch import Prefetcher
from spiral.errors import ArgumentError, DataError

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)


class Cursor(NamedTuple):
    """Where a loader stands: `position` windows or samples of `epoch` have been taken."""

    epoch: int
    position: int


class BatchSource(Protocol[Batch_co]):
    """Makes the batch that starts at a cursor; the same batch for the same cursor."""

    def __call__(self, cursor: Cursor) -> tuple[Batch_co, Cursor]:
        """Return the batch and the cursor of the batch after it."""
        ...


class ResumableLoader(Generic[Batch]):
    """Base of the loaders: cursor, state, background thread.

    A subclass calls `_next_batch`. Use a loader in a ``with`` statement, or `close` it, to end
    its thread at once; otherwise the thread ends when the loader is collected.

    Args:
        source: Makes the batches. It must not refer to the loader, which could then never be
            collected while its thread runs.
        identity: What a position depends on, such as the seed; kept in the state and compared
            when a state is loaded.
        prefetch: How many batches to make ahead in a background thread; 0 for none.
    """

    def __init__(self, source: BatchSource[Batch], identity: Mapping[str, int], prefetch: int) -> None:
        self._name = type(self).__name__
        require_integer(self._name, "prefetch", prefetch, at_least=0)
        self._source = source
        self._identity = dict(identity)
        self._prefetch = prefetch
        self._cursor = Cursor(0, 0)
        self._prefetcher: Prefetcher[tuple[Batch, Cursor]] | None = None
        self._stop: Callable[[], object] = _nothing_to_stop

    @property
    def epoch(self) -> int:
        """The epoch that the next batch starts in, counted from 0."""
        return self._cursor.epoch

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands, as integers: batches handed out count, prefetched ones do not.

        Returns:
            ``epoch`` and ``position``, and what they depend on (such as ``seed``).
        """
        return {**self._cursor._asdict(), **self._identity}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on exactly where the loader that gave this state stood.

        Args:
            state: From `state_dict` of a loader with the same data and seed. The batch size may
                be another one: positions count windows or samples.

        Raises:
            DataError: The state is incomplete or belongs to other data or another seed; the
                loader then stays where it was.
        """
        if not isinstance(state, Mapping):
            raise DataError(f"{self._name}.load_state_dict: expected a dictionary; received {type(state).__name__}.")
        expected = {"epoch", "position", *self._identity}
        if set(state) != expected:
            raise DataError(
                f"{self._name}.load_state_dict: expected the keys {sorted(expected)}; received "
                f"{sorted(state)}; give what state_dict() of a {self._name} returned."
            )
        wrong = [
            f"{key}={state[key]} (this loader has {own})" for key, own in self._identity.items() if state[key] != own
        ]
        if wrong:
            raise DataError(
                f"{self._name}.load_state_dict: the state was saved with {', '.join(wrong)}; "
                "positions would mean other samples. Make the loader as it was then, or start "
                "without the state."
            )
        for key in ("epoch", "position"):
            most = (
                2**63 - 1 if key == "epoch" else self._identity.get("samples", self._identity.get("tokens", 2**63 - 1))
            )
            if not isinstance(state[key], (int, np.integer)) or not 0 <= state[key] <= most:
                raise DataError(
                    f"{self._name}.load_state_dict: {key} must be an integer of at least 0 and at most {most}; "
                    f"received {state[key]!r}."
                )
        self._move_to(Cursor(int(state["epoch"]), int(state["position"])))

    def close(self) -> None:
        """End the background thread; a later batch starts a new one."""
        self._stop()  # once; it is then forgotten
        self._prefetcher = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _move_to(self, cursor: Cursor) -> None:
        self.close()
        self._cursor = cursor

    def _next_batch(self) -> Batch:
        if self._prefetch == 0:
            batch, following = self._source(self._cursor)
        else:
            try:
                batch, following = self._running_prefetcher().get()
            except BaseException:
                self.close()  # so that trying again starts at the batch that failed
                raise
        self._cursor = following
        return batch

    def _running_prefetcher(self) -> Prefetcher[tuple[Batch, Cursor]]:
        if self._prefetcher is None or not self._prefetcher.in_this_process:
            self._prefetcher = Prefetcher(_Walk(self._source, self._cursor).advance, self._prefetch)
            self._stop = weakref.finalize(self, self._prefetcher.close)
        return self._prefetcher


def _nothing_to_stop() -> None:
    """What `close` calls while there is no thread."""


class _Walk(Generic[Batch]):
    """Batches one after the other from a cursor on."""

    def __init__(self, source: BatchSource[Batch], cursor: Cursor) -> None:
        self._source = source
        self._cursor = cursor

    def advance(self) -> tuple[Batch, Cursor]:
        batch, self._cursor = self._source(self._cursor)
        return batch, self._cursor


class EpochRandom:
    """The random numbers of one epoch: the same on every system and NumPy version.

    They are raw Philox words (Salmon et al. 2011), keyed by (seed, epoch): NumPy promises their
    stability (NEP 19), which it does not for `Generator.permutation`.

    Args:
        seed: 0 to 2**64 - 1.
        epoch: Counted from 0.

    Example:
        >>> EpochRandom(seed=7, epoch=0).permutation(5)
        array([4, 1, 3, 2, 0])
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))

    def below(self, limit: int) -> int:
        """An integer from 0 to ``limit - 1``; its bias, below limit / 2**64, does not matter."""
        return int(self._bits.random_raw()) % limit

    def permutation(self, size: int) -> NDArray[np.int64]:
        """The numbers 0 to ``size - 1`` in random order."""
        words = self._bits.random_raw(size)
        return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def require_integer(owner: str, name: str, value: int, *, at_least: int, below: int | None = None) -> None:
    """Check an integer argument.

    Raises:
        ArgumentError: It is no integer or out of range.
    """
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < at_least or (below is not None and value >= below):
        upper = "" if below is None else f" and below {below}"
        raise ArgumentError(f"{owner}: {name} must be an integer of at least {at_least}{upper}; received {value!r}.")
