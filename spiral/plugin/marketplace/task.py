"""One operation on one environment: which versions, their verified artifacts, and the call of pip."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spiral.errors import received
from spiral.plugin.dependencies import DependencyError, Node, Requirement, check_specifier, parse_version, satisfies
from spiral.plugin.marketplace.environment import Contents, Environment, canonical
from spiral.plugin.marketplace.errors import InstallError, MarketplaceError, UntrustedError
from spiral.plugin.marketplace.index import Entry, Index
from spiral.plugin.marketplace.reports import Change, Outcome, Plan
from spiral.plugin.marketplace.state import Record
from spiral.plugin.marketplace.verification import compare_files
from spiral.plugin.marketplace.wheel import WheelInfo, read_wheel
from spiral.plugin.version_choice import choose

if TYPE_CHECKING:
    from spiral.plugin.marketplace.market import Marketplace

_WANTED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)")


class Task:
    """One operation on one environment, with a private folder for its files."""

    def __init__(self, market: Marketplace, environment: str | Path | None) -> None:
        self.market = market
        self.place = Environment(environment)

    def __enter__(self) -> Task:
        self.index = self.market.index()
        self.before = self.place.contents()
        self.records = self.market.state.installed(self.before.prefix)
        self._folder = tempfile.TemporaryDirectory(prefix="spiral-")  # mode 0700
        self.folder = Path(self._folder.name)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    # ------------------------------------------------------------ choosing
    def installed(self) -> dict[str, Node]:
        """Plugins in the environment; of those that no index has, id and version alone are known."""
        nodes = {}
        for distribution in self.before.distributions.values():
            for id in distribution.plugins:
                entries = list(self.index.plugins.get(id, {}).values())
                if id in self.records:
                    entries.insert(0, self.records[id].entry)
                same = [e.node() for e in entries if _same(e.version, distribution.version)]
                nodes[id] = same[0] if same else Node(id, distribution.version)
        return nodes

    def plan(
        self, wanted: Sequence[Requirement], upgraded: Sequence[str] | None, fresh: bool = False
    ) -> tuple[Plan, list[Entry]]:
        """What changes, and the entries that are to be installed for it.

        Args:
            wanted: in addition to what is installed.
            upgraded: ids whose installed versions are not preferred; None: of all that came from an index.
            fresh: as if nothing were installed.
        """
        installed = {} if fresh else self.installed()
        upgraded = tuple(self.records) if upgraded is None else [known(id, self.records) for id in upgraded]
        usable = usable_entries(self.index, self.before)
        entries = {(e.id, e.version): e for versions in usable.values() for e in versions}
        candidates = {id: [e.node() for e in versions] for id, versions in usable.items()}
        for id, node in installed.items():
            others = [n for n in candidates.get(id, []) if not _same(n.version, node.version)]
            candidates[id] = [*others, node]
        roots = [*wanted, *(Requirement(id) for id in installed)]
        prefer = {id: node.version for id, node in installed.items() if id not in upgraded}
        try:
            chosen = choose(roots, candidates, prefer)
        except DependencyError as error:
            notes = [f"installed are {', '.join(map(str, installed.values()))}"] if installed else []
            notes += _left_out(self.index, usable, self.before)
            raise DependencyError("\n".join([str(error), *(f"  ({note})" for note in notes)])) from error
        changed = [n for n in chosen if n != installed.get(n.id)]
        changes = []
        for node in changed:
            there = installed[node.id].version if node.id in installed else ""
            changes.append(Change(node.id, there, node.version, entries[node.id, node.version].distribution))
        kept = tuple(str(node) for node in chosen if node not in changed)
        return Plan(tuple(changes), kept), [entries[n.id, n.version] for n in changed]

    # ------------------------------------------------------------ fetching
    def fetch(self, entries: Sequence[Entry]) -> dict[Entry, tuple[Path, WheelInfo]]:
        """The artifacts, copied into the private folder and checked there.

        Raises:
            UntrustedError: one is not what the index says.
        """
        fetched = {}
        for entry in entries:
            path = self.folder / entry.artifact
            try:
                with path.open("xb") as file:
                    digest = self.market.source.fetch(entry.artifact, entry.size, file)
            except OSError as error:
                raise MarketplaceError(f"{entry.artifact}: cannot be copied: {error.strerror}.") from error
            if digest != entry.sha256:
                raise UntrustedError(
                    f"{self.market.source.location}/{entry.artifact}: expected SHA-256 {entry.sha256}; "
                    f"received {digest}; the file was changed or damaged, nothing was installed."
                )
            path.chmod(0o400)
            wheel = read_wheel(path)
            said = (wheel.plugin_id, wheel.version, canonical(wheel.distribution))
            if said != (entry.id, entry.version, canonical(entry.distribution)):
                raise UntrustedError(f"{entry.artifact}: says that it is {said}; the index says otherwise.")
            fetched[entry] = path, wheel
        return fetched

    # ------------------------------------------------------------ installing
    def install(self, plan: Plan, entries: Sequence[Entry], offline: bool) -> Outcome:
        fetched = self.fetch(entries)
        fixed = _fixed(self.index, entries, self.before)
        for entry, (_, wheel) in fetched.items():
            _check_distributions(entry, wheel, fixed, self.index, self.before)
        constraints = self.folder / "constraints.txt"
        constraints.write_text(_constraints(self.index, fixed))
        # the fragment lets pip check the hash once more, as it reads
        files = [f"{path.as_uri()}#sha256={entry.sha256}" for entry, (path, _) in fetched.items()]
        options = ["--no-index"] if offline else []
        command = ["install", "--no-warn-script-location", "--constraint", str(constraints), *options, *files]
        try:
            output = self.place.pip(command, self.folder)
        except InstallError as error:
            raise InstallError(f"{error}\n{self._after_failure(entries)}") from error
        after = self.place.contents()
        for entry in entries:
            there = after.distributions.get(canonical(entry.distribution))
            if there is None or not _same(there.version, entry.version) or entry.id not in there.plugins:
                raise InstallError(
                    f"pip reported success, but {entry.distribution} {entry.version} is not in {after.prefix}; "
                    f"look for settings such as PIP_TARGET. It said:\n{output[-3000:]}"
                )
        new = {e.id: Record(e, self.index.name, w.files) for e, (_, w) in fetched.items()}
        for id, record in new.items():
            folder = after.distributions[canonical(record.entry.distribution)].folder
            if problems := compare_files(id, record, Path(folder)):
                raise InstallError(
                    f"pip reported success, but {record.entry.distribution} in {folder} is not what was verified; "
                    f"remove it and try again. {'; '.join(map(str, problems[:5]))}"
                )
        self.market.state.set_installed(self.before.prefix, {**self.records, **new})
        return Outcome(plan.changes, plan.kept, output)

    def _after_failure(self, entries: Sequence[Entry]) -> str:
        after = self.place.contents().distributions
        changed = []
        for entry in entries:
            name = canonical(entry.distribution)
            was, is_now = self.before.distributions.get(name), after.get(name)
            if was != is_now:
                changed.append(f"{name}: {was.version if was else 'absent'} → {is_now.version if is_now else 'absent'}")
        return f"Changed nevertheless: {'; '.join(changed)}." if changed else "No plugin was changed."


# ---------------------------------------------------------------- rules
def parse_wanted(wanted: Iterable[str]) -> list[Requirement]:
    if isinstance(wanted, str):
        raise MarketplaceError(f"install: expected several ids, such as [{received(wanted)}]; received one string.")
    requirements = []
    for text in wanted:
        found = _WANTED.fullmatch(text.strip())
        if found is None:
            raise MarketplaceError(
                f"install: expected an id, or an id and versions (metrics>=1.2); received {received(text)}."
            )
        check_specifier(found[2], found[1])
        requirements.append(Requirement(found[1], found[2]))
    return requirements


def known(id: str, records: Mapping[str, Record]) -> str:
    if id not in records:
        raise MarketplaceError(
            f"plugin {received(id)}: was not installed from an index into this environment; "
            f"there are {', '.join(records) or 'none'}."
        )
    return id


def usable_entries(index: Index, contents: Contents) -> dict[str, list[Entry]]:
    """Entries that run on the environment's Python, the newest first, pre-releases last."""
    usable = {}
    for id, versions in index.plugins.items():
        fitting = [e for e in versions.values() if satisfies(contents.python, e.requires_python)]
        if fitting:
            usable[id] = sorted(fitting, key=_newness, reverse=True)
    return usable


def _same(version: str, other: str) -> bool:
    return parse_version(version) == parse_version(other)


def _newness(entry: Entry) -> tuple[bool, object]:
    version = parse_version(entry.version)
    return not version.is_prerelease, version


def _left_out(index: Index, usable: Mapping[str, Sequence[Entry]], contents: Contents) -> list[str]:
    left = [e for e in index.entries() if e not in usable.get(e.id, ())]
    if not left:
        return []
    shown = ", ".join(f"{e.id} {e.version} needs Python {e.requires_python}" for e in left[:10])
    return [f"left out for Python {contents.python}: {shown}{', …' if len(left) > 10 else ''}"]


def needs(node: Node, gone: Node, others: Mapping[str, Node]) -> bool:
    """Whether a plugin that stays needs one that goes, and nobody else stands in."""
    names = {name for name, _ in gone.stands_for()}
    for requirement in node.requirements:
        if requirement.plugin_id in names and not requirement.optional:
            stand_ins = [
                n for n in others.values() for name, version in n.stands_for()
                if n.id != node.id and name == requirement.plugin_id and satisfies(version, requirement.specifier)
            ]  # fmt: skip
            if not stand_ins:
                return True
    return False


def _fixed(index: Index, entries: Sequence[Entry], contents: Contents) -> dict[str, str]:
    """Versions that pip may not choose itself: of plugins, which come from here only, and of spiral.

    A distribution of the same name that somebody else publishes where pip looks would be installed otherwise.
    """
    ours = {canonical(e.distribution) for e in index.entries()} | {"spiral"}
    fixed = {name: d.version for name, d in contents.distributions.items() if name in ours}
    return fixed | {canonical(e.distribution): e.version for e in entries}


def _constraints(index: Index, fixed: Mapping[str, str]) -> str:
    """The same for pip, which also meets requirements of requirements; what is not chosen has no version at all."""
    ours = {canonical(e.distribution) for e in index.entries()} | {"spiral"}
    # a version that nobody has or could guess; one that pip before 24.3 reads without falling over
    nowhere = f"0+only.from.the.marketplace.{secrets.token_hex(8)}"
    absent = [f"{name}==={nowhere}\n" for name in sorted(ours - set(fixed))]
    return "".join([f"{name}=={version}\n" for name, version in sorted(fixed.items())] + absent)


def _check_distributions(
    entry: Entry, wheel: WheelInfo, fixed: Mapping[str, str], index: Index, contents: Contents
) -> None:
    """That pip will not look elsewhere for spiral or for what the index has, and fetches from no address."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Distribution

    ours = {canonical(e.distribution): e.id for e in index.entries()} | {"spiral": "spiral"}
    machine = {
        "extra": "",
        "python_version": contents.python.rpartition(".")[0],
        "python_full_version": contents.python,
    }
    there = contents.distributions.get(canonical(entry.distribution))
    if there is not None and not there.plugins:
        raise UntrustedError(
            f"{entry.id} {entry.version} would replace {entry.distribution} {there.version}, which is no plugin; "
            "nothing was installed."
        )
    for text in wheel.requires_dist:
        try:
            required = Distribution(text)
        except InvalidRequirement as error:
            raise MarketplaceError(f"{entry.artifact}: Requires-Dist: {error}") from error
        if required.url is not None:
            raise UntrustedError(f"{entry.artifact}: needs {received(text)}, an address; nothing was installed.")
        name = canonical(required.name)
        if name not in ours or (required.marker is not None and not required.marker.evaluate(machine)):
            continue
        if name not in fixed or not satisfies(fixed[name], str(required.specifier)):
            present = f"{name} {fixed[name]}" if name in fixed else "none"
            raise DependencyError(
                f"{entry.id} {entry.version} needs the distribution {required.name} {required.specifier}; "
                f"there is {present}, and pip may not fetch what is {ours[name]!r} here from elsewhere; "
                "nothing was installed."
            )


def move(source: Path, target: Path) -> None:
    from spiral.io.atomic import atomic_write

    with atomic_write(target, needed=source.stat().st_size) as partial, source.open("rb") as file:
        with partial.open("wb") as copy:
            while block := file.read(1 << 20):
                copy.write(block)
