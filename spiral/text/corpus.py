"""Text to train on: a demo corpus that every Python carries, and the user's own files.

The demo corpus needs no download: ``pydoc_data.topics`` is the language reference that
``help()`` prints, about 370 kB of English and Python code once repeated paragraphs are dropped.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from spiral.errors import ArgumentError, DataError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
"""Suffixes of the files that `load_text` reads out of a folder."""

_PARAGRAPH_BREAK = re.compile(r"\n{2,}")
_BOUNDARIES = (_PARAGRAPH_BREAK, re.compile(r"\n"))


def unique_paragraphs(texts: Iterable[str]) -> str:
    """Join texts into one and keep only the first of paragraphs that occur more than once.

    Repeated paragraphs would otherwise stand in both the training and the held-out part and
    make every model look better than it is: on the demo corpus a byte 5-gram model gains
    0.14 bits per byte from them. So this comes before `split`.

    Args:
        texts: Documents; paragraphs are separated by at least one empty line.

    Returns:
        The paragraphs in order, separated by one empty line, with a final newline; an empty
        string when there is none.

    Example:
        >>> unique_paragraphs(["one\\n\\ntwo", "one\\n\\nthree"])
        'one\\n\\ntwo\\n\\nthree\\n'
    """
    texts = list(texts)
    odd = next((text for text in texts if not isinstance(text, str)), "")
    if not isinstance(odd, str):
        raise DataError(f"unique_paragraphs: expected texts (str); received {type(odd).__name__}.")
    paragraphs = (paragraph.strip("\n") for text in texts for paragraph in _PARAGRAPH_BREAK.split(text))
    kept = dict.fromkeys(paragraph for paragraph in paragraphs if paragraph.strip())
    return "\n\n".join(kept) + "\n" if kept else ""


def demo_corpus() -> str:
    """The Python language reference of the running interpreter, each paragraph once.

    The text depends on the Python version only: topics come in alphabetical order.

    Returns:
        About 370,000 characters (CPython 3.11: 374,077 bytes as UTF-8).

    Raises:
        DataError: This Python was installed without `pydoc_data`.

    Example:
        >>> 'The "assert" statement' in demo_corpus()
        True
    """
    try:
        from pydoc_data import topics  # 0.5 MB of strings: imported where used
    except ModuleNotFoundError as error:
        raise DataError(
            "demo_corpus: expected the standard library's `pydoc_data.topics`, which this Python "
            "does not have; install the complete standard library or train on your own text with "
            "load_text(path)."
        ) from error
    return unique_paragraphs(text for _, text in sorted(topics.topics.items()))


def load_text(path: str | Path) -> str:
    """Read one text file, or all text files in a folder and the folders below it.

    A folder's files come in the order of their relative paths and are separated by an empty
    line; hidden files and folders (names that start with a dot) and blank files are left out. A
    file that is named itself may have any suffix. Line ends become ``\\n`` and a byte order mark
    is dropped.

    Args:
        path: A UTF-8 text file, or a folder with .txt, .md, .rst or .py files.

    Returns:
        The text.

    Raises:
        DataError: The path does not exist, no text file is there, a file is not UTF-8 or
            cannot be read, or all of it is blank.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("first")
        >>> _ = (folder / "b.md").write_text("second")
        >>> load_text(folder)
        'first\\n\\nsecond\\n'
    """
    if not isinstance(path, (str, os.PathLike)):
        raise DataError(f"load_text: expected a path; received {type(path).__name__}.")
    path = Path(path)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:  # too long, a zero byte, or a folder that may not be entered
        raise DataError(f"load_text: {str(path)[:200]!r}: expected a text file or a folder; {error}.") from error
    if not exists:
        raise DataError(
            f"load_text: {path}: expected a text file or a folder; there is nothing by that name "
            f"(relative paths start at {_working_folder()})."
        )
    if stat.S_ISCHR(path.stat().st_mode) or stat.S_ISBLK(path.stat().st_mode):  # some never end
        raise DataError(f"load_text: {path}: expected a text file or a folder; received a device.")
    if not path.is_dir():
        text = _read_utf8(path)
        if not text.strip():
            raise DataError(
                f"load_text: {path}: the dataset is empty ({path.stat().st_size} bytes, no "
                "visible character); give a file that holds text."
            )
        return text
    files = list(_text_files(path))
    if not files:
        raise DataError(
            f"load_text: {path}: no text files found; expected files that end in "
            f"{', '.join(TEXT_SUFFIXES)}. Rename them, or name one file itself, which may have "
            "any suffix."
        )
    texts = [text.strip("\n") for text in map(_read_utf8, files) if text.strip()]
    if not texts:
        raise DataError(
            f"load_text: {path}: the dataset is empty: no visible character in "
            f"{len(files)} text file(s); give a folder whose files hold text."
        )
    return "\n\n".join(texts) + "\n"


def split(text: str, held_out: float = 0.1) -> tuple[str, str]:
    """Cut a text into a training part and the held-out part that follows it.

    The cut is the paragraph boundary (the end of a run of empty lines) nearest to the mark at
    ``1 - held_out`` of the characters. A boundary further from the mark than half of the smaller
    part does not count, so the parts keep about the sizes asked for; then the nearest line end
    within the same distance is taken, and without one the mark itself. Nothing is lost:
    ``train + held_out == text``.

    Args:
        text: The whole text, without repeated paragraphs (see `unique_paragraphs`).
        held_out: Share of the characters to hold out, between 0 and 1 (both excluded).

    Returns:
        The training text and the held-out text.

    Raises:
        ArgumentError: `held_out` is not between 0 and 1.
        DataError: The text is so short that one part would be blank.

    Example:
        >>> split("abcdefgh\\n\\nijklmnopq\\n\\nr", held_out=0.1)
        ('abcdefgh\\n\\nijklmnopq\\n\\n', 'r')
    """
    if not isinstance(text, str):
        raise DataError(f"split: expected text (str); received {type(text).__name__}.")
    if not isinstance(held_out, (int, float)) or not 0.0 < held_out < 1.0:
        raise ArgumentError(f"split: held_out must be between 0 and 1, for example 0.1; received {held_out!r}.")
    mark = round(len(text) * (1.0 - held_out))
    reach = max(1, round(len(text) * min(held_out, 1.0 - held_out) / 2))
    cut = mark
    for boundary in _BOUNDARIES:
        ends = [m.end() for m in boundary.finditer(text, max(0, mark - reach), mark + reach)]
        if ends:
            cut = min(ends, key=lambda end: abs(end - mark))
            break
    train, rest = text[:cut], text[cut:]
    if not train.strip() or not rest.strip():
        raise DataError(
            f"split: expected text for a training and a held-out part (held_out={held_out}); "
            f"received {len(text)} characters, of which {len(text.strip())} remain without "
            "surrounding blanks, so one part would be blank; give more text."
        )
    return train, rest


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "a folder that was removed"


def _text_files(folder: Path) -> Iterator[Path]:
    """The visible text files under a folder, by relative path, the same on every system."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in TEXT_SUFFIXES)
    for path in sorted(found, key=lambda path: path.relative_to(folder).parts):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _read_utf8(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"load_text: {path}: cannot be read: {error.strerror}.") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"load_text: {path}: expected UTF-8 text; received byte 0x{data[error.start]:02x} at "
            f"byte offset {error.start} ({error.reason}); convert the file, for example with "
            "`iconv -f latin1 -t utf-8`, or leave it out."
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
