"""Makes plugin objects from where they live: a file, a folder, an entry point, a bundled folder.

Files are imported anew each time, under a name of their own, so that two versions of a plugin can be loaded side by
side; the module leaves ``sys.modules`` when what it registered is taken back.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from spiral.errors import RegistryError
from spiral.ownership import current_ledger, noted
from spiral.plugin.base import Plugin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "spiral.plugins"
"""The group of entry points."""

_PREFIX = "spiral_plugin_"
_numbers = itertools.count()


@dataclass(frozen=True)
class Source:
    """Where a plugin can be made from.

    Attributes:
        name: what it is called before its id is known: an entry point's or a file's name.
        origin: where it lives, for people.
        make: imports it and makes the object.
        files: the files to watch for changes, as they are now.
        reloadable: whether `make` reads the source anew.
    """

    name: str
    origin: str
    make: Callable[[], Plugin]
    files: Callable[[], tuple[Path, ...]] = tuple
    reloadable: bool = False


class _FreshLoader(SourceFileLoader):
    """Compiles the source every time: a byte-code cache cannot tell two versions of one second apart."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _FreshFinder:
    """Finds the parts of a plugin's folder; like its entry they are looked for and compiled every time."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if path is None or not name.startswith(_PREFIX):
            return None
        part = name.rpartition(".")[2]
        for folder in map(Path, path):
            for entry, inside in ((folder / part / "__init__.py", [str(folder / part)]), (folder / f"{part}.py", None)):
                if entry.is_file():
                    return _fresh_spec(name, entry, inside)
        return None


def _fresh_spec(name: str, entry: Path, inside: list[str] | None) -> ModuleSpec:
    loader = _FreshLoader(name, str(entry))
    spec = importlib.util.spec_from_file_location(name, entry, loader=loader, submodule_search_locations=inside)
    assert spec is not None
    return spec


def file_source(path: str | Path) -> Source:
    """A plugin in a ``.py`` file, or in a folder with an ``__init__.py``.

    Raises:
        RegistryError: there is no such file.
    """
    path = Path(path).absolute()
    entry = path / "__init__.py" if path.is_dir() else path
    if not entry.is_file() or entry.suffix != ".py":
        raise RegistryError(f"plugin: expected a .py file, or a folder with an __init__.py; received {path}.")

    def files() -> tuple[Path, ...]:
        return tuple(sorted(path.rglob("*.py"))) if path.is_dir() else (path,)

    return Source(path.stem, str(path), lambda: plugin_in(_import_file(path, entry), str(path)), files, True)


def path_sources(path: str | Path) -> list[Source]:
    """The plugins at a path: a file, a plugin's folder, or a folder of these; names that begin with ``_`` are left out.

    Raises:
        RegistryError: there is nothing there.
    """
    path = Path(path)
    if not path.is_dir() or (path / "__init__.py").is_file():
        return [file_source(path)]
    inside = [
        p
        for p in sorted(path.iterdir())
        if not p.name.startswith(("_", ".")) and (p.suffix == ".py" if p.is_file() else (p / "__init__.py").is_file())
    ]
    return [file_source(p) for p in inside]


def bundled_sources() -> list[Source]:
    """The plugins in ``spiral/plugins``, by folder."""
    package = importlib.import_module("spiral.plugins")

    def source(name: str) -> Source:
        module = f"spiral.plugins.{name}"
        return Source(
            name,
            f"bundled plugin {name}",
            lambda: plugin_in(_imported(lambda: importlib.import_module(module), module), module),
        )

    return [source(info.name) for info in pkgutil.iter_modules(package.__path__) if info.ispkg]


def entry_point_sources() -> list[Source]:
    """The plugins that installed distributions name in the group ``spiral.plugins``; nothing is imported."""
    from importlib.metadata import entry_points

    return [entry_point_source(point) for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)]


def entry_point_source(point: EntryPoint) -> Source:
    """The plugin behind an entry point."""
    origin = origin_of(point)
    package = re.split(r"[.:\s]", point.value.strip())[0]  # `point.module` raises where the value is malformed
    return Source(point.name, origin, lambda: _plugin_of(_imported(point.load, package), origin))


def origin_of(point: EntryPoint) -> str:
    """An entry point with the distribution that names it, for people."""
    dist = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
    return f"entry point {point.name}{dist}"


def _imported(load: Callable[[], Any], package: str) -> Any:
    """What an import gives; modules of the package that registered something are imported anew the next time.

    Python imports a module once: without this, an op declared in it would not come back with its plugin.
    """
    before = set(sys.modules)
    value = load()
    ledger = current_ledger()
    if ledger is not None and ledger.additions():
        new = [m for m in sys.modules if m not in before and (m == package or m.startswith(f"{package}."))]

        def forget() -> None:
            for name in new:
                sys.modules.pop(name, None)

        noted("Python modules", package, forget)
    return value


def _import_file(path: Path, entry: Path) -> ModuleType:
    """The module of a file, imported anew under a name of its own."""
    if _FreshFinder not in sys.meta_path:
        sys.meta_path.insert(0, _FreshFinder)
    name = f"{_PREFIX}{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{next(_numbers)}"
    spec = _fresh_spec(name, entry, [str(path)] if path.is_dir() else None)
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _forget_module(name)
        raise
    noted("Python module", str(path), lambda: _forget_module(name))
    return module


def _forget_module(name: str) -> None:
    for each in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[each]


def plugin_in(module: ModuleType, origin: str) -> Plugin:
    """The plugin of a module: its attribute ``plugin``, or its only Plugin subclass.

    Raises:
        RegistryError: there is none, or more than one.
    """
    named = getattr(module, "plugin", None)
    if named is not None and not inspect.ismodule(named):
        return _plugin_of(named, origin)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise RegistryError(
            f"plugin: {origin}: expected one Plugin subclass, or an attribute `plugin`; found {_listed(found)}."
        )
    return _plugin_of(found[0], origin)


def _plugin_of(value: Any, origin: str) -> Plugin:
    if inspect.ismodule(value):
        return plugin_in(value, origin)
    made = value() if callable(value) and not isinstance(value, Plugin) else value
    if not isinstance(made, Plugin):
        raise RegistryError(f"plugin: {origin}: expected a Plugin or something that makes one; found {made!r:.60}.")
    return made


def _listed(found: Iterable[type]) -> str:
    return ", ".join(c.__name__ for c in found) or "none"
