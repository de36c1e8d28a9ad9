"""`down(up(state)) == state`: whatever a thread holds and waits for is the same after any chain was done and undone.

CHANGEOVER_INVARIANTS gives the number of examples, which are new ones each time then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.types import Command, StateSnapshot
from moving_chains import KINDS, PARTS, Chain, Names, desk
from moving_values import Colour, Person, Place, Ticket, same, states

from changeover import GraphVersionManager

EXAMPLES = os.environ.get("CHANGEOVER_INVARIANTS")
ROUNDS = 12
GIVEN = {
    "note": "n", "memo": "m", "count": 3, "ticket": Ticket(number=1, owner=Person(name="p", born=None)),
    "place": Place("s", [1, 2], Person(name="k")), "colour": Colour.BLUE, "at": datetime(2021, 1, 1, tzinfo=UTC),
    "tags": {"a", "b"}, "raw": b"\0r", "spare": {"x": [1, None]}, "messages": [HumanMessage("hello", id="h")],
}  # fmt: skip

chains = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), min_size=1, max_size=4)
shapes = st.sets(st.sampled_from(PARTS), min_size=1)
answers = st.lists(st.integers(0, 9), max_size=3)


@dataclass
class Stage:
    """A manager in a loop of its own, which all examples share."""

    runner: asyncio.Runner
    manager: GraphVersionManager
    number: int = 0

    def do(self, work: Any) -> Any:
        return self.runner.run(work)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("there")
    with asyncio.Runner() as runner:
        manager = GraphVersionManager.open(folder, keep_loaded=500)
        runner.run(manager.start())

        async def begin() -> None:
            await manager.register("first", {"desk": desk(Names())})
            await manager.switch("first")

        runner.run(begin())
        yield Stage(runner, manager)
        runner.run(manager.close())


@settings(
    max_examples=int(EXAMPLES or 8),
    deadline=None,
    derandomize=EXAMPLES is None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # an example takes too long to be made smaller
    suppress_health_check=list(HealthCheck),
)
@given(state=states, chain=chains, shape=shapes, answered=answers, remembers=st.booleans())
def test_there_and_back_nothing_is_lost(
    stage: Stage, state: Any, chain: Any, shape: set[str], answered: list[int], remembers: bool
) -> None:
    stage.do(_there_and_back(stage, state, chain, sorted(shape), answered, remembers))


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_alone_while_everything_waits(stage: Stage, kind: str) -> None:
    stage.do(_there_and_back(stage, GIVEN, [(kind, 4)], sorted(PARTS), [0], True))


async def _there_and_back(
    stage: Stage, state: Any, kinds: list[tuple[str, int]], shape: list[str], answered: list[int], remembers: bool
) -> None:
    manager = stage.manager
    stage.number += 1
    chain = Chain()
    for kind, choice in kinds:
        chain.add(kind, choice)
    moved, kept, other = f"moved{stage.number}", f"kept{stage.number}", f"other{stage.number}"
    for thread in (moved, kept):
        if remembers:
            await manager.invoke("desk", {**state, "parts": ["mem"], "quiet": True}, thread_id=thread)
        await manager.invoke("desk", {**state, "parts": shape, "quiet": False, "found": []}, thread_id=thread)
        for choice in answered:
            await _answer_one(manager, thread, choice)
    before = await _seen(manager, moved)
    assert before == await _seen(manager, kept)
    await manager.register(other, {"desk": desk(chain.names)}, migrations=chain.steps)
    await manager.migrate_thread(moved, other)
    assert await _asked(manager, moved) == await _asked(manager, kept)
    await manager.migrate_thread(moved, "first")
    assert await _seen(manager, moved) == before, chain.steps
    for thread in (moved, kept):
        await _answer_all(manager, thread)
    assert await _seen(manager, moved) == await _seen(manager, kept), chain.steps


async def _seen(manager: GraphVersionManager, thread: str) -> Any:
    return _view(await manager.state(thread, subgraphs=True))


def _view(state: StateSnapshot) -> Any:
    """All that can be told of a state but ids and times. What a finished subgraph had inside is history."""
    tasks = [
        (
            task.name,
            str(task.error),
            sorted(repr(same(one.value)) for one in task.interrupts),
            same(task.result),
            _view(task.state) if isinstance(task.state, StateSnapshot) and task.result is None else None,
        )
        for task in state.tasks
    ]
    return same(state.values), sorted(state.next), sorted(tasks, key=repr)


async def _asked(manager: GraphVersionManager, thread: str) -> list[str]:
    return sorted(repr(one.value) for one in (await manager.state(thread)).interrupts)


async def _answer_one(manager: GraphVersionManager, thread: str, choice: int) -> None:
    asked = sorted((await manager.state(thread)).interrupts, key=lambda one: repr(one.value))
    if len(asked) > 1:  # something is left to wait
        await _answer(manager, thread, [asked[choice % len(asked)]])


async def _answer_all(manager: GraphVersionManager, thread: str) -> None:
    for _ in range(ROUNDS):
        asked = (await manager.state(thread)).interrupts
        if not asked:
            return
        await _answer(manager, thread, asked)
    raise AssertionError(f"thread {thread} asks for ever")


async def _answer(manager: GraphVersionManager, thread: str, asked: Any) -> None:
    told = {one.id: f"to {one.value!r}" for one in asked}
    await manager.invoke("desk", Command(resume=told), thread_id=thread)
