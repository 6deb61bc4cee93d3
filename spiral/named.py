"""What a configuration names out of a catalog, with options: ``live``, ``{tensorboard: {folder: logs}}``.

Every such key is resolved, checked and made here: callbacks, the optimizer, the source of text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from spiral.errors import ConfigError, received
from spiral.registry import Catalog, UnknownName
from spiral.schema import Schema

Written = str | dict[str, dict[str, Any]]
"""A thing as a file has it: its name, or a mapping from the name to its options."""


def written(key: str, value: Any) -> tuple[Written, ...]:
    """A list of things in the form in which it is kept and saved.

    Args:
        key: the setting, for messages.
        value: names and mappings from one name to options; a text of names with commas; None: nothing.

    Raises:
        ConfigError: it is something else.

    Example:
        >>> written("run.callbacks", "live, jsonl")
        ('live', 'jsonl')
        >>> written("run.callbacks", [{"live": None}, {"jsonl": {"path": "a.jsonl"}}])
        ('live', {'jsonl': {'path': 'a.jsonl'}})
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if not isinstance(value, Sequence):
        raise ConfigError(
            f"{key}: expected a list of names, or of mappings from a name to its options; received {received(value)}."
        )
    return tuple(_one(key, item) for item in value)


def _one(key: str, item: Any) -> Written:
    if isinstance(item, str) and item.strip():
        return item.strip()
    if isinstance(item, Mapping) and len(item) == 1:
        name, given = next(iter(item.items()))
        if isinstance(name, str) and name.strip():
            found = options(f"{key}.{name.strip()}", given)
            return {name.strip(): found} if found else name.strip()
    raise ConfigError(f"{key}: expected a name, or one name with options ({{name: {{option: value}}}}); "
                      f"received {received(item)}.")  # fmt: skip


def options(key: str, value: Any) -> dict[str, Any]:
    """Options as a file has them: plain values by name; None: none.

    Raises:
        ConfigError: it is no mapping, or holds something that JSON cannot.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: expected options by name; received {received(value)}.")
    return {_option_name(key, name): _plain(f"{key}.{name}", each) for name, each in value.items()}


def _option_name(key: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{key}: expected names of options; received {received(name)}.")
    return name


def _plain(key: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(key, each) for each in value]
    if isinstance(value, Mapping):
        return {_option_name(key, name): _plain(f"{key}.{name}", each) for name, each in value.items()}
    raise ConfigError(f"{key}: expected text, a number, true, false, null, a list or a mapping; "
                      f"received {received(value)}.")  # fmt: skip


def parts(item: Written) -> tuple[str, dict[str, Any]]:
    """Name and options of a thing as `written` gives it."""
    return (item, {}) if isinstance(item, str) else next(iter(item.items()))


def from_text(text: str) -> Written:
    """A thing as the command line has it: ``name``, or ``name:option=value,option=value``.

    A part without ``=`` goes on with the value before it, so that a value may have commas.

    Raises:
        ConfigError: there is no name, or the options begin without a name of their own.

    Example:
        >>> from_text("tensorboard:folder=logs,tags=a,b")
        {'tensorboard': {'folder': 'logs', 'tags': 'a,b'}}
    """
    name, colon, rest = text.partition(":")
    given: dict[str, str] = {}
    last = ""
    for part in rest.split(",") if colon else ():
        option, equals, value = part.partition("=")
        if equals and option.strip():
            last = option.strip()
            given[last] = value.strip()
        elif last and not equals:
            given[last] += f",{part.strip()}"
        else:
            last = ""
            break
    if not name.strip() or (colon and not last):
        raise ConfigError(f"{text!r}: expected a name, or name:option=value,option=value.")
    return {name.strip(): dict(given)} if given else name.strip()


def find(catalog: Catalog[Callable[..., Any]], key: str, name: str) -> Callable[..., Any]:
    """What a name of a configuration stands for.

    Raises:
        ConfigError: there is nothing of this name; the message lists similar ones.
    """
    try:
        return catalog[name]
    except UnknownName as error:
        from spiral.plugin import global_registry

        hint = "" if global_registry().initialized else (
            " Installed plugins are loaded by spiral.plugin.init_plugin_system()."
        )  # fmt: skip
        raise ConfigError(f"{key}: {str(error).partition(': ')[2]}{hint}") from None


def schema(catalog: Catalog[Callable[..., Any]], key: str, name: str, leading: int = 0) -> Schema:
    """What the options of a thing may be.

    Args:
        catalog: where the name is looked up.
        key: the setting that holds the options, for messages.
        name: the thing.
        leading: how many of its first parameters are no options, such as an optimizer's ``params``.

    Raises:
        ConfigError: there is no such thing.
    """
    thing = find(catalog, key, name)
    skip = list(inspect.signature(thing).parameters)[:leading]
    return Schema.of(thing, owner=f"{key}: {catalog.kind} {name!r}", skip=skip)


def parsed(
    catalog: Catalog[Callable[..., Any]],
    key: str,
    name: str,
    given: Mapping[str, Any],
    *,
    leading: int = 0,
    there: Collection[str] = (),
) -> dict[str, Any]:
    """Options, converted and checked against the signature of what they are for.

    Args:
        catalog: see `schema`, as key, name and leading.
        key: the setting that holds the options, for messages.
        name: the thing.
        given: the options; texts of a command line, or what YAML and Python have.
        leading: how many of its first parameters are no options.
        there: parameters that come from elsewhere.

    Raises:
        ConfigError: there is no such thing, or it does not take these options; the message says what is allowed.
    """
    allowed = schema(catalog, key, name, leading)
    fields = [field for field in allowed.values() if field.name not in there]
    return Schema(allowed.owner, fields, open=allowed.open).parse(given)
