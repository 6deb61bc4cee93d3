"""What the marketplace answers with."""

from __future__ import annotations

from dataclasses import dataclass

from spiral.plugin.marketplace.index import Entry


@dataclass(frozen=True)
class Listing:
    """A plugin that was searched for.

    Attributes:
        entry: its newest version that runs on the environment's Python.
        versions: all of these, the newest first.
        installed: the version that is installed, or empty.
    """

    entry: Entry
    versions: tuple[str, ...]
    installed: str = ""


@dataclass(frozen=True)
class Change:
    """What happens, or happened, to a plugin.

    Attributes:
        id: the plugin.
        before: the version that was installed; empty: none.
        after: the version that is installed then; empty: none.
        distribution: what pip calls it.
    """

    id: str
    before: str
    after: str
    distribution: str

    def __str__(self) -> str:
        if self.before and self.after:
            return f"{self.id} {self.before} → {self.after}"
        return f"{self.id} {self.after or self.before}{'' if self.after else ' removed'}"


@dataclass(frozen=True)
class Plan:
    """What an installation would do.

    Attributes:
        changes: in the order of loading.
        kept: plugins that stay as they are, each ``id version``.
    """

    changes: tuple[Change, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What an installation or removal did.

    Attributes:
        changes: what is different now; empty: everything was there already.
        kept: plugins that stayed as they were, each ``id version``.
        output: what pip printed.
    """

    changes: tuple[Change, ...]
    kept: tuple[str, ...] = ()
    output: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was installed.

    Attributes:
        id: the plugin.
        what: a sentence.
        path: the file, or empty.
    """

    id: str
    what: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.id}: {self.path + ': ' if self.path else ''}{self.what}"


@dataclass(frozen=True)
class Verification:
    """Whether what is installed is what was signed.

    Attributes:
        checked: plugins, each ``id version``.
        files: how many files were compared.
        problems: what differs.
    """

    checked: tuple[str, ...]
    files: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return f"{len(self.checked)} plugins, {self.files} files: all as they were signed"
        return "\n".join(map(str, self.problems))
