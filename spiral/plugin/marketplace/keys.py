"""Ed25519 keys (RFC 8032): generating, trusting, signing, checking signatures.

A public key is a text file of one line, ``spiral-ed25519 BASE64 comment``; its id is the first 32 hexadecimal digits
of the SHA-256 of the 32 key bytes. A private key is a PKCS#8 PEM file that only its owner can read. A signature file
has one line ``ed25519 KEY-ID BASE64`` for each key that signed, over the bytes of the signed file as they are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spiral.errors import MissingDependencyError, received
from spiral.io.atomic import atomic_write
from spiral.optional import missing
from spiral.plugin.marketplace.errors import MarketplaceError, UntrustedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_LINE = re.compile(r"spiral-ed25519 ([A-Za-z0-9+/]{43}=)(?: ([ -~]{1,200}))?")
_SIGNATURE = re.compile(rb"ed25519 ([0-9a-f]{32}) ([A-Za-z0-9+/]{86}==)")
MAX_SIGNATURES = 16
MAX_SIGNATURE_FILE = 8192


def _no_cryptography(error: ImportError) -> MissingDependencyError:
    return missing("cryptography", "the plugin marketplace", "pip install 'spiral[marketplace]'")


@dataclass(frozen=True)
class PublicKey:
    """The public half of a key.

    Attributes:
        raw: its 32 bytes.
        comment: whose it is, for people.
    """

    raw: bytes
    comment: str = ""

    @property
    def id(self) -> str:
        """What signatures call it."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    def __str__(self) -> str:
        return f"spiral-ed25519 {base64.b64encode(self.raw).decode()} {self.comment}".strip()

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The key that `str` gave.

        Raises:
            MarketplaceError: it is none.
        """
        found = _LINE.fullmatch(text.strip())
        raw = base64.b64decode(found[1]) if found else b""
        if found is None or base64.b64encode(raw).decode() != found[1]:
            raise MarketplaceError(f"public key: expected a line spiral-ed25519 BASE64; received {received(text)}.")
        return cls(raw, found[2] or "")

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the private half made this signature over these bytes."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise _no_cryptography(error) from error
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key that signs. Read from a file with `load`; made by `generate_key`."""

    def __init__(self, key: Ed25519PrivateKey, comment: str = "") -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw(), comment)

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of a signature."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"<private key {self.public.id}>"

    @classmethod
    def load(cls, path: str | Path, password: bytes | None = None) -> PrivateKey:
        """Reads a private key.

        Args:
            path: the PEM file.
            password: where it is encrypted.

        Raises:
            MarketplaceError: it is none, others can read it, or the password is wrong.
        """
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError as error:
            raise _no_cryptography(error) from error
        path = Path(path)
        try:
            mode = path.stat().st_mode
            data = path.read_bytes()
        except OSError as error:
            raise MarketplaceError(f"{path}: the private key cannot be read: {error.strerror}.") from error
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise MarketplaceError(f"{path}: others may read this private key; run `chmod 600 {path}`.")
        try:
            key = load_pem_private_key(data, password)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise MarketplaceError(f"{path}: is no private key that this password opens: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise MarketplaceError(f"{path}: expected an Ed25519 key; received {type(key).__name__}.")
        return cls(key)


def generate_key(path: str | Path, comment: str = "", password: bytes | None = None) -> PublicKey:
    """Makes a key pair: the private key at `path`, readable by its owner alone, and the public one at ``path.pub``.

    Args:
        path: a file that does not exist, in a folder that does.
        comment: whose it is: printable ASCII.
        password: encrypts the private key.

    Returns:
        The public key, for users to trust.

    Raises:
        MarketplaceError: a file is there already, or cannot be written.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise _no_cryptography(error) from error
    key = Ed25519PrivateKey.generate()
    protection: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    public = PublicKey.parse(str(PrivateKey(key, comment).public))
    for place, data, mode in ((Path(path), pem, 0o600), (Path(f"{path}.pub"), f"{public}\n".encode(), 0o644)):
        try:
            with os.fdopen(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MarketplaceError(f"{place}: the key cannot be written: {error.strerror}.") from error
    return public


# ---------------------------------------------------------------- signatures
def sign(data: bytes, keys: Iterable[PrivateKey]) -> bytes:
    """The content of a signature file.

    Args:
        data: what is signed, as it is.
        keys: who signs; two while a key is being replaced.
    """
    lines = [f"ed25519 {key.public.id} {base64.b64encode(key.sign(data)).decode()}\n" for key in keys]
    if not 0 < len(lines) <= MAX_SIGNATURES:
        raise MarketplaceError(f"sign: expected 1 to {MAX_SIGNATURES} keys; received {len(lines)}.")
    return "".join(lines).encode()


def verify(what: str, data: bytes, signatures: bytes, trusted: Mapping[str, PublicKey]) -> tuple[str, ...]:
    """The ids of the trusted keys that signed.

    Signatures by unknown keys count for nothing. One in the name of a trusted key that it does not verify with
    is an error even beside good ones: somebody changed something.

    Args:
        what: what is signed, for the error.
        data: its bytes.
        signatures: the content of the signature file.
        trusted: keys by id.

    Raises:
        UntrustedError: no trusted key signed these bytes.
    """
    lines = signatures.removesuffix(b"\n").split(b"\n")
    found = [_SIGNATURE.fullmatch(line) for line in lines[: MAX_SIGNATURES + 1]]
    if len(lines) > MAX_SIGNATURES or not all(found):
        raise UntrustedError(f"{what}: its signature file does not follow the format, lines `ed25519 KEY-ID BASE64`.")
    good, others = [], []
    for match in found:
        assert match is not None
        id = match[1].decode()
        key = trusted.get(id)
        if key is None:
            others.append(id)
        elif key.id == id and key.verifies(base64.b64decode(match[2]), data):
            good.append(id)
        else:
            raise UntrustedError(
                f"{what}: the signature of key {id} ({key.comment or 'no comment'}) does not match its bytes; "
                "it was changed after it was signed, or damaged on the way."
            )
    if not good:
        known = ", ".join(trusted) or "none"
        raise UntrustedError(f"{what}: is signed by {', '.join(others)}; you trust {known}.")
    return tuple(good)


# ---------------------------------------------------------------- trust
class TrustedKeys(Mapping[str, PublicKey]):
    """The public keys that a user trusts, by id: one file each in a folder.

    Args:
        folder: where they are; made by the first `trust`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def trust(self, key: PublicKey | str) -> PublicKey:
        """Adds a key, given as such or as its line of text."""
        key = PublicKey.parse(key) if isinstance(key, str) else PublicKey.parse(str(key))
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(self.folder / f"{key.id}.pub") as partial:
            partial.write_text(f"{key}\n", encoding="ascii")
        return key

    def distrust(self, id: str) -> None:
        """Removes a key: nothing that it alone signed is accepted any more.

        Raises:
            MarketplaceError: it is not trusted anyway.
        """
        self[id]
        (self.folder / f"{id}.pub").unlink()

    def __getitem__(self, id: str) -> PublicKey:
        keys = self._read()
        if id not in keys:
            raise UnknownKey(f"key {received(id)}: is not trusted; trusted are {', '.join(keys) or 'none'}.")
        return keys[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, PublicKey]:
        keys = {}
        for path in sorted(self.folder.glob("*.pub")) if self.folder.is_dir() else ():
            try:
                key = PublicKey.parse(path.read_text(encoding="ascii"))
            except (OSError, UnicodeDecodeError, binascii.Error, MarketplaceError) as error:
                raise MarketplaceError(f"{path}: cannot be read as a trusted key: {error}; remove the file.") from error
            if path.name != f"{key.id}.pub":
                raise MarketplaceError(f"{path}: holds the key {key.id}; name the file after it, or remove it.")
            keys[key.id] = key
        return keys


class UnknownKey(MarketplaceError, KeyError):
    """A key that is not trusted."""

    def __str__(self) -> str:  # KeyError's own shows the quoted repr
        return str(self.args[0])
