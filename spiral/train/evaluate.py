"""Bits per byte of a model on held-out text, comparable between tokenizers and with compressors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import spiral as sp
from spiral.data import TokenDataset, eval_batches
from spiral.data.resume import require_integer
from spiral.models.llama import Llama


@dataclass(frozen=True)
class Evaluation:
    """What a model needs for a text.

    Args:
        nats: Sum of the cross-entropy over all predicted tokens.
        tokens: How many tokens were predicted.
        n_bytes: Bytes of the text they spell.
    """

    nats: float
    tokens: int
    n_bytes: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats per token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Total information over the text's length in bytes."""
        return self.nats / math.log(2.0) / self.n_bytes


def evaluate(
    model: Llama, tokens: TokenDataset, n_bytes: int, *, batch_size: int = 16, bos_id: int | None = None
) -> Evaluation:
    """Cross-entropy over a whole text, every token predicted exactly once.

    Windows of one context stand side by side, so a token near the start of its window is predicted
    from few others: the figure is a little worse than a sliding window's, never better.

    Args:
        model: The model.
        tokens: The text's tokens.
        n_bytes: The text's length in bytes (UTF-8).
        batch_size: Windows at a time.
        bos_id: A token put before the first, which is then predicted too.
    """
    require_integer("evaluate", "n_bytes", n_bytes, at_least=1)
    nats, count = 0.0, 0
    training = model.training
    device = next(iter(model.parameters())).device
    model.eval()
    with sp.no_grad():
        for x, y in eval_batches(tokens, batch_size, model.config.context_length, bos_id=bos_id):
            loss = model.loss(sp.asarray(x, device=device), sp.asarray(y, device=device), reduction="sum")
            nats += loss.item()
            count += y.size
    model.train(training)
    return Evaluation(nats, count, n_bytes)
