"""Wheels and marketplaces by hand, for tests."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def make_wheel(
    folder: Path,
    id: str,
    version: str,
    *,
    distribution: str = "",
    requires: Iterable[str] = (),
    python: str = ">=3.11",
    declared: Mapping[str, Any] | None = None,
    entry_points: str | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    record: str | None = None,
    tag: str = "py3-none-any",
    summary: str = "Counts.",
) -> Path:
    """A wheel of a plugin that is the module ``<id>_plugin``."""
    distribution = distribution or f"tiny-{id}"
    stem = f"{distribution.replace('-', '_')}-{version}"
    package, info = f"{id.replace('-', '_')}_plugin", f"{stem}.dist-info"
    head = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}", f"Summary: {summary}"]
    head += [f"Requires-Python: {python}"] if python else []
    head += [f"Requires-Dist: {r}" for r in requires]
    points = f"[spiral.plugins]\n{id} = {package}:plugin\n" if entry_points is None else entry_points
    files = {
        f"{package}/__init__.py": f"VERSION = {version!r}\n".encode(),
        f"{info}/METADATA": ("\n".join(head) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/entry_points.txt": points.encode(),
    }
    if declared is not None:
        files[f"{package}/spiral_plugin.json"] = json.dumps(declared).encode()
    files |= extra_files or {}
    rows = []
    for name, content in files.items():
        coded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={coded},{len(content)}\n")
    files[f"{info}/RECORD"] = ("".join(rows) + f"{info}/RECORD,,\n" if record is None else record).encode()
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path
