"""Wrong arguments to data, text, models, io and train give typed errors that name what was received."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spiral as sp
from spiral.data import ArrayDataset, DataLoader, TokenDataset, TokenLoader, eval_batches
from spiral.errors import SpiralError
from spiral.io import save_safetensors
from spiral.models import Llama, LlamaConfig, generate, load_llama, save_llama
from spiral.text import (
    Tokenizer,
    load_text,
    split,
    unique_paragraphs,
    witten_bell_bits_per_byte,
    zlib_bits_per_byte,
)
from spiral.train import TimeBudget, TrainConfig, Trainer, evaluate, learning_rate

TOKENS = TokenDataset([1, 2, 3, 4] * 20, 32)
TOKENIZER = Tokenizer.train("to be or not to be", 258)
RATE = {"peak": 1.0, "total_steps": 9, "warmup_steps": 0, "final_ratio": 0.1}


def loader() -> DataLoader:
    return DataLoader(ArrayDataset([1, 2, 3]), 1, shuffle=True, prefetch=0)


def model() -> Llama:
    return Llama(LlamaConfig(32, context_length=8, n_layer=1, n_head=2, n_kv_head=1, dim=8, ffn_dim=16))


def trainer(model: Llama, tokens: TokenDataset, **shape: int) -> Trainer:
    return Trainer(model, tokens, None, TrainConfig.from_dict({"model": {"context_length": 8, **shape}}))


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "index beyond": (lambda: TOKENS[99], "from -80 to 79 or a slice; received 99"),
    "index of text": (lambda: TOKENS["a"], "received 'a'"),  # type: ignore[call-overload]
    "window beyond": (lambda: TOKENS.windows([75], 9), "must lie within 80 tokens"),
    "window negative": (lambda: TOKENS.windows([0], -1), "length must be an integer of at least 0; received -1"),
    "windows of text": (lambda: TOKENS.windows(["a"], 1), "starts must be integers"),
    "windows in rows": (lambda: TOKENS.windows([[0]], 1), "received int64 of shape (1, 1)"),
    "ragged ids": (lambda: TokenDataset([[1], [2, 3]], 5), "expected integer ids of shape (tokens,)"),
    "no ids": (lambda: TokenDataset(None, 5), "received object"),
    "vocabulary of text": (lambda: TokenDataset([1], "x"), "vocab_size must be an integer"),  # type: ignore[arg-type]
    "folder of tokens": (lambda: TokenDataset.open("/"), "Is a directory"),
    "list of tokens": (lambda: TokenLoader([1, 2], 1, 1), "expected a TokenDataset; received list"),  # type: ignore[arg-type]
    "half a batch": (lambda: TokenLoader(TOKENS, 2.5, 2), "batch_size must be an integer"),  # type: ignore[arg-type]
    "context too long": (lambda: TokenLoader(TOKENS, 2, 80), "shorter than one context"),
    "seed too large": (lambda: TokenLoader(TOKENS, 2, 8, 2**64), "seed must be an integer"),
    "empty evaluation": (lambda: eval_batches(TokenDataset([], 5), 1, 1), "expected a token to predict"),
    "no dataset": (lambda: DataLoader(3, 1), "expected a dataset with a length and items"),  # type: ignore[arg-type]
    "empty dataset": (lambda: DataLoader(ArrayDataset([]), 1), "expected at least 1 sample"),
    "item beyond": (lambda: ArrayDataset([1])[5], "expected an index below 1; received 5"),
    "items beyond": (lambda: ArrayDataset([1]).take(np.array([5])), "expected integer indices below 1"),
    "ragged items": (
        lambda: list(DataLoader([(np.ones(2),), (np.ones(3),)], 2)), "must have the same shapes; received",
    ),
    "items that are no tuples": (lambda: list(DataLoader([1, 2], 2)), "item 0 is a int"),  # type: ignore[list-item]
    "no state": (lambda: loader().load_state_dict(None), "expected a dictionary"),  # type: ignore[arg-type]
    "position beyond": (
        lambda: loader().load_state_dict({**loader().state_dict(), "position": 4}), "at most 3; received 4",
    ),
    "epoch beyond": (lambda: loader().load_state_dict({**loader().state_dict(), "epoch": 10**30}), "at most"),
    "train on bytes": (lambda: Tokenizer.train(b"abc", 300), "received"),  # type: ignore[arg-type]
    "train on None": (lambda: Tokenizer.train(None, 300), "received NoneType"),  # type: ignore[arg-type]
    "vocabulary of billions": (lambda: Tokenizer.train("abc", 10**11), "at most 1048576; received 100000000000"),
    "encode bytes": (lambda: TOKENIZER.encode(b"x"), "expected text (str); received bytes"),  # type: ignore[arg-type]
    "decode beyond": (lambda: TOKENIZER.decode([999]), "received 999"),
    "decode halves": (lambda: TOKENIZER.decode([1.5]), "expected integer ids"),
    "split a number": (lambda: split(3), "expected text (str); received int"),  # type: ignore[arg-type]
    "split by a text": (lambda: split("abc", "x"), "received 'x'"),  # type: ignore[arg-type]
    "load None": (lambda: load_text(None), "expected a path; received NoneType"),  # type: ignore[arg-type]
    "path with a zero byte": (lambda: load_text("a\0b"), "expected a text file or a folder"),
    "paragraphs of numbers": (lambda: unique_paragraphs([1]), "received int"),  # type: ignore[list-item]
    "compress text": (lambda: zlib_bits_per_byte(b"", "a"), "expected bytes; received str"),  # type: ignore[arg-type]
    "compress nothing": (lambda: zlib_bits_per_byte(b"", b""), "received none"),
    "order 99": (lambda: witten_bell_bits_per_byte(b"aaa", b"a", order=99), "order must be 1 to 8; received 99"),
    "save text": (lambda: save_safetensors("x", {"a": [1.0]}), "received list"),  # type: ignore[dict-item]
    "save objects": (lambda: save_safetensors("x", {"a": np.array([object()])}), "received object"),
    "no prompt": (lambda: generate(model(), [], 1), "the prompt is empty"),
    "prompt beyond": (lambda: generate(model(), [32], 1), "prompt ids must be 0 to 31; received 32"),
    "prompt of text": (lambda: generate(model(), "ab", 1), "must be integer ids"),  # type: ignore[arg-type]
    "half a token": (lambda: generate(model(), [1], 2.5), "must be integers"),  # type: ignore[arg-type]
    "warm as text": (lambda: generate(model(), [1], 2, temperature="x"), "temperature='x'"),  # type: ignore[arg-type]
    "no seed": (lambda: generate(model(), [1], 2, seed=None), "seed=None"),  # type: ignore[arg-type]
    "float tokens": (lambda: model()(sp.ones((1, 4))), "embedding"),
    "tokens in a row": (lambda: model()(sp.zeros((4,), dtype=sp.int64)), "tokens must be (batch, time)"),
    "tokens too many": (lambda: model()(sp.zeros((1, 9), dtype=sp.int64)), "at most 8 positions"),
    "load no path": (lambda: load_llama(3), "expected a path; received int"),  # type: ignore[arg-type]
    "save nowhere": (lambda: save_llama("/proc/none", model(), TOKENIZER), "cannot be made"),
    "negative time": (lambda: TimeBudget(-1), "received -1"),
    "time as text": (lambda: TimeBudget("x"), "received 'x'"),  # type: ignore[arg-type]
    "unknown schedule": (lambda: learning_rate(3, schedule="cosin", **RATE), "must be one of cosine, linear, wsd"),  # type: ignore[arg-type]
    "text of no bytes": (lambda: evaluate(model(), TOKENS, 0), "n_bytes must be an integer of at least 1"),
    "another vocabulary": (lambda: trainer(model(), TokenDataset([40] * 50, 50)), "vocabulary of 50, the model has 32"),
    "another context": (lambda: trainer(model(), TOKENS, context_length=16), "is 16, the model was made for 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_wrong_argument_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, message = CASES[name]
    with pytest.raises(SpiralError) as error:
        call()
    assert message in str(error.value), str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_sampled_from() -> None:
    broken = model()
    with sp.no_grad():
        broken.model.norm.weight.detach().copy_(sp.full((8,), float("nan")))
    with pytest.raises(SpiralError, match="the largest logit is nan"):
        list(generate(broken, [1], 2))


def test_a_temperature_near_zero_takes_the_likeliest_token() -> None:
    m = model()
    assert list(generate(m, [1], 5, temperature=1e-300)) == list(generate(m, [1], 5, temperature=0))
