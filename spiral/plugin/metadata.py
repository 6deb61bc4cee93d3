"""What a plugin says of itself: id, version, dependencies, capabilities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar

from spiral.errors import RegistryError, received
from spiral.plugin.dependencies import Requirement, check_specifier, parse_version

_PLAIN_KINDS = (
    "Operators", "LossFunctions", "Optimizers", "DataLoaders", "Visualization", "Telemetry", "Language", "Vision",
    "ReinforcementLearning", "GraphNeuralNetworks", "Recommender",
)  # fmt: skip
_NAMED_KINDS = ("Backend", "Custom")


@dataclass(frozen=True, eq=False)
class PluginCapability:
    """Something a plugin provides; others look for it with `PluginRegistry.find_by_capability`.

    ``PluginCapability.Optimizers`` and its like are values; ``PluginCapability.Backend("cuda")`` and
    ``PluginCapability.Custom("ZSpaceSequencer")`` carry a name, which is compared without regard to case.

    Example:
        >>> PluginCapability.Backend("CUDA") == PluginCapability.Backend("cuda")
        True
        >>> str(PluginCapability.Backend("cuda")), PluginCapability.parse("telemetry")
        ('Backend:cuda', PluginCapability.Telemetry)
    """

    kind: str
    name: str = ""

    Operators: ClassVar[PluginCapability]
    LossFunctions: ClassVar[PluginCapability]
    Optimizers: ClassVar[PluginCapability]
    DataLoaders: ClassVar[PluginCapability]
    Visualization: ClassVar[PluginCapability]
    Telemetry: ClassVar[PluginCapability]
    Language: ClassVar[PluginCapability]
    Vision: ClassVar[PluginCapability]
    ReinforcementLearning: ClassVar[PluginCapability]
    GraphNeuralNetworks: ClassVar[PluginCapability]
    Recommender: ClassVar[PluginCapability]

    def __post_init__(self) -> None:
        kinds = (*_PLAIN_KINDS, *_NAMED_KINDS)
        if self.kind not in kinds:
            raise RegistryError(f"PluginCapability: the kind is one of {', '.join(kinds)}; received {self.kind!r}.")
        if self.kind in _NAMED_KINDS:
            _require_name(f"PluginCapability.{self.kind}", "name", self.name)
        elif self.name:
            raise RegistryError(f"PluginCapability.{self.kind}: carries no name; received {received(self.name)}.")

    @classmethod
    def Backend(cls, name: str) -> PluginCapability:  # noqa: N802 (the names of the public vocabulary)
        """Kernels for a kind of device or an API: ``cpu``, ``cuda``, ``triton``."""
        return cls("Backend", name)

    @classmethod
    def Custom(cls, name: str) -> PluginCapability:  # noqa: N802
        """Something of a domain of its own."""
        return cls("Custom", name)

    @classmethod
    def parse(cls, text: str) -> PluginCapability:
        """The capability that `str` gave, in any case.

        Raises:
            RegistryError: it is none.
        """
        kind, _, name = text.partition(":")
        kinds = {k.casefold(): k for k in (*_PLAIN_KINDS, *_NAMED_KINDS)}
        return cls(kinds.get(kind.strip().casefold(), kind), name.strip())

    @property
    def _identity(self) -> tuple[str, str]:
        return self.kind, self.name.casefold()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PluginCapability) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    def __repr__(self) -> str:
        return f"PluginCapability.{self.kind}" + (f"({self.name!r})" if self.name else "")


for _kind in _PLAIN_KINDS:
    setattr(PluginCapability, _kind, PluginCapability(_kind))


@dataclass(frozen=True)
class PluginMetadata:
    """What a plugin is: made from id and version, completed by the ``with_`` methods, each of which gives a new one.

    Attributes:
        id: unique among plugins; no blanks at either end.
        version: as PEP 440 writes it: ``1.2.0``, ``2.0rc1``.

    Raises:
        RegistryError: id or version is empty or malformed, or the plugin depends on itself.

    Example:
        >>> m = PluginMetadata("metrics", "1.2").with_dependency("clock", ">=1,<2")
        >>> m = m.with_capability(PluginCapability.Telemetry).with_author("A. Author")
        >>> m.id, m.version, [str(r) for r in m.dependencies], m.provides_capability(PluginCapability.Telemetry)
        ('metrics', '1.2', ['clock >=1,<2'], True)
    """

    id: str
    version: str
    name: str = ""
    description: str = ""
    author: str = ""
    dependencies: tuple[Requirement, ...] = ()
    conflicts: tuple[Requirement, ...] = ()
    provides: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[PluginCapability, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _require_name("PluginMetadata", "id", self.id)
        if "/" in self.id or not self.id.isprintable():
            raise RegistryError(
                f"PluginMetadata: id must be printable and without a slash; received {received(self.id)}."
            )
        if not isinstance(self.version, str) or not self.version:
            raise RegistryError(
                f"plugin {self.id!r}: version must be a non-empty string; received {received(self.version)}."
            )
        _require_version(self.id, self.version)
        for capability in self.capabilities:
            self._check_capability(capability)
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))
        for requirement in (*self.dependencies, *self.conflicts):
            if not isinstance(requirement, Requirement):
                raise RegistryError(
                    f"plugin {self.id!r}: dependencies and conflicts are Requirement objects, as with_dependency and "
                    f"with_conflict make them; received {received(requirement)}."
                )
            _require_name(f"plugin {self.id!r}", "the id of a dependency", requirement.plugin_id)
            if requirement.plugin_id == self.id:
                raise RegistryError(f"plugin {self.id!r}: depends on, or conflicts with, itself.")
            if requirement.specifier:  # 25 ms to import what reads them
                check_specifier(requirement.specifier, self.id)
        for provided, version in self.provides:
            _require_name(f"plugin {self.id!r}", "the id of what it provides", provided)
            _require_version(self.id, version)

    def _check_capability(self, capability: object) -> None:
        if not isinstance(capability, PluginCapability):
            raise RegistryError(
                f"plugin {self.id!r}: a capability is a PluginCapability, such as PluginCapability.Telemetry; "
                f"received {received(capability)}."
            )

    def __reduce__(self) -> tuple[Any, ...]:  # the read-only mapping cannot be pickled or copied as such
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return PluginMetadata, (*({**values, "metadata": dict(self.metadata)}).values(),)

    def __str__(self) -> str:
        return f"{self.id} {self.version}"

    def with_name(self, name: str) -> PluginMetadata:
        """A name for people."""
        return replace(self, name=name)

    def with_description(self, description: str) -> PluginMetadata:
        """One sentence that says what it is for."""
        return replace(self, description=description)

    def with_author(self, author: str) -> PluginMetadata:
        """Who wrote it."""
        return replace(self, author=author)

    def with_dependency(self, plugin_id: str, requirement: str = "", *, optional: bool = False) -> PluginMetadata:
        """Another plugin that must be loaded first.

        Args:
            plugin_id: its id.
            requirement: allowed versions, such as ``>=1.2,<2``; empty: any.
            optional: see `Requirement`.
        """
        added = Requirement(plugin_id, requirement, optional)
        return replace(self, dependencies=(*self.dependencies, added))

    def with_conflict(self, plugin_id: str, requirement: str = "") -> PluginMetadata:
        """Another plugin, in these versions, beside which this one cannot be loaded."""
        return replace(self, conflicts=(*self.conflicts, Requirement(plugin_id, requirement)))

    def with_provides(self, plugin_id: str, version: str) -> PluginMetadata:
        """That this one may stand where another id is required."""
        return replace(self, provides=(*self.provides, (plugin_id, version)))

    def with_capability(self, capability: PluginCapability) -> PluginMetadata:
        """Something others may look for."""
        self._check_capability(capability)
        if capability in self.capabilities:
            return self
        return replace(self, capabilities=(*self.capabilities, capability))

    def with_metadata(self, key: str, value: str) -> PluginMetadata:
        """Anything else worth telling, such as a homepage."""
        return replace(self, metadata={**self.metadata, key: value})

    def provides_capability(self, capability: PluginCapability) -> bool:
        """Whether the capability is among its own."""
        return capability in self.capabilities


def _require_version(owner: str, version: str) -> None:
    # plain numbers need no package to be read: backends are plugins, and tensors need NumPy and ml_dtypes only
    if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+)*", version, re.ASCII):
        parse_version(version, owner)


def _require_name(owner: str, what: str, value: object) -> None:
    if not isinstance(value, str) or not value or value != value.strip():
        raise RegistryError(
            f"{owner}: {what} must be a non-empty string without blanks at its ends; received {received(value)}."
        )
