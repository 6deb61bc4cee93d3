"""Launch configurations: what a kernel offers, what was measured, and which one a launch takes.

A family declares a `Choice` beside its kernel: the configurations of each class of shapes, the first of which is the
heuristic. Nothing is measured unless ``spiral tune`` is called (`spiral.gpu.search`); it writes a table, which is read
once, at the first launch on a device. A table only picks among the configurations that are declared, so a run never
changes its kernels by itself, and an entry that was measured on another source of the kernel is ignored.

Tables are ``backends/tables/sm_90.json`` in this package, and ``tuning/<device>.json`` in ``SPIRAL_CACHE`` (default
``~/.cache/spiral``), whose entries come first. ``SPIRAL_TUNING=none`` ignores both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiral.errors import FormatError, RegistryError
from spiral.gpu.driver import Driver
from spiral.gpu.kernel_cache import write_whole
from spiral.ownership import spirals_own
from spiral.registry import Catalog, catalog

Key = tuple[int | str, ...]
"""A class of shapes, such as (bytes of an element, power of two that a row fits in)."""

Config = tuple[int, ...]
"""A value for each option of a choice."""

TABLES = Path(__file__).resolve().parents[1] / "backends" / "tables"

_log = logging.getLogger("spiral")


@dataclass(frozen=True)
class Trial:
    """What is run to compare configurations: a call of an op.

    Attributes:
        op: its name.
        inputs: shape and dtype of each; None where it is absent.
        attrs: in the order of their declaration.
    """

    op: str
    inputs: tuple[tuple[tuple[int, ...], str] | None, ...]
    attrs: tuple[Any, ...] = ()


class Choice:
    """The configurations that a kernel's launcher may choose among.

    Args:
        name: ``backend/kernel``, such as ``cuda/softmax_rows``.
        options: what the numbers of a configuration mean.
        configs: for each class of shapes, the configurations, the heuristic first.
        source: digest of the kernel's source.
        trial: what to run for a class of shapes, on about so many bytes.

    Raises:
        RegistryError: a configuration has not a number for each option, or a class has none.

    Example:
        >>> choice = Choice("cuda/nothing", ("threads",), {(4, 10): ((256,), (128,))}, str, lambda *_: Trial(""))
        >>> choice.default((4, 10))
        (256,)
    """

    __slots__ = ("configs", "name", "options", "source", "trial")

    def __init__(
        self, name: str, options: tuple[str, ...], configs: Mapping[Key, tuple[Config, ...]],
        source: Callable[[], str], trial: Callable[[Key, int], Trial],
    ) -> None:  # fmt: skip
        for key, offered in configs.items():
            if not offered or any(len(c) != len(options) for c in offered):
                raise RegistryError(
                    f"{name}: {key}: expected configurations with numbers for {', '.join(options)}; received {offered}."
                )
        self.name, self.options, self.configs = name, options, dict(configs)
        self.source, self.trial = source, trial

    @property
    def backend(self) -> str:
        """Whose kernel it is."""
        return self.name.partition("/")[0]

    def default(self, key: Key) -> Config:
        """The heuristic."""
        return self.configs[key][0]

    def at(self, gpu: Driver, key: Key) -> Config:
        """The configuration of a class of shapes on a device: two dict probes, 0.1 µs."""
        try:
            return gpu.functions[self][key]  # type: ignore[no-any-return]
        except KeyError:
            return self.in_effect(gpu)[key]

    def in_effect(self, gpu: Driver) -> dict[Key, Config]:
        """The configuration of every class of shapes on a device; tables are read at the first question."""
        found: dict[Key, Config] | None = gpu.functions.get(self)
        if found is None:
            measured = dict(self._measured(tables_of(gpu)))
            found = gpu.functions[self] = {key: measured.get(key, offered[0]) for key, offered in self.configs.items()}
        return found

    def _measured(self, tables: list[Table]) -> Iterator[tuple[Key, Config]]:
        for table in reversed(tables):  # the first one's entries come last, and so stay
            entry = table.choices.get(self.name)
            if entry is not None and self.refusal(entry) is None:
                for text, config in entry["configs"].items():
                    key = next((k for k in self.configs if spelled(k) == text), None)
                    if key is not None and tuple(config) in self.configs[key]:
                        yield key, tuple(config)

    def refusal(self, entry: Mapping[str, Any]) -> str | None:
        """Why a table's entry is ignored; None: it is not."""
        if entry["source"] != self.source():
            return "was measured on another source of the kernel"
        if tuple(entry["options"]) != self.options:
            return f"has the options {', '.join(entry['options'])}; the kernel has {', '.join(self.options)}"
        return None


CHOICES: Catalog[Choice] = catalog("tuning choice")
"""What the GPU backends' families have declared; complete once the backends are loaded."""


def declare(choice: Choice) -> Choice:
    """Adds a choice of one of spiral's own families to the catalog, and gives it back."""
    with spirals_own():  # also where a plugin's loading is the first to ask for the backends
        CHOICES.put(choice.name, choice)
    return choice


def spelled(key: Key) -> str:
    """A class of shapes as tables have it."""
    return " ".join(map(str, key))


# ---------------------------------------------------------------- tables
@dataclass(frozen=True)
class Table:
    """A file of configurations.

    Attributes:
        path: where it is.
        verified: whether a device has measured it; else it holds the heuristics.
        choices: by name, with ``source``, ``options`` and ``configs``.
    """

    path: Path
    verified: bool
    choices: Mapping[str, Mapping[str, Any]]


def committed_path(cc: int) -> Path:
    """The table of this package for a compute capability times ten."""
    return TABLES / f"sm_{cc}.json"


def user_path(device: str) -> Path:
    """The user's table for a device by its maker's name."""
    cache = Path(os.environ.get("SPIRAL_CACHE") or Path.home() / ".cache" / "spiral")
    return cache / "tuning" / f"{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def read_table(path: Path) -> Table:
    """Reads a table.

    Raises:
        FormatError: it is none.
    """
    try:
        content = json.loads(path.read_text())
        choices = {
            name: {"source": str(e["source"]), "options": list(e["options"]), "configs": dict(e["configs"])}
            for name, e in content["choices"].items()
        }
        return Table(path, bool(content["verified"]), choices)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: expected a tuning table; received {type(error).__name__}: {error}. "
            "Remove it, or run `spiral tune`."
        ) from error


def write_table(path: Path, device: str, verified: bool, choices: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a table whole or not at all."""
    content = {"device": device, "verified": verified, "choices": dict(sorted(choices.items()))}
    # a configuration stands on its line
    text = re.sub(r"\[[^\[\]{}]*\]", lambda m: json.dumps(json.loads(m.group())), json.dumps(content, indent=1))
    write_whole(path, f"{text}\n".encode())


_read: dict[tuple[str, int], list[Table]] = {}


def tables_of(gpu: Driver) -> list[Table]:
    """The tables for a device, the user's first; a damaged one is left out and told of once."""
    facts = gpu.facts
    if (facts.name, facts.cc) not in _read:
        found = []
        if os.environ.get("SPIRAL_TUNING") != "none":
            for path in (user_path(facts.name), committed_path(facts.cc)):
                if path.exists():
                    try:
                        found.append(read_table(path))
                    except FormatError as error:
                        _log.warning("%s", error)
        _read[facts.name, facts.cc] = found
    return _read[facts.name, facts.cc]


def forget(gpu: Driver) -> None:
    """Has tables read again at the next launch; after they were written, and in tests."""
    _read.pop((gpu.facts.name, gpu.facts.cc), None)
    for choice in CHOICES.values():
        gpu.functions.pop(choice, None)


def entry_of(choice: Choice, configs: Mapping[Key, Config]) -> dict[str, Any]:
    """What a table holds for a choice."""
    return {
        "source": choice.source(), "options": list(choice.options),
        "configs": {spelled(k): list(c) for k, c in configs.items()},
    }  # fmt: skip


def heuristics() -> dict[str, dict[str, Any]]:
    """The entries of a table that nobody has measured."""
    return {c.name: entry_of(c, {k: offered[0] for k, offered in c.configs.items()}) for c in CHOICES.values()}


# ---------------------------------------------------------------- what is in effect
def status(gpu: Driver) -> dict[str, str]:
    """What `spiral doctor` says of a device's tables: each with what is taken from it and what is ignored."""
    found = {}
    for table in tables_of(gpu):
        stale, used = [], 0
        for name, entry in table.choices.items():
            choice = CHOICES.get(name)
            reason = "is of no kernel here" if choice is None else choice.refusal(entry)
            if reason is None:
                used += 1
            else:
                stale.append(f"{name} {reason}")
        kind = "measured" if table.verified else "unverified: the heuristics, measured on no device"
        text = f"{kind}; {used} kernels"
        if stale and table.verified:
            text += f"; ignored: {', '.join(stale)}; run `spiral tune`"
        found[str(table.path)] = text
    return found


def table_hash() -> str | None:
    """A digest of the measured configurations that are in effect; None where all are those of the code.

    Devices are not looked for: without an op on one of them there are none.
    """
    from spiral.gpu.devices import drivers_in_use

    differing = [
        [gpu.facts.name, choice.name, spelled(key), *config]
        for gpu in drivers_in_use()
        for choice in CHOICES.values()
        for key, config in choice.in_effect(gpu).items()
        if config != choice.default(key)
    ]
    if not differing:
        return None
    return hashlib.sha256(json.dumps(sorted(differing, key=str)).encode()).hexdigest()[:24]
