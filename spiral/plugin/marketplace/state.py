"""What is remembered between runs: the newest index of each marketplace, and what was installed where.

Two files, so that a failed installation leaves the second as it was while the first has learned of a newer index.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiral.io.atomic import atomic_write
from spiral.plugin.marketplace.errors import MarketplaceError, UntrustedError
from spiral.plugin.marketplace.index import Entry

SEEN, INSTALLED, LOCK = "indexes.json", "installed.json", "lock"


@dataclass(frozen=True)
class Record:
    """A plugin that was installed.

    Attributes:
        entry: as the index gave it.
        index: the name of the marketplace.
        files: SHA-256 by path, relative to the folder of packages, from the wheel.
    """

    entry: Entry
    index: str
    files: Mapping[str, str]


class State:
    """The two files in a folder, made when first written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._threads = threading.RLock()
        self._holders = 0

    # ------------------------------------------------------------ indexes
    def accept(self, location: str, name: str, serial: int, sha256: str) -> None:
        """Remembers an index that was verified.

        Raises:
            UntrustedError: it is older than one that was seen, differs from one of the same serial number, or the
                location had another marketplace before.
        """
        seen = self._read(SEEN)
        names, serials = seen.setdefault("locations", {}), seen.setdefault("serials", {})
        if names.get(location, name) != name:
            raise UntrustedError(
                f"{location}: is the marketplace {name!r} now and was {names[location]!r} before; "
                "call forget() if that is meant to be."
            )
        last = serials.get(name)
        if last is not None and serial < last["serial"]:
            raise UntrustedError(
                f"{location}: the index of {name!r} has the serial number {serial}, but {last['serial']} was seen "
                "already; somebody replays an older index, or a mirror is behind."
            )
        if last is not None and serial == last["serial"] and sha256 != last["sha256"]:
            raise UntrustedError(
                f"{location}: there are two different indexes of {name!r} with the serial number {serial}."
            )
        if location not in names or last is None or serial != last["serial"]:
            names[location], serials[name] = name, {"serial": serial, "sha256": sha256}
            self._write(SEEN, seen)

    def forget(self, location: str) -> None:
        """Forgets which marketplace a location has; what was seen of each marketplace stays."""
        seen = self._read(SEEN)
        seen.get("locations", {}).pop(location, None)
        self._write(SEEN, seen)

    # ------------------------------------------------------------ installed plugins
    def installed(self, prefix: str) -> dict[str, Record]:
        """What was installed into an environment, by id."""
        records = {}
        for id, data in self._read(INSTALLED).get(prefix, {}).items():
            try:
                entry = Entry.from_json(id, data["version"], data["entry"])
                records[id] = Record(entry, data["index"], dict(data["files"]))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise MarketplaceError(
                    f"{self.folder / INSTALLED}: {id!r} is damaged: {error}; repair or remove the file."
                ) from error
        return records

    def set_installed(self, prefix: str, records: Mapping[str, Record]) -> None:
        """Replaces what is known of an environment."""
        everything = self._read(INSTALLED)
        everything[prefix] = {
            id: {"version": r.entry.version, "entry": r.entry.to_json(), "index": r.index, "files": dict(r.files)}
            for id, r in records.items()
        }
        self._write(INSTALLED, everything)

    # ------------------------------------------------------------ files
    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time installs, or learns of an index; the system lets go when the process ends. The thread
        that holds it may take it again.

        Raises:
            MarketplaceError: another one is at it.
        """
        with self._threads:
            self._holders += 1
            try:
                with self._process_lock() if self._holders == 1 else nullcontext():
                    yield
            finally:
                self._holders -= 1

    @contextmanager
    def _process_lock(self) -> Iterator[None]:
        self._make()
        with (self.folder / LOCK).open("a+") as file:
            try:
                if os.name == "nt":
                    import msvcrt

                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
                else:
                    import fcntl

                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise MarketplaceError(f"{self.folder}: another process uses the marketplace; wait for it.") from error
            yield

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise MarketplaceError(f"{self.folder}: cannot be made: {error.strerror}.") from error

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:  # starting afresh would forget serial numbers
            raise MarketplaceError(f"{path}: cannot be read: {error}; repair or remove it.") from error
        if not isinstance(data, dict) or not all(isinstance(v, dict) for v in data.values()):
            raise MarketplaceError(f"{path}: is damaged; repair or remove it.")
        return data

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        self._make()
        with atomic_write(self.folder / name) as partial:
            partial.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
