"""Records what happens during a run: the events of the bus as JSON lines, with the time and the run.

A line is ``{"time": 1764021600.5, "run": "3f9c2a71…", "event": "StepEnd", "step": 1, "loss": 5.6, …}``. Lines are
whole, whatever happens to the process; the file is appended to and never rotated.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spiral
from spiral.errors import ArgumentError, SaveError
from spiral.plugin import JsonlSink, Plugin, PluginCapability, PluginContext, PluginMetadata, Subscription
from spiral.plugin import event_bus as bus
from spiral.train import Callback, Trainer

USUAL = (
    "TrainingStart", "EpochStart", "StepEnd", "EpochEnd", "Evaluated", "CheckpointSaved", "TrainingEnd", "Telemetry",
    "BackendChanged", "ModuleRegistered", "PluginLoaded", "PluginReloaded", "PluginUnloaded", "Custom",
)  # fmt: skip


class JsonLines(Callback):
    """Appends events to a file while a run trains.

    A resumed run goes on with its id, and repeats the steps since its checkpoint: of a step that comes twice the
    later one counts. A recorder does not end a run: where a line cannot be written, the bus warns once, and training
    goes on; a file that cannot be opened at the start is an error.

    Args:
        path: The file; empty: ``events.jsonl`` in the run's folder.
        events: Names of the events to record; empty: all but `TensorOp`, which comes with every op and makes each of
            them slower. ``["*"]`` records that too, and events of classes of your own.
    """

    def __init__(self, path: str = "", events: Sequence[str] = ()) -> None:
        if isinstance(events, str) or not all(isinstance(name, str) and name for name in events):
            raise ArgumentError(f"jsonl: events must be a list of names; received {events!r}.")
        self.path, self.events = path, tuple(events) or USUAL
        self.run = uuid.uuid4().hex[:12]
        self.sink: JsonlSink | None = None
        self.subscriptions: list[Subscription] = []

    def on_start(self, trainer: Trainer) -> None:
        path = Path(self.path) if self.path else trainer.folder / "events.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"jsonl: {path.parent}: cannot be made: {error.strerror}.") from error
        self.sink = JsonlSink(path, {"run": self.run})
        for name in self.events:
            self.subscriptions.append(bus.subscribe(name, self.sink))

    def on_close(self, trainer: Trainer) -> None:
        for subscription in self.subscriptions:
            subscription.cancel()
        self.subscriptions.clear()
        if self.sink is not None:
            self.sink.close()

    def state_dict(self) -> dict[str, Any]:
        return {"run": self.run}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.run = str(state["run"])


class JsonLinesPlugin(Plugin):
    """Brings the callback ``jsonl``."""

    def metadata(self) -> PluginMetadata:
        made = PluginMetadata("jsonl", spiral.__version__).with_capability(PluginCapability.Telemetry)
        return made.with_description("the events of a run as JSON lines")

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_callback("jsonl", JsonLines)
