"""Text: corpora, the tokenizer, and the baselines a language model must beat.

Importing this needs only NumPy; the `tokenizers` library is imported when a tokenizer is made.
"""

from __future__ import annotations

from spiral.text.baselines import witten_bell_bits_per_byte, zlib_bits_per_byte
from spiral.text.byte_level_bpe import END_OF_TEXT
from spiral.text.corpus import TEXT_SUFFIXES, demo_corpus, load_text, split, unique_paragraphs
from spiral.text.tokenizer import Tokenizer

__all__ = [
    "END_OF_TEXT",
    "TEXT_SUFFIXES",
    "Tokenizer",
    "demo_corpus",
    "load_text",
    "split",
    "unique_paragraphs",
    "witten_bell_bits_per_byte",
    "zlib_bits_per_byte",
]
