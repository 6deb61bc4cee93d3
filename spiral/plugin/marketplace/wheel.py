"""What a wheel says of itself, read without running anything in it.

A wheel holds one plugin: one entry point in the group ``spiral.plugins``, named by the plugin's id. What METADATA has
no place for stands in ``spiral_plugin.json`` in the entry point's top-level package. The formats are those of the
binary distribution format (PEP 427) and the entry points specification.
"""

from __future__ import annotations

import base64
import configparser
import csv
import email.parser
import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from spiral.errors import received
from spiral.plugin.marketplace.errors import MarketplaceError

GROUP = "spiral.plugins"
DECLARATION = "spiral_plugin.json"
_MAX_FILES = 20_000
_MAX_UNPACKED = 8 << 30
_MAX_TEXT = 4 << 20  # of METADATA, RECORD, entry_points.txt, the declaration


@dataclass(frozen=True)
class WheelInfo:
    """The contents of a wheel.

    Attributes:
        plugin_id: the name of its entry point.
        distribution: as METADATA writes it.
        version: the distribution's.
        summary: one sentence.
        requires_python: versions of Python; empty: any.
        requires_dist: other distributions, as METADATA writes them.
        declared: what ``spiral_plugin.json`` says.
        files: SHA-256 by path of every file that is installed as it is, relative to the folder of packages.
    """

    plugin_id: str
    distribution: str
    version: str
    summary: str = ""
    requires_python: str = ""
    requires_dist: tuple[str, ...] = ()
    declared: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read_wheel(path: str | Path) -> WheelInfo:
    """Reads a wheel and checks that its files are those that its RECORD lists.

    Raises:
        MarketplaceError: it is no wheel, holds no plugin or several, or is inconsistent.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path.name, archive)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, UnicodeDecodeError) as error:
        raise MarketplaceError(f"{path.name}: cannot be read as a wheel: {error}.") from error


def _read(name: str, archive: zipfile.ZipFile) -> WheelInfo:
    files = _files(name, archive)
    folders = {p.partition("/")[0] for p in files if p.partition("/")[0].endswith(".dist-info")}
    if len(folders) != 1:
        raise MarketplaceError(
            f"{name}: expected one .dist-info folder; received {', '.join(sorted(folders)) or 'none'}."
        )
    info = folders.pop()
    hashes = _check_record(name, archive, files, f"{info}/RECORD")
    metadata = email.parser.BytesParser().parsebytes(_text(name, archive, files, f"{info}/METADATA"), headersonly=True)
    points = _plugin_entry_points(name, _text(name, archive, files, f"{info}/entry_points.txt"))
    if len(points) != 1:
        raise MarketplaceError(
            f"{name}: expected one entry point in the group {GROUP}; received {', '.join(points) or 'none'}."
        )
    [(plugin_id, target)] = points.items()
    declaration = f"{target.partition(':')[0].strip().partition('.')[0]}/{DECLARATION}"
    declared = _declaration(name, _text(name, archive, files, declaration)) if declaration in files else {}
    return WheelInfo(
        plugin_id,
        str(metadata.get("Name", "")),
        str(metadata.get("Version", "")),
        str(metadata.get("Summary", "")),
        str(metadata.get("Requires-Python", "")),
        tuple(str(r) for r in metadata.get_all("Requires-Dist", [])),
        declared,
        {placed: digest for p, digest in hashes.items() if (placed := _placed(p)) and placed != f"{info}/RECORD"},
    )


def _files(name: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MAX_FILES or sum(m.file_size for m in members) > _MAX_UNPACKED:
        raise MarketplaceError(f"{name}: holds more than {_MAX_FILES} files or {_MAX_UNPACKED} bytes.")
    files: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for member in members:
        p = member.filename
        odd = p.startswith("/") or "\\" in p or ":" in p or not p.isprintable() or ".." in PurePosixPath(p).parts
        if odd or stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
            raise MarketplaceError(f"{name}: {received(p)} leads outside, is a link, or is encrypted.")
        if p.casefold() in seen:
            raise MarketplaceError(f"{name}: holds {received(p)} twice.")
        seen.add(p.casefold())
        if not member.is_dir():
            files[p] = member
    return files


def _text(name: str, archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo], path: str) -> bytes:
    if path not in files:
        raise MarketplaceError(f"{name}: lacks {path}.")
    if files[path].file_size > _MAX_TEXT:
        raise MarketplaceError(f"{name}: {path} is longer than {_MAX_TEXT} bytes.")
    return archive.read(files[path])


def _check_record(
    name: str, archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo], record: str
) -> dict[str, str]:
    """SHA-256 in hexadecimal of every file, after comparing them with RECORD."""
    rows = list(csv.reader(io.StringIO(_text(name, archive, files, record).decode("utf-8"))))
    listed = {row[0]: row[1] for row in rows if len(row) == 3}
    free = {record, f"{record}.jws", f"{record}.p7s"}
    if len(listed) != len(rows) or set(listed) - free != set(files) - free:
        differ = sorted((set(listed) ^ set(files)) - free)
        raise MarketplaceError(f"{name}: RECORD does not list its files: {', '.join(differ[:5]) or 'malformed rows'}.")
    hashes = {}
    for path, member in files.items():
        digest = hashlib.sha256()
        with archive.open(member) as file:
            while block := file.read(1 << 18):
                digest.update(block)
        coded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if path not in free and listed[path] != f"sha256={coded}":
            raise MarketplaceError(f"{name}: {path} has not the SHA-256 that RECORD lists.")
        hashes[path] = digest.hexdigest()
    return hashes


def _plugin_entry_points(name: str, data: bytes) -> dict[str, str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        parser.read_string(data.decode("utf-8"))
    except configparser.Error as error:
        raise MarketplaceError(f"{name}: entry_points.txt is malformed: {error}") from error
    return dict(parser[GROUP]) if parser.has_section(GROUP) else {}


def _declaration(name: str, data: bytes) -> dict[str, Any]:
    allowed = {"description", "capabilities", "dependencies", "conflicts", "provides"}
    try:
        declared = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MarketplaceError(f"{name}: {DECLARATION} is no JSON: {error}") from error
    if not isinstance(declared, dict) or set(declared) - allowed:
        raise MarketplaceError(f"{name}: {DECLARATION}: expected an object with keys of {', '.join(sorted(allowed))}.")
    return declared


def _placed(path: str) -> str:
    """Where a file of a wheel is installed, relative to the folder of packages; empty: elsewhere, or rewritten."""
    first, _, rest = path.partition("/")
    if first.endswith(".data"):
        scheme, _, inside = rest.partition("/")
        return inside if scheme in ("purelib", "platlib") else ""
    return path
