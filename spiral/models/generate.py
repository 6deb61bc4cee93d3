"""Sampling from a language model, one token at a time with a cache of keys and values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import spiral as sp
from spiral.errors import ArgumentError, DataError, TrainingError

if TYPE_CHECKING:
    from spiral.models.llama import Llama


def generate(
    model: Llama,
    prompt: Sequence[int] | NDArray[Any],
    n: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    stop: int | None = None,
) -> Iterator[int]:
    """Tokens that follow a prompt, as they are drawn.

    When the context is full, the second half of it is read again as a new beginning, so the text may
    become longer than the context.

    Args:
        model: The model.
        prompt: Token ids, at least one; only the last `context_length` are seen.
        n: How many tokens to draw.
        temperature: 0 takes the likeliest token; 1 samples from the model's distribution.
        top_k: Sample among this many likeliest tokens; None for all.
        seed: Same seed, same text.
        stop: A token that ends the text; it is not yielded.

    Yields:
        Token ids.

    Raises:
        ArgumentError: An argument is out of range.
        DataError: The prompt is empty or holds an id that is not in the vocabulary.
        TrainingError: The model's output is not finite.
    """
    ids = _checked_prompt(prompt, model.config.vocab_size)
    whole = [n, seed] if top_k is None else [n, seed, top_k]
    odd = [value for value in whole if not isinstance(value, (int, np.integer)) or isinstance(value, bool)]
    if odd or not isinstance(temperature, (int, float)):
        raise ArgumentError(
            "generate: n, top_k and seed must be integers, temperature a number; received "
            f"n={n!r}, temperature={temperature!r}, top_k={top_k!r}, seed={seed!r}."
        )
    if n < 0 or not 0 <= temperature < math.inf or (top_k is not None and top_k < 1) or not 0 <= seed < 2**64:
        raise ArgumentError(
            "generate: n must not be negative, temperature at least 0 and finite, top_k positive or None, seed at "
            f"least 0 and below 2**64; received n={n}, temperature={temperature}, top_k={top_k}, seed={seed}."
        )
    return _sampled(model, ids, n, temperature, top_k, np.random.Generator(np.random.Philox(key=seed)), stop)


def _sampled(
    model: Llama,
    ids: list[int],
    n: int,
    temperature: float,
    top_k: int | None,
    random: np.random.Generator,
    stop: int | None,
) -> Iterator[int]:
    context = model.config.context_length
    device = next(iter(model.parameters())).device
    unread, past = ids[-context:], None
    for _ in range(n):
        if past is not None and past[0][0].shape[2] == context:
            unread, past = ids[-max(1, context // 2) :], None
        with sp.no_grad():
            logits, past = model.step(sp.asarray(np.array([unread], np.int64), device=device), past)
        token = sample(logits[0, -1].to("cpu").numpy(), temperature, top_k, random)
        if token == stop:
            return
        yield token
        ids.append(token)
        unread = [token]


def sample(logits: NDArray[Any], temperature: float, top_k: int | None, random: np.random.Generator) -> int:
    """One token drawn from logits (vocabulary,); see `generate`.

    Example:
        >>> sample(np.array([0.0, 3.0, 1.0]), 0.0, None, np.random.default_rng(0))
        1
    """
    if not np.isfinite(logits.max()):
        raise TrainingError(
            f"generate: the largest logit is {logits.max()}: the model's weights are damaged or its training diverged."
        )
    if temperature == 0:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # below the largest, whose score is 0, minus infinity is right
        scores = (logits.astype(np.float64) - logits.max()) / temperature
    if top_k is not None and top_k < len(scores):
        kept = np.argpartition(scores, -top_k)[-top_k:]
        others = np.ones(len(scores), bool)
        others[kept] = False
        scores[others] = -np.inf
    weights = np.exp(scores - scores.max())
    cumulated = np.cumsum(weights)
    token = int(np.searchsorted(cumulated, random.random() * cumulated[-1], side="right"))
    return min(token, len(scores) - 1)


def _checked_prompt(prompt: Sequence[int] | NDArray[Any], vocab_size: int) -> list[int]:
    array = np.asarray(prompt)
    if array.size and (array.ndim != 1 or not np.issubdtype(array.dtype, np.integer)):
        raise DataError(
            f"generate: the prompt must be integer ids of shape (tokens,); received {array.dtype} of shape "
            f"{array.shape}; encode text with the model's tokenizer."
        )
    ids = [int(token) for token in array.tolist()]
    if not ids:
        raise DataError("generate: the prompt is empty; give at least one token, such as the end-of-text token.")
    wrong = [token for token in ids if not 0 <= token < vocab_size]
    if wrong:
        raise DataError(
            f"generate: prompt ids must be 0 to {vocab_size - 1}; received {wrong[0]}; does the tokenizer belong "
            "to this model?"
        )
    return ids
