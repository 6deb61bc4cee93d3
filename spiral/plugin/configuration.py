"""Settings of plugins: each belongs to the plugin that made it, in a namespace of the plugin's own.

A user overrides them without touching code: in a YAML file named by ``SPIRAL_PLUGIN_CONFIG``, as
``plugin id: {key: value}``, or by an environment variable ``SPIRAL_CONFIG__<PLUGIN>__<KEY>``, upper-cased with
everything but letters and digits as ``_``. The environment wins over the file, the file over the plugin.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiral.errors import ConfigError, RegistryError, received
from spiral.ownership import Addition
from spiral.plain_files import parse_yaml
from spiral.registry import Catalog

FILE_VARIABLE = "SPIRAL_PLUGIN_CONFIG"


@dataclass(frozen=True)
class Setting:
    """A value that a plugin has set."""

    plugin_id: str
    key: str
    value: Any


class Configuration:
    """The settings of one plugin registry, over its catalog.

    Args:
        catalog: where they are kept.
        environment: where overrides are read from.

    Example:
        >>> c = Configuration(Catalog("setting"), environment={"SPIRAL_CONFIG__METRICS__PORT": "9200"})
        >>> c.set("metrics", "port", 9100)
        >>> c.get("metrics", "port"), c.get("metrics", "host", "localhost")
        (9200, 'localhost')
    """

    def __init__(self, catalog: Catalog[Setting], environment: Mapping[str, str] | None = None) -> None:
        self._catalog = catalog
        self._environment = os.environ if environment is None else environment
        self._file: tuple[tuple[str, int, int], dict[str, dict[str, Any]]] | None = None

    # ------------------------------------------------------------ what plugins do
    def set(self, plugin_id: str, key: str, value: Any) -> None:
        """Sets a plugin's own value for a key; what users have said still wins.

        Raises:
            RegistryError: the key is no non-empty string without blanks at its ends, or somebody else has set it.
        """
        name = _name(plugin_id, key)
        try:
            self._catalog.put(name, Setting(plugin_id, key, value))
        except RegistryError:
            owner = self._catalog.owner_of(name) if name in self._catalog else "another call"
            raise RegistryError(
                f"setting {name!r}: was set by {owner!r}; who sets a plugin's setting from outside does it with "
                "configuration.override(...), which wins over the plugin's own value."
            ) from None

    def unset(self, plugin_id: str, key: str) -> bool:
        """Forgets what the plugin has set; says whether there was something."""
        name = _name(plugin_id, key)
        if name not in self._catalog:
            return False
        self._catalog.remove(name)
        return True

    def clear(self, plugin_id: str, prefix: str = "") -> int:
        """Forgets what the plugin has set under keys that begin with ``prefix``; says how many there were."""
        keys = [s.key for s in self._settings() if s.plugin_id == plugin_id and s.key.startswith(prefix)]
        return sum(self.unset(plugin_id, key) for key in keys)

    # ------------------------------------------------------------ what users do
    def override(self, plugin_id: str, key: str, value: Any) -> Addition:
        """Sets a value that wins over the plugin's own, not over file and environment.

        Returns:
            The addition; its ``undo()`` takes the override back.
        """
        name = _USERS + _name(plugin_id, key)
        return self._catalog.add(name, Setting(plugin_id, key, value), replace=True)

    # ------------------------------------------------------------ reading
    def get(self, plugin_id: str, key: str, default: Any = None) -> Any:
        """The value of a plugin's key: the environment's, the file's, the user's, the plugin's, or ``default``.

        Raises:
            ConfigError: the file or the variable cannot be read, or the variable stands for two settings.
        """
        return self._find(plugin_id, key, default)[0]

    def origin(self, plugin_id: str, key: str) -> str:
        """Where a value comes from: the name of a variable or file, ``user``, ``plugin`` or ``default``."""
        return self._find(plugin_id, key, None)[1]

    def _find(self, plugin_id: str, key: str, default: Any) -> tuple[Any, str]:
        name = _name(plugin_id, key)
        own = self._catalog.get(name)
        variable = variable_of(plugin_id, key)
        if variable in self._environment:
            self._refuse_ambiguity(variable, plugin_id, key)
            text = self._environment[variable]
            return (text if own is not None and isinstance(own.value, str) else parse_yaml(text, variable)), variable
        path = self._environment.get(FILE_VARIABLE)
        if path:
            in_file = self._read(path).get(plugin_id, {})
            if key in in_file:
                return in_file[key], path
        user = self._catalog.get(_USERS + name)
        if user is not None:
            return user.value, "user"
        return (default, "default") if own is None else (own.value, "plugin")

    def _refuse_ambiguity(self, variable: str, plugin_id: str, key: str) -> None:
        for other in self._settings():
            theirs = (other.plugin_id, other.key)
            if theirs != (plugin_id, key) and variable_of(*theirs) == variable:
                raise ConfigError(
                    f"{variable}: stands for {plugin_id}/{key} and for {other.plugin_id}/{other.key}; "
                    f"unset it, and write the one that is meant into the file that {FILE_VARIABLE} names."
                )

    def values(self, plugin_id: str) -> dict[str, Any]:
        """The plugin's keys that have a value, with the one that counts."""
        keys = {s.key for s in self._settings() if s.plugin_id == plugin_id}
        path = self._environment.get(FILE_VARIABLE)
        if path:
            keys |= set(self._read(path).get(plugin_id, {}))
        return {key: self.get(plugin_id, key) for key in sorted(keys)}

    def keys(self) -> list[str]:
        """What is set, by plugins or users, as ``plugin id/key``."""
        return sorted({f"{s.plugin_id}/{s.key}" for s in self._settings()})

    def _settings(self) -> tuple[Setting, ...]:
        return tuple(self._catalog.values())

    def _read(self, path: str) -> dict[str, dict[str, Any]]:
        """The overrides of a file, read again when it has changed."""
        try:
            found = os.stat(path)
            stamp = (path, found.st_mtime_ns, found.st_size)
            if self._file is None or self._file[0] != stamp:
                content = parse_yaml(Path(path).read_text(encoding="utf-8"), f"{FILE_VARIABLE}={path}") or {}
                self._file = (stamp, _checked(path, content))
        except (OSError, UnicodeDecodeError) as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"{FILE_VARIABLE}={path}: cannot be read: {text}.") from error
        return self._file[1]


_USERS = "/"  # before the names of what users set; no plugin's id has a slash


def _name(plugin_id: str, key: str) -> str:
    if not isinstance(key, str) or not key or key != key.strip():
        raise RegistryError(
            f"plugin {plugin_id!r}: a setting's key is a string without blanks at its ends; received {received(key)}."
        )
    return f"{plugin_id}/{key}"


def variable_of(plugin_id: str, key: str) -> str:
    """The environment variable that overrides a setting.

    Example:
        >>> variable_of("tensor-board", "log.dir")
        'SPIRAL_CONFIG__TENSOR_BOARD__LOG_DIR'
    """
    parts = (re.sub(r"[^A-Za-z0-9]", "_", part).upper() for part in (plugin_id, key))
    return "SPIRAL_CONFIG__" + "__".join(parts)


def _checked(path: str, content: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
        raise ConfigError(f"{path}: expected `plugin id: {{key: value}}`; received {received(content)}.")
    for plugin_id, part in content.items():
        for key in part:
            if not isinstance(key, str):  # YAML reads 8080 and yes as something else
                raise ConfigError(
                    f"{path}: {plugin_id}: a key is a string; received {received(key)}. Write it in quotes."
                )
    return content
