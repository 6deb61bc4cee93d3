"""What happens in spiral, as typed values: published by the trainer, the dispatcher, the registries and by users.

    from spiral.plugin import EpochEnd, PluginEvent, event_bus

    event_bus.subscribe(EpochEnd, lambda event: print(event.epoch, event.loss))
    event_bus.publish(PluginEvent.custom("MyEvent", {"value": 42}))

An event is matched by its name, which is its class's name, or what a `Custom` event was given.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from spiral.errors import RegistryError, received
from spiral.plugin.plain_data import plain

if TYPE_CHECKING:
    from spiral.plugin import events as e  # within the class below a bare EpochStart would mean its attribute

__all__ = [
    "BackendChanged", "CheckpointSaved", "Custom", "EpochEnd", "EpochStart", "Evaluated", "ModuleRegistered",
    "PluginEvent", "PluginLoaded", "PluginReloaded", "PluginUnloaded", "StepEnd", "SystemInit", "SystemShutdown",
    "Telemetry", "TensorOp", "TrainingEnd", "TrainingStart",
]  # fmt: skip

ANY = "*"
"""The name under which a listener hears every event."""


class PluginEvent:
    """Base of all events; every built-in one is also its attribute: ``PluginEvent.EpochStart(epoch=1)``.

    A class of one's own may derive from it, as a frozen dataclass; its name then is an event's name like any other.

    Example:
        >>> event = PluginEvent.EpochEnd(epoch=1, loss=0.5)
        >>> event.name, event.to_dict()
        ('EpochEnd', {'event': 'EpochEnd', 'epoch': 1, 'loss': 0.5})
        >>> match event:
        ...     case PluginEvent.EpochEnd(epoch=epoch):
        ...         print("epoch", epoch)
        epoch 1
    """

    __slots__ = ()

    SystemInit: ClassVar[type[e.SystemInit]]
    SystemShutdown: ClassVar[type[e.SystemShutdown]]
    PluginLoaded: ClassVar[type[e.PluginLoaded]]
    PluginUnloaded: ClassVar[type[e.PluginUnloaded]]
    PluginReloaded: ClassVar[type[e.PluginReloaded]]
    TensorOp: ClassVar[type[e.TensorOp]]
    TrainingStart: ClassVar[type[e.TrainingStart]]
    EpochStart: ClassVar[type[e.EpochStart]]
    EpochEnd: ClassVar[type[e.EpochEnd]]
    StepEnd: ClassVar[type[e.StepEnd]]
    Evaluated: ClassVar[type[e.Evaluated]]
    CheckpointSaved: ClassVar[type[e.CheckpointSaved]]
    TrainingEnd: ClassVar[type[e.TrainingEnd]]
    BackendChanged: ClassVar[type[e.BackendChanged]]
    ModuleRegistered: ClassVar[type[e.ModuleRegistered]]
    Telemetry: ClassVar[type[e.Telemetry]]
    Custom: ClassVar[type[e.Custom]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__ != __name__:
            check_custom_name(cls.__name__)

    @property
    def name(self) -> str:
        """What listeners subscribe to."""
        return type(self).__name__

    @staticmethod
    def custom(event_type: str, data: Any = None) -> e.Custom:
        """An event of one's own; see `Custom`."""
        return Custom(event_type, data)

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON can hold it: its name under ``event``, then its fields.

        What JSON has no counterpart for becomes a text: an array's type, shape and dtype, another object's ``repr``.
        """
        own: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        return {"event": self.name, **{f.name: plain(getattr(self, f.name)) for f in own}}


# ---------------------------------------------------------------- the plugin system
@dataclass(frozen=True, slots=True)
class SystemInit(PluginEvent):
    """The plugin system is ready."""


@dataclass(frozen=True, slots=True)
class SystemShutdown(PluginEvent):
    """The plugin system is about to unload every plugin."""


@dataclass(frozen=True, slots=True)
class PluginLoaded(PluginEvent):
    """A plugin is in service."""

    plugin_id: str


@dataclass(frozen=True, slots=True)
class PluginUnloaded(PluginEvent):
    """A plugin and all that it had added are gone."""

    plugin_id: str


@dataclass(frozen=True, slots=True)
class PluginReloaded(PluginEvent):
    """A plugin was replaced by what its file holds now; after a failure there is no event, the old one serves on."""

    plugin_id: str
    old_version: str
    new_version: str


@dataclass(frozen=True, slots=True)
class ModuleRegistered(PluginEvent):
    """A module type can be used in pipelines from now on."""

    module_type: str


# ---------------------------------------------------------------- ops
@dataclass(frozen=True, slots=True)
class TensorOp(PluginEvent):
    """An op has run, in a forward or a backward pass; published only while somebody listens.

    An op that ran as its decomposition follows the ops it consists of. What ops a listener of this event calls itself
    is not published.

    Attributes:
        op_name: as in ``spiral.op.OPS``.
        input_shapes: of its tensors in order, those of lists included; numbers and absent inputs have none.
        output_shapes: of its results.
        backend: whose kernel ran, or ``decomposition``.
    """

    op_name: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    backend: str


@dataclass(frozen=True, slots=True)
class BackendChanged(PluginEvent):
    """An op will run elsewhere than before, for inputs of the same dtypes on the same device.

    Attributes:
        backend: where it runs now, or ``decomposition``.
        op_name: as in ``spiral.op.OPS``; empty when somebody else publishes a change that is about no one op.
        previous: where it ran before.
    """

    backend: str
    op_name: str = ""
    previous: str = ""


# ---------------------------------------------------------------- training
@dataclass(frozen=True, slots=True)
class TrainingStart(PluginEvent):
    """Training begins, or goes on, until `total_steps` steps are taken."""

    total_steps: int


@dataclass(frozen=True, slots=True)
class EpochStart(PluginEvent):
    """The next step is the first of a pass over the training tokens; the first pass is epoch 1."""

    epoch: int


@dataclass(frozen=True, slots=True)
class EpochEnd(PluginEvent):
    """The last tokens of a pass were trained on; `loss` is the mean of the steps that began in it."""

    epoch: int
    loss: float


@dataclass(frozen=True, slots=True)
class StepEnd(PluginEvent):
    """An optimizer step was taken.

    Attributes:
        step: steps taken so far, this one included.
        loss: mean over its tokens, in nats per token.
        lr: its learning rate.
        grad_norm: of the gradient before clipping.
        seconds: wall time.
        tokens: that it saw.
        skipped: whether the weights stayed because a float16 gradient overflowed.
        peak_memory: the most bytes that tensors took within it on its device; 0 where nobody counts.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    tokens: int
    skipped: bool = False
    peak_memory: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated(PluginEvent):
    """The held-out text was evaluated after a step; `loss` is in nats per token."""

    step: int
    loss: float
    bits_per_byte: float


@dataclass(frozen=True, slots=True)
class CheckpointSaved(PluginEvent):
    """A checkpoint was written and is whole; `path` is its folder."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class TrainingEnd(PluginEvent):
    """The last step was taken; not published after an error or an interrupt."""

    step: int


@dataclass(frozen=True, slots=True)
class Telemetry(PluginEvent):
    """Numbers to watch, by name; a copy is kept that cannot be changed."""

    data: Mapping[str, float]

    def __post_init__(self) -> None:
        if not isinstance(self.data, Mapping):
            raise RegistryError(f"Telemetry: data is a mapping of names to numbers; received {received(self.data)}.")
        object.__setattr__(self, "data", MappingProxyType(dict(self.data)))

    def __reduce__(self) -> tuple[type[Telemetry], tuple[dict[str, float]]]:
        return Telemetry, (dict(self.data),)  # a proxy cannot be pickled


# ---------------------------------------------------------------- users' own
@dataclass(frozen=True, slots=True)
class Custom(PluginEvent):
    """An event of a plugin or a user.

    Args:
        event_type: its name; a built-in event's, and what is easily taken for one, is refused.
        data: anything; listeners get this very object.

    Raises:
        RegistryError: the name cannot be used.
    """

    event_type: str
    data: Any = None

    def __post_init__(self) -> None:
        check_custom_name(self.event_type)

    @property
    def name(self) -> str:
        """What listeners subscribe to: its `event_type`."""
        return self.event_type


BUILT_IN: dict[str, type[PluginEvent]] = {
    kind.__name__: kind
    for kind in (
        SystemInit, SystemShutdown, PluginLoaded, PluginUnloaded, PluginReloaded, ModuleRegistered, TensorOp,
        BackendChanged, TrainingStart, EpochStart, EpochEnd, StepEnd, Evaluated, CheckpointSaved, TrainingEnd,
        Telemetry,
    )
}  # fmt: skip
"""Spiral's own events by name; `Custom` is not among them, as its events have names of their own."""

for _kind in (*BUILT_IN.values(), Custom):
    setattr(PluginEvent, _kind.__name__, _kind)


# ---------------------------------------------------------------- names
def check_custom_name(name: object) -> None:
    """Refuses a name under which an event would be missed: no text, empty, ``*``, or next to a built-in name.

    Raises:
        RegistryError: names the built-in event that is meant, if one is.
    """
    if not isinstance(name, str):
        raise RegistryError(f"event: a name is a string; received {received(name)}.")
    _check_text(name)


@functools.lru_cache(1024)  # every custom event asks, and most are of a few names; errors are not remembered
def _check_text(name: str) -> None:
    if not name or name != name.strip():
        raise RegistryError(f"event: a name has no blanks at its ends and is not empty; received {received(name)}.")
    if name == ANY:
        raise RegistryError("event: '*' means every event, so no event can have it as its name.")
    if name in BUILT_IN or name in ("Custom", "PluginEvent"):
        use = f"publish {name}(...) itself" if name in BUILT_IN else "give it a name of your own"
        raise RegistryError(f"event: {name!r} is a name of spiral's own; {use}.")
    meant = near_built_in(name)
    if meant is not None:
        raise RegistryError(f"event: there is no event {name!r}; the built-in one is {meant!r}. Choose another name.")


def near_built_in(name: str) -> str | None:
    """The built-in name that this one is a misspelling of: by case, by signs between words, or by one letter."""
    letters = _letters(name)
    for known in BUILT_IN:
        if _within_one(letters, _letters(known)):
            return known
    return None


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _within_one(a: str, b: str) -> bool:
    """Whether one letter more, less, changed, or two neighbours swapped make the other."""
    if abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[1::-1] == b[:2] and a[2:] == b[2:])
