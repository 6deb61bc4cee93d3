"""Services: objects that plugins share by name, looked up with the type that the caller expects."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeVar, get_origin, overload

from spiral.errors import RegistryError, received
from spiral.ownership import Addition
from spiral.registry import Catalog

T = TypeVar("T")


class ServiceTypeError(RegistryError, TypeError):
    """A service is not what the caller asked for."""


@dataclass(frozen=True)
class Service:
    """An object with the version of its interface, as PEP 440 writes it; empty: none was given."""

    value: Any
    version: str = ""


class Services:
    """The services of one plugin registry, over its catalog.

    Example:
        >>> services = Services(Catalog("service"))
        >>> _ = services.register("clock", time := __import__("time"), version="1.0")
        >>> services.get("clock") is time, services.names()
        (True, ['clock'])
    """

    def __init__(self, catalog: Catalog[Service]) -> None:
        self._catalog = catalog

    def register(self, name: str, value: Any, *, version: str = "", replace: bool = False) -> Addition:
        """Offers an object to others; it belongs to the plugin that is loading, if one is.

        Args:
            name: what others ask for.
            value: the object.
            version: of its interface, for those who require one.
            replace: whether it may take the place of somebody else's; that comes back when this one goes.

        Raises:
            RegistryError: the name is taken, or the version is malformed.
        """
        if version:
            from spiral.plugin.dependencies import parse_version

            parse_version(version, f"service {name!r}")
        return self._catalog.add(name, Service(value, version), replace=replace)

    @overload
    def get(self, name: str, kind: type[T], requirement: str = "") -> T: ...
    @overload
    def get(self, name: str, kind: None = None, requirement: str = "") -> Any: ...
    def get(self, name: str, kind: type[Any] | None = None, requirement: str = "") -> Any:
        """The object of a service.

        Args:
            name: of the service.
            kind: the class or Protocol that it must satisfy; None: any.
            requirement: versions of its interface, such as ``>=1,<2``; empty: any.

        Raises:
            RegistryError: there is none of this name, or its version does not fit.
            ServiceTypeError: it is something else than ``kind``; the message says what is missing.
        """
        service = self._catalog[name]
        if requirement:
            _require_version(name, self._owner_of(name), service.version, requirement)
        if kind is not None:
            lacking = _lacks(service.value, kind)
            if lacking is not None:
                raise ServiceTypeError(
                    f"service {name!r}: expected {_called(kind)}; {self._owner_of(name)!r} registered a "
                    f"{type(service.value).__name__}, which {lacking}."
                )
        return service.value

    def _owner_of(self, name: str) -> str:
        """Who offers it, for a message; it may be gone meanwhile."""
        return self._catalog.owner_of(name) if name in self._catalog else "somebody"

    def has(self, name: str) -> bool:
        """Whether somebody offers it."""
        return name in self._catalog

    def names(self) -> list[str]:
        """What is offered."""
        return sorted(self._catalog)

    def describe(self, name: str) -> str:
        """Name, type, version and owner in one line."""
        service = self._catalog[name]
        version = f" {service.version}" if service.version else ""
        return f"{name}{version}: {type(service.value).__name__}, of {self._catalog.owner_of(name)}"


def _require_version(name: str, owner: str, version: str, requirement: str) -> None:
    from spiral.plugin.dependencies import satisfies

    if not version:
        raise RegistryError(
            f"service {name!r}: version {requirement} is required; {owner!r} registered it without a version."
        )
    if not satisfies(version, requirement):
        raise RegistryError(f"service {name!r}: version {requirement} is required; {owner!r} offers {version}.")


def _lacks(value: Any, kind: type[Any]) -> str | None:
    """What keeps a value from being of a kind; None: nothing."""
    plain: Any = get_origin(kind) or kind  # Store[int] is checked as Store: objects do not know their parameters
    if not getattr(plain, "_is_protocol", False):
        try:
            fits = isinstance(value, plain if isinstance(plain, type) and plain is not UnionType else kind)
        except TypeError:
            raise ServiceTypeError(
                f"service: the expected type is a class or a Protocol; received {_called(kind)}."
            ) from None
        return None if fits else f"is none of {_called(kind)}" if isinstance(kind, tuple) else f"is no {_called(kind)}"
    members = {name: method for base in reversed(plain.__mro__) for name, method in _members(base).items()}
    missing = [name for name in sorted(members) if not _has(value, name)]
    if missing:
        return f"lacks {', '.join(missing)}"
    values = [name for name in sorted(members) if members[name] and not callable(getattr(value, name))]
    return f"has no method {', '.join(values)}, but a value of this name" if values else None


def _has(value: Any, name: str) -> bool:
    try:
        getattr(value, name)
    except AttributeError:
        return False
    except Exception:  # a property that cannot be computed just now
        return True
    return True


def _members(base: type[Any]) -> dict[str, bool]:
    """What a protocol asks for: names, and whether each is a method."""
    if not getattr(base, "_is_protocol", False):
        return {}
    inside = vars(base)
    named = {**dict.fromkeys(inside.get("__annotations__", ()), False), **{n: callable(v) for n, v in inside.items()}}
    return {
        n: method
        for n, method in named.items()
        if n not in _OWN and (not n.startswith("_") or (n.startswith("__") and method))
    }


def _called(kind: Any) -> str:
    if isinstance(kind, tuple):
        return " or ".join(_called(each) for each in kind)
    return kind.__name__ if isinstance(kind, type) else received(kind) if isinstance(kind, str) else str(kind)


_OWN = {
    "__init__", "__new__", "__subclasshook__", "__class_getitem__", "__init_subclass__", "__replace__", "__annotate__",
    "__annotate_func__",
}  # fmt: skip
