"""A marketplace of plugins: a static, signed index of wheels in a folder or on a server.

See ``docs/marketplace.md``. Authors: `generate_key`, `build_index`. Users: `TrustedKeys`, `Marketplace`.
"""

from spiral.plugin.marketplace.author import build_index, write_index
from spiral.plugin.marketplace.errors import InstallError, MarketplaceError, UntrustedError
from spiral.plugin.marketplace.folders import keys_folder, state_folder
from spiral.plugin.marketplace.index import Entry, Index
from spiral.plugin.marketplace.keys import PrivateKey, PublicKey, TrustedKeys, generate_key, sign, verify
from spiral.plugin.marketplace.market import Marketplace
from spiral.plugin.marketplace.reports import Change, Listing, Outcome, Plan, Problem, Verification

__all__ = [
    "Change", "Entry", "Index", "InstallError", "Listing", "Marketplace", "MarketplaceError", "Outcome", "Plan",
    "PrivateKey", "Problem", "PublicKey", "TrustedKeys", "UntrustedError", "Verification", "build_index",
    "generate_key", "keys_folder", "sign", "state_folder", "verify", "write_index",
]  # fmt: skip
