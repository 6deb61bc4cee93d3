"""The demo corpus, reading files and folders, and the split."""

from __future__ import annotations

from pathlib import Path

import pytest

from spiral.errors import ArgumentError, DataError
from spiral.text import demo_corpus, load_text, split, unique_paragraphs


def test_demo_corpus_is_english_text_without_repeated_paragraphs() -> None:
    text = demo_corpus()
    paragraphs = text.rstrip("\n").split("\n\n")
    assert len(text.encode()) > 300_000
    assert len(paragraphs) == len(set(paragraphs))
    assert text == demo_corpus()


def test_first_of_repeated_paragraphs_is_kept() -> None:
    assert unique_paragraphs(["a\n\nb\n\n\na", "  \n\nb\n\nc"]) == "a\n\nb\n\nc\n"
    assert unique_paragraphs([" \n\n "]) == ""


def test_split_loses_nothing_and_cuts_at_the_nearest_paragraph() -> None:
    text = demo_corpus()
    train, held_out = split(text)
    assert train + held_out == text
    assert train.endswith("\n\n")
    mark = round(0.9 * len(text))
    between = text[min(mark, len(train)) : max(mark, len(train)) - 2]
    assert "\n\n" not in between


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("a\n\n" + "b" * 97, 90),  # the only paragraph end is too far from the mark
        ("a" * 87 + "\n" + "b" * 12, 88),
        ("a" * 100, 90),
    ],
)
def test_split_without_a_near_paragraph_end_keeps_the_share(text: str, cut: int) -> None:
    train, held_out = split(text)
    assert (len(train), train + held_out) == (cut, text)


def test_split_refuses_a_text_too_short_and_a_wrong_share() -> None:
    with pytest.raises(DataError, match="one part would be blank"):
        split("a")
    with pytest.raises(ArgumentError, match=r"received 1\.5"):
        split("some text", held_out=1.5)


def test_folder_is_read_in_path_order_without_hidden_or_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "x.py").write_text("second\n")
    (tmp_path / "a.MD").write_text("first")
    (tmp_path / "c.rst").write_text("\n\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / ".git" / "z.txt").write_text("hidden")
    assert load_text(tmp_path) == "first\n\nsecond\n"
    assert load_text(str(tmp_path / "b" / "x.py")) == "second\n"


def test_line_ends_and_byte_order_mark_are_normalized(tmp_path: Path) -> None:
    file = tmp_path / "windows.log"
    file.write_bytes("\ufeffone\r\ntwo\rthree".encode())
    assert load_text(file) == "one\ntwo\nthree"


def test_undecodable_file_is_named_with_its_byte_offset(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes(b"\xef\xbb\xbfcaf\xe9 au lait")
    with pytest.raises(DataError, match=r"latin\.txt: .* byte 0xe9 at byte offset 6"):
        load_text(tmp_path)


def test_missing_empty_and_unsuitable_sources_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing by that name"):
        load_text(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no text files found.*\.txt, \.md, \.rst, \.py"):
        load_text(tmp_path)
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n")
    for source in (blank, tmp_path):
        with pytest.raises(DataError, match="the dataset is empty"):
            load_text(source)
