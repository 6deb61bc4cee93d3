"""The kind of `tokenizers` model that spiral uses: what it is, how it is trained, what it refuses.

It is what a GGUF file describes with ``tokenizer.ggml.model = "gpt2"`` and
``tokenizer.ggml.pre = "gpt-2"``: BPE over bytes in GPT-2's spelling, GPT-2's pre-tokenizer, no
normalization. The library is imported at first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from spiral.errors import DataError, FormatError
from spiral.optional import missing
from spiral.text.byte_alphabet import character_to_byte

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
"""The one special token of tokenizers trained here, always id 0."""

SMALLEST_VOCABULARY = 1 + 256
"""The special token and every byte."""

LARGEST_VOCABULARY = 2**20
"""The library reserves memory for every token asked for before it looks at the text, and aborts without it."""

# A cut between a visible ASCII character and a line end never changes GPT-2's pre-tokens: none
# of its patterns goes from a visible character to white space, and none looks behind.
_SAFE_CUT = re.compile(r"[!-~](?=\n)")
_PIECE = 1 << 16  # characters; several pieces are encoded on all cores, in bounded memory


def import_library() -> ModuleType:
    """The `tokenizers` module.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise missing("tokenizers", "a tokenizer", "pip install 'spiral[text]'") from error
    return tokenizers


def train_library_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Train a `tokenizers.Tokenizer` of this kind.

    Args:
        texts: Texts to learn from.
        vocab_size: Tokens to have at most, `SMALLEST_VOCABULARY` or more.

    Returns:
        The library's tokenizer, the same for the same texts.

    Raises:
        DataError: There is no text, or it holds something else than text.
        MissingDependencyError: The library is not installed.
    """
    library = import_library()
    tokenizer: tokenizers.Tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(character_to_byte()),
    )
    texts = _non_empty(texts)
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    return tokenizer


def pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces that can be encoded alone with the same result."""
    start = 0
    while start < len(text):
        cut = _SAFE_CUT.search(text, start + _PIECE)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


def require_gpt2_byte_level(spec: dict[str, Any]) -> None:
    """Refuse a ``tokenizer.json`` that ``tokenizer.ggml.pre = "gpt-2"`` cannot describe.

    Args:
        spec: The parsed file.

    Raises:
        FormatError: With everything that is different.
    """
    model, pre_tokenizer = spec["model"], spec["pre_tokenizer"] or {}
    missing = set(character_to_byte()).difference(model.get("vocab", ()))
    added = {entry["content"] for entry in spec["added_tokens"]}
    spelled = "".join(token for token in model.get("vocab", ()) if token not in added)
    found = [
        (model.get("type") == "BPE", f"model type {model.get('type')!r}, not 'BPE'"),
        (not missing, f"{len(missing)} of the 256 bytes have no token"),
        (set(spelled) <= character_to_byte().keys(), "tokens that are not in GPT-2's spelling"),
        (not model.get("dropout"), "BPE dropout"),
        (not model.get("ignore_merges"), "ignore_merges"),
        (spec["normalizer"] is None, "a normalizer"),
        (
            pre_tokenizer.get("type") == "ByteLevel" and pre_tokenizer.get("use_regex", True),
            f"pre-tokenizer {pre_tokenizer.get('type')!r}, not 'ByteLevel' with its own pattern",
        ),
        (not pre_tokenizer.get("add_prefix_space", False), "a space put in front of the text"),
        (END_OF_TEXT in added, f"no special token {END_OF_TEXT}"),
    ]
    wrong = [what for holds, what in found if not holds]
    if wrong:
        raise FormatError(
            "Tokenizer: expected a byte-level BPE with GPT-2's pre-tokenizer, which GGUF calls "
            f"'gpt-2'; received {'; '.join(wrong)}; train one with Tokenizer.train."
        )


def _non_empty(texts: Iterable[str]) -> Iterator[str]:
    """The texts, with an error when all of them together are empty."""
    if not isinstance(texts, Iterable):
        raise DataError(f"Tokenizer.train: expected text or several texts; received {type(texts).__name__}.")
    any_text = False
    for text in texts:
        if not isinstance(text, str):
            raise DataError(
                f"Tokenizer.train: expected text (str); received {type(text).__name__}; decode "
                "bytes first, for example with load_text(path)."
            )
        any_text = any_text or bool(text)
        yield text
    if not any_text:
        raise DataError("Tokenizer.train: expected text to learn from; received none.")
