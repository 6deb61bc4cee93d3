"""A Python environment: what is installed in it, and pip, which changes that."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spiral.optional import missing
from spiral.plugin.marketplace.errors import InstallError, MarketplaceError
from spiral.plugin.marketplace.wheel import GROUP

_LOOK = f"""
import importlib.metadata, json, os, re, sys
found = {{}}
for d in importlib.metadata.distributions():
    name = re.sub(r"[-_.]+", "-", d.metadata["Name"] or "").lower()
    by_pip = (d.read_text("INSTALLER") or "pip").strip() == "pip"
    half = by_pip and d.read_text("METADATA") and not d.read_text("RECORD")
    if name and name not in found and not half:  # the first on the path is the one that is imported
        points = [e.name for e in d.entry_points if e.group == {GROUP!r}]
        found[name] = [d.version, os.path.abspath(str(d.locate_file(""))), points]
print(json.dumps([list(sys.version_info[:3]), os.path.realpath(sys.prefix), found]))
"""


@dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    Attributes:
        version: its version.
        folder: the folder of packages it is in.
        plugins: ids of the plugins it brings.
    """

    version: str
    folder: str
    plugins: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """What is in an environment; a distribution that pip has not finished installing is not.

    Attributes:
        python: its version, ``3.12.1``.
        prefix: its folder.
        distributions: by normalised name.
    """

    python: str
    prefix: str
    distributions: Mapping[str, Distribution]


class Environment:
    """A Python environment, known by its interpreter.

    Args:
        python: the interpreter; by default the running one.
    """

    def __init__(self, python: str | Path | None = None) -> None:
        self.python = os.fspath(python or sys.executable)
        if not self.python:
            raise MarketplaceError("environment: the running interpreter has no path; name one.")

    def contents(self) -> Contents:
        """Looks at what is installed now."""
        done = _run([self.python, "-P", "-c", _LOOK], None, 120)
        try:
            version, prefix, found = json.loads(done.stdout)
        except ValueError as error:
            raise MarketplaceError(
                f"{self.python}: cannot be asked what is installed: status {done.returncode}: {_tail(done.stderr)}"
            ) from error
        distributions = {name: Distribution(v, folder, tuple(points)) for name, (v, folder, points) in found.items()}
        return Contents(".".join(map(str, version)), prefix, distributions)

    def pip(self, arguments: Sequence[str], folder: Path) -> str:
        """Runs pip of this process on the environment.

        Args:
            arguments: what it shall do.
            folder: where it runs: a private one, from which nothing is imported by accident.

        Returns:
            What it printed.

        Raises:
            InstallError: it failed.
        """
        if importlib.util.find_spec("pip") is None:
            raise missing("pip", "installing plugins", f"{sys.executable} -m ensurepip")
        other = [] if self.python == sys.executable else ["--python", self.python]
        general = [*other, "--no-input", "--disable-pip-version-check", "--no-color"]
        # -P: the folder in which pip runs is not where it is imported from
        done = _run([sys.executable, "-P", "-m", "pip", *general, *arguments], folder, 3600)
        if done.returncode:
            raise InstallError(f"pip {arguments[0]}: status {done.returncode}:\n{_tail(done.stdout + done.stderr)}")
        return done.stdout


def canonical(name: str) -> str:
    """A distribution's name as `Contents` has it."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _run(command: list[str], folder: Path | None, seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=seconds, check=False,
        )  # fmt: skip
    except OSError as error:
        raise MarketplaceError(f"{command[0]}: cannot be run: {error.strerror}.") from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{' '.join(command[:4])} …: was stopped after {seconds:.0f} s.") from error


def _tail(text: str) -> str:
    return text.strip()[-3000:]
