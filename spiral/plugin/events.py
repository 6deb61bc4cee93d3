from __future__ import annotations
from dataclasses import dataclass
from typing import Any

__all__ = [
    "PluginEvent",
    "SystemInit",
    "SystemShutdown",
    "PluginLoaded",
    "PluginUnloaded",
    "PluginReloaded",
    "EpochEnd",
    "Custom",
]


class PluginEvent:
    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class SystemInit(PluginEvent):
    pass


@dataclass(frozen=True)
class SystemShutdown(PluginEvent):
    pass


@dataclass(frozen=True)
class PluginLoaded(PluginEvent):
    plugin_id: str


@dataclass(frozen=True)
class PluginUnloaded(PluginEvent):
    plugin_id: str


@dataclass(frozen=True)
class PluginReloaded(PluginEvent):
    plugin_id: str
    old_version: str
    new_version: str


@dataclass(frozen=True)
class EpochEnd(PluginEvent):
    epoch: int
    loss: float


@dataclass(frozen=True)
class Custom(PluginEvent):
    event_type: str
    data: Any

    @property
    def name(self) -> str:
        return self.event_type
