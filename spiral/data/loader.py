"""Batches of (input, target) token windows for language models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spiral.data.resume import Cursor, EpochRandom, ResumableLoader, require_integer
from spiral.data.tokens import TokenDataset
from spiral.errors import DataError

TokenBatch = tuple[NDArray[np.int64], NDArray[np.int64]]
"""x and y, each (batch, context); y is x one token later."""


class TokenLoader(ResumableLoader[TokenBatch]):
    """Endless shuffled training batches over a token dataset.

    An epoch draws an offset below `context`, cuts the tokens from there into windows side by
    side, and visits each window once in shuffled order; so windows begin elsewhere in every
    epoch. Offset and order depend on (seed, epoch) only. A batch that an epoch cannot fill takes
    the first windows of the next epoch: batches always have the full shape and no window is left
    out.

    Args:
        dataset: The tokens; at least ``context + 1``.
        batch_size: Windows per batch.
        context: Tokens per window.
        seed: 0 to 2**64 - 1.
        prefetch: How many batches to make ahead in a background thread; 0 for none. It pays
            when tokens come from disk; from memory a batch of 12x64 takes 11 us without the
            thread, and handing it over costs up to 50 us (2 shared cores).

    Raises:
        ArgumentError: An argument is out of range.
        DataError: The dataset is shorter than one window and the target after it.

    Example:
        >>> dataset = TokenDataset(range(100), vocab_size=100)
        >>> with TokenLoader(dataset, batch_size=2, context=8, seed=0) as loader:
        ...     x, y = next(loader)
        >>> x.shape, bool((y == x + 1).all())
        ((2, 8), True)
    """

    def __init__(
        self,
        dataset: TokenDataset,
        batch_size: int,
        context: int,
        seed: int = 0,
        *,
        prefetch: int = 2,
    ) -> None:
        if not isinstance(dataset, TokenDataset):
            raise DataError(f"TokenLoader: expected a TokenDataset; received {type(dataset).__name__}.")
        require_integer("TokenLoader", "batch_size", batch_size, at_least=1)
        require_integer("TokenLoader", "context", context, at_least=1)
        require_integer("TokenLoader", "seed", seed, at_least=0, below=2**64)
        if len(dataset) < context + 1:
            raise DataError(
                f"TokenLoader: the text is shorter than one context: it has {len(dataset)} "
                f"tokens, and context={context} needs at least {context + 1} (a window and the "
                f"token after it); give more text or a context of at most "
                f"{max(1, len(dataset) - 1)}."
            )
        super().__init__(
            _ShuffledWindows(dataset, batch_size, context, seed),
            {"seed": int(seed), "context": int(context), "tokens": len(dataset)},
            prefetch,
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TokenBatch:
        return self._next_batch()


class _ShuffledWindows:
    """The batch at a cursor; remembers the order of the epoch it was last asked for."""

    def __init__(self, dataset: TokenDataset, batch_size: int, context: int, seed: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._context = context
        self._seed = seed
        self._epoch = -1
        self._starts: NDArray[np.int64] = np.empty(0, np.int64)

    def __call__(self, cursor: Cursor) -> tuple[TokenBatch, Cursor]:
        epoch, position = cursor
        taken: list[NDArray[np.int64]] = []
        missing = self._batch_size
        while missing:
            starts = self._epoch_starts(epoch)
            taken.append(starts[position : position + missing])
            missing -= len(taken[-1])
            position += len(taken[-1])
            if position >= len(starts):
                epoch, position = epoch + 1, 0
        batch = _input_and_target(self._dataset.windows(np.concatenate(taken), self._context + 1))
        return batch, Cursor(epoch, position)

    def _epoch_starts(self, epoch: int) -> NDArray[np.int64]:
        """Where the windows of an epoch start, in the order in which they are visited."""
        if epoch != self._epoch:
            random = EpochRandom(self._seed, epoch)
            spare = len(self._dataset) - self._context  # offsets that leave room for one window
            offset = random.below(min(self._context, spare))
            windows = (len(self._dataset) - 1 - offset) // self._context
            self._starts = offset + self._context * random.permutation(windows)
            self._epoch = epoch
        return self._starts


def eval_batches(
    dataset: TokenDataset, batch_size: int, context: int, *, bos_id: int | None = None
) -> Iterator[TokenBatch]:
    """The whole dataset in order, each token exactly once as a target.

    The last batches may be smaller: first fewer windows, then one window with the fewer than
    `context` targets that are left. So a mean loss must be weighted by ``y.size``.

    Args:
        dataset: The held-out tokens.
        batch_size: Windows per batch.
        context: Tokens per window; each window predicts without seeing the one before.
        bos_id: A token to put before the first one, which is then a target too. Without it the
            first token, which nothing predicts, is the only one left out.

    Yields:
        x and y, (batch, context) or smaller as said above.

    Raises:
        ArgumentError: An argument is out of range.
        DataError: There is no token to predict.

    Example:
        >>> dataset = TokenDataset(range(8), vocab_size=8)
        >>> [y.tolist() for x, y in eval_batches(dataset, batch_size=2, context=2)]
        [[[1, 2], [3, 4]], [[5, 6]], [[7]]]
    """
    require_integer("eval_batches", "batch_size", batch_size, at_least=1)
    require_integer("eval_batches", "context", context, at_least=1)
    if bos_id is not None:
        require_integer("eval_batches", "bos_id", bos_id, at_least=0, below=dataset.vocab_size)
    lead = 0 if bos_id is None else 1
    if len(dataset) + lead < 2:
        raise DataError(
            f"eval_batches: expected a token to predict and one before it; received "
            f"{len(dataset)} token(s); give more text" + ("." if lead else " or a bos_id.")
        )
    return _sequential(dataset, batch_size, context, bos_id)


def _sequential(dataset: TokenDataset, batch_size: int, context: int, bos_id: int | None) -> Iterator[TokenBatch]:
    # Positions count from the token before the first target, be it bos_id or token 0.
    lead = 0 if bos_id is None else 1
    targets = len(dataset) + lead - 1
    whole = targets - targets % context
    per_batch = batch_size * context
    spans = [(at, min(at + per_batch, whole), context) for at in range(0, whole, per_batch)]
    if whole < targets:
        spans.append((whole, targets, targets - whole))
    for first, last, width in spans:
        y = dataset[first + 1 - lead : last + 1 - lead]
        start = np.array([bos_id], np.int64) if first < lead else dataset[first - lead : first - lead + 1]
        x = np.concatenate((start, y[:-1]))
        yield x.reshape(-1, width), y.reshape(-1, width)


def _input_and_target(windows: NDArray[np.int64]) -> TokenBatch:
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])
