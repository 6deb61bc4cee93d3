"""Containers: modules in sequence, in a list, in a dict."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from spiral.errors import ArgumentError, IndexingError, kind_of, received
from spiral.nn.arguments import integer
from spiral.nn.module import Module


def _module(owner: str, value: Any) -> Module:
    if not isinstance(value, Module):
        raise ArgumentError(f"{owner}: expected a Module; received {kind_of(value)}.")
    return value


def _position(owner: str, index: Any, length: int) -> int:
    position = integer(owner, "index", index)
    if not -length <= position < length:
        raise IndexingError(f"{owner}: index {position} is not in [{-length}, {length}).")
    return position


class ModuleList(Module):
    """Modules in a list, whose parameters count as those of the module that holds it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Adds a module at the end."""
        self.add_module(str(len(self)), _module(type(self).__name__, module))
        return self

    def insert(self, index: int, module: Module) -> ModuleList:
        """Adds a module before the one at ``index``."""
        modules = self._items()
        index = integer(f"{type(self).__name__}.insert", "index", index)
        modules.insert(index, _module(type(self).__name__, module))
        return self._replace(modules)

    def __delitem__(self, index: int | slice) -> None:
        modules = self._items()
        del modules[index if isinstance(index, slice) else _position(type(self).__name__, index, len(self))]
        self._replace(modules)

    def _replace(self, modules: list[Module]) -> ModuleList:
        for name in list(self._modules):
            delattr(self, name)
        return self.extend(modules)

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Adds modules at the end."""
        if isinstance(modules, (str, Mapping)) or not hasattr(modules, "__iter__"):
            raise ArgumentError(f"{type(self).__name__}: expected Modules in a list; received {kind_of(modules)}.")
        for module in modules:
            self.append(module)
        return self

    def _items(self) -> list[Module]:
        return list(self.children())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return (
                type(self)(*self._items()[index]) if isinstance(self, Sequential) else ModuleList(self._items()[index])
            )
        return self._items()[_position(type(self).__name__, index, len(self))]

    def __setitem__(self, index: int, module: Module) -> None:
        index = _position(type(self).__name__, index, len(self))
        self.add_module(list(self._modules)[index], _module(type(self).__name__, module))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()


class Sequential(ModuleList):
    """Modules called one after the other: given in order, or as one mapping from names to modules.

    Example:
        >>> import spiral as sp
        >>> from spiral.nn import Linear, ReLU
        >>> Sequential(Linear(3, 4), ReLU(), Linear(4, 2))(sp.ones((5, 3))).shape
        (5, 2)
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        for module in modules:
            if isinstance(module, Mapping) and len(modules) == 1:
                for name, named in module.items():
                    self.add_module(name, _module("Sequential", named))
            else:
                self.append(module)  # type: ignore[arg-type]

    def forward(self, x: Any) -> Any:
        for module in self._modules.values():
            x = module(x)  # type: ignore[misc]
        return x


class ModuleDict(Module):
    """Modules by name, whose parameters count as those of the module that holds it."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        if modules is not None and not isinstance(modules, (Mapping, ModuleDict)):
            raise ArgumentError(f"ModuleDict: expected Modules by name; received {kind_of(modules)}.")
        for name, module in ({} if modules is None else modules).items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(name, str) or not name or "." in name or hasattr(type(self), name):
            raise ArgumentError(
                f"ModuleDict: {received(name)} cannot be a name: it is no text, empty, has a dot, or is a method's."
            )
        self.add_module(name, _module("ModuleDict", module))

    def __getitem__(self, name: str) -> Module:
        module = self._modules.get(name) if isinstance(name, str) else None
        if module is None:
            raise IndexingError(f"ModuleDict: expected one of {', '.join(self._modules)}; received {received(name)}.")
        return module

    def __delitem__(self, name: str) -> None:
        self[name]  # names those there are, if it is not there
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> ValuesView[Module | None]:
        """The modules."""
        return self._modules.values()

    def items(self) -> ItemsView[str, Module | None]:
        """Names and modules."""
        return self._modules.items()
