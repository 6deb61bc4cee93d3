"""Choosing one version of each plugin out of several, so that all fit together.

A depth-first search over the requirements that are not met yet. Every dead end remembers which choices led to it, and
the search goes back to the latest of those (conflict-directed backjumping, Prosser 1993); what is left of these
memories at the end explains why there is no solution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spiral.plugin.dependencies import (
    DependencyError,
    Node,
    Requirement,
    check_specifier,
    explained,
    parse_version,
    resolve,
    satisfies,
    similar,
)

_STEPS = 20_000
"""Options looked at before giving up: some 5 s. The problem is NP-complete; real sets need a few hundred."""
_DEPTH = 200
"""Plugins in one answer; each is a level of recursion."""
_ROOT = ""
"""Who asks for the requirements given: no plugin."""


def choose(
    requirements: Iterable[Requirement],
    candidates: Mapping[str, Sequence[Node]],
    prefer: Mapping[str, str] | None = None,
) -> list[Node]:
    """One version of each plugin that is needed, such that all requirements are met and none conflict.

    Newer versions are tried first, pre-releases after all others unless a requirement given here names one. A
    plugin that provides an id is taken where no plugin of that id fits. Optional requirements add nothing, but what
    is chosen obeys them.

    Args:
        requirements: what is wanted.
        candidates: of each id the versions there are, in any order.
        prefer: id → version that is tried first, such as the installed one.

    Returns:
        The chosen ones, dependencies first.

    Raises:
        DependencyError: there is no such set; the message explains who asks for what, and what there is.
        RegistryError: a version or specifier is malformed.

    Example:
        >>> there = {"metrics": [Node("metrics", "1.4"), Node("metrics", "2.1")],
        ...          "trainer": [Node("trainer", "2.0", (Requirement("metrics", ">=1,<2"),))]}
        >>> [str(node) for node in choose([Requirement("trainer")], there)]
        ['metrics 1.4', 'trainer 2.0']
    """
    search = _Search(list(requirements), candidates, prefer or {})
    outcome = search.run({})
    if isinstance(outcome, _DeadEnd):
        raise explained(outcome.sentences())
    order = resolve(outcome.values())  # judges the set by the rules of loading as well
    return [outcome[id] for id in order]


@dataclass
class _DeadEnd:
    """Why no option was left: the choices (ids) that are to blame, and what is to be said, grouped.

    Attributes:
        culprits: ids of the choices without which it might go on.
        reasons: (plugin that asks or None, requirement, what there is) → versions of the plugin that ask.
    """

    culprits: set[str] = field(default_factory=set)
    reasons: dict[tuple[str, str, str], dict[str, None]] = field(default_factory=dict)

    def blame(self, asker: Node | None, says: str, there: str) -> None:
        versions = self.reasons.setdefault((asker.id if asker else _ROOT, says, there), {})
        if asker:
            versions[asker.version] = None

    def include(self, other: _DeadEnd) -> None:
        self.culprits |= other.culprits
        for key, versions in other.reasons.items():
            self.reasons.setdefault(key, {}).update(versions)

    def sentences(self) -> list[str]:
        lines = []
        for (asker, says, there), versions in self.reasons.items():
            who = f"{asker} {', '.join(versions)}" if asker else "you"
            verb = "asked for" if not asker else says.partition(" ")[0]
            lines.append(f"{who} {verb} {says.partition(' ')[2]}; {there}")
        return lines


class _Search:
    def __init__(
        self, roots: list[Requirement], candidates: Mapping[str, Sequence[Node]], prefer: Mapping[str, str]
    ) -> None:
        self.roots = roots
        self.steps = 0
        pre = {r.plugin_id for r in roots if check_specifier(r.specifier).prereleases}
        self.options: dict[str, list[Node]] = {}
        providers: dict[str, list[Node]] = {}
        for id, nodes in candidates.items():
            self.options[id] = sorted(nodes, key=lambda n: _rank(n, n.id in pre, prefer), reverse=True)
            for node in self.options[id]:
                for name, _ in node.provides:
                    providers.setdefault(name, []).append(node)
        for name, nodes in providers.items():
            self.options[name] = self.options.get(name, []) + [n for n in nodes if n.id != name]

    def asked(self, chosen: Mapping[str, Node]) -> list[tuple[Node | None, Requirement]]:
        """Every requirement of what was wanted and of what was chosen."""
        asked: list[tuple[Node | None, Requirement]] = [(None, r) for r in self.roots]
        return asked + [(node, r) for node in chosen.values() for r in node.requirements]

    def run(self, chosen: dict[str, Node]) -> dict[str, Node] | _DeadEnd:
        """The chosen ones and what they still need; or why that cannot be."""
        asked = self.asked(chosen)
        for asker, wanted in asked:
            if not wanted.optional and not _met(wanted, asker, chosen):
                break
        else:
            return chosen
        if len(chosen) >= _DEPTH:
            raise DependencyError(f"plugins: {wanted} needs more than {_DEPTH} plugins at once; ask for fewer.")
        dead = _DeadEnd()
        if asker is not None:
            dead.culprits.add(asker.id)
        options = [n for n in self.options.get(wanted.plugin_id, []) if asker is None or n.id != asker.id]
        dead.blame(asker, f"needs {wanted}", self.there(wanted.plugin_id, options))
        for option in options:
            self.steps += 1
            if self.steps > _STEPS:
                raise DependencyError(
                    f"plugins: no versions that fit together were found in {_STEPS} steps; "
                    f"name versions of the plugins you want, such as {wanted.plugin_id}=={option.version}."
                )
            if not self.acceptable(option, wanted, asker, chosen, asked, dead):
                continue
            outcome = self.run({**chosen, option.id: option})
            if not isinstance(outcome, _DeadEnd):
                return outcome
            if option.id not in outcome.culprits:
                return outcome  # another option would end there as well
            dead.include(outcome)
            dead.culprits.discard(option.id)
        return dead

    def acceptable(
        self,
        option: Node,
        wanted: Requirement,
        asker: Node | None,
        chosen: Mapping[str, Node],
        asked: list[tuple[Node | None, Requirement]],
        dead: _DeadEnd,
    ) -> bool:
        """Whether an option meets the requirement and fits with what is chosen; the dead end learns why not."""
        if not any(satisfies(v, wanted.specifier) for n, v in option.stands_for() if n == wanted.plugin_id):
            return False  # the requirement itself is told already
        if option.id in chosen:  # in another version, or it would stand for the id
            dead.culprits.add(option.id)
            dead.blame(chosen[option.id], f"excludes {option}", "only one version can be installed")
            return False
        after = {**chosen, option.id: option}
        for other, requirement in asked:  # what others ask of it
            if requirement.plugin_id in dict(option.stands_for()) and not _obeyed(requirement, other, after):
                if other is not None:
                    dead.culprits.add(other.id)
                dead.blame(other, f"needs {requirement}", self.there(requirement.plugin_id))
                return False
        for requirement in option.requirements:  # what it asks of others
            standing = [n for n in chosen.values() if requirement.plugin_id in dict(n.stands_for())]
            if standing and not _obeyed(requirement, option, after):
                dead.culprits.update(n.id for n in standing)
                dead.blame(option, f"needs {requirement}", self.there(requirement.plugin_id))
                self.explain(standing, chosen, dead)
                return False
        for node, other in [pair for n in chosen.values() for pair in ((option, n), (n, option))]:
            for conflict in node.conflicts:
                if any(n == conflict.plugin_id and satisfies(v, conflict.specifier) for n, v in other.stands_for()):
                    rival = other if node is option else node
                    dead.culprits.add(rival.id)
                    dead.blame(node, f"excludes {conflict}", f"there would be {other}")
                    self.explain([rival], chosen, dead)
                    return False
        return True

    def explain(self, nodes: Iterable[Node], chosen: Mapping[str, Node], dead: _DeadEnd) -> None:
        """Says who asked for these."""
        names = {name for node in nodes for name, _ in node.stands_for()}
        for asker, requirement in self.asked(chosen):
            if requirement.plugin_id in names and not requirement.optional:
                dead.blame(asker, f"needs {requirement}", self.there(requirement.plugin_id))

    def there(self, name: str, options: Sequence[Node] | None = None) -> str:
        """What there is under a name."""
        nodes = self.options.get(name, []) if options is None else options
        if not nodes:
            near = similar(name, self.options)
            return f"there is no {name}" + (f"; similar: {', '.join(near)}" if near else "")
        shown = [
            str(node) if node.id == name else f"{node}, which provides {name} {dict(node.provides)[name]}"
            for node in nodes[:8]
        ] + (["…"] if len(nodes) > 8 else [])
        return f"there {'is' if len(nodes) == 1 else 'are'} {', '.join(shown)}"


def _rank(node: Node, pre: bool, prefer: Mapping[str, str]) -> tuple[bool, bool, object]:
    version = parse_version(node.version, node.id)
    preferred = node.id in prefer and parse_version(prefer[node.id], node.id) == version
    return preferred, pre or not version.is_prerelease, version


def _met(requirement: Requirement, asker: Node | None, chosen: Mapping[str, Node]) -> bool:
    """Whether another one than the asker stands for the id in an allowed version."""
    return any(
        name == requirement.plugin_id and satisfies(version, requirement.specifier)
        for node in chosen.values()
        if asker is None or node.id != asker.id
        for name, version in node.stands_for()
    )


def _obeyed(requirement: Requirement, asker: Node | None, chosen: Mapping[str, Node]) -> bool:
    """Whether it is met by what stands for the id; the id's own plugin must fit, whoever else provides it."""
    own = chosen.get(requirement.plugin_id)
    if own is not None and not satisfies(own.version, requirement.specifier):
        return False
    return not requirement.optional or _met(requirement, asker, chosen)
