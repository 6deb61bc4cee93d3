"""Byte-level BPE tokenizer that llama.cpp reproduces token for token.

The `tokenizers` library trains and encodes, under the choices that `byte_level_bpe` fixes so
that a GGUF file can describe them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiral.errors import (
    ArgumentError,
    DataError,
    FormatError,
)
from spiral.text.byte_alphabet import spelled_bytes
from spiral.text.byte_level_bpe import (
    END_OF_TEXT,
    LARGEST_VOCABULARY,
    SMALLEST_VOCABULARY,
    import_library,
    pieces,
    require_gpt2_byte_level,
    train_library_tokenizer,
)

if TYPE_CHECKING:
    import tokenizers

# Token types of GGUF (`llama_token_type` in llama.h).
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


class Tokenizer:
    """Turn text into token ids and back, without losing a byte.

    Args:
        library_tokenizer: A byte-level BPE `tokenizers.Tokenizer`, which from here on belongs to
            this object; use `train` or `load`.

    Raises:
        FormatError: It is not a byte-level BPE with GPT-2's pre-tokenizer and an
            ``<|endoftext|>`` token.

    Example:
        >>> tokenizer = Tokenizer.train("the cat, the hat, the bat", vocab_size=260)
        >>> tokenizer.decode(tokenizer.encode("the café"))
        'the café'
    """

    def __init__(self, library_tokenizer: tokenizers.Tokenizer) -> None:
        self._library = library_tokenizer
        self._library.no_truncation()
        self._library.no_padding()
        # Text that spells a special token is text: `encode` decides, as llama.cpp does.
        self._library.encode_special_tokens = True
        spec = json.loads(library_tokenizer.to_str())
        require_gpt2_byte_level(spec)
        self._merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
        added = {entry["id"]: entry for entry in spec["added_tokens"]}
        self._tokens = _tokens_in_id_order(spec["model"]["vocab"], added)
        self._token_types = [_NORMAL] * len(self._tokens)
        for index, entry in added.items():
            self._token_types[index] = _CONTROL if entry["special"] else _USER_DEFINED
        self._bytes = [
            token.encode() if index in added else spelled_bytes(token) for index, token in enumerate(self._tokens)
        ]
        self._end_of_text = self._tokens.index(END_OF_TEXT)

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int = 1024) -> Tokenizer:
        """Learn a vocabulary from text; the same text gives the same tokenizer.

        Args:
            text: One text or several; only its training part, never the held-out one.
            vocab_size: Tokens to have, counting ``<|endoftext|>`` (id 0) and the 256 bytes. A
                short text gives fewer: a pair seen only once becomes no token.

        Returns:
            The tokenizer.

        Raises:
            ArgumentError: `vocab_size` is below 257 or above 2**20.
            DataError: There is no text, or it holds something else than text.
            MissingDependencyError: The `tokenizers` library is not installed.

        Example:
            >>> Tokenizer.train("low lower lowest", vocab_size=258).merges()
            ['l o']
        """
        is_integer = isinstance(vocab_size, int) and not isinstance(vocab_size, bool)
        if not is_integer or not SMALLEST_VOCABULARY <= vocab_size <= LARGEST_VOCABULARY:
            raise ArgumentError(
                f"Tokenizer.train: vocab_size must be an integer of at least {SMALLEST_VOCABULARY} (256 bytes "
                f"and {END_OF_TEXT}) and at most {LARGEST_VOCABULARY}; received {vocab_size!r}."
            )
        return cls(train_library_tokenizer([text] if isinstance(text, str) else text, vocab_size))

    @classmethod
    def from_json(cls, json_text: str) -> Tokenizer:
        """Read a tokenizer from the content of a ``tokenizer.json``.

        Args:
            json_text: What `to_json` gave, or any byte-level BPE with GPT-2's pre-tokenizer.

        Raises:
            FormatError: The text is not such a tokenizer.
            MissingDependencyError: The `tokenizers` library is not installed.

        Example:
            >>> tokenizer = Tokenizer.train("to be or not to be", vocab_size=260)
            >>> Tokenizer.from_json(tokenizer.to_json()).tokens() == tokenizer.tokens()
            True
        """
        library = import_library()
        try:
            loaded = library.Tokenizer.from_str(json_text)
        except Exception as error:  # the library raises plain Exception
            raise FormatError(
                f"Tokenizer.from_json: expected the content of a tokenizer.json; the tokenizers library says: {error}."
            ) from error
        return cls(loaded)

    def to_json(self) -> str:
        """The tokenizer as the content of a ``tokenizer.json``; see `from_json`."""
        return str(self._library.to_str(pretty=True))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a ``tokenizer.json`` that `save` or the `tokenizers` library wrote.

        Args:
            path: The file, or the folder that holds a ``tokenizer.json``.

        Raises:
            DataError: The file cannot be read.
            FormatError: It is not a byte-level BPE with GPT-2's pre-tokenizer.
            MissingDependencyError: The `tokenizers` library is not installed.
        """
        file = _tokenizer_file(Path(path))
        try:
            json_text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"Tokenizer.load: {file}: expected a tokenizer.json; {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise FormatError(
                f"Tokenizer.load: {file}: expected UTF-8; received something else at byte offset {error.start}."
            ) from error
        try:
            return cls.from_json(json_text)
        except FormatError as error:
            raise FormatError(f"Tokenizer.load: {file}: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write a ``tokenizer.json``; a file that stood there is replaced only when it is whole.

        Args:
            path: The file to write, or an existing folder to write ``tokenizer.json`` into.

        Returns:
            The file written.

        Raises:
            SaveError: The file cannot be written.
        """
        from spiral.io import atomic_write

        file = _tokenizer_file(Path(path))
        with atomic_write(file) as partial:
            partial.write_text(self.to_json(), encoding="utf-8", newline="\n")
        return file

    @property
    def vocab_size(self) -> int:
        """How many tokens there are; ids are 0 to ``vocab_size - 1``."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int:
        """The id of ``<|endoftext|>``."""
        return self._end_of_text

    def tokens(self) -> list[str]:
        """All tokens in the order of their ids, in GPT-2's spelling (``Ġ`` is a space)."""
        return list(self._tokens)

    def merges(self) -> list[str]:
        """The merges by falling priority, each as its two tokens with a space between."""
        return list(self._merges)

    def encode(self, text: str, *, parse_special: bool = False) -> NDArray[np.int32]:
        """The token ids of a text; nothing is put in front or behind.

        Args:
            text: Any text, of any length.
            parse_special: Whether ``<|endoftext|>`` in the text becomes that token. By default
                it is encoded like any other text, so a corpus cannot inject control tokens.

        Returns:
            (tokens,) ids.

        Raises:
            DataError: The text holds a lone surrogate, which no UTF-8 file can hold.

        Example:
            >>> tokenizer = Tokenizer.train("to be or not to be", vocab_size=260)
            >>> tokenizer.encode("<|endoftext|>", parse_special=True)
            array([0], dtype=int32)
        """
        if not isinstance(text, str):
            raise DataError(f"Tokenizer.encode: expected text (str); received {type(text).__name__}.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"Tokenizer.encode: expected text that UTF-8 can hold; received the lone "
                f"surrogate {text[error.start]!r} at character {error.start}; read the text with "
                "errors='strict' or 'replace'."
            ) from error
        parts = text.split(END_OF_TEXT) if parse_special else [text]
        special = np.array([self._end_of_text], np.int32)
        encoded = [self._encode_plain(part) for part in parts]
        return np.concatenate([encoded[0], *(a for part in encoded[1:] for a in (special, part))])

    def decode(self, ids: ArrayLike) -> str:
        """The text of token ids: the inverse of `encode`.

        Args:
            ids: (tokens,) ids. Where they cut a character's bytes apart, as a generated sequence
                may, the text has U+FFFD; `decode_bytes` gives the bytes.

        Returns:
            The text; special tokens are spelled out.

        Raises:
            DataError: An id is not in the vocabulary.

        Example:
            >>> Tokenizer.train("to be or not to be", vocab_size=260).decode([0])
            '<|endoftext|>'
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: ArrayLike) -> bytes:
        """The bytes of token ids, also when they are no whole UTF-8 text; see `decode`."""
        array = np.atleast_1d(np.asarray(ids))
        if array.size == 0:
            return b""
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(
                f"Tokenizer.decode: expected integer ids of shape (tokens,); received "
                f"{array.dtype} of shape {array.shape}."
            )
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.vocab_size:
            raise DataError(
                f"Tokenizer.decode: ids must be 0 to {self.vocab_size - 1}; received "
                f"{low if low < 0 else high}; was the text encoded by another tokenizer?"
            )
        return b"".join([self._bytes[index] for index in array.tolist()])

    def bytes_per_token(self, text: str) -> float:
        """How many bytes of UTF-8 one token of this text stands for, on average.

        With it a loss becomes bits per byte: ``loss / ln(2) / bytes_per_token``.

        Args:
            text: The text that the loss was measured on.

        Raises:
            DataError: The text is empty.

        Example:
            >>> Tokenizer.train("ab ab ab", vocab_size=257).bytes_per_token("abc")
            1.0
        """
        if not text:
            raise DataError("Tokenizer.bytes_per_token: expected text; received an empty string.")
        return len(text.encode("utf-8")) / len(self.encode(text))

    def gguf_fields(self) -> dict[str, Any]:
        """What a GGUF file must say for llama.cpp to tokenize as this object does.

        Returns:
            ``model`` and ``pre`` (the values of ``tokenizer.ggml.model`` and ``.pre``),
            ``tokens``, ``token_types`` (1 normal, 3 control, 4 user-defined), ``merges``,
            ``bos_token_id`` and ``eos_token_id``. llama.cpp adds no token in front for this
            pre-tokenizer unless the file asks for it.

        Example:
            >>> fields = Tokenizer.train("to be or not to be", vocab_size=260).gguf_fields()
            >>> fields["model"], fields["pre"], fields["token_types"][:2]
            ('gpt2', 'gpt-2', [3, 1])
        """
        return {
            "model": "gpt2",
            "pre": "gpt-2",
            "tokens": self.tokens(),
            "token_types": list(self._token_types),
            "merges": self.merges(),
            "bos_token_id": self._end_of_text,
            "eos_token_id": self._end_of_text,
        }

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size})"

    def _encode_plain(self, text: str) -> NDArray[np.int32]:
        encodings = self._library.encode_batch_fast(list(pieces(text)), add_special_tokens=False)
        empty = np.empty(0, np.int32)
        return np.concatenate([empty, *(np.array(e.ids, np.int32) for e in encodings)])


def _tokenizer_file(path: Path) -> Path:
    return path / "tokenizer.json" if path.is_dir() else path


def _tokens_in_id_order(vocabulary: dict[str, int], added: dict[int, dict[str, Any]]) -> list[str]:
    by_id = {index: token for token, index in vocabulary.items()}
    by_id.update({index: entry["content"] for index, entry in added.items()})
    gap = next((index for index in range(len(by_id)) if index not in by_id), None)
    if gap is not None:
        raise FormatError(f"Tokenizer: expected ids 0 to {len(by_id) - 1} without gaps; id {gap} is missing.")
    return [by_id[index] for index in range(len(by_id))]
