"""What a training run is: four sections, from a YAML file and dotted overrides such as ``optim.lr=1e-3``."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spiral.errors import ConfigError
from spiral.models.llama import LlamaConfig


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
    """Text: a file or folder (None: the demo corpus), the tokens to learn, the share to hold out."""

    path: str | None = None
    vocab_size: int = 1024
    held_out: float = 0.1


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay.

    `weight_decay` applies to matrices only; `clip` is the largest gradient norm, 0 for none;
    the rate falls to `final_lr` times `lr` at the last step.
    """

    lr: float = 3e-3
    final_lr: float = 0.05
    warmup_steps: int = 50
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0


@dataclass(frozen=True)
class RunConfig:
    """Length and records of a run.

    `accumulate` batches make one step; evaluation, checkpoints and log lines come every so many
    steps, 0 for only at the end; the newest `keep` checkpoints stay.
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
        for section, name, low in _LOWEST:
            value = getattr(getattr(self, section), name)
            if not (math.isfinite(value) and value >= low):
                raise ConfigError(f"{section}.{name}: must be at least {low}; received {value!r}.")
        if self.optim.lr <= 0:
            raise ConfigError(f"optim.lr: must be positive; received {self.optim.lr!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as a YAML file has them."""
        return dataclasses.asdict(self)

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
            if not equals:
                raise ConfigError(f"override {text!r}: expected key=value, such as optim.lr=0.001.")
            nested: Any = _yaml(value, f"override {text!r}")
            for part in reversed(key.strip().split(".")):
                nested = {part: nested}
            config = config.updated(nested)
        return config


_LOWEST: tuple[tuple[str, str, float], ...] = (
    ("optim", "lr", 0.0),
    ("optim", "final_lr", 0.0),
    ("optim", "warmup_steps", 0),
    ("optim", "weight_decay", 0.0),
    ("optim", "clip", 0.0),
    ("run", "steps", 1),
    ("run", "batch_size", 1),
    ("run", "accumulate", 1),
    ("run", "eval_every", 0),
    ("run", "checkpoint_every", 0),
    ("run", "log_every", 1),
    ("run", "keep", 1),
    ("run", "seed", 0),
)


def load_config(path: str | Path | None, overrides: Iterable[str] = ()) -> TrainConfig:
    """A configuration from a YAML file, if one is given, with overrides applied.

    Raises:
        ConfigError: The file cannot be read or is no mapping, or a key or value is wrong.
    """
    config = TrainConfig()
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: expected a readable YAML file; {error}.") from error
        values = _yaml(text, str(path))
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path}: expected sections {_names(config)}; received {type(values).__name__}.")
        config = config.updated(values)
    return config.with_overrides(overrides)


def _yaml(text: str, source: str) -> Any:
    import yaml  # 15 ms: only where a configuration is read

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: expected YAML: {' '.join(str(error).split())}.") from error


def _update(config: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')}: expected the keys {_names(config)}; received {values!r}.")
    hints = typing.get_type_hints(type(config))
    changes = {}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            hint = f"; did you mean {prefix}{close[0]}?" if close else "."
            raise ConfigError(f"unknown key {prefix}{key}: allowed are {_names(config)}{hint}")
        current = getattr(config, key)
        name = prefix + str(key)
        changes[key] = (
            _update(current, value, name + ".")
            if dataclasses.is_dataclass(current)
            else _converted(name, value, hints[key])
        )
    return dataclasses.replace(config, **changes)


def _converted(name: str, value: Any, hint: Any) -> Any:
    """The value as its field's type; YAML reads ``1e-3`` as text, and 1 may stand for 1.0."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) in allowed or (value is None and types.NoneType in allowed):
        return value
    if float in allowed and type(value) in (int, str):
        try:
            return float(value)
        except ValueError:
            pass  # said below, with the type that was expected
    wanted = " or ".join("null" if t is types.NoneType else t.__name__ for t in allowed)
    raise ConfigError(f"{name}: expected {wanted}; received {value!r} ({type(value).__name__}).")


def _names(config: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(config))
