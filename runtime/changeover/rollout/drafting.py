"""A first draft of the step that leads from a stored version of a graph to the folder as it is now.

It is told, not written: whoever asked has the folder, and the last word on what was guessed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from changeover.contracts.differences import Difference
from changeover.contracts.grading import Grading, Level
from changeover.contracts.steps import declared
from changeover.contracts.suggesting import Parts, step_file, suggested_step
from changeover.errors import Conflict, InvalidRequest, NotFound
from changeover.project.migrations import FOLDER
from changeover.rollout.folder import ProjectFolder
from changeover.rollout.planning import Planning
from changeover.store.known_routing import KnownRouting
from changeover.store.plans import Plans
from changeover.store.records.ids import VersionId
from changeover.store.records.version import Version
from changeover.store.versions import Versions, contract_digest

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
OURS = "the folder"


@dataclass(frozen=True)
class Draft:
    """`file` is where the step belongs, `guesses` what it says, `left` what still breaks with it."""

    graph: str
    from_: VersionId
    file: str
    text: str
    guesses: Sequence[str]
    left: Sequence[Difference]

    @property
    def says_something(self) -> bool:
        """Whether anything differs that a step could be for."""
        return bool(self.guesses or self.left)

    def to_json(self) -> dict[str, Any]:
        return {
            "graph": self.graph,
            "from": self.from_,
            "file": self.file,
            "text": self.text,
            "guesses": list(self.guesses),
            "left": [difference.to_json() for difference in self.left],
        }


class Drafting:
    """Drafts steps from the version that serves a graph; where the folder serves already, from what it left behind."""

    def __init__(
        self, folder: ProjectFolder, planning: Planning, routing: KnownRouting, versions: Versions, plans: Plans
    ) -> None:
        self._folder = folder
        self._planning = planning
        self._routing = routing
        self._versions = versions
        self._plans = plans

    async def step(self, graph: str, name: str | None, from_: str | None) -> Draft:
        """From the version that is named, if one is. Raises what `draft` does, and `nothing-current`."""
        if from_ is not None:
            return await self._draft(graph, name, from_)
        serves = self._routing.demand("name the version with from_").version_for(graph)
        found = await self._draft(graph, name, serves)
        if found.says_something:
            return found
        for left in await self._left_behind(graph, serves):
            older = await self._draft(graph, name, left)
            if older.says_something:
                return older
        return found

    async def _draft(self, graph: str, name: str | None, own: str) -> Draft:
        return await draft(graph, name, await self._versions.get(own), self._folder, self._planning)

    async def _left_behind(self, graph: str, current: VersionId) -> list[str]:
        """The versions that saved threads of a graph which is served by another one, most threads first."""
        counts: Counter[str] = Counter()
        for one in await self._plans.threads({graph: current}, listed=1):
            if one.group.saved_version is not None:
                counts[one.group.saved_version] += one.group.count
        return [version for version, _ in counts.most_common()]


async def draft(graph: str, name: str | None, own: Version, folder: ProjectFolder, planning: Planning) -> Draft:
    """Raises `ProjectError` for a folder with problems, `Conflict` where its steps do not follow on the version's."""
    chosen = name if name is not None else re.sub(r"[^A-Za-z0-9_-]+", "_", graph)[:100]
    if not NAME.fullmatch(chosen):
        raise InvalidRequest(f"'{chosen[:100]}' cannot be the name of a step", hint="use letters, digits, '_' and '-'")
    found = await folder.described()
    if graph not in found.contracts:
        raise NotFound(f"the folder has no graph or agent '{graph}'", code="unknown-graph")
    contract, chain = found.contracts[graph], found.chains.get(graph, ())
    here = Level(OURS, contract, chain, contract_digest(dict(contract)))
    there = await planning.level(graph, own)
    grading = Grading(there, here)
    if grading.blocked is not None:
        raise Conflict(grading.blocked.reason, code="chain", hint=grading.blocked.hint)
    number = found.last_number + 1
    parts = suggested_step(dict(there.contract), dict(contract), grading.moves)
    drafted = declared(graph, number, chosen, parts or {})
    after = Grading(there, Level(OURS, contract, (*chain, drafted), here.digest))
    left = [each for each in after.differences if each.grade == "breaks"]
    return Draft(
        graph, own.id, f"{FOLDER}{number:04}_{chosen}.yaml", step_file(graph, parts), list(_guesses(parts or {})), left
    )


def _guesses(parts: Parts) -> Sequence[str]:
    """What a draft says, a line for each thing."""
    told: list[str] = []
    for part, words in parts.items():
        for word, value in words.items() if isinstance(words, Mapping) else [("", words)]:
            entries = value.items() if isinstance(value, Mapping) else [(one, None) for one in _listed(value)]
            for name, to in entries:
                how = "" if to is None else f" -> {to if isinstance(to, str) else json.dumps(to, ensure_ascii=False)}"
                told.append(f"{part}: {word} {name}{how}")
    return told


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
