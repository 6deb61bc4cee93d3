"""What a training run is: four sections, from a YAML file and dotted overrides such as ``optim.lr=1e-3``."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spiral import named
from spiral.errors import ConfigError
from spiral.models.llama import LlamaConfig
from spiral.plain_files import parse_yaml
from spiral.train.config_limits import CHOICES, RANGES


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the model; the vocabulary comes from the tokenizer. See `LlamaConfig`."""

    context_length: int = 128
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int = 2
    dim: int = 128
    ffn_dim: int = 352
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = True
    dropout: float = 0.1

    def llama(self, vocab_size: int) -> LlamaConfig:
        """The model's own configuration."""
        return LlamaConfig(vocab_size=vocab_size, **dataclasses.asdict(self))


@dataclass(frozen=True)
class DataConfig:
    """Text: a file or folder (None: the demo corpus), the tokens to learn, the share to hold out.

    Instead of `path`, `source` names where the text comes from (a plugin may bring it), with its `options`.
    """

    path: str | None = None
    vocab_size: int = 1024
    held_out: float = 0.1
    source: str = "files"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", named.options("data.options", self.options))
        if self.path is not None and (self.source != "files" or self.options):
            other = "data.options" if self.source == "files" else f"data.source={self.source!r}"
            raise ConfigError(f"data.path: expected it or {other}, not both; received {self.path!r}.")


@dataclass(frozen=True)
class OptimConfig:
    """An optimizer with warm-up and a schedule.

    `name` is adamw, adam, lion, sgd, adafactor or what a plugin brings; it gets `lr`, `beta1`, `beta2`, `eps` and
    `weight_decay` as far as it takes them, and `options` besides. Another name leaves the options of the one before.
    `schedule` is cosine, linear, wsd (constant, then a line down over the last `decay` share of the
    steps) or constant; all but the last fall to `final_lr` times `lr` at the last step. `weight_decay`
    applies to matrices only; `clip` is the largest gradient norm, 0 for none; `ema` is the decay of a
    moving average of the weights, which is then what is evaluated and saved, 0 for none.
    """

    lr: float = 3e-3
    schedule: str = "cosine"
    final_lr: float = 0.05
    warmup_steps: int = 50
    decay: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.0
    name: str = "adamw"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", named.options("optim.options", self.options))


@dataclass(frozen=True)
class RunConfig:
    """Length and records of a run.

    `accumulate` batches make one step; evaluation, checkpoints and log lines come every so many
    steps, 0 for only at the end; the newest `keep` checkpoints stay. After `patience` evaluations
    without a better one the run stops and keeps the best weights, 0 for never. `precision` is what
    forward and backward compute in: float32, bfloat16 or float16; weights stay float32. `device` is where:
    ``cpu``, ``cuda``, ``cuda:1`` or what a backend brings. `callbacks`
    are names, or mappings from a name to its options: ``[live, {tensorboard: {folder: logs}}]``.
    """

    out: str = "runs/train"
    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1
    eval_every: int = 200
    checkpoint_every: int = 200
    log_every: int = 10
    keep: int = 2
    seed: int = 0
    patience: int = 0
    precision: str = "float32"
    device: str = "cpu"
    callbacks: tuple[named.Written, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "callbacks", named.written("run.callbacks", self.callbacks))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Example:
        >>> TrainConfig().with_overrides(["optim.lr=1e-3", "run.steps=20"]).optim.lr
        0.001
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        values = {
            f"{section.name}.{field.name}": getattr(getattr(self, section.name), field.name)
            for section in dataclasses.fields(self)
            for field in dataclasses.fields(getattr(self, section.name))
        }
        for key, allowed in RANGES.items():
            if values[key] not in allowed:
                raise ConfigError(f"{key}: must be {allowed}; received {values[key]!r}.")
        for key, choices in CHOICES.items():
            if values[key] not in choices:
                raise ConfigError(
                    f"{key}: must be one of {', '.join(choices)}; received {values[key]!r}"
                    f"{_did_you_mean(values[key], choices)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as a YAML file has them."""
        values = dataclasses.asdict(self)
        values["run"]["callbacks"] = list(values["run"]["callbacks"])
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A configuration from nested plain values; what is left out has its default.

        Raises:
            ConfigError: A key is unknown or a value is of the wrong type or out of range.
        """
        return cls().updated(values)

    def updated(self, values: Mapping[str, Any]) -> TrainConfig:
        """This configuration with some values replaced; see `from_dict`."""
        built: TrainConfig = _update(self, values, "")
        return built

    def with_overrides(self, overrides: Iterable[str]) -> TrainConfig:
        """This configuration with ``section.key=value`` texts applied.

        Raises:
            ConfigError: A text has no ``=``, its key is unknown, or its value does not fit.
        """
        config = self
        for text in overrides:
            key, equals, value = text.partition("=")
            if not equals or not all(key.strip().split(".")):
                raise ConfigError(f"override {text!r}: expected section.key=value, such as optim.lr=0.001.")
            if not value.strip():
                raise ConfigError(f"override {text!r}: expected a value after =; write null for none.")
            # a path may look like a number or a date to YAML: text is taken as it stands
            is_text = key.strip() in _TEXTS and not (value == "null" and _TEXTS[key.strip()])
            nested: Any = value if is_text else parse_yaml(value, f"override {_short(text)}")
            for part in reversed(key.strip().split(".")):
                nested = {part: nested}
            config = config.updated(nested)
        return config


# the keys that hold text, and whether null is allowed
# the keys that their sections check and convert themselves, and by which key the options' meaning changes
_OWN_CHECKS = ("run.callbacks", "optim.options", "data.options")
_CHOICE = {"optim": "name", "data": "source"}
_TEXTS = {"data.path": True, "run.out": False, "run.precision": False, "optim.schedule": False, "optim.name": False,
          "data.source": False}  # fmt: skip


def load_config(path: str | Path | None, overrides: Iterable[str] = ()) -> TrainConfig:
    """A configuration from a YAML file, if one is given, with overrides applied.

    Raises:
        ConfigError: The file cannot be read or is no mapping, or a key or value is wrong.
    """
    config = TrainConfig()
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{path}: expected a readable YAML file ({error.strerror}); "
                "settings on the command line have the form section.key=value."
            ) from error
        except ValueError as error:  # also a name with a zero byte
            raise ConfigError(f"{path}: expected a YAML file in UTF-8; {error}.") from error
        values = parse_yaml(text, str(path))
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{path}: expected a mapping with the sections {_names(config)}; received {_kind(values)}."
            )
        config = config.updated(values)
    return config.with_overrides(overrides)


def _update(config: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')}: expected the keys {_names(config)}; received {_short(values)}.")
    hints = typing.get_type_hints(type(config))
    section = prefix.rstrip(".")
    changes = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(
                f"unknown key {prefix}{_short(key) if not isinstance(key, str) else key}: allowed are "
                f"{_names(config)}{_did_you_mean(str(key), hints, prefix)}"
            )
        current = getattr(config, key)
        name = prefix + str(key)
        if dataclasses.is_dataclass(current):
            changes[key] = _update(current, value, name + ".")
        else:
            changes[key] = value if name in _OWN_CHECKS else _converted(name, value, hints[key])
    if "options" in hints:
        chosen = getattr(config, _CHOICE[section])
        before = config.options if changes.get(_CHOICE[section], chosen) == chosen else {}
        given = changes.get("options", {})
        changes["options"] = {**before, **given} if isinstance(given, Mapping) else given
    return dataclasses.replace(config, **changes)


def _converted(name: str, value: Any, hint: Any) -> Any:
    """The value as its field's type; YAML reads ``1e-3`` as text, and 1 may stand for 1.0."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{name}: expected text without a zero byte; received {_short(value)}.")
    if type(value) in allowed or (value is None and types.NoneType in allowed):
        return value
    if float in allowed and type(value) in (int, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass  # said below, with the type that was expected
    wanted = " or ".join("null" if t is types.NoneType else _TYPES[t] for t in allowed)
    raise ConfigError(f"{name}: expected {wanted}; received {_short(value)} ({_kind(value)}).")


_TYPES: dict[type, str] = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def _kind(value: Any) -> str:
    """A value's type in YAML's words."""
    if value is None:
        return "nothing"
    return {**_TYPES, dict: "a mapping", list: "a list"}.get(type(value), type(value).__name__)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return "a very long number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _did_you_mean(name: Any, allowed: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else "."


def _names(config: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(config))
