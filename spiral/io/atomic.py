"""Replace a file in one step, so that a crash or a full disk never leaves half of one."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spiral.errors import SaveError

# No room for the bytes: disk full, quota used up, or beyond the process's file size limit.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, needed: int | None = None) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it becomes `path`, durably.

    The temporary file is flushed to the disk, renamed over `path`, and the folder is flushed
    too, so that after a power cut `path` is either the old file or the whole new one. On any
    exception the temporary file is removed and `path` is untouched. A symbolic link is followed
    and an existing file's permissions are kept.

    Args:
        path: The file to create or replace; its folder must exist.
        needed: How many bytes will be written, where known: a disk without that much room is
            refused before anything is written.

    Yields:
        The path to write to. It exists and is empty; it may be opened several times.

    Raises:
        SaveError: The folder is missing or not writable, or there is no room for the file.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with atomic_write(target) as partial:
        ...     _ = partial.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    if "\0" in os.fspath(path):
        raise SaveError(f"{os.fspath(path)!r}: cannot be written: no path has a zero byte.")
    target = Path(os.path.realpath(path))
    if needed is not None:
        _require_room(target, needed)
    partial = target.with_name(f".{target.name[:80]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    mode = _create(partial, target)
    try:
        try:
            yield partial
            os.chmod(partial, mode)
            _flush(partial)
            os.replace(partial, target)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _no_room(target, partial, needed, error) from error
            if error.filename is not None and os.fspath(error.filename) != str(partial):
                raise  # another file's error
            raise _save_error(
                f"{target}: cannot be written: {error.strerror}; {_intact(target)}.",
                error,
            ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Windows cannot open folders; its rename is journalled
        _flush(target.parent)


def _create(partial: Path, target: Path) -> int:
    """Create the temporary file; returns the permissions that the final file shall have."""
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            mode = os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
        if target.exists() and not target.is_file():  # renaming over a device would remove the device
            partial.unlink()
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            raise OSError(errno.EINVAL, "it is no regular file")
    except OSError as error:
        raise _save_error(
            f"{target}: cannot be written: {error.strerror}; give a path in an existing folder that you may write to.",
            error,
        ) from error
    if target.exists():  # a new file gets what the umask allows
        mode = target.stat().st_mode
    return stat.S_IMODE(mode)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_room(target: Path, needed: int) -> None:
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise _save_error(f"{target}: cannot be written: {error.strerror}; create the folder first.", error) from error
    if free < needed:
        raise SaveError(
            f"{target}: needs {needed} bytes, the disk has {free} bytes free; {_intact(target)}; "
            "free some space or write elsewhere."
        )


def _no_room(target: Path, partial: Path, needed: int | None, error: OSError) -> SaveError:
    written = partial.stat().st_size if partial.exists() else 0
    wanted = f"needs {needed} bytes" if needed is not None else f"needs more than {written} bytes"
    free = shutil.disk_usage(target.parent).free
    return _save_error(
        f"{target}: cannot be written: {error.strerror} after {written} bytes; it {wanted}, the "
        f"disk has {free} bytes free besides those; {_intact(target)}; free some space or write "
        "elsewhere.",
        error,
    )


def _intact(target: Path) -> str:
    return "the previous file is intact" if target.exists() else "no file was left behind"


def _save_error(message: str, cause: OSError) -> SaveError:
    error = SaveError(message)
    error.errno = cause.errno
    return error
