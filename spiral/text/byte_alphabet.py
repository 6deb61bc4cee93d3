"""GPT-2's spelling of bytes as visible characters, in which byte-level vocabularies are written.

Source: `bytes_to_unicode` of GPT-2's encoder.py (Radford et al. 2019); the same table stands in
the `tokenizers` library and in llama.cpp (`unicode_byte_to_utf8`).
"""

from __future__ import annotations

from functools import cache


@cache
def byte_to_character() -> tuple[str, ...]:
    """The character that stands for each of the 256 bytes.

    Printable Latin-1 characters stand for themselves; the other 68 bytes (controls, space,
    delete, no-break space, soft hyphen) take the characters from U+0100 on, in order.

    Example:
        >>> byte_to_character()[ord("a")], byte_to_character()[ord(" ")]
        ('a', 'Ġ')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256))


@cache
def character_to_byte() -> dict[str, int]:
    """The inverse of `byte_to_character`."""
    return {character: byte for byte, character in enumerate(byte_to_character())}


def spelled_bytes(token: str) -> bytes:
    """The bytes that a token in GPT-2's spelling stands for.

    Args:
        token: A token whose characters all stand for bytes.

    Raises:
        KeyError: A character stands for no byte.

    Example:
        >>> spelled_bytes("Ġcaf\\u00c3\\u00a9").decode()
        ' café'
    """
    table = character_to_byte()
    return bytes([table[character] for character in token])
