"""Whether installed plugins still are what was signed.

The hashes of a wheel's files were noted when the wheel was verified, so that a changed file is noticed even if its line
in the installed RECORD is changed with it. Compiled ``.pyc`` files have no hash anywhere and are not compared.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path

from spiral.plugin.marketplace.environment import Contents, canonical
from spiral.plugin.marketplace.index import Index
from spiral.plugin.marketplace.reports import Problem, Verification
from spiral.plugin.marketplace.state import Record


def check_installed(records: Mapping[str, Record], contents: Contents, index: Index | None) -> Verification:
    """Compares every recorded file with the disk, and every recorded wheel with an index if one is given."""
    problems: list[Problem] = []
    count = 0
    for id, record in records.items():
        there = contents.distributions.get(canonical(record.entry.distribution))
        if there is None or there.version != record.entry.version:
            found = f"{there.version} is" if there else "nothing is"
            problems.append(Problem(id, f"expected version {record.entry.version}; {found} installed"))
        else:
            count += len(record.files)
            problems += compare_files(id, record, Path(there.folder))
        if index is not None and index.name == record.index:
            problems += _ask(id, record, index)
    checked = tuple(f"{id} {record.entry.version}" for id, record in records.items())
    return Verification(checked, count, tuple(problems))


def compare_files(id: str, record: Record, folder: Path) -> list[Problem]:
    """Files in a folder of packages that are not as they were in the wheel."""
    problems = []
    installed = _installed_hashes(folder, record)
    for name, digest in record.files.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                now = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            problems.append(Problem(id, f"cannot be read: {error.strerror}", name))
            continue
        if now != digest:
            problems.append(Problem(id, "has been changed since it was installed", name))
        elif installed is not None and installed.get(name) != digest:
            problems.append(Problem(id, "has another hash, or none, in the installed RECORD", name))
    if installed is None:
        problems.append(Problem(id, "the installed RECORD cannot be read"))
    return problems


def _installed_hashes(folder: Path, record: Record) -> dict[str, str] | None:
    """SHA-256 in hexadecimal by path, from the RECORD that pip wrote."""
    info = next((n.partition("/")[0] for n in record.files if n.partition("/")[0].endswith(".dist-info")), "")
    try:
        with (folder / info / "RECORD").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) == 3 and row[1].startswith("sha256=")]
        return {row[0]: base64.urlsafe_b64decode(row[1][7:] + "=").hex() for row in rows}
    except (OSError, ValueError):
        return None  # the caller says so


def _ask(id: str, record: Record, index: Index) -> list[Problem]:
    entry = index.plugins.get(id, {}).get(record.entry.version)
    if entry is None:
        return [Problem(id, f"the index has withdrawn version {record.entry.version}")]
    if entry.sha256 != record.entry.sha256:
        return [Problem(id, f"the index has another artifact as version {record.entry.version} now")]
    return []
