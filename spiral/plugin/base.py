"""What a plugin is: a class with `metadata`, and any of the other methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spiral.errors import SpiralError

if TYPE_CHECKING:
    from spiral.plugin.context import PluginContext
    from spiral.plugin.events import PluginEvent
    from spiral.plugin.metadata import PluginMetadata


class PluginError(SpiralError, RuntimeError):
    """A plugin could not be loaded, reloaded or unloaded; its own error is the cause (``__cause__``)."""


def is_failure(error: BaseException) -> bool:
    """Whether what a plugin's code raised is the plugin's failure: all but KeyboardInterrupt, the user's will."""
    return not isinstance(error, KeyboardInterrupt)


def shown(error: BaseException) -> str:
    """An error for a message: its type and its text, also where the error cannot say it."""
    try:
        text = str(error).rstrip(".")
    except Exception as again:
        text = f"its message raised {type(again).__name__}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Plugin:
    """Base of plugins; `metadata` must be written, the rest may be.

    Whatever `on_load` registers, through its context or with decorators such as ``@op``, belongs to the plugin:
    it is taken back when `on_load` raises and when the plugin is unloaded.

    Example:
        >>> from spiral.plugin import EpochEnd, PluginMetadata, PluginRegistry
        >>> class Best(Plugin):
        ...     loss = float("inf")
        ...     def metadata(self):
        ...         return PluginMetadata("best", "1.0")
        ...     def on_load(self, ctx):
        ...         ctx.subscribe(EpochEnd, self.note)
        ...     def note(self, event):
        ...         self.loss = min(self.loss, event.loss)
        >>> registry = PluginRegistry()
        >>> plugin = registry.register(Best())
        >>> registry.events.publish(EpochEnd(epoch=1, loss=0.5))
        >>> plugin.loss
        0.5
    """

    def metadata(self) -> PluginMetadata:
        """Who the plugin is; called before anything else, perhaps several times."""
        raise NotImplementedError(f"{type(self).__name__}: write metadata(self), which returns a PluginMetadata.")

    def on_load(self, ctx: PluginContext) -> None:
        """Registers what the plugin brings. Called again, with a new context, when a dependency was reloaded."""

    def on_unload(self, ctx: PluginContext) -> None:
        """Releases what is not registered: files, sockets, threads. Registrations are taken back after it."""

    def on_event(self, event: PluginEvent, ctx: PluginContext) -> None:
        """Every event, if the plugin overrides this; `PluginContext.subscribe` is for particular ones."""

    def export_state(self) -> Any:
        """What the next version of the plugin shall know when this one is reloaded; None: nothing."""
        return None

    def import_state(self, state: Any) -> None:
        """Takes over what the version before exported; called after `on_load`, unless it is None."""
