"""One process per run folder: two that train into it would mix their checkpoints and records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spiral.errors import DataError, SaveError

LOCK = "run.lock"
_held: dict[str, tuple[IO[str], int, int]] = {}  # path: open file, holders, process


@contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Hold a run's folder, made if need be; the same process may hold it several times.

    The system lets go of the lock when the process ends, however it ends. Who gets it removes what a killed
    process left half-written.

    Raises:
        DataError: Another process holds it.
        SaveError: The folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = os.path.realpath(folder / LOCK)
        file, holders, process = _held.get(path, (None, 0, 0))
        if file is None or process != os.getpid():  # a forked child does not hold what its parent holds
            file, holders = _locked(Path(path)), 0
            _remove_partial(folder)
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(
            f"{folder}: cannot hold a run: {error.strerror}; give a run.out that is a folder you may write to."
        ) from error
    _held[path] = (file, holders + 1, os.getpid())
    try:
        yield
    finally:
        file, holders, process = _held[path]
        if holders > 1:
            _held[path] = (file, holders - 1, process)
        else:
            del _held[path]
            file.close()


def _locked(path: Path) -> IO[str]:
    file = path.open("a+", encoding="utf-8")
    try:
        if not _try_lock(file):
            file.seek(0)
            raise DataError(
                f"{path.parent}: another process ({file.read().strip() or 'unknown'}) is training into this folder; "
                "wait for it, stop it, or choose another run.out."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
    except BaseException:
        try:
            file.close()
        except OSError:  # the disk is full and says so a second time; the first time is being raised
            pass
        raise
    return file


def _try_lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _remove_partial(folder: Path) -> None:
    """What `atomic_write` could not remove because its process was killed."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)
