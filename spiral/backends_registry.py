"""Backends that exist, found by folder (``spiral/backends/*``) and by the entry points ``spiral.backends``.

Found and probed once, at the first question. A backend that raises is set aside with its reason and
shown by `spiral.backends()`; it never breaks an import.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from spiral import device
from spiral.backend import Backend, DeviceInfo, Kernel, Unavailable
from spiral.errors import RegistryError, received

_log = logging.getLogger("spiral")


@dataclass
class Entry:
    """A backend with what its probe said."""

    name: str
    backend: Backend | None
    devices: list[DeviceInfo] = field(default_factory=list)
    unavailable: Unavailable | None = None
    kernels: dict[str, list[Kernel]] = field(default_factory=dict)

    def __repr__(self) -> str:
        if self.unavailable is not None:
            return f"<backend {self.name}: unavailable, {self.unavailable.reason.strip().splitlines()[-1]}>"
        devices = ", ".join(d.name or d.type for d in self.devices)
        return f"<backend {self.name}: {len(self.kernels)} ops on {devices}>"


_entries: dict[str, Entry] = {}
_loaded = False
_loading = False  # this thread may ask again while it loads; others wait at the lock
_lock = threading.RLock()
_listeners: list[Callable[[], None]] = []
_warned: set[str] = set()


def on_change(fn: Callable[[], None]) -> None:
    """Calls ``fn`` whenever a backend comes or goes."""
    _listeners.append(fn)


def _changed() -> None:
    for fn in _listeners:
        fn()


def register_backend(backend: Backend) -> Entry:
    """Adds a backend: probes it and takes its kernels.

    Raises:
        RegistryError: the name is taken, or the object lacks a part of the contract.
    """
    if not isinstance(backend, Backend):
        wanted = "name, device_type, priority, probe, kernels, allocate"
        raise RegistryError(f"backend: {backend!r} lacks a part of the contract ({wanted}).")
    with _lock:
        if backend.name in _entries:
            raise RegistryError(f"backend: {backend.name!r} is registered already; unregister it first.")
        entry = Entry(backend.name, backend)
        found = backend.probe()
        if isinstance(found, Unavailable):
            entry.unavailable = found
        else:
            entry.devices = found
            for d in found:
                device.add_device(d.type, d.index)
            for k in backend.kernels():
                entry.kernels.setdefault(k.op, []).append(k)
        _entries[backend.name] = entry
        _changed()
        return entry


def unregister_backend(name: str) -> None:
    """Takes a backend away; choices are made again."""
    with _lock:
        check_names((name,))
        del _entries[name]
        _changed()


def _load() -> None:
    global _loaded, _loading
    if _loaded:
        return
    with _lock:
        if _loaded or _loading:
            return
        _loading = True
        try:
            package = importlib.import_module("spiral.backends")
            for info in pkgutil.iter_modules(package.__path__):
                if info.ispkg:
                    _add(info.name, partial(_bundled, info.name))
            from importlib.metadata import entry_points

            for point in entry_points(group="spiral.backends"):
                _add(point.name, point.load)
        finally:
            _loaded = True


def _bundled(name: str) -> Any:
    return importlib.import_module(f"spiral.backends.{name}").backend


def _add(name: str, load: Callable[[], Any]) -> None:
    try:
        register_backend(load())
    except Exception:  # a foreign backend may raise anything; it is set aside and shown
        reason = traceback.format_exc()
        _entries[name] = Entry(name, None, unavailable=Unavailable(reason, "see the traceback"))
        _log.warning("backend %s could not be loaded:\n%s", name, reason)


def kernels_for(op: str, device_type: str) -> Iterable[tuple[Backend, Kernel]]:
    """Every kernel for an op on a type of device, unordered."""
    _load()
    for e in tuple(_entries.values()):  # another thread may register one meanwhile
        if e.backend is not None and e.unavailable is None and e.backend.device_type == device_type:
            for k in e.kernels.get(op, ()):
                yield e.backend, k


def backends() -> dict[str, Entry]:
    """Every backend by name, with its devices, or the reason why it is unavailable."""
    _load()
    return dict(_entries)


def check_names(names: Iterable[str]) -> None:
    """Raises RegistryError for a name that no backend has."""
    _load()
    for n in names:
        if not isinstance(n, str) or n not in _entries:
            raise RegistryError(f"backend: there is no backend {received(n)}; there are {', '.join(sorted(_entries))}.")


def warn_once(message: str) -> None:
    """Logs a warning the first time it is given."""
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)
