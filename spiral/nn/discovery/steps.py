"""The plan of a pipeline as data: steps, their names, and their form in a file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spiral.errors import ConfigError, NoValueError, received
from spiral.nn.discovery.pipeline_modules import check_merge
from spiral.nn.discovery.registry import ModuleDiscoveryRegistry
from spiral.schema import Field
from spiral.schema_values import Refused, plain
from spiral.shape_evaluation import shapes_only


class _Auto(str):
    __slots__ = ()

    def __reduce__(self) -> str:
        return "AUTO"


AUTO = _Auto("auto")
"""Stands, this object alone, for a size that the input tells; another text may say the same."""
MOST_STEPS = 10_000  # YAML's aliases can make billions of a small file
_DEEPEST = 50


@dataclass(frozen=True)
class Step:
    """One module, or branches of several.

    Attributes:
        type: the module's type, ``parallel`` or ``residual``.
        name: its name among its neighbours.
        config: a module's settings as they were given; ``auto`` stands for a size that the input tells.
        branches: the steps of each branch.
        merge: how a parallel step merges its branches.
        axis: along which it concatenates.
    """

    type: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    branches: tuple[tuple[Step, ...], ...] = ()
    merge: str = "concat"
    axis: int = 1

    def to_config(self, registry: ModuleDiscoveryRegistry) -> dict[str, Any]:
        """Plain values from which `step_of` makes it again."""
        made: dict[str, Any] = {"type": self.type, "name": self.name}
        if self.type == "parallel":
            made |= {"merge": self.merge} | ({"axis": self.axis} if self.merge == "concat" else {})
            made["branches"] = [[s.to_config(registry) for s in branch] for branch in self.branches]
        elif self.type == "residual":
            made["branch"] = [s.to_config(registry) for s in self.branches[0]]
        elif self.config:
            values = {}
            for key, value in self.config.items():
                try:
                    values[key] = str(value) if value is AUTO else plain(value)
                except Refused:
                    raise ConfigError(f"{self.name}: {key} cannot stand in a file: it is {received(value)}.") from None
            made["config"] = values
        return made

    def count(self) -> int:
        """Modules in it, itself and those of its branches."""
        return 1 + sum(step.count() for branch in self.branches for step in branch)


def leaves(steps: Sequence[Step]) -> Iterator[Step]:
    """The modules of steps and of their branches, in order."""
    for step in steps:
        if step.branches:
            for branch in step.branches:
                yield from leaves(branch)
        else:
            yield step


def free_name(type: str, taken: Sequence[Step]) -> str:
    """``<type>_<k>``: the k-th of its type, so that other modules between change no name of a weight."""
    base = type.replace(".", "_")
    names = {step.name for step in taken}
    k = 1 + sum(step.type == type for step in taken)
    while f"{base}_{k}" in names:
        k += 1
    return f"{base}_{k}"


def check_name(name: Any, taken: Sequence[Step], where: str) -> str:
    """A module's name.

    Raises:
        ConfigError: it is no identifier, taken, or a method of modules.
    """
    from spiral.nn.discovery.pipeline_modules import Pipeline

    if not isinstance(name, str) or not name.isidentifier() or hasattr(Pipeline, name) or name in ("name", "training"):
        raise ConfigError(f"{where}: a name is a word that modules do not use themselves; received {received(name)}.")
    if any(step.name == name for step in taken):
        raise ConfigError(f"{where}: there is a module {name!r} already; choose another name.")
    return name


class Reader:
    """Makes steps of plain values, counting them."""

    def __init__(self, registry: ModuleDiscoveryRegistry) -> None:
        self.registry = registry
        self.left = MOST_STEPS

    def steps(self, values: Any, where: str, depth: int = 0) -> tuple[Step, ...]:
        """The steps of a list.

        Raises:
            ConfigError: something in it is wrong; the message says where.
        """
        if not isinstance(values, (list, tuple)):
            raise ConfigError(f"{where}: expected a list of modules; received {received(values)}.")
        if depth > _DEEPEST:
            raise ConfigError(f"{where}: branches are nested deeper than {_DEEPEST}.")
        made: list[Step] = []
        for number, value in enumerate(values):
            made.append(self.step(value, made, f"{where}[{number}]", depth))
        return tuple(made)

    def step(self, value: Any, before: Sequence[Step], where: str, depth: int = 0) -> Step:
        """One step: a type's name, a pair of type and settings, or a mapping as `Step.to_config` gives it."""
        self.left -= 1
        if self.left < 0:
            raise ConfigError(f"{where}: a pipeline has at most {MOST_STEPS:,} modules.")
        if isinstance(value, str):
            value = {"type": value}
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = {"type": value[0], "config": value[1]}
        if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
            raise ConfigError(
                f"{where}: expected a module's type, or a mapping with the key type; received {_short(value)}."
            )
        kind = value["type"]
        keys = {"parallel": ("merge", "axis", "branches"), "residual": ("branch",)}.get(kind, ("config",))
        check_keys(value, ("type", "name", *keys), where)
        if kind not in ("parallel", "residual"):
            kind = self.registry.name_of(kind)
        name = value.get("name")
        name = free_name(kind, before) if name is None else check_name(name, before, where)
        if kind == "parallel":
            given = value.get("branches")
            if not isinstance(given, (list, tuple)):
                raise ConfigError(f"{where}.branches: expected a list of branches; received {received(given)}.")
            branches = tuple(self.steps(b, f"{where}.branches[{i}]", depth + 1) for i, b in enumerate(given))
            return parallel_step(branches, value.get("merge", "concat"), value.get("axis", 1), name, where)
        if kind == "residual":
            return Step(kind, name, branches=(self.steps(value.get("branch"), f"{where}.branch", depth + 1),))
        config = value.get("config")
        return Step(kind, name, checked_config(self.registry, kind, config, f"{where} {name!r}"))


def parallel_step(branches: tuple[tuple[Step, ...], ...], merge: Any, axis: Any, name: str, where: str) -> Step:
    """A parallel step.

    Raises:
        ConfigError: the way of merging or the axis is not allowed, or there is no branch.
    """
    try:
        merge, axis = check_merge(f"{where} {name!r}", len(branches), merge, axis)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Step("parallel", name, branches=branches, merge=merge, axis=axis)


def checked_config(registry: ModuleDiscoveryRegistry, kind: str, config: Any, where: str) -> dict[str, Any]:
    """A module's settings, converted; ``auto`` stays.

    Raises:
        ConfigError: they do not fit, by the schema or by the module's own checks.
    """
    try:
        if config is not None and not isinstance(config, Mapping):
            raise ConfigError(f"{kind}: expected settings by name; received {received(config)}.")
        entry = registry.entry(kind)
        schema = entry.metadata.parameters
        wanted = [key for key, value in (config or {}).items() if key in schema and _asks_for_size(schema[key], value)]
        made = schema.parse({**(config or {}), **{key: _some_size(schema[key]) for key in wanted}})
        made |= dict.fromkeys(wanted, AUTO)
        if not wanted:
            with shapes_only():
                entry.make(made)
        return made
    except NoValueError:
        return made  # its constructor looks at values: it will say it when it is built
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _asks_for_size(field: Field, value: Any) -> bool:
    """Whether it is ``auto`` for a setting that is a number; a text setting may have a value of this name."""
    if not isinstance(value, str) or value.strip().lower() != AUTO:
        return False
    try:
        field.parse(value)
    except ConfigError:
        return True
    return False


def _some_size(field: Field) -> int:
    """A number that the setting takes, so that the others can be checked without it."""
    return 1 if field.range is None or field.range.low is None else math.floor(field.range.low) + 1


def autos(config: Mapping[str, Any]) -> list[str]:
    """The settings that the input shall tell."""
    return [key for key, value in config.items() if value is AUTO]


def check_keys(value: Mapping[Any, Any], allowed: Sequence[str], where: str) -> None:
    """Raises ConfigError for keys that are none of those allowed; all at once."""
    unknown = [key for key in value if key not in allowed]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), allowed, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(
            f"{where}: unknown key {', '.join(map(received, unknown))}{hint} Allowed: {', '.join(allowed)}."
        )


def _short(value: Any) -> str:
    return (
        f"a mapping with {', '.join(map(str, value)) or 'no keys'}" if isinstance(value, Mapping) else received(value)
    )
