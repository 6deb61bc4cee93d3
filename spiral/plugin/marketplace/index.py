"""The index of a marketplace: which plugins there are in which versions, and the hashes of their artifacts.

Described in ``docs/marketplace.md``. Everything here works on bytes whose signature has been checked; what it says is
checked nevertheless, down to the length of a description, because it ends up in paths, commands and terminals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

from spiral.errors import RegistryError, received
from spiral.plugin.dependencies import Node, Requirement, check_specifier, parse_version
from spiral.plugin.marketplace.errors import MarketplaceError

FORMAT = "spiral-plugin-index/1"
INDEX, SIGNATURE = "index.json", "index.json.sig"
MAX_INDEX = 16 << 20
"""Bytes: some 20,000 versions."""
MAX_ARTIFACT = 2 << 30
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_ARTIFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,180}\.whl")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Entry:
    """One version of a plugin.

    Attributes:
        id: the plugin's.
        version: the plugin's and the distribution's.
        artifact: file name of the wheel.
        sha256: of the wheel, 64 hexadecimal digits.
        size: of the wheel, bytes.
        distribution: what pip calls it.
        requires_python: versions of Python it runs on; empty: any.
        description: one sentence.
        capabilities: as ``str(PluginCapability)`` gives them: ``Telemetry``, ``Backend:cuda``.
        requirements: other plugins it needs.
        conflicts: plugins it cannot stand beside.
        provides: (id, version) of what it may stand for.
    """

    id: str
    version: str
    artifact: str
    sha256: str
    size: int
    distribution: str
    requires_python: str = ""
    description: str = ""
    capabilities: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    conflicts: tuple[Requirement, ...] = ()
    provides: tuple[tuple[str, str], ...] = ()

    def node(self) -> Node:
        """What the choice of versions has to know."""
        return Node(self.id, self.version, self.requirements, self.conflicts, self.provides)

    def has_capability(self, capability: object) -> bool:
        """Whether it is among its capabilities, without regard to case."""
        return str(capability).casefold() in {c.casefold() for c in self.capabilities}

    def to_json(self) -> dict[str, Any]:
        """As it stands under its version in an index."""
        return {
            "artifact": self.artifact,
            "sha256": self.sha256,
            "size": self.size,
            "distribution": self.distribution,
            "requires_python": self.requires_python,
            "description": self.description,
            "capabilities": list(self.capabilities),
            "dependencies": [
                {"id": r.plugin_id, "versions": r.specifier, "optional": r.optional} for r in self.requirements
            ],
            "conflicts": [{"id": r.plugin_id, "versions": r.specifier} for r in self.conflicts],
            "provides": [{"id": id, "version": version} for id, version in self.provides],
        }

    @classmethod
    def from_json(cls, id: str, version: str, data: object) -> Entry:
        """The entry that `to_json` gave.

        Raises:
            MarketplaceError: something in it is not as it must be.
        """
        where = f"plugin {received(id)} {received(version)}"
        r = _Reader(where, data)
        if not _ID.fullmatch(id):
            raise MarketplaceError(f"{where}: an id is 1 to 100 of A-Z a-z 0-9 . _ -, the ends alphanumeric.")
        _malformed(where, parse_version, version, id)
        entry = cls(
            id,
            version,
            r.matching("artifact", _ARTIFACT),
            r.matching("sha256", _SHA256),
            r.number("size", 1, MAX_ARTIFACT),
            r.matching("distribution", _ID),
            r.text("requires_python", 100, ""),
            r.text("description", 1000, ""),
            tuple(r.texts("capabilities", 100)),
            tuple(
                Requirement(d.matching("id", _ID), d.specifier(id), d.flag("optional")) for d in r.items("dependencies")
            ),
            tuple(Requirement(d.matching("id", _ID), d.specifier(id)) for d in r.items("conflicts")),
            tuple((d.matching("id", _ID), d.text("version", 100)) for d in r.items("provides")),
        )
        _malformed(where, check_specifier, entry.requires_python, id)
        for _, provided in entry.provides:
            _malformed(where, parse_version, provided, id)
        check_artifact_name(entry)
        return entry


def check_artifact_name(entry: Entry) -> None:
    """That the file's name is that of a wheel of this distribution and version, and nothing else: no path, no URL.

    Raises:
        MarketplaceError: it is not.
    """
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

    where = f"plugin {entry.id!r} {entry.version}: artifact {received(entry.artifact)}"
    if not _ARTIFACT.fullmatch(entry.artifact) or ".." in entry.artifact:
        raise MarketplaceError(f"{where}: expected the plain name of a wheel, without any folder.")
    try:
        name, version, _, _ = parse_wheel_filename(entry.artifact)
    except InvalidWheelFilename as error:
        raise MarketplaceError(f"{where}: is no wheel's name: {error}") from error
    if name == "spiral":
        raise MarketplaceError(f"{where}: spiral itself is no plugin.")
    if name != canonicalize_name(entry.distribution) or version != parse_version(entry.version, entry.id):
        raise MarketplaceError(f"{where}: expected the wheel of {entry.distribution} {entry.version}.")


@dataclass(frozen=True)
class Index:
    """All plugins of a marketplace at one moment.

    Attributes:
        name: the marketplace's; replayed older indexes are recognised by it and `serial`.
        serial: grows with every index that is published under the name.
        created: when it was made.
        expires: after which time nobody accepts it.
        plugins: id → version → entry.
    """

    name: str
    serial: int
    created: datetime
    expires: datetime
    plugins: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)

    def entries(self) -> list[Entry]:
        """Every version of every plugin."""
        return [entry for versions in self.plugins.values() for entry in versions.values()]

    def to_bytes(self) -> bytes:
        """The content of ``index.json``."""
        plugins = {id: {v: e.to_json() for v, e in versions.items()} for id, versions in self.plugins.items()}
        head = {
            "format": FORMAT,
            "name": self.name,
            "serial": self.serial,
            "created": self.created.astimezone(UTC).strftime(_TIME),
            "expires": self.expires.astimezone(UTC).strftime(_TIME),
        }
        return (json.dumps({**head, "plugins": plugins}, indent=1) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """The index in an ``index.json`` whose signature has been checked.

        Raises:
            MarketplaceError: it does not follow the format; the message names the place.
        """
        if len(data) > MAX_INDEX:
            raise MarketplaceError(f"index: {len(data)} bytes are more than the {MAX_INDEX} that are allowed.")
        try:
            parsed = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise MarketplaceError(f"index: is no JSON: {error}") from error
        r = _Reader("index", parsed)
        form = r.text("format", 100)
        if form != FORMAT:
            raise MarketplaceError(f"index: expected the format {FORMAT!r}; received {received(form)}; update spiral.")
        plugins: dict[str, dict[str, Entry]] = {}
        for id, versions in r.table("plugins").items():
            plugins[id] = {
                v: Entry.from_json(id, v, e) for v, e in _Reader(f"plugin {received(id)}", versions).data.items()
            }
        index = cls(
            r.matching("name", _ID), r.number("serial", 1, 2**63 - 1), r.time("created"), r.time("expires"), plugins
        )
        _check_uniqueness(index)
        return index


def _check_uniqueness(index: Index) -> None:
    """That names which differ in case or writing only do not stand for different things."""
    from packaging.utils import canonicalize_name

    ids: dict[str, str] = {}
    owners: dict[str, str] = {}
    artifacts: dict[str, Entry] = {}
    for id, versions in index.plugins.items():
        if ids.setdefault(id.casefold(), id) != id:
            raise MarketplaceError(f"index: the ids {ids[id.casefold()]!r} and {id!r} differ in case only.")
        seen: dict[object, str] = {}
        for version, entry in versions.items():
            other = seen.setdefault(parse_version(version, id), version)
            if other != version:
                raise MarketplaceError(f"index: plugin {id!r}: {other!r} and {version!r} are the same version.")
            distribution = canonicalize_name(entry.distribution)
            if owners.setdefault(distribution, id) != id:
                raise MarketplaceError(
                    f"index: the distribution {distribution!r} is named by {owners[distribution]!r} and by {id!r}."
                )
            twin = artifacts.setdefault(entry.artifact.casefold(), entry)
            if twin is not entry:
                raise MarketplaceError(f"index: {twin.id} {twin.version} and {id} {version} share {entry.artifact!r}.")


def _no_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {received(key)} stands twice in one object")
        result[key] = value
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _malformed(where: str, check: Any, text: str, id: str) -> None:
    try:
        check(text, id)
    except RegistryError as error:
        raise MarketplaceError(f"{where}: {error}") from error


class _Reader:
    """Typed, bounded look-ups in a JSON object."""

    def __init__(self, where: str, data: object) -> None:
        if not isinstance(data, dict):
            raise MarketplaceError(f"{where}: expected an object; received {received(data)}.")
        self.where = where
        self.data: dict[str, Any] = data

    def _wrong(self, key: str, expected: str) -> MarketplaceError:
        there = received(self.data[key]) if key in self.data else "nothing"
        return MarketplaceError(f"{self.where}: {key}: expected {expected}; received {there}.")

    def text(self, key: str, longest: int, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            raise self._wrong(key, f"at most {longest} printable characters")
        return value

    def matching(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.data.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._wrong(key, f"text like {pattern.pattern}")
        return value

    def number(self, key: str, least: int, most: int) -> int:
        value = self.data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(key, f"an integer from {least} to {most}")
        return value

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def time(self, key: str) -> datetime:
        try:
            return datetime.strptime(self.text(key, 40), _TIME).replace(tzinfo=UTC)
        except ValueError as error:
            raise self._wrong(key, "a time like 2026-01-31T12:00:00Z") from error

    def table(self, key: str) -> dict[str, Any]:
        value = self.data.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def texts(self, key: str, longest: int) -> list[str]:
        value = self.data.get(key, [])
        fits = isinstance(value, list) and len(value) <= 100
        if not fits or not all(isinstance(v, str) and 0 < len(v) <= longest and v.isprintable() for v in value):
            raise self._wrong(key, f"a list of at most 100 texts of at most {longest} printable characters")
        return list(value)

    def items(self, key: str) -> list[_Reader]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or len(value) > 100:
            raise self._wrong(key, "a list of at most 100 objects")
        return [_Reader(f"{self.where}: {key}", item) for item in value]

    def specifier(self, id: str) -> str:
        text = self.text("versions", 200, "")
        _malformed(self.where, check_specifier, text, id)
        return text
