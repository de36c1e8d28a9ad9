"""Threads that begin on an older version, are told things, and move."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.types import Command, StateSnapshot
from moving_desks import as_stored
from strange_desks import Strange

from changeover import GraphVersionManager
from changeover.errors import ChangeoverError
from changeover.store.records.version import Version


class World:
    """One manager for all; every case has versions and a thread of its own."""

    def __init__(self, manager: GraphVersionManager) -> None:
        self.manager = manager
        self._count = 0

    async def begin(self, strange: Strange) -> Thread:
        self._count += 1
        older, newer = f"older{self._count}", f"newer{self._count}"
        await self.manager.register(older, {"g": strange.old})
        await self.manager.register(newer, {"g": strange.new}, migrations=list(strange.steps))
        thread = Thread(self.manager, f"t{self._count}", "g", older, newer)
        await thread.tell(strange.given, older)
        for told in strange.told:
            await thread.tell(told if isinstance(told, Command) else told(await thread.state()), older)
        return thread


class Thread:
    def __init__(self, manager: GraphVersionManager, id_: str, graph: str, older: str, newer: str) -> None:
        self.manager, self.id, self.graph, self.older, self.newer = manager, id_, graph, older, newer

    async def tell(self, told: Any, version: str, **options: Any) -> Any:
        return await self.manager.invoke(self.graph, told, thread_id=self.id, version=version, **options)

    async def state(self) -> StateSnapshot:
        state: StateSnapshot = await self.manager.state(self.id)
        return state

    async def move(self, to: str | None = None) -> None:
        await self.manager.migrate_thread(self.id, to or self.newer)

    async def ends(self, version: str | None = None) -> Any:
        """Its values after every question was answered with its own words."""
        for _ in range(9):
            state = await self.state()
            if not state.next:
                return state.values
            answers = {asked.id: f"<{asked.value}>" for asked in state.interrupts}
            await self.tell(Command(resume=answers) if answers else None, version or self.newer)
        raise AssertionError(f"thread {self.id} does not end")

    async def stays(self, code: str, *words: str, to: str | None = None) -> None:
        before = as_stored(self.manager, self.id)
        with pytest.raises(ChangeoverError) as caught:
            await self.move(to)
        assert caught.value.code == code, caught.value
        for word in words:
            assert word in caught.value.message, caught.value.message
        assert as_stored(self.manager, self.id) == before


class Folder:
    """A folder whose threads began with its older version."""

    def __init__(self, manager: GraphVersionManager, older: Version, newer: Version) -> None:
        self.manager, self.older, self.newer = manager, older, newer

    def thread(self, id_: str) -> Thread:
        return Thread(self.manager, id_, id_.partition("-")[0], self.older.id, self.newer.id)
