"""What goes wrong between an index and an installed plugin."""

from __future__ import annotations

from spiral.errors import RegistryError


class MarketplaceError(RegistryError):
    """An index, an artifact or a key cannot be used; nothing was installed."""


class UntrustedError(MarketplaceError):
    """A signature, hash, serial number or date is not what it must be; nothing was installed."""


class InstallError(MarketplaceError):
    """pip did not do what it was asked to; the message shows what it said and what is changed."""
