"""The user's side: searching, installing, upgrading, removing and verifying plugins of a signed index.

What is installed is a set: versions are chosen for all of it, every artifact is copied into a private folder and
checked there, and only when all of them are what the signed index says is pip called, once, on these very files.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from spiral.plugin.dependencies import DependencyError, Requirement
from spiral.plugin.marketplace.environment import Environment, canonical
from spiral.plugin.marketplace.errors import InstallError, UntrustedError
from spiral.plugin.marketplace.folders import keys_folder, state_folder
from spiral.plugin.marketplace.index import INDEX, MAX_INDEX, SIGNATURE, Index
from spiral.plugin.marketplace.keys import MAX_SIGNATURE_FILE, PublicKey, TrustedKeys, verify
from spiral.plugin.marketplace.reports import Change, Listing, Outcome, Plan, Verification
from spiral.plugin.marketplace.source import open_source
from spiral.plugin.marketplace.state import State
from spiral.plugin.marketplace.task import Task, known, move, needs, parse_wanted, usable_entries
from spiral.plugin.marketplace.verification import check_installed

_CLOCKS_DIFFER = timedelta(days=1)


class Marketplace:
    """Plugins of an index that is signed by a trusted key.

    Args:
        location: a folder, or the https:// or http:// address of one.
        keys: trusted public keys by id; by default those of the user (`TrustedKeys`).
        state: folder of what is remembered; by default the user's.
        timeout: seconds that a server may be silent.
    """

    def __init__(
        self,
        location: str | Path,
        keys: Mapping[str, PublicKey] | None = None,
        state: str | Path | None = None,
        *,
        timeout: float = 15.0,
    ) -> None:
        self.source = open_source(location, timeout)
        self.keys = TrustedKeys(keys_folder()) if keys is None else keys
        self.state = State(state_folder() if state is None else state)

    # ------------------------------------------------------------ the index
    def index(self) -> Index:
        """The index as it is now, with its signature, its dates and its serial number checked.

        Raises:
            UntrustedError: one of these is not as it must be.
            MarketplaceError: it cannot be read, or does not follow the format.
        """
        where = f"{self.source.location}/{INDEX}"
        signatures = self.source.read(SIGNATURE, MAX_SIGNATURE_FILE)
        data = self.source.read(INDEX, MAX_INDEX)
        verify(where, data, signatures, self.keys)
        index = Index.from_bytes(data)
        now = datetime.now(UTC)
        if now >= index.expires:
            raise UntrustedError(f"{where}: has expired at {index.expires}; its publisher has to sign a new one.")
        if index.created > now + _CLOCKS_DIFFER:
            raise UntrustedError(f"{where}: was created at {index.created}, which is to come; look at your clock.")
        with self.state.lock():
            self.state.accept(self.source.location, index.name, index.serial, hashlib.sha256(data).hexdigest())
        return index

    def forget(self) -> None:
        """Forgets which marketplace was at this location; serial numbers are remembered on."""
        with self.state.lock():
            self.state.forget(self.source.location)

    def search(
        self, text: str = "", capability: object = None, environment: str | Path | None = None
    ) -> tuple[Listing, ...]:
        """Plugins whose id, description or capabilities contain a text, by id.

        Args:
            text: without regard to case; empty: all.
            capability: only those that have it: ``Telemetry``, ``Backend:cuda``, or a `PluginCapability`.
            environment: the interpreter they shall run on; by default the running one.
        """
        contents = Environment(environment).contents()
        installed = self.state.installed(contents.prefix)
        wanted = text.casefold()
        listings = []
        for id, entries in sorted(usable_entries(self.index(), contents).items()):
            newest = entries[0]
            words = " ".join((id, newest.description, *newest.capabilities)).casefold()
            if wanted in words and (capability is None or newest.has_capability(capability)):
                there = installed[id].entry.version if id in installed else ""
                listings.append(Listing(newest, tuple(e.version for e in entries), there))
        return tuple(listings)

    # ------------------------------------------------------------ choosing
    def resolve(self, wanted: Iterable[str], environment: str | Path | None = None) -> Plan:
        """What `install` would do.

        Raises:
            DependencyError: the plugins, with those that are installed, do not fit together.
        """
        with Task(self, environment) as task:
            return task.plan(parse_wanted(wanted), ())[0]

    def download(
        self, wanted: Iterable[str], folder: str | Path, environment: str | Path | None = None
    ) -> tuple[Path, ...]:
        """Copies the verified artifacts of plugins, and of those they need, into a folder; installs nothing."""
        folder = Path(folder)
        with Task(self, environment) as task:
            _, entries = task.plan(parse_wanted(wanted), (), fresh=True)
            fetched = task.fetch(entries)
            folder.mkdir(parents=True, exist_ok=True)
            for entry, (path, _) in fetched.items():
                path.chmod(0o644)
                move(path, folder / entry.artifact)
        return tuple(folder / entry.artifact for entry in entries)

    # ------------------------------------------------------------ changing
    def install(
        self,
        wanted: Iterable[str],
        environment: str | Path | None = None,
        *,
        offline: bool = False,
    ) -> Outcome:
        """Installs plugins and the plugins they need.

        Args:
            wanted: ids, each with allowed versions if need be: ``metrics``, ``metrics>=1.2,<2``.
            environment: the interpreter into whose environment; by default the running one.
            offline: pip may not fetch ordinary Python dependencies from where it is configured to; they must be there.

        Raises:
            UntrustedError: a signature, hash, size, date or serial number is wrong; nothing was installed.
            DependencyError: the plugins, with those that are installed, do not fit together.
            InstallError: pip failed; the message says what is changed, what was remembered is not.
        """
        return self._apply(parse_wanted(wanted), (), environment, offline)

    def upgrade(
        self,
        ids: Iterable[str] | None = None,
        environment: str | Path | None = None,
        *,
        offline: bool = False,
    ) -> Outcome:
        """Brings plugins to the newest versions that fit together; by default all that were installed from an index.

        Args:
            ids: which; others change only where these need it.
            environment: see `install`.
            offline: see `install`.
        """
        return self._apply([], None if ids is None else tuple(ids), environment, offline)

    def remove(self, ids: Iterable[str], environment: str | Path | None = None, *, cascade: bool = False) -> Outcome:
        """Removes plugins that were installed from an index. Python dependencies that they brought stay.

        Args:
            ids: which.
            environment: see `install`.
            cascade: take those that need them as well; otherwise that is an error.
        """
        place = Environment(environment)
        with self.state.lock(), tempfile.TemporaryDirectory(prefix="spiral-") as folder:
            before = place.contents()
            records = self.state.installed(before.prefix)
            leaving = list(dict.fromkeys(known(id, records) for id in ids))
            for id in leaving:  # grows
                nodes = {i: r.entry.node() for i, r in records.items() if i not in leaving}
                others = [n.id for n in nodes.values() if needs(n, records[id].entry.node(), nodes)]
                if others and not cascade:
                    raise DependencyError(
                        f"plugin {id!r}: is needed by {', '.join(others)}; remove these too (cascade)."
                    )
                leaving += others
            names = [records[id].entry.distribution for id in leaving]
            there = [name for name in names if canonical(name) in before.distributions]
            output = place.pip(["uninstall", "--yes", *there], Path(folder)) if there else ""
            after = place.contents()
            staying = [name for name in there if canonical(name) in after.distributions]
            if staying:
                raise InstallError(f"pip did not remove {', '.join(staying)}; it said:\n{output[-3000:]}")
            self.state.set_installed(before.prefix, {i: r for i, r in records.items() if i not in leaving})
        changes = tuple(Change(id, records[id].entry.version, "", records[id].entry.distribution) for id in leaving)
        return Outcome(changes, tuple(f"{i} {r.entry.version}" for i, r in records.items() if i not in leaving), output)

    def verify(self, environment: str | Path | None = None, *, with_index: bool = True) -> Verification:
        """Compares what is installed with what was signed: each file with its hash in the wheel, each wheel's hash with
        the index.

        Args:
            environment: see `install`.
            with_index: also ask the index whether it still has the versions; needs it to be reachable.
        """
        contents = Environment(environment).contents()
        records = self.state.installed(contents.prefix)
        return check_installed(records, contents, self.index() if with_index else None)

    def _apply(
        self,
        wanted: Sequence[Requirement],
        upgraded: Sequence[str] | None,
        environment: str | Path | None,
        offline: bool,
    ) -> Outcome:
        with self.state.lock(), Task(self, environment) as task:
            plan, entries = task.plan(wanted, upgraded)
            return task.install(plan, entries, offline) if entries else Outcome((), plan.kept)
