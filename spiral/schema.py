"""Schemas of callables: which settings a constructor takes, derived from its signature, type hints and docstring.

One description serves modules, optimizers, callbacks and whatever else is made from a configuration:
values come from a command line (text), a JSON or YAML file, or Python, are converted and checked, and all
problems are told at once.

    Schema.of(Linear).parse({"in_features": "3", "out_features": 2})
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spiral import schema_values, schema_words
from spiral.docstrings import argument_help, summary
from spiral.errors import ArgumentError, ConfigError, received
from spiral.schema_values import OneOf as OneOf
from spiral.schema_values import Range as Range
from spiral.schema_values import Refused, parts

MISSING: Any = inspect.Parameter.empty
"""The default of a field that must be given."""


class InvalidConfig(ConfigError):
    """A configuration does not follow its schema.

    Attributes:
        owner: whose configuration.
        problems: one sentence each.
    """

    def __init__(self, owner: str, problems: Collection[str]) -> None:
        self.owner, self.problems = owner, tuple(problems)
        if len(self.problems) == 1:
            super().__init__(f"{owner}: {self.problems[0]}")
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            super().__init__(f"{owner}: {len(self.problems)} problems:{lines}")

    def __reduce__(self) -> Any:
        return type(self), (self.owner, self.problems)


@dataclass(frozen=True)
class Field:
    """One setting.

    Attributes:
        name: its key.
        hint: its type, with `Range` or `OneOf` in ``Annotated`` where there are limits.
        default: its value where it is left out; MISSING: it must be given.
        help: what it is for.
    """

    name: str
    hint: Any = Any
    default: Any = MISSING
    help: str = ""

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def type(self) -> str:
        """Its type in short."""
        return schema_words.type_name(self.hint)

    @property
    def range(self) -> Range | None:
        """Its limits, if it is a number that has any."""
        for member in (self.hint, *schema_values.members(self.hint)):
            for note in parts(member)[1]:
                if isinstance(note, Range):
                    return note
        return None

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of which it is one; empty: any."""
        return tuple(c for member in schema_values.members(self.hint) for c in schema_words.choices(member))

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        return schema_words.allowed(self.hint)

    def parse(self, value: Any) -> Any:
        """The value, converted.

        Raises:
            ConfigError: it is not allowed.
        """
        try:
            return schema_values.convert(value, self.hint)
        except Refused:
            raise ConfigError(f"{self.name} must be {self.allowed}; received {received(value)}.") from None


class Schema(Mapping[str, Field]):
    """The settings of one thing: a mapping from names to fields.

    Args:
        owner: what messages call it.
        fields: its settings, in order.
        description: what it is.
        open: whether other settings are let through as they are.

    Example:
        >>> def resize(width: int, mode: typing.Literal["near", "linear"] = "near", scale: float | None = None): ...
        >>> Schema.of(resize).parse({"width": "3", "scale": 2})
        {'width': 3, 'scale': 2.0}
        >>> Schema.of(resize).parse({"widht": 3})
        Traceback (most recent call last):
        spiral.schema.InvalidConfig: resize: 2 problems:
          - unknown key 'widht'; did you mean width? Allowed: width, mode, scale.
          - width is missing; it must be an integer.
    """

    def __init__(
        self, owner: str, fields: Collection[Field] = (), description: str = "", *, open: bool = False
    ) -> None:
        self.owner = owner
        self.description = description
        self.open = open
        self._fields = {field.name: field for field in fields}

    @classmethod
    def of(cls, thing: Callable[..., Any], *, owner: str = "", skip: Collection[str] = ()) -> Schema:
        """The schema of a function or class.

        Args:
            thing: what shall be called with the settings.
            owner: what messages call it; its own name by default.
            skip: parameters that are no settings, such as an optimizer's ``params``.

        Raises:
            ArgumentError: it cannot be called, or has no signature.
        """
        if not callable(thing):
            raise ArgumentError(f"Schema.of: expected a function or a class; received {received(thing)}.")
        name = owner or getattr(thing, "__name__", type(thing).__name__)
        try:
            signature = inspect.signature(thing)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"Schema.of: {name} has no signature that Python can tell ({error}).") from None
        hints, help = _hints(thing), argument_help(thing)
        fields, open = [], False
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                open = True
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.name in skip:
                continue
            hint = hints.get(parameter.name, Any)
            if hint is Any and parameter.default is not MISSING and type(parameter.default) in (int, float, bool, str):
                hint = type(parameter.default)
            fields.append(Field(parameter.name, hint, parameter.default, help.get(parameter.name, "")))
        return cls(name, fields, summary(thing), open=open)

    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def parse(self, config: Mapping[str, Any] | None, *, partial: bool = False) -> dict[str, Any]:
        """The given settings, converted; those left out are not in the result.

        Args:
            config: values by name: texts, what JSON or YAML gives, or Python objects.
            partial: whether required ones may be missing.

        Raises:
            InvalidConfig: keys are unknown or missing, or values not allowed; it lists all of them.
        """
        if not isinstance(config, Mapping):
            if config is not None:
                raise InvalidConfig(self.owner, [f"expected settings by name; received {received(config)}."])
            config = {}
        problems, made = [], {}
        for key, value in config.items():
            if key in self._fields:
                try:
                    made[key] = self._fields[key].parse(value)
                except ConfigError as error:
                    problems.append(str(error))
            elif self.open and isinstance(key, str) and key.isidentifier():
                made[key] = value
            else:
                problems.append(self._unknown(key))
        if not partial:
            problems += [
                f"{f.name} is missing; it must be {f.allowed}."
                for f in self.values()
                if f.required and f.name not in config
            ]
        if problems:
            raise InvalidConfig(self.owner, problems)
        return made

    def _unknown(self, key: Any) -> str:
        near = difflib.get_close_matches(key, self._fields, 1, 0.5) if isinstance(key, str) else []
        hint = f"; did you mean {near[0]}?" if near else ";"
        return f"unknown key {received(key)}{hint} Allowed: {', '.join(self._fields) or 'none'}.".replace("; A", "; a")

    def plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Parsed settings as a JSON or YAML file has them.

        Raises:
            InvalidConfig: a value is an object that no file can hold.
        """
        made = {}
        for key, value in values.items():
            try:
                made[key] = schema_values.plain(value)
            except Refused:
                raise InvalidConfig(self.owner, [f"{key} cannot stand in a file: it is {received(value)}."]) from None
        return made

    def to_json(self) -> dict[str, Any]:
        """The schema in the form of JSON Schema."""
        properties = {}
        for field in self.values():
            made = schema_words.json_schema(field.hint)
            if field.help:
                made["description"] = field.help
            if not field.required:
                try:
                    made["default"] = schema_values.plain(field.default)
                except Refused:  # an object: a file cannot say it
                    made["default"] = repr(field.default)
            properties[field.name] = made
        return {
            "title": self.owner,
            "description": self.description,
            "type": "object",
            "properties": properties,
            "required": [f.name for f in self.values() if f.required],
            "additionalProperties": self.open,
        }

    def table(self) -> str:
        """The fields in columns: name, type, default, limits, help."""
        rows = [("name", "type", "default", "allowed", "help")]
        for f in self.values():
            limits = "; ".join(text for text in (str(f.range or ""), ", ".join(map(str, f.choices))) if text)
            rows.append((f.name, f.type, "required" if f.required else repr(f.default), limits, f.help))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
        return "\n".join(lines) if len(rows) > 1 else "(no settings)"

    def __repr__(self) -> str:
        return f"Schema({self.owner}: {', '.join(self._fields) or 'no settings'})"


def _hints(thing: Any) -> dict[str, Any]:
    """The resolved type hints of a callable's parameters; one that cannot be resolved allows anything."""
    target = thing
    if inspect.isclass(thing):
        target = thing.__init__ if "__init__" in dir(thing) and thing.__init__ is not object.__init__ else thing.__new__
    elif not inspect.isroutine(thing):
        target = getattr(thing, "func", None) or type(thing).__call__  # a partial, or an object that can be called
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:  # an annotation that names what is imported for type checkers only: take the others one by one
        found = {}
        names = getattr(inspect.unwrap(target), "__globals__", {})
        for name, note in getattr(target, "__annotations__", {}).items():
            holder = type("_", (), {"__annotations__": {name: note}})
            try:
                found.update(typing.get_type_hints(holder, names, include_extras=True))
            except Exception:  # left out: anything is allowed, the callable itself checks
                continue
        return found
