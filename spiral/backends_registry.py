"""Backends that exist, and kernels added to them; loaded as plugins, see `spiral.plugin.backends`.

Found and probed once, at the first question. A backend that raises is set aside with its reason and
shown by `spiral.backends()`; it never breaks an import.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from spiral import device
from spiral.backend import Backend, DeviceInfo, GeneralBackend, Kernel, Unavailable
from spiral.errors import RegistryError, received
from spiral.ownership import Addition, spirals_own
from spiral.registry import Catalog, catalog

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


def _check_kernel(name: str, value: tuple[str, Kernel]) -> None:
    from spiral.op import OPS

    backend, kernel = value
    if not isinstance(kernel, Kernel):
        raise RegistryError(f"kernel: expected a spiral.backend.Kernel; received {received(kernel)}.")
    if kernel.op not in OPS:
        raise RegistryError(f"kernel: there is no op {kernel.op!r}; declare it before its kernels.")


BACKENDS: Catalog[Entry] = catalog("backend")
KERNELS: Catalog[tuple[str, Kernel]] = catalog("kernel", _check_kernel)
"""Kernels that were added to a backend from outside, with the backend's name."""

_loaded = False
_loading = False  # this thread may ask again while it loads; others wait at the lock
_lock = threading.RLock()
_numbers = itertools.count()
_warned: set[str] = set()


def register_backend(backend: Backend) -> Entry:
    """Adds a backend: probes it and takes its kernels.

    Raises:
        RegistryError: the name is taken, or the object lacks a part of the contract.
    """
    if not isinstance(backend, Backend):
        wanted = "name, device_type, priority, probe, kernels"
        raise RegistryError(f"backend: {backend!r} lacks a part of the contract ({wanted}).")
    if backend.name in BACKENDS:
        raise RegistryError(f"backend: {backend.name!r} is registered already; unregister it first.")
    entry = Entry(backend.name, backend)
    found = backend.probe()
    if isinstance(found, Unavailable):
        entry.unavailable = found
    else:
        entry.devices = _devices(backend.name, found)
        for k in backend.kernels():
            if not isinstance(k, Kernel):
                raise RegistryError(
                    f"backend {backend.name!r}: kernels() gives spiral.backend.Kernel objects; received {received(k)}."
                )
            entry.kernels.setdefault(k.op, []).append(k)
    BACKENDS.add(backend.name, entry)
    for d in entry.devices:  # last: a device stays known, for tensors may live there
        device.add_device(d.type, d.index, d.memory, d.facts)
    return entry


def _devices(name: str, found: object) -> list[DeviceInfo]:
    if not isinstance(found, list) or not all(isinstance(d, DeviceInfo) for d in found):
        raise RegistryError(
            f"backend {name!r}: probe() gives a list of spiral.backend.DeviceInfo, or Unavailable with the reason; "
            f"received {received(found)}."
        )
    return found


def unregister_backend(name: str) -> None:
    """Takes a backend away; choices are made again."""
    check_names((name,))
    BACKENDS.remove(name)


def register_kernel(backend: str, kernel: Kernel) -> Addition:
    """Adds a kernel to a backend that is there.

    Raises:
        RegistryError: there is no such backend or op.
    """
    check_names((backend,))
    return KERNELS.add(f"{backend}/{getattr(kernel, 'op', '?')}/{next(_numbers)}", (backend, kernel))


def _load() -> None:
    global _loaded, _loading
    if _loaded:
        return
    with _lock:
        if _loaded or _loading:
            return
        _loading = True
        try:
            from spiral.plugin.backends import load_backends

            with spirals_own():  # not those of a plugin whose loading runs the first op
                for name, reason in load_backends():
                    if name in BACKENDS:
                        name = f"{name} (not loaded)"
                    BACKENDS.put(name, Entry(name, None, unavailable=Unavailable(reason, "see the traceback")))
        finally:
            _loading = False
            _loaded = True


def _why_absent(type: str) -> str:
    """What the backends of a type of device say of why they cannot be used; a sentence each."""
    found = [
        f" {e.name}: {e.unavailable.reason.strip().splitlines()[-1].rstrip('.')}."
        for e in BACKENDS.values()
        if e.unavailable is not None and e.backend is not None and e.backend.device_type == type
    ]
    return "".join(found)


device.look_with(_load, _why_absent)


def load_again() -> None:
    """Has the backends looked for again at the next question; after the plugin system was shut down."""
    global _loaded
    with _lock:
        for name in list(BACKENDS):
            if BACKENDS[name].backend is None:
                BACKENDS.remove(name)
        _loaded = False


def kernels_for(op: str, device_type: str) -> Iterable[tuple[Backend, Kernel]]:
    """Every kernel for an op on a type of device, unordered."""
    _load()
    for e in tuple(BACKENDS.values()):  # another thread may register one meanwhile
        if e.backend is not None and e.unavailable is None and e.backend.device_type == device_type:
            own = e.backend.kernels_of(op) if isinstance(e.backend, GeneralBackend) else e.kernels.get(op, ())
            for k in own:
                yield e.backend, k
            for name, k in tuple(KERNELS.values()):
                if name == e.name and k.op == op:
                    yield e.backend, k


def backends() -> dict[str, Entry]:
    """Every backend by name, with its devices, or the reason why it is unavailable."""
    _load()
    return BACKENDS.table()


def check_names(names: Iterable[str]) -> None:
    """Raises RegistryError for a name that no backend has."""
    _load()
    for n in names:
        if not isinstance(n, str) or n not in BACKENDS:
            raise RegistryError(f"backend: there is no backend {received(n)}; there are {', '.join(sorted(BACKENDS))}.")


def warn_once(message: str) -> None:
    """Logs a warning the first time it is given."""
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)
