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
    process left half-written. A folder that was made for it and stayed empty is removed again.

    Raises:
        DataError: Another process holds it.
        SaveError: The folder cannot be written.
    """
    folder = Path(folder)
    path = Path(os.path.realpath(folder / LOCK))
    file, holders, process = _held.get(str(path), (None, 0, 0))
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file is None or process != os.getpid():  # a forked child does not hold what its parent holds
            file, holders = _locked(path), 0
            _remove_partial(folder)
    except OSError as error:
        raise SaveError(
            f"{folder}: cannot hold a run: {error.strerror}; give a run.out that is a folder you may write to."
        ) from error
    _held[str(path)] = (file, holders + 1, os.getpid())
    try:
        yield
    finally:
        file, holders, process = _held[str(path)]
        if holders > 1:
            _held[str(path)] = (file, holders - 1, process)
        else:
            del _held[str(path)]
            if os.name == "posix":  # elsewhere an open file cannot be removed, and an empty one does no harm
                path.unlink(missing_ok=True)
            file.close()
            if made and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _locked(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            if not _try_lock(file):
                file.seek(0)
                raise DataError(
                    f"{path.parent}: another process ({file.read().strip() or 'unknown'}) is training into this "
                    "folder; wait for it, stop it, or choose another run.out."
                )
            # the holder before may have removed the file between our opening and locking it
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), f"process {os.getpid()}".encode())
                return file
        except BaseException:
            file.close()
            raise
        file.close()


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
