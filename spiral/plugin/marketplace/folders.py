"""Where a user's keys and records are.

``SPIRAL_HOME`` holds everything where it is set. Otherwise the folders of the XDG base directory specification are
used (``%APPDATA%`` and ``%LOCALAPPDATA%`` on Windows).
"""

from __future__ import annotations

import os
from pathlib import Path

from spiral.plugin.marketplace.errors import MarketplaceError


def keys_folder() -> Path:
    """The folder of trusted public keys; it need not exist."""
    return _folder("XDG_CONFIG_HOME", "APPDATA", ".config") / "trusted-keys"


def state_folder() -> Path:
    """The folder of what is remembered of indexes and installed plugins; it need not exist."""
    return _folder("XDG_STATE_HOME", "LOCALAPPDATA", ".local/state") / "marketplace"


def _folder(variable: str, windows: str, below_home: str) -> Path:
    own = os.environ.get("SPIRAL_HOME")
    if own:
        if not os.path.isabs(own):
            raise MarketplaceError(f"SPIRAL_HOME: expected an absolute path; received {own!r}.")
        return Path(own)
    base = os.environ.get(windows if os.name == "nt" else variable, "")
    if os.path.isabs(base):  # the specification says to ignore relative ones
        return Path(base) / "spiral"
    try:
        return Path.home() / below_home / "spiral"
    except RuntimeError:
        raise MarketplaceError("this user has no home folder; set SPIRAL_HOME to a folder.") from None
