"""Plugins: what can be added to spiral, found and taken away again.

from spiral.plugin import Plugin, PluginMetadata, init_plugin_system

registry = init_plugin_system()      # loads what is installed
registry.register(MyPlugin())
"""

from spiral.plugin import events
from spiral.plugin.base import Plugin, PluginError
from spiral.plugin.bus import EventBus, EventQueue, JsonlSink, PublishReport, Recorder, Subscription, event_bus
from spiral.plugin.configuration import Configuration
from spiral.plugin.context import PluginContext
from spiral.plugin.dependencies import DependencyError, GraphReport
from spiral.plugin.events import *  # noqa: F403
from spiral.plugin.loading import Choice
from spiral.plugin.metadata import PluginCapability, PluginMetadata
from spiral.plugin.registry import PluginRegistry, global_registry, init_plugin_system
from spiral.plugin.services import Services, ServiceTypeError
from spiral.plugin.watch import PluginWatcher

__all__ = [
    "Choice", "Configuration", "DependencyError", "EventBus", "EventQueue", "GraphReport", "JsonlSink", "Plugin",
    "PluginCapability", "PluginContext", "PluginError", "PluginMetadata", "PluginRegistry", "PluginWatcher",
    "PublishReport", "Recorder", "ServiceTypeError", "Services", "Subscription", "event_bus", "global_registry",
    "init_plugin_system", *events.__all__,
]  # fmt: skip
