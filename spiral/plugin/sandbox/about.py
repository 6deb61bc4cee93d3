"""What a sandboxed plugin says of itself in answer to ``initialize``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spiral.errors import RegistryError, received
from spiral.plugin.metadata import PluginCapability, PluginMetadata
from spiral.plugin.sandbox import protocol


@dataclass(frozen=True)
class About:
    """A plugin's description, checked.

    Attributes:
        metadata: as any plugin's.
        methods: what may be called.
        subscriptions: names of events that it wants from the start.
        config: settings and the values that it wants for them by itself.
        has_state: whether it can hand its state over.
    """

    metadata: PluginMetadata
    methods: tuple[str, ...]
    subscriptions: tuple[str, ...]
    config: Mapping[str, Any]
    has_state: bool

    @classmethod
    def parse(cls, answer: Any) -> About:
        """The description in an answer; fields that this version does not know are left out.

        Raises:
            RegistryError: a field is missing or wrong.
        """
        if not isinstance(answer, dict):
            raise RegistryError(f"initialize: the answer must be an object; received {received(answer)}.")
        version = _field(answer, "protocol", int)
        if version != protocol.VERSION:
            raise RegistryError(f"initialize: protocol must be {protocol.VERSION}; received {received(version)}.")
        metadata = PluginMetadata(_field(answer, "id", str), _field(answer, "version", str))
        metadata = metadata.with_name(_field(answer, "name", str, ""))
        metadata = metadata.with_description(_field(answer, "description", str, ""))
        metadata = metadata.with_author(_field(answer, "author", str, ""))
        for text in _texts(answer, "capabilities"):
            metadata = metadata.with_capability(PluginCapability.parse(text))
        for one in _objects(answer, "dependencies"):
            optional = _field(one, "optional", bool, False)
            metadata = metadata.with_dependency(
                _field(one, "id", str), _field(one, "requirement", str, ""), optional=optional
            )
        for one in _objects(answer, "conflicts"):
            metadata = metadata.with_conflict(_field(one, "id", str), _field(one, "requirement", str, ""))
        for one in _objects(answer, "provides"):
            metadata = metadata.with_provides(_field(one, "id", str), _field(one, "version", str))
        more = _field(answer, "metadata", dict, {})
        for key in more:
            metadata = metadata.with_metadata(key, _field(more, key, str))
        return cls(
            metadata,
            _texts(answer, "methods"),
            _texts(answer, "subscriptions"),
            _field(answer, "config", dict, {}),
            _field(answer, "state", bool, False),
        )


_MISSING = object()
_KINDS = {str: "a string", int: "an integer", bool: "true or false", dict: "an object", list: "a list"}


def _field(answer: Mapping[str, Any], key: str, kind: type, default: Any = _MISSING) -> Any:
    value = answer.get(key, default)
    if value is _MISSING:
        raise RegistryError(f"initialize: the answer lacks {key!r}, {_KINDS[kind]}.")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RegistryError(f"initialize: {key!r} must be {_KINDS[kind]}; received {received(value)}.")
    return value


def _texts(answer: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = _field(answer, key, list, [])
    if not all(isinstance(value, str) and value for value in values):
        raise RegistryError(f"initialize: {key!r} must be a list of strings; received {received(values)}.")
    return tuple(values)


def _objects(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    values = _field(answer, key, list, [])
    if not all(isinstance(value, dict) for value in values):
        raise RegistryError(f"initialize: {key!r} must be a list of objects; received {received(values)}.")
    return list(values)
