"""YAML and JSON files of plain values: configurations and pipelines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from spiral.errors import ConfigError, SaveError
from spiral.optional import missing


def parse_yaml(text: str, source: str) -> Any:
    """The values of a YAML text, none of whose keys occurs twice.

    Args:
        text: YAML.
        source: what messages call it.

    Raises:
        ConfigError: it is no YAML.
    """
    try:
        import yaml  # 15 ms: only where a configuration is read
    except ModuleNotFoundError as error:
        raise missing("yaml", "reading a configuration", "pip install pyyaml") from error

    class OneEach(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        """YAML without keys that occur twice: PyYAML silently takes the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.YAMLError(f"the key {twice!r} occurs twice")
            return dict(super().construct_mapping(node, deep))

    try:
        return yaml.load(text, OneEach)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # also impossible dates, unhashable keys
        raise ConfigError(f"{source}: expected YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: expected sections with keys; received YAML nested too deep.") from error


def load_plain(path: str | Path) -> Any:
    """The values of a ``.json``, ``.yaml`` or ``.yml`` file.

    Raises:
        ConfigError: it cannot be read, has another suffix, or is neither.
    """
    kind = _suffix(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable file ({error.strerror}).") from error
    except ValueError as error:  # also a name with a zero byte
        raise ConfigError(f"{path}: expected a file in UTF-8; {error}.") from error
    if kind != ".json":
        return parse_yaml(text, str(path))
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON: {error}.") from error


def save_plain(values: Any, path: str | Path) -> None:
    """Writes values to a ``.json``, ``.yaml`` or ``.yml`` file, whole or not at all.

    Raises:
        ConfigError: the path has another suffix.
        SaveError: it cannot be written; what stood there is as it was.
    """
    if _suffix(path) == ".json":
        text = json.dumps(values, indent=2) + "\n"
    else:
        try:
            import yaml
        except ModuleNotFoundError as error:
            raise missing("yaml", "writing a configuration", "pip install pyyaml") from error
        text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)
    beside = Path(f"{path}.part{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SaveError(f"{path}: cannot be written ({error.strerror}).") from error


def _suffix(path: str | Path) -> str:
    kind = Path(path).suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        raise ConfigError(f"{path}: expected a name that ends in .yaml, .yml or .json.")
    return kind


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return found
