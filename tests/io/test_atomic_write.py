"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from spiral.errors import SaveError
from spiral.io import atomic_write


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file grow beyond 4 KiB: what a full disk does, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_new_content_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_no_room_is_a_save_error_that_says_the_old_file_is_intact(tmp_path: Path, small_files: None) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    message = r"file: cannot be written: .* needs 9000 bytes.*bytes free.*previous file is intact"
    with pytest.raises(SaveError, match=message), atomic_write(target, needed=9000) as partial:
        partial.write_bytes(bytes(9000))
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_too_much_for_the_disk_is_refused_before_writing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(SaveError, match="no file was left"), atomic_write(target, needed=2**62):
        pytest.fail("the body must not run")
    assert os.listdir(tmp_path) == []


def test_missing_folder_is_a_save_error(tmp_path: Path) -> None:
    target = tmp_path / "no" / "file"
    with pytest.raises(SaveError, match="existing folder"), atomic_write(target):
        pytest.fail("the body must not run")
    with pytest.raises(SaveError, match="create the folder"), atomic_write(target, needed=1):
        pytest.fail("the body must not run")


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SaveError, match="directory"), atomic_write(tmp_path / "folder"):
        pytest.fail("the body must not run")
    assert os.listdir(tmp_path) == ["folder"]


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "file", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with atomic_write(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_device_is_not_replaced_and_a_name_too_long_leaves_nothing(tmp_path: Path) -> None:
    if Path("/dev/null").is_char_device():
        with pytest.raises(SaveError, match="it is no regular file"), atomic_write("/dev/null"):
            pytest.fail("it must not come here")
        assert Path("/dev/null").is_char_device()
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(SaveError, match="cannot be written"), atomic_write(tmp_path / name):
            pytest.fail("it must not come here")
    assert list(tmp_path.iterdir()) == []
