"""What a plugin can do: the object that its `on_load` receives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from spiral.ownership import Addition, Ledger
from spiral.plugin.bus import EventBus, Subscription
from spiral.plugin.configuration import Configuration
from spiral.plugin.events import PluginEvent
from spiral.plugin.services import Services
from spiral.registry import complete_catalog

if TYPE_CHECKING:
    from spiral.backend import Backend, Kernel
    from spiral.plugin.registry import PluginRegistry

T = TypeVar("T")
Listener = Callable[[Any], None]


class PluginContext:
    """A plugin's door to spiral. Everything it adds belongs to the plugin and goes with it.

    Valid from `Plugin.on_load` until the plugin is unloaded; also from other threads of the plugin.

    Attributes:
        plugin_id: the plugin's id.
        registry: the registry that loads it.
        log: a logger named ``spiral.plugin.<id>``.
    """

    def __init__(self, plugin_id: str, registry: PluginRegistry, ledger: Ledger) -> None:
        self.plugin_id = plugin_id
        self.registry = registry
        self.log = logging.getLogger(f"spiral.plugin.{plugin_id}")
        self._ledger = ledger
        self._services: Services = registry.services
        self._configuration: Configuration = registry.configuration
        self._events: EventBus = registry.events

    def __repr__(self) -> str:
        return f"<context of plugin {self.plugin_id!r}>"

    # ------------------------------------------------------------ anything
    def register(self, kind: str, name: str, value: Any, *, replace: bool = False) -> Addition:
        """Adds a thing to the catalog of a kind: ``module``, ``optimizer``, ``callback``, ….

        Args:
            kind: one of `spiral.registry.HOMES`, or of a plugin's own catalog.
            name: its name there.
            value: the thing; each kind checks what it takes.
            replace: whether it may take the place of what has the name, until the plugin goes.

        Raises:
            RegistryError: there is no such kind, the name is taken, or the kind refuses the value.
        """
        into = complete_catalog(kind)
        with self._ledger.recording():
            return into.add(name, value, replace=replace)

    def on_cleanup(self, fn: Callable[[], None], name: str = "") -> Addition:
        """Calls ``fn()`` when the plugin's additions are taken back, also after a failed `on_load`."""
        return self._ledger.note(Addition("clean-up", name or getattr(fn, "__name__", "fn"), fn, self._ledger))

    # ------------------------------------------------------------ services
    def register_service(self, name: str, value: Any, *, version: str = "", replace: bool = False) -> Addition:
        """Offers an object to others by name; see `Services.register`."""
        with self._ledger.recording():
            return self._services.register(name, value, version=version, replace=replace)

    @overload
    def get_service(self, name: str, kind: type[T], requirement: str = "") -> T: ...
    @overload
    def get_service(self, name: str, kind: None = None, requirement: str = "") -> Any: ...
    def get_service(self, name: str, kind: type[Any] | None = None, requirement: str = "") -> Any:
        """The object that somebody offers; see `Services.get`."""
        with self._ledger.recording():
            return self._services.get(name, kind, requirement)

    def has_service(self, name: str) -> bool:
        """Whether somebody offers it."""
        with self._ledger.recording():
            return self._services.has(name)

    # ------------------------------------------------------------ events
    def subscribe(self, event: type[PluginEvent] | str, listener: Listener) -> Subscription:
        """Calls ``listener(event)`` for every event of a type, a name, or ``"*"``; see `EventBus.subscribe`."""
        ledger = self._ledger

        def heard(found: Any) -> None:
            if ledger.visible:  # not while a reload prepares this version, nor after it was replaced
                listener(found)

        heard.__name__ = getattr(listener, "__name__", type(listener).__name__)
        with ledger.recording():
            return self._events.subscribe(event, heard)

    def publish(self, event: PluginEvent) -> None:
        """Tells everybody who listens; see `EventBus.publish`."""
        self._events.publish(event)

    # ------------------------------------------------------------ settings
    def set_config(self, key: str, value: Any) -> None:
        """Sets one of this plugin's settings; what a user has set for it still wins."""
        with self._ledger.recording():
            self._configuration.set(self.plugin_id, key, value)

    def get_config(self, key: str, default: Any = None, *, plugin: str | None = None) -> Any:
        """A setting of this plugin, or of another one; see `Configuration.get` for who wins."""
        with self._ledger.recording():
            return self._configuration.get(plugin or self.plugin_id, key, default)

    def unset_config(self, key: str) -> bool:
        """Forgets a setting of this plugin; says whether there was one."""
        with self._ledger.recording():
            return self._configuration.unset(self.plugin_id, key)

    def list_config(self) -> dict[str, Any]:
        """This plugin's settings."""
        with self._ledger.recording():
            return self._configuration.values(self.plugin_id)

    def clear_config(self, prefix: str = "") -> int:
        """Forgets this plugin's settings whose keys begin with ``prefix``; says how many."""
        with self._ledger.recording():
            return self._configuration.clear(self.plugin_id, prefix)

    # ------------------------------------------------------------ what spiral is made of
    def register_op(self, schema: str, declaration: type) -> None:
        """Declares an op; the same as ``@op(schema)`` on the class, see `spiral.op`."""
        from spiral.op import op

        with self._ledger.recording():
            op(schema)(declaration)

    def register_backend(self, backend: Backend) -> None:
        """Adds a backend with its kernels; see `spiral.backend`."""
        from spiral.backends_registry import register_backend

        with self._ledger.recording():
            register_backend(backend)

    def register_kernel(self, backend: str, kernel: Kernel) -> Addition:
        """Adds a kernel to a backend that is there.

        Raises:
            RegistryError: there is no such backend or op.
        """
        from spiral.backends_registry import register_kernel

        with self._ledger.recording():
            return register_kernel(backend, kernel)

    def register_module(self, module: Any, factory: Callable[..., Any] | None = None, *, name: str = "") -> None:
        """Adds a module type that pipelines can name.

        Args:
            module: an nn.Module class, or a ModuleMetadata with ``factory``.
            factory: makes the module from a configuration.
            name: the type's name; empty: the class's or the metadata's.
        """
        from spiral.nn.discovery import ModuleDiscoveryRegistry

        with self._ledger.recording():
            ModuleDiscoveryRegistry.shared().register(module, factory, name=name)

    def register_optimizer(self, name: str, optimizer: Callable[..., Any], *, replace: bool = False) -> Addition:
        """Adds an optimizer class that ``optim.name`` of a training configuration can name."""
        return self.register("optimizer", name, optimizer, replace=replace)

    def register_loss(self, name: str, loss: Callable[..., Any], *, replace: bool = False) -> Addition:
        """Adds a loss: a function of predictions and targets, or a class that makes one."""
        return self.register("loss", name, loss, replace=replace)

    def register_dataset(self, name: str, dataset: Callable[..., Any], *, replace: bool = False) -> Addition:
        """Adds a source of text or tokens that ``data.source`` of a training configuration can name."""
        return self.register("dataset", name, dataset, replace=replace)

    def register_callback(self, name: str, callback: Callable[..., Any], *, replace: bool = False) -> Addition:
        """Adds a class of `spiral.train.Callback` that ``run.callbacks`` of a training configuration can name."""
        return self.register("callback", name, callback, replace=replace)

    def register_exporter(self, name: str, exporter: Callable[..., Any], *, replace: bool = False) -> Addition:
        """Adds a format that ``spiral export --format`` can name."""
        return self.register("exporter", name, exporter, replace=replace)

    def register_command(self, name: str, command: Any, *, replace: bool = False) -> Addition:
        """Adds ``spiral <name>``: an object with HELP, EXAMPLES, add_arguments(parser) and run(arguments)."""
        return self.register("command", name, command, replace=replace)
