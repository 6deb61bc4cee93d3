"""The author's side: an index of a folder of wheels, signed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from spiral.io.atomic import atomic_write
from spiral.plugin.marketplace.errors import MarketplaceError
from spiral.plugin.marketplace.index import INDEX, MAX_INDEX, SIGNATURE, Entry, Index
from spiral.plugin.marketplace.keys import PrivateKey, sign
from spiral.plugin.marketplace.wheel import WheelInfo, read_wheel


def build_index(
    folder: str | Path,
    keys: PrivateKey | Sequence[PrivateKey],
    *,
    name: str = "",
    serial: int = 0,
    lifetime: timedelta = timedelta(days=90),
) -> Index:
    """Writes ``index.json`` and ``index.json.sig`` for the wheels of a folder, which can then be served as it is.

    A plugin needs another one where its wheel requires that one's distribution, or where its ``spiral_plugin.json``
    says so; the latter goes first.

    Args:
        folder: holds the wheels, directly.
        keys: sign the index; both the old and the new one while a key is being replaced.
        name: the marketplace's; by default that of the index that stands there.
        serial: must grow; by default one more than that of the index that stands there.
        lifetime: after which the index is accepted no more; sign again before.

    Raises:
        MarketplaceError: a wheel cannot be used, or the serial number does not grow.
    """
    folder = Path(folder)
    before = _previous(folder)
    name = name or (before.name if before else "")
    serial = serial or (before.serial + 1 if before else 1)
    if before is not None and before.name == name and serial <= before.serial:
        raise MarketplaceError(f"{folder}: the serial number must grow beyond {before.serial}; received {serial}.")
    wheels = {path: read_wheel(path) for path in _wheels(folder)}
    owners = _owners(wheels.values())
    plugins: dict[str, dict[str, Entry]] = {}
    for path, wheel in wheels.items():
        versions = plugins.setdefault(wheel.plugin_id, {})
        if wheel.version in versions:
            raise MarketplaceError(
                f"{folder}: {path.name} and {versions[wheel.version].artifact} are one version of {wheel.plugin_id!r}."
            )
        versions[wheel.version] = _entry(path, wheel, owners)
    now = datetime.now(UTC).replace(microsecond=0)
    index = Index.from_bytes(Index(name, serial, now, now + lifetime, plugins).to_bytes())  # as users will read it
    write_index(folder, index, [keys] if isinstance(keys, PrivateKey) else keys)
    return index


def write_index(folder: str | Path, index: Index, keys: Iterable[PrivateKey]) -> None:
    """Writes an index and its signatures. Whoever reads between the two sees a mismatch, and tries again later."""
    data = index.to_bytes()
    signatures = sign(data, keys)
    for name, content in ((INDEX, data), (SIGNATURE, signatures)):
        with atomic_write(Path(folder) / name) as partial:
            partial.write_bytes(content)


def _previous(folder: Path) -> Index | None:
    path = folder / INDEX
    if not path.exists():
        return None
    if path.stat().st_size > MAX_INDEX:
        raise MarketplaceError(f"{path}: is longer than {MAX_INDEX} bytes.")
    return Index.from_bytes(path.read_bytes())


def _wheels(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.whl"))
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise MarketplaceError(f"{path}: is no regular file; a marketplace holds files themselves.")
    if not paths:
        raise MarketplaceError(f"{folder}: holds no wheels (*.whl).")
    return paths


def _owners(wheels: Iterable[WheelInfo]) -> dict[str, str]:
    """The plugin of each distribution."""
    from packaging.utils import canonicalize_name

    return {canonicalize_name(wheel.distribution): wheel.plugin_id for wheel in wheels}


def _entry(path: Path, wheel: WheelInfo, owners: dict[str, str]) -> Entry:
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Distribution
    from packaging.utils import canonicalize_name

    needed: dict[str, dict[str, Any]] = {}
    for text in wheel.requires_dist:
        try:
            required = Distribution(text)
        except InvalidRequirement as error:
            raise MarketplaceError(f"{path.name}: Requires-Dist: {error}") from error
        if required.url is not None:
            raise MarketplaceError(f"{path.name}: Requires-Dist: {text}: an address is no dependency.")
        id = owners.get(canonicalize_name(required.name))
        only_extra = required.marker and "extra" in str(required.marker) and not required.marker.evaluate({"extra": ""})
        if id is not None and not only_extra:
            needed[id] = {"id": id, "versions": str(required.specifier)}
    declared = wheel.declared
    if isinstance(declared.get("dependencies", []), list):  # else `from_json` tells
        stated = [d for d in declared.get("dependencies", []) if isinstance(d, dict)]
        rest = [d for id, d in needed.items() if id not in [s.get("id") for s in stated]]
        declared = {**declared, "dependencies": [*declared.get("dependencies", []), *rest]}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    data = {
        "description": wheel.summary,
        **declared,
        "artifact": path.name,
        "sha256": digest,
        "size": path.stat().st_size,
        "distribution": wheel.distribution,
        "requires_python": wheel.requires_python,
    }
    return Entry.from_json(wheel.plugin_id, wheel.version, data)
