"""The values that `${NAME}`s of a project stand for, and how a change of them reaches what serves.

Owns what of them was taken, and what is still owed: values with which something could not be opened yet are tried
again, since it may be there by now. What serves goes on with the old ones meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from changeover.build.builder import Builder
from changeover.build.loader import Loader
from changeover.errors import ProjectError
from changeover.giving_way import GivingWay
from changeover.project.environment import environment_of, langgraph_environment, store_of
from changeover.project.langgraph import StoreSettings
from changeover.project.problems import Problem
from changeover.settings import ProcessEnvironment
from changeover.store.journal import Journal

log = logging.getLogger(__name__)

MARK = "environment-mark"  # the note that is another whenever a process takes a changed environment
MAY_COME = frozenset({"mcp-unreachable", "plugin-failed"})  # problems that go away without an edit
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0


class Variables:
    """`.env`, langgraph.json and the process. `changed`, then `take`; one `take` at a time."""

    def __init__(self, folder: Path, builder: Builder, loader: Loader, journal: Journal) -> None:
        self._folder = folder
        self._builder = builder
        self._loader = loader
        self._journal = journal
        self._process = ProcessEnvironment()
        self._store_wish: StoreSettings | None = None
        self._is_new = False  # what the process was given is another, and was not taken yet
        self._owed: set[str] = set()  # the names of what was not taken to the end
        self._is_owed = False
        self._told: list[Any] = []  # the problems that an event has told of
        self._pause_s = FIRST_PAUSE_S
        self._due_at = 0.0

    @property
    def taken(self) -> Mapping[str, str]:
        return self._builder.environment

    @property
    def is_owed(self) -> bool:
        return self._is_owed

    @property
    def is_due(self) -> bool:
        """Whether it is time to try again what is owed."""
        return self._is_owed and time.monotonic() >= self._due_at

    async def read(self) -> None:
        """Take the values as they are, before anything is built with them."""
        self._builder.environment = await self._values()
        await self._export()

    def close(self) -> None:
        """Take out of the process's environment what langgraph.json has put there."""
        self._process.hold({})

    async def mark(self) -> str | None:
        return await self._journal.note(MARK)

    async def changed(self) -> bool:
        values = await self._values()
        self._is_new = bool(await self._export()) or self._is_new
        return self._is_new or values != self.taken

    async def take(self, giving_way: GivingWay | None = None) -> None:
        """Compile anew what depends on a value that is another now, and open what is needed for it.

        Raises `ProjectError` where something that is in use cannot be had so, `Overtaken`; then it is owed.
        """
        values = await self._values()
        await self._export()
        names = {name for name in {*self.taken, *values} if self.taken.get(name) != values.get(name)}
        if names or self._is_new:
            self._told, self._pause_s = [], FIRST_PAUSE_S
            await self._journal.remember(MARK, uuid4().hex)
        self._is_new = False
        self._owes(names)
        versions: list[str] = []
        problems: set[Problem] = set()
        async for one in self._loader.refresh(values, giving_way):
            problems.update(one.problems)
            versions += [one.id] if one.is_changed else []
        told = sorted(self._owed)
        if not problems:
            self._owed, self._is_owed = set(), False
        if versions or not problems:
            await self._journal.add_event("environment_changed", variables=told, versions=versions)
        if problems:
            await self._reject(sorted(problems, key=lambda problem: problem.sort_key), told)

    # --- inside ----------------------------------------------------------------------------------

    def _owes(self, names: set[str]) -> None:
        self._owed |= names
        self._is_owed = True
        self._due_at = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    async def _reject(self, problems: list[Problem], names: list[str]) -> None:
        self._is_owed = any(problem.code in MAY_COME for problem in problems)
        said = [problem.to_json() for problem in problems]
        if said != self._told:
            self._told = said
            await self._journal.add_event("environment_rejected", variables=names, problems=said)
        raise ProjectError(problems)

    async def _values(self) -> dict[str, str]:
        return await asyncio.to_thread(environment_of, self._folder, self._process.given())

    async def _export(self) -> list[str]:
        """Give the process what langgraph.json has for the project's own code. All versions see what the folder says.

        A value of the operator's stays. Returns the names whose value is another than before.
        """
        values = await asyncio.to_thread(langgraph_environment, self._folder)
        store = await asyncio.to_thread(store_of, self._folder)
        if self._store_wish is not None and store != self._store_wish:
            log.warning("store_settings_wait", extra={"reason": "'store' of langgraph.json is read at the start"})
        self._store_wish = store
        self._builder.exported = frozenset(values)
        changed = self._process.hold(values)
        if changed:
            log.info("environment_applied", extra={"variables": changed})
        return changed
