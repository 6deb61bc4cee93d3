"""Tokenizer: lossless, deterministic, saved and loaded, described for GGUF."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spiral.errors import (
    ArgumentError,
    DataError,
    FormatError,
    MissingDependencyError,
    SaveError,
)
from spiral.text import END_OF_TEXT, Tokenizer, byte_level_bpe, demo_corpus, split
from spiral.text.byte_alphabet import character_to_byte

TRAIN, HELD_OUT = split(demo_corpus())
ODD_TEXTS = [
    "",
    "   leading and trailing \n\n \t\r\n",
    "naïve café 漢字 🙂\u200d🙂 \u00a0\u2028\u3000 e\u0301",
    "".join(map(chr, range(256))),
    f"not a {END_OF_TEXT} token",
    "\x00\x1c\uffff\U0010ffff",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TRAIN)


def random_text(rng: np.random.Generator) -> str:
    alphabet = list("ab19 \n\t\r's<|>.é漢🙂\u00a0\u2028\x1c\u3000\u0301ßД٣½_$") + [
        END_OF_TEXT,
        "'ll",
    ]
    return "".join(rng.choice(alphabet, int(rng.integers(1, 60))))


@pytest.mark.parametrize("text", [*ODD_TEXTS, HELD_OUT])
def test_any_text_round_trips(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


def test_training_depends_on_the_text_only(tokenizer: Tokenizer) -> None:
    half = TRAIN.index("\n\n", len(TRAIN) // 2)
    again = Tokenizer.train(iter([TRAIN[:half], TRAIN[half:]]))
    assert again.vocab_size == 1024
    assert again.to_json() == tokenizer.to_json()


def test_tokens_are_the_special_one_the_bytes_and_one_per_merge(tokenizer: Tokenizer) -> None:
    tokens, merges = tokenizer.tokens(), tokenizer.merges()
    assert tokens[0] == END_OF_TEXT
    assert set(tokens[1:257]) == set(character_to_byte())
    assert tokens[257:] == [merge.replace(" ", "") for merge in merges]
    assert len(tokens) == tokenizer.vocab_size == 1024


def test_cutting_into_pieces_does_not_change_the_ids(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [HELD_OUT, *(random_text(rng) for _ in range(100))]
    expected = [tokenizer.encode(text) for text in texts]
    monkeypatch.setattr(byte_level_bpe, "_PIECE", 1)
    for text, ids in zip(texts, expected, strict=True):
        np.testing.assert_array_equal(tokenizer.encode(text), ids)


def test_special_token_in_text_is_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    text = f"one{END_OF_TEXT}two"
    one, two = tokenizer.encode("one").tolist(), tokenizer.encode("two").tolist()
    assert 0 not in tokenizer.encode(text)
    assert tokenizer.encode(text, parse_special=True).tolist() == [*one, 0, *two]


def test_generated_ids_that_cut_a_character_still_decode(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"
    assert tokenizer.decode_bytes(tokenizer.encode("é")[:1]) == b"\xc3"
    assert tokenizer.decode([]) == ""


def test_bytes_per_token_is_the_ratio(tokenizer: Tokenizer) -> None:
    expected = len(HELD_OUT.encode()) / len(tokenizer.encode(HELD_OUT))
    assert tokenizer.bytes_per_token(HELD_OUT) == expected
    with pytest.raises(DataError, match="empty"):
        tokenizer.bytes_per_token("")


def test_saved_tokenizer_loads_as_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.save(tmp_path) == tmp_path / "tokenizer.json"
    for path in (tmp_path, str(tmp_path / "tokenizer.json")):
        loaded = Tokenizer.load(path)
        assert loaded.gguf_fields() == tokenizer.gguf_fields()
        np.testing.assert_array_equal(loaded.encode(HELD_OUT), tokenizer.encode(HELD_OUT))
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    with pytest.raises(SaveError, match="cannot be written"):
        tokenizer.save(tmp_path / "missing" / "tokenizer.json")


def test_gguf_fields_mark_the_special_token(tokenizer: Tokenizer) -> None:
    fields = tokenizer.gguf_fields()
    assert (fields["model"], fields["pre"]) == ("gpt2", "gpt-2")
    assert fields["token_types"] == [3] + [1] * 1023
    assert (fields["bos_token_id"], fields["eos_token_id"]) == (0, 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"normalizer": {"type": "NFC"}}, "a normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer 'Whitespace'"),
        ({"added_tokens": []}, "no special token"),
    ],
)
def test_tokenizers_that_gguf_would_describe_wrongly_are_refused(
    tokenizer: Tokenizer, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(tokenizer.to_json()), **change}))
    with pytest.raises(FormatError, match=complaint):
        Tokenizer.load(file)


def test_damaged_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        Tokenizer.load(tmp_path / "missing.json")
    damaged = tmp_path / "damaged.json"
    for content in (b"{", b"\xff"):
        damaged.write_bytes(content)
        with pytest.raises(FormatError, match=r"damaged\.json"):
            Tokenizer.load(damaged)


def test_wrong_arguments_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ArgumentError, match="at least 257"):
        Tokenizer.train("text", vocab_size=256)
    with pytest.raises(DataError, match="received none"):
        Tokenizer.train([""])
    with pytest.raises(DataError, match="received bytes"):
        Tokenizer.train([b"text"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="lone surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(DataError, match="0 to 1023; received 1024"):
        tokenizer.decode([1, 1024])
    with pytest.raises(DataError, match=r"shape \(tokens,\)"):
        tokenizer.decode([0.5])


def test_library_is_imported_only_when_used() -> None:
    code = "import sys, spiral.text; sys.exit('tokenizers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spiral\[text\]'"):
        Tokenizer.train("text")
